"""Checkpoint files: complete, safe, and refused when they do not fit."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from lavis_dynrefer.models.weights.checkpoint import CheckpointError
from lavis_dynrefer.models.weights.pretrained import load_sources
from lavis_dynrefer.training import checkpoints


class Net(nn.Module):
    """A frozen table under two names, a buffer, and a trained layer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(3, 2).requires_grad_(False)
        self.tied = self.embed
        self.register_buffer("steps", torch.zeros(1))
        self.head = nn.Linear(2, 1)


def test_frozen_parameters_are_not_saved_under_any_name():
    assert sorted(checkpoints.trained_weights(Net())) == ["head.bias", "head.weight", "steps"]


def test_trained_weights_are_restored_and_a_missing_buffer_keeps_its_value():
    source, target = Net(), Net()
    weights = checkpoints.trained_weights(source)
    del weights["steps"]
    checkpoints.load_trained_weights(target, weights, source="file")
    assert torch.equal(target.head.weight, source.head.weight)
    assert target.steps.item() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head.bias": None}, r"run\.pth: .*missing \['head\.bias'\]"),
        ({"tail.bias": torch.zeros(1)}, r"run\.pth: .*unexpected \['tail\.bias'\]"),
        ({"head.bias": torch.zeros(2)}, r"run\.pth: .*another shape \['head\.bias"),
    ],
)
def test_weights_of_another_model_are_refused(changes, message):
    weights = {**checkpoints.trained_weights(Net()), **changes}
    weights = {name: value for name, value in weights.items() if value is not None}
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load_trained_weights(Net(), weights, source="run.pth")


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "checkpoint_last.pth"
    content = {"model": {}, "optimizer": {}, "epoch": 0}
    checkpoints.write_checkpoint(path, content)
    with pytest.raises((AttributeError, TypeError)):  # a generator cannot be pickled
        checkpoints.write_checkpoint(path, {**content, "epoch": (i for i in range(3))})
    assert checkpoints.read_checkpoint(path) == content


def test_bare_weights_cannot_be_resumed(tmp_path):
    torch.save({"model": {}}, tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match=r"lacks \['optimizer', 'epoch'\].*load_ckpt_path"):
        checkpoints.read_checkpoint(tmp_path / "bare.pth")


def test_later_files_win_and_official_names_become_ours(tmp_path):
    torch.save({"a": torch.tensor(1), "b": torch.tensor(1)}, tmp_path / "1.pth")
    torch.save({"model": {"b": torch.tensor(2)}}, tmp_path / "2.pth")
    torch.save({"model": {"cem_memory": torch.tensor(3)}}, tmp_path / "official.pth")
    names = ("1.pth", "2.pth", "official.pth")
    weights = checkpoints.read_weights([tmp_path / name for name in names])
    ours = "captioning.prefix.control_embedding"
    assert weights == {"a": torch.tensor(1), "b": torch.tensor(2), ours: torch.tensor(3)}


def test_auto_finds_the_newest_run(tmp_path):
    for age, job in [(3, "a"), (1, "b"), (2, "c")]:
        path = tmp_path / job / checkpoints.LAST
        path.parent.mkdir()
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    assert checkpoints.find_resumed("auto", tmp_path) == tmp_path / "b" / checkpoints.LAST
    assert checkpoints.find_resumed("auto", tmp_path / "empty") is None
    assert checkpoints.find_resumed(None, tmp_path) is None


def test_frozen_weights_that_no_other_file_holds_are_saved(smallest_model):
    smallest_model.filled = {
        name for name, _ in smallest_model.named_parameters() if name.startswith("backbone.")
    }
    saved = set(checkpoints.trained_weights(smallest_model))
    assert not any(name.startswith("backbone.") for name in saved)
    assert any(name.startswith("captioning.llm.") for name in saved)


def test_a_published_language_model_is_not_saved_under_any_name(smallest_model):
    smallest_model.captioning.llm.pretrained = True
    smallest_model.filled = load_sources(smallest_model, {})

    saved = checkpoints.trained_weights(smallest_model)

    assert not any(name.startswith("captioning.llm.") for name in saved)
    checkpoints.load_trained_weights(smallest_model, saved, source="run.pth")


# ---- optimiser state


def optimizer_of(model, kind=torch.optim.AdamW, **options):
    optimizer = kind(model.parameters(), lr=0.1, **options)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer


def test_the_state_of_an_optimiser_is_restored():
    saved = optimizer_of(nn.Linear(2, 1)).state_dict()
    fresh = torch.optim.AdamW(nn.Linear(2, 1).parameters(), lr=0.5)
    checkpoints.load_optimizer(fresh, saved, source="run.pth")
    assert fresh.param_groups[0]["lr"] == 0.1
    assert fresh.state_dict()["state"][0]["step"] == 1


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            optimizer_of(nn.Linear(2, 1), torch.optim.SGD, momentum=0.9).state_dict(),
            r"the optimiser had no \['betas', 'eps'\]",
        ),
        (optimizer_of(nn.Linear(2, 3)).state_dict(), r"exp_avg of a parameter is \(3, 2\), not"),
        (optimizer_of(nn.Linear(2, 1, bias=False)).state_dict(), "parameter group"),
        ({}, "param_groups"),
        ({"param_groups": 3, "state": {}}, "other parameters were trained"),
    ],
)
def test_the_state_of_another_optimiser_is_refused(state, message):
    optimizer = torch.optim.AdamW(nn.Linear(2, 1).parameters())
    with pytest.raises(CheckpointError, match=rf"run\.pth: .*{message}.*run\.load_ckpt_path"):
        checkpoints.load_optimizer(optimizer, state, source="run.pth")
