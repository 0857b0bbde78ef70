"""The processes of a run: those that torchrun started, or this one alone."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import lavis  # noqa: F401  first, for threads
import torch
import torch.distributed as dist
from lavis.common.dist_utils import (
    is_dist_avail_and_initialized,
    is_main_process,
    setup_for_distributed,
)
from omegaconf import DictConfig

from lavis_dynrefer.errors import InputError

T = TypeVar("T")
# Rank 0 may grade for long while the others wait; torchrun ends them if it fails.
GROUP_TIMEOUT = datetime.timedelta(hours=1)


@contextmanager
def process_group(run: DictConfig) -> Iterator[None]:
    """Join the processes that torchrun's environment variables describe, if there are any.

    Without them the run is a single process without a group, on a CPU as on a GPU. SLURM's
    variables are ignored, because an interactive shell has them too.
    """
    if "RANK" not in os.environ:
        run.distributed, run.world_size = False, 1
        yield
        return
    _join_group(run)
    setup_for_distributed(run.rank == 0)  # LAVIS's meters print
    yield
    dist.destroy_process_group()  # not after an error: NCCL would wait for the other processes


def on_main_process(compute: Callable[[], T]) -> T:
    """Run `compute` on rank 0 only and return its result on every rank.

    For everything that reads the clock or the disk, on which ranks may disagree.
    """
    result: list[Any] = [compute() if is_main_process() else None]
    if is_dist_avail_and_initialized():
        dist.broadcast_object_list(result, src=0)
    return result[0]


def _join_group(run: DictConfig) -> None:
    """Open the group.

    Raises:
        InputError: variables are missing or invalid, or the processes do not meet. Not a
            `LaunchError`, which only rank 0 prints: each rank may have another problem.
    """
    variables = os.environ
    on_cuda = run.device.startswith("cuda")
    run.dist_backend = "nccl" if on_cuda else "gloo"
    try:
        run.gpu = int(variables.get("LOCAL_RANK", 0))
        if on_cuda:
            gpus = torch.cuda.device_count()
            if run.gpu >= gpus:
                raise ValueError(f"this machine has no GPU {run.gpu}, only {gpus}")
            torch.cuda.set_device(run.gpu)
        dist.init_process_group(
            run.dist_backend,
            init_method=run.dist_url,
            rank=int(variables["RANK"]),
            world_size=int(variables.get("WORLD_SIZE", -1)),
            timeout=GROUP_TIMEOUT,
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"rank {variables['RANK']} cannot join the others: {error}; start the run with "
            "torchrun, or unset RANK for a single process"
        ) from error
    run.distributed, run.rank, run.world_size = True, dist.get_rank(), dist.get_world_size()
