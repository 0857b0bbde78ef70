"""Missing or invalid environment variables of torchrun."""

from __future__ import annotations

import pytest
import torch

import lavis_dynrefer  # noqa: F401  registers with LAVIS
from lavis_dynrefer.training.launch import launch, train_main

SYNTHETIC = "projects/dynrefer/synthetic.yaml"
COMPLETE = {"WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.fixture(autouse=True)
def _no_torchrun(monkeypatch):
    for name in (*COMPLETE, "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({}, "WORLD_SIZE expected"),
        ({"WORLD_SIZE": "2"}, "MASTER_ADDR expected"),
        ({**COMPLETE, "WORLD_SIZE": "two"}, "'two'"),
    ],
)
def test_an_incomplete_environment_is_refused(monkeypatch, variables, complaint):
    for name, value in {"RANK": "1", **variables}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ValueError, match=rf"rank 1 cannot join .*{complaint}.*torchrun, or unset"):
        launch(SYNTHETIC, ["run.device=cpu"])


def test_a_rank_that_cannot_join_reports_its_own_error(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    options = ["run.device=cpu", "run.dist_url=tea://house"]

    assert train_main(["--cfg-path", SYNTHETIC, "--options", *options]) == 2
    assert capsys.readouterr().err.startswith("error: rank 1 cannot join the others: ")


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"RANK": "2", "LOCAL_RANK": "2", **COMPLETE}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ValueError, match="this machine has no GPU 2, only 2"):
        launch(SYNTHETIC, ["run.device=cuda"])
