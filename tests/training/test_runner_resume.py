"""Resumed runs, and runs that start from given weights."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch
from safetensors.torch import save_file
from toy_plugin import logged, make_runner, model_weight

from lavis_dynrefer.errors import DynReferError


def crash(folder, job="crashed", **run):
    with pytest.raises(KeyboardInterrupt):
        make_runner(folder, job, crash_at=[1, 1], **run).train()


# ---- resume


def test_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    whole = make_runner(tmp_path, "whole", max_epoch=3).train()
    crash(tmp_path / "b", max_epoch=3)
    resumed = make_runner(tmp_path / "b", "resumed", max_epoch=3, resume_ckpt_path="auto").train()
    assert resumed["test"]["weight"] == whole["test"]["weight"]


def test_resumed_run_starts_with_the_next_epoch(tmp_path):
    crash(tmp_path, max_epoch=3)
    path = tmp_path / "crashed" / "checkpoint_last.pth"
    make_runner(tmp_path, "resumed", max_epoch=3, resume_ckpt_path=str(path)).train()
    assert logged(tmp_path / "resumed", "train_epoch") == [1, 2]


def test_resume_in_place_appends_to_the_log(tmp_path):
    crash(tmp_path, max_epoch=3)
    make_runner(
        tmp_path, "ignored", max_epoch=3, resume_ckpt_path="auto", resume_in_place=True
    ).train()
    assert logged(tmp_path / "crashed", "train_epoch") == [0, 1, 2]


def test_best_epoch_survives_a_resume(tmp_path):
    metrics = {"val": [9, 1, 2]}
    crash(tmp_path, max_epoch=3, scripted_metrics=metrics)
    make_runner(
        tmp_path, "resumed", max_epoch=3, resume_ckpt_path="auto", scripted_metrics=metrics
    ).train()
    assert torch.load(tmp_path / "resumed" / "checkpoint_best.pth")["epoch"] == 0


def test_best_epoch_after_the_resumed_one_is_forgotten(tmp_path):
    make_runner(
        tmp_path, max_epoch=2, keep_checkpoints=True, scripted_metrics={"val": [1, 9]}
    ).train()
    path = str(tmp_path / "job" / "checkpoint_0.pth")
    make_runner(tmp_path, "again", resume_ckpt_path=path, scripted_metrics={"val": [1, 2]}).train()
    assert torch.load(tmp_path / "again" / "checkpoint_best.pth")["best_metric"] == 2


def test_resuming_a_finished_run_only_tests(tmp_path):
    first = make_runner(tmp_path).train()
    again = make_runner(tmp_path, "again", resume_ckpt_path="auto").train()
    assert again["test"]["weight"] == first["test"]["weight"]


def test_resuming_with_other_trained_parts_is_refused(tmp_path):
    make_runner(tmp_path, max_epoch=1).train()
    runner = make_runner(tmp_path, "other", resume_ckpt_path="auto")
    runner.model.head.bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"other parameters were trained.*run\.load_ckpt_path"):
        runner.train()


def foreign_safetensors(path):
    save_file({"head.weight": torch.zeros(1, 4)}, path)


def foreign_project(path):
    torch.save({"model": {}, "optimizer": {}, "epoch": 1, "args": Namespace(lr=1)}, path)


def foreign_model(path):
    state = {"model": {"layer.weight": torch.zeros(2)}, "optimizer": {}, "epoch": 1}
    torch.save(state, path)


@pytest.mark.parametrize(
    ("write", "name", "message"),
    [
        (foreign_safetensors, "model.safetensors", r"lacks .*'optimizer'.*run\.load_ckpt_path"),
        (foreign_project, "other.pth", "or one that would run code"),
        (foreign_model, "other.pth", r"1 unexpected \['layer.weight'\].*of this model type"),
        (lambda path: path.mkdir(), "folder", "it is a folder"),
        (
            lambda path: path.write_text("version https://git-lfs", encoding="utf-8"),
            "lfs.pth",
            "a pointer of git-lfs",
        ),
    ],
)
def test_what_is_no_checkpoint_of_the_run_is_refused(tmp_path, write, name, message):
    make_runner(tmp_path, max_epoch=1).train()
    last = tmp_path / "job" / "checkpoint_last.pth"
    before = last.read_bytes()
    write(tmp_path / name)
    runner = make_runner(tmp_path, resume_ckpt_path=str(tmp_path / name))
    weight = model_weight(runner.model)

    with pytest.raises(DynReferError, match=f"{name}.*{message}"):
        runner.train()

    assert model_weight(runner.model) == weight
    assert last.read_bytes() == before


def test_a_checkpoint_of_an_earlier_version_continues_after_its_epoch(tmp_path):
    make_runner(tmp_path, max_epoch=1).train()
    path = tmp_path / "job" / "checkpoint_last.pth"
    content = torch.load(path)
    kept = ("model", "optimizer", "scaler", "config", "epoch")
    torch.save({key: content[key] for key in kept}, path)

    make_runner(tmp_path, "resumed", resume_ckpt_path=str(path)).train()

    assert logged(tmp_path / "resumed", "train_epoch") == [1]


# ---- weights only


def test_initial_weights_may_come_from_several_files(tmp_path):
    torch.save({"head.weight": torch.full((1, 4), 2.0)}, tmp_path / "weight.pth")
    torch.save({"model": {"head.bias": torch.zeros(1)}}, tmp_path / "bias.pth")
    paths = [str(tmp_path / "weight.pth"), str(tmp_path / "bias.pth")]
    runner = make_runner(tmp_path, load_ckpt_path=paths)
    assert model_weight(runner.model) == [2.0] * 4


@pytest.mark.parametrize("key", ["load_ckpt_path", "resume_ckpt_path"])
def test_evaluate_only_uses_the_checkpoint_and_trains_nothing(tmp_path, key):
    trained = make_runner(tmp_path).train()
    path = str(tmp_path / "job" / "checkpoint_best.pth")
    metrics = make_runner(tmp_path, "eval", evaluate=True, **{key: path}).train()
    assert metrics["test"] == trained["test"]
    assert not list((tmp_path / "eval").glob("*.pth"))
