"""Checkpoint files: complete, safe, and refused when they do not fit."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from lavis_dynrefer.models.weights.tensor_reading import CheckpointError
from lavis_dynrefer.training import checkpoints


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


def test_auto_finds_the_newest_run(tmp_path):
    for age, job in [(3, "a"), (1, "b"), (2, "c")]:
        path = tmp_path / job / checkpoints.LAST
        path.parent.mkdir()
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    assert checkpoints.find_resumed("auto", tmp_path) == tmp_path / "b" / checkpoints.LAST
    assert checkpoints.find_resumed("auto", tmp_path / "empty") is None
    assert checkpoints.find_resumed(None, tmp_path) is None


# ---- optimiser state


def optimizer_of(model, kind=torch.optim.AdamW, **options):
    optimizer = kind(model.parameters(), lr=0.1, **options)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer


def test_the_state_of_an_optimiser_is_restored_and_its_settings_are_the_new_ones():
    saved = optimizer_of(nn.Linear(2, 1)).state_dict()
    fresh = torch.optim.AdamW(nn.Linear(2, 1).parameters(), lr=0.5)
    checkpoints.load_optimizer(fresh, saved, source="run.pth")
    assert fresh.param_groups[0]["lr"] == 0.5
    assert fresh.state_dict()["state"][0]["step"] == 1


def has_fused_adamw():
    try:
        torch.optim.AdamW([nn.Parameter(torch.zeros(1))], fused=True)
    except RuntimeError:
        return False
    return True


@pytest.mark.skipif(not has_fused_adamw(), reason="this torch has no fused AdamW for a CPU")
@pytest.mark.parametrize(("before", "now"), [(None, True), (True, None)])
def test_a_run_goes_on_with_a_fused_optimiser_and_without(before, now):
    """torch keeps the number of steps in other places, and older versions have no fused one."""

    def trained(*options):
        model = nn.Linear(2, 1)
        with torch.no_grad():
            [weight.fill_(1.0) for weight in model.parameters()]
        saved = None
        for fused in options:
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
            if saved is not None:
                checkpoints.load_optimizer(optimizer, saved, source="run.pth")
            model(torch.tensor([[1.0, 2.0]])).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            saved = optimizer.state_dict()
        assert saved["param_groups"][0]["fused"] is options[-1]
        return list(model.parameters())

    torch.testing.assert_close(trained(before, now), trained(None, None), rtol=1e-6, atol=1e-6)


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
