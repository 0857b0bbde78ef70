"""The runner on a toy plugin: training, best epoch, bad input, one process and two."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from toy_plugin import ToyTask, at_batch, logged, make_runner, model_weight, step_runner

from lavis_dynrefer.training import checkpoints
from lavis_dynrefer.training.loop.stop_signals import TrainingStopped

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


def test_task_without_agg_metrics_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ToyTask, "after_evaluation", lambda self, **_: {"accuracy": 1.0})
    with pytest.raises(ValueError, match=r"ToyTask.*'agg_metrics'.*'accuracy'"):
        make_runner(tmp_path).train()


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


# ---- two processes


STEPS = {"sizes": {"train": 30}, "accum_grad_iters": 2}


def without_dropout(runner):
    runner.unwrap_dist_model(runner.model).dropout.p = 0.0
    return runner


def train_by_steps(rank, folder):
    """Two processes count exchanged gradients; are stopped in one of them, resumed; meet a nan."""
    whole = without_dropout(step_runner(folder / "whole", **STEPS))
    exchanged = []

    def count(state, bucket):
        exchanged.append(bucket.index())
        return allreduce_hook(state, bucket)

    whole.model.register_comm_hook(None, count)
    whole.train()
    stopped = without_dropout(step_runner(folder / "stopped", **STEPS))
    if rank == 1:
        at_batch(stopped, 6, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(TrainingStopped) as stop:
        stopped.train()
    path = folder / "stopped" / "job" / "checkpoint_last.pth"
    if rank == 0:
        shutil.copy(path, folder / "middle.pth")
    resumed = without_dropout(step_runner(folder / "stopped", **STEPS))
    resumed.train()
    broken = step_runner(folder / "nan", **STEPS)
    broken.datasets["toy_points"]["train"].points[4] = math.nan
    with pytest.raises(ValueError, match=r"finite|nan") as error:
        broken.train()
    return {
        "exchanged": len(exchanged),
        "weights": [
            model_weight(run.unwrap_dist_model(run.model)) for run in (whole, stopped, resumed)
        ],
        "code": stop.value.code,
        "nan": str(error.value),
    }


def two_processes(rank, folder):
    torch.set_num_threads(1)
    folder = Path(folder)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    options = {"model": {"num_unused": 3}, "find_unused_parameters": True}
    runner = make_runner(folder, **options)
    metrics = runner.train()["test"]
    weight = model_weight(runner.unwrap_dist_model(runner.model))
    if rank == 1:
        checkpoints.find_resumed = lambda *arguments: None  # as a disk that shows files late
    resumed = make_runner(folder, "resumed", resume_ckpt_path="auto", max_epoch=3, **options)
    assert resumed._resume_path == folder / "job" / "checkpoint_last.pth"
    resumed.train()
    options = {"sizes": {"val": 1}, "test_splits": [], "model": {"frozen": True}}
    small = make_runner(folder, "eval", evaluate=True, **options).train()["val"]
    report = {"metrics": metrics, "weight": weight, "small": small, "start": resumed.start_epoch}
    report.update(train_by_steps(rank, folder))
    (folder / f"rank{rank}.json").write_text(json.dumps(report), encoding="utf-8")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_processes")
    multiprocessing.spawn(two_processes, args=(str(folder),), nprocs=2)
    return folder, *(
        json.loads((folder / f"rank{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)
    )


def test_two_processes_evaluate_every_sample_once(reports):
    _, first, _ = reports
    assert first["metrics"]["indices"] == list(range(7))


def test_two_processes_measure_what_one_process_measures(reports, tmp_path):
    folder, first, _ = reports
    path = str(folder / "job" / "checkpoint_best.pth")
    model = {"num_unused": 3}
    alone = make_runner(tmp_path, evaluate=True, load_ckpt_path=path, model=model).train()
    # the same numbers in other batches
    assert alone["test"]["agg_metrics"] == pytest.approx(first["metrics"]["agg_metrics"], rel=1e-6)


def test_two_processes_hold_the_same_weights(reports):
    _, first, second = reports
    assert first["weight"] == second["weight"]


def test_two_processes_share_the_training_samples(reports):
    folder, _, _ = reports
    (seen, _) = logged(folder / "job", "train_seen")
    assert len(set(seen)) == 3  # one full batch of the five samples this process gets


def test_two_processes_evaluate_a_single_sample_with_a_frozen_model(reports):
    _, first, _ = reports
    assert first["small"]["indices"] == [0]


def test_two_processes_resume_from_the_checkpoint_that_rank_0_finds(reports):
    _, first, second = reports
    assert (first["start"], second["start"]) == (2, 2)


def test_two_processes_train_as_one_with_their_joined_batches(reports, tmp_path):
    _, first, second = reports
    alone = without_dropout(step_runner(tmp_path, batch_size_train=6, **STEPS))
    alone.train()
    assert first["weights"][0] == second["weights"][0]
    assert first["weights"][0] == pytest.approx(model_weight(alone.model), rel=1e-4)


def test_accumulated_gradients_are_exchanged_once(reports):
    _, first, _ = reports
    assert first["exchanged"] == 3 * 3  # of 5 batches in pairs, and 3 epochs


def test_a_signal_to_one_process_stops_both_at_the_same_step(reports, tmp_path):
    folder, first, second = reports
    assert (first["code"], second["code"]) == (143, 143)
    middle = torch.load(folder / "middle.pth")
    assert (middle["epoch"], middle["progress"]["step"]) == (0, 2)
    assert middle["progress"]["totals"]["loss"][1] == 4  # batches of both
    assert first["weights"][1] == second["weights"][1] != first["weights"][0]
    assert first["weights"][2] == first["weights"][0]
    losses = [logged(folder / job / "job", "train_loss") for job in ("whole", "stopped")]
    assert losses[0] == losses[1]
    # One process may take over, with a batch as large as theirs.
    path = str(folder / "middle.pth")
    alone = step_runner(tmp_path, batch_size_train=6, resume_ckpt_path=path, **STEPS)
    without_dropout(alone).train()
    assert model_weight(alone.model) == pytest.approx(first["weights"][0], rel=1e-4)


def test_a_loss_that_is_nan_in_one_process_stops_both(reports):
    folder, *both = reports
    texts = sorted(report["nan"] for report in both)
    assert "the loss is nan at epoch 0" in texts[0]
    assert "the loss of another process is not finite at epoch 0" in texts[1]
    assert len(list((folder / "nan" / "job").glob("failed_step_rank*.pth"))) == 2
