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

from lavis_dynrefer import living_processes
from lavis_dynrefer.errors import InputError

T = TypeVar("T")
# Rank 0 may grade for long while the others wait. A process that fails ends the others much
# earlier: torchrun stops them, and gloo notices a closed connection.
GROUP_TIMEOUT = datetime.timedelta(hours=1)

_object_groups: dict[Any, Any] = {}  # the group of all processes -> its gloo group


class OtherRankError(InputError):
    """This process cannot go on because another one has failed, which says why itself."""


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
    _object_groups.clear()
    dist.destroy_process_group()  # not after an error: NCCL would wait for the other processes


def on_main_process(compute: Callable[[], T], *, share: bool = True) -> T:
    """Run `compute` on rank 0 only and return its result on every rank.

    For everything that reads the clock or the disk, on which ranks may disagree.

    Args:
        compute: without arguments.
        share: False: the others get None, if the result is of no use to them.

    Raises:
        OtherRankError: `compute` failed on rank 0, which raises the error itself.
    """
    if not is_dist_avail_and_initialized():
        return compute()
    result: Any = None
    failure: Exception | None = None
    if is_main_process():
        try:
            result = compute()
        except Exception as error:
            failure = error
    sent = [failure is not None, result if share else None]
    dist.broadcast_object_list(sent, src=0, group=_object_group())
    if failure is not None:
        raise failure
    if sent[0]:
        raise OtherRankError("rank 0 has failed; its message says why")
    return result if is_main_process() else sent[1]


def gather_on_main_process(item: T) -> list[T] | None:
    """The items of all ranks in rank order, on rank 0; None on the others."""
    if not is_dist_avail_and_initialized():
        return [item]
    items: list[Any] | None = [None] * dist.get_world_size() if is_main_process() else None
    dist.gather_object(item, items, dst=0, group=_object_group())
    return items


def launchers() -> list[str] | None:
    """The torchruns that have started the processes, on rank 0; None on the others.

    A torchrun that starts its processes again stays the same; see `living_processes.identity`.
    """
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    own = living_processes.identity(os.getppid()) if under_torchrun else ""
    found = gather_on_main_process(own)
    return None if found is None else sorted(set(found) - {""})


def restarts() -> int:
    """How often torchrun has started this process again after a failure."""
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return int(count) if count.isdecimal() else 0


def _object_group() -> Any:
    """A gloo group of all processes, because NCCL would send objects through the GPUs' memory.

    All processes must call it together.
    """
    if dist.get_backend() == "gloo":
        return None  # the group of all processes
    everyone = dist.group.WORLD
    if everyone not in _object_groups:
        _object_groups[everyone] = dist.new_group(backend="gloo", timeout=GROUP_TIMEOUT)
    return _object_groups[everyone]


def _start_name() -> str:
    """A name for this start of the processes, the same in all of them.

    torchrun keeps its store when it restarts the processes, and torch would find the addresses of
    the ended ones there. With several machines only that of the failed process counts the restart,
    so there the name is fixed.
    """
    is_one_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    return f"start_{restarts() if is_one_machine else 0}"


def _join_group(run: DictConfig) -> None:
    """Open the group.

    Raises:
        InputError: variables are missing or invalid, or the processes do not meet. Not a
            `LaunchError`, which only rank 0 prints: each rank may have another problem.
    """
    variables = os.environ
    on_cuda = run.device.startswith("cuda")
    # torch for Windows has no NCCL; gloo takes the way through main memory.
    run.dist_backend = "nccl" if on_cuda and dist.is_nccl_available() else "gloo"
    try:
        run.gpu = int(variables.get("LOCAL_RANK", 0))
        if on_cuda:
            gpus = torch.cuda.device_count()
            if run.gpu >= gpus:
                raise ValueError(f"this machine has no GPU {run.gpu}, only {gpus}")
            torch.cuda.set_device(run.gpu)
        store, rank, world_size = next(
            dist.rendezvous(
                run.dist_url,
                int(variables["RANK"]),
                int(variables.get("WORLD_SIZE", -1)),
                timeout=GROUP_TIMEOUT,
            )
        )
        dist.init_process_group(
            run.dist_backend,
            store=dist.PrefixStore(_start_name(), store),
            rank=rank,
            world_size=world_size,
            timeout=GROUP_TIMEOUT,
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"rank {variables['RANK']} cannot join the others: {error}; start the run with "
            "torchrun, or unset RANK for a single process"
        ) from error
    run.distributed, run.rank, run.world_size = True, dist.get_rank(), dist.get_world_size()
