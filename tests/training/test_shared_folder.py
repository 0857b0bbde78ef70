"""Two processes that should share a folder, and do or do not."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

import lavis_dynrefer  # noqa: F401  registers with LAVIS
from lavis_dynrefer.training.checks.shared_folder import check_shared


def one_process(rank, folder, names):
    dist.init_process_group(
        "gloo",
        init_method=(folder / "meeting").as_uri(),
        rank=rank,
        world_size=2,
        timeout=timedelta(minutes=5),
    )
    own = folder / names[rank]
    own.mkdir(exist_ok=True)
    patience = 60 if len(set(names)) == 1 else 0.2
    try:
        check_shared(own, patience)
        said = ""
    except ValueError as error:
        said = f"{type(error).__name__}: {error}"
    torch.save([said, [path.name for path in own.iterdir()]], folder / f"rank{rank}.pth")
    dist.destroy_process_group()


def outcomes(folder, names):
    multiprocessing.spawn(one_process, args=(folder, names), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pth") for rank in (0, 1)]


def test_a_process_alone_shares_with_itself(tmp_path):
    check_shared(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_shared_folder_passes_and_stays_empty(tmp_path):
    assert outcomes(tmp_path, ["one", "one"]) == [["", []], ["", []]]


@pytest.mark.slow
def test_another_folder_is_told_with_the_rank(tmp_path):
    (first, left), (second, _) = outcomes(tmp_path, ["one", "other"])
    assert first.startswith("InputError: run.output_dir: under the name ")
    assert " rank 1 on " in first
    assert second.startswith("OtherRankError")
    assert left == []
