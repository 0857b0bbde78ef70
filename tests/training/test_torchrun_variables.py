"""Missing or invalid environment variables of torchrun."""

from __future__ import annotations

import pytest
import torch

import lavis_dynrefer  # noqa: F401  registers with LAVIS
from lavis_dynrefer.training.launch import launch, train_main

QUICKSTART = "projects/dynrefer/quickstart.yaml"


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({}, r"RANK is set but not \['WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'\]: start"),
        ({"WORLD_SIZE": "2"}, r"not \['MASTER_ADDR', 'MASTER_PORT'\]"),
        (
            {"WORLD_SIZE": "two", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
            "WORLD_SIZE: expected a whole number, as torchrun sets it, got 'two'",
        ),
    ],
)
def test_an_incomplete_torchrun_environment_is_refused(monkeypatch, variables, complaint):
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RANK": "1", **variables}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ValueError, match=complaint):
        launch(QUICKSTART, ["run.device=cpu"])


def test_a_group_that_cannot_be_joined_is_named(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")

    with pytest.raises(ValueError, match="rank 0 cannot join the others at tea://house: "):
        launch(QUICKSTART, ["run.device=cpu", "run.dist_url=tea://house"])


def test_a_rank_that_cannot_join_reports_its_own_error(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    assert train_main(["--cfg-path", QUICKSTART, "--options", "run.device=cpu"]) == 2
    assert capsys.readouterr().err.startswith("error: RANK is set but not")


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    variables = {"RANK": "2", "WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in {**variables, "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ValueError, match="process 2 of this machine has no GPU, there are 2"):
        launch(QUICKSTART, ["run.device=cuda"])
