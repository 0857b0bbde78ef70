"""The runner on a toy plugin, in one process: training, best epoch, bad input.

On two processes: test_ranks.py.
"""

from __future__ import annotations

import math

import pytest
import torch
from toy_plugin import ToyTask, logged, make_runner

# ---- one process on a CPU


def test_training_on_cpu_returns_test_metrics_of_every_sample(tmp_path):
    metrics = make_runner(tmp_path).train()
    assert metrics["test"]["indices"] == list(range(7))


def test_training_learns(tmp_path):
    untrained = make_runner(tmp_path, evaluate=True).train()
    trained = make_runner(tmp_path, max_epoch=20).train()
    assert trained["test"]["agg_metrics"] > untrained["test"]["agg_metrics"] + 0.1


def test_two_identical_runs_end_with_identical_weights(tmp_path):
    first = make_runner(tmp_path, "a", num_workers=0).train()
    second = make_runner(tmp_path, "b", num_workers=1).train()
    assert first["test"]["weight"] == second["test"]["weight"]
    assert logged(tmp_path / "a", "test_agg_metrics") == [first["test"]["agg_metrics"]]


def test_gradient_scaler_is_for_cuda_only(tmp_path):
    assert make_runner(tmp_path, amp=True).scaler is None


# ---- best and last checkpoint


@pytest.mark.parametrize(
    ("metrics", "best_epoch"), [([-3, -1, -2], 1), ([0, 0, 0], 0), ([math.nan, 0.5, 0.1], 1)]
)
def test_best_epoch_may_have_any_metric(tmp_path, metrics, best_epoch):
    make_runner(tmp_path, max_epoch=3, scripted_metrics={"val": metrics}).train()
    assert torch.load(tmp_path / "job" / "checkpoint_best.pth")["epoch"] == best_epoch


def test_first_validation_split_decides_whatever_its_name(tmp_path):
    make_runner(
        tmp_path,
        sizes={"train": 10, "vg_test": 5, "val": 5},
        valid_splits=["vg_test", "val"],
        test_splits=[],
        max_epoch=3,
        scripted_metrics={"vg_test": [1, 3, 2], "val": [3, 2, 1]},
    ).train()
    assert logged(tmp_path / "job", "val_best_epoch") == [0, 1, 1]


def test_test_phase_uses_the_best_weights(tmp_path):
    metrics = make_runner(tmp_path, max_epoch=3, scripted_metrics={"val": [1, 3, 2]}).train()
    assert metrics["test"]["weight"] == logged(tmp_path / "job", "val_weight")[1]


def test_test_phase_uses_the_last_weights_if_no_epoch_was_best(tmp_path):
    metrics = make_runner(tmp_path, scripted_metrics={"val": [math.nan, math.nan]}).train()
    assert metrics["test"]["weight"] == logged(tmp_path / "job", "val_weight")[1]


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        (False, ["checkpoint_last.pth"]),
        (True, ["checkpoint_0.pth", "checkpoint_1.pth", "checkpoint_last.pth"]),
    ],
)
def test_older_epochs_are_kept_on_request(tmp_path, keep, names):
    make_runner(tmp_path, valid_splits=[], keep_checkpoints=keep).train()
    assert sorted(path.name for path in (tmp_path / "job").glob("*.pth*")) == names


def test_a_kept_epoch_has_the_content_that_lavis_gives_it(tmp_path):
    make_runner(tmp_path, valid_splits=[], keep_checkpoints=True).train()

    kept = torch.load(tmp_path / "job" / "checkpoint_1.pth", map_location="cpu")
    assert {"model", "optimizer", "config", "scaler", "epoch"} <= set(kept)
    assert kept["epoch"] == 1


def test_task_without_agg_metrics_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ToyTask, "after_evaluation", lambda self, **_: {"accuracy": 1.0})
    with pytest.raises(ValueError, match=r"ToyTask.*'agg_metrics'.*'accuracy'"):
        make_runner(tmp_path).train()


def test_the_optimiser_is_fused_with_the_groups_of_lavis(tmp_path):
    optimizer = make_runner(tmp_path, beta2=0.99).optimizer

    assert {group["fused"] for group in optimizer.param_groups} <= {True, None}  # by the torch
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0]
    assert {(group["lr"], group["betas"]) for group in optimizer.param_groups} == {
        (0.1, (0.9, 0.99))
    }


# ---- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size_train": 11}, r"10 samples.*batch of 11.*batch_size_train to 10"),
        ({"sizes": {"train": 10, "val": 0, "test": 7}}, "'val' is empty"),
        ({"valid_splits": ["vall"]}, r"'vall'.*\['test', 'train', 'val'\]"),
        ({"train_splits": ["val"]}, r"run\.train_splits: expected \[train\]"),
        ({"evaluate": True, "valid_splits": [], "test_splits": []}, "nothing to evaluate"),
    ],
)
def test_unusable_splits_stop_the_run_before_training(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        make_runner(tmp_path, **changes).train()


def test_missing_gpu_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch finds no cuda device; use cpu or auto"):
        make_runner(tmp_path, device="cuda").train()
