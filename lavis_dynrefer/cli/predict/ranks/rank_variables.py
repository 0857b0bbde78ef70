"""Which of several processes this one is: what torchrun or Slurm's srun says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lavis_dynrefer.errors import InputError

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Rank:
    """One of the processes that share a task.

    Args:
        rank: from 0.
        world: number of processes.
        local: from 0, among those of this machine.
        local_world: number of processes on this machine.
        launch: the same text in all processes of one start, and in no other.
        by_srun: Slurm, not torchrun, has started it.
        cores: of this process, if srun says so.
        threads: asked for by the user; None to choose.
    """

    rank: int
    world: int
    local: int
    local_world: int
    launch: str
    by_srun: bool = False
    cores: int | None = None
    threads: int | None = None

    def device(self, asked: str, gpus: int) -> str:
        """The device of this process: a GPU of its own, unless another one is named.

        Args:
            asked: "auto", "cpu", "cuda", "cuda:1", ...
            gpus: number of CUDA GPUs that this process sees.

        Raises:
            InputError: there are fewer GPUs than processes on this machine.
        """
        if asked not in ("auto", "cuda") or gpus == 0:
            return asked
        if gpus == 1 and self.by_srun:  # --gpus-per-task=1 shows each task its own GPU
            return "cuda:0"
        if self.local_world > gpus:
            raise InputError(
                f"{self.local_world} processes on a machine with {gpus} GPU(s); start at most one "
                "for each, or name a --device"
            )
        return f"cuda:{self.local}"

    def share_of_cores(self, available: int) -> int:
        """Cores for this process, of those available to the processes of this machine."""
        if self.cores is not None:
            return min(self.cores, available)
        return max(available // self.local_world, 1)


def find_rank(variables: Mapping[str, str]) -> Rank | None:
    """What the environment says; None for a process that works alone.

    The variables of srun count only in what srun itself has started. A batch script has
    SLURM_PROCID and SLURM_NTASKS as well, but only srun sets SLURM_STEP_NUM_TASKS.

    Raises:
        InputError: variables are missing or not numbers.
    """
    if "RANK" in variables:
        rank = _of_torchrun(variables)
    elif "SLURM_STEP_NUM_TASKS" in variables:
        rank = _of_slurm(variables)
    else:
        return None
    return rank if rank.world > 1 else None


def _of_torchrun(variables: Mapping[str, str]) -> Rank:
    rank, world, local, local_world = (_number(variables, name) for name in _TORCHRUN)
    meeting = (variables.get(f"MASTER_{name}", "") for name in ("ADDR", "PORT"))
    launch = " ".join(("torchrun", variables.get("TORCHELASTIC_RUN_ID", ""), *meeting))
    threads = variables.get("OMP_NUM_THREADS", "1")
    # torchrun itself sets one thread where nobody has asked for a number.
    return Rank(rank, world, local, local_world, launch, threads=_asked(threads, but="1"))


def _of_slurm(variables: Mapping[str, str]) -> Rank:
    rank, world, local = (
        _number(variables, f"SLURM_{name}") for name in ("PROCID", "STEP_NUM_TASKS", "LOCALID")
    )
    node = _number({"SLURM_NODEID": "0", **variables}, "SLURM_NODEID")
    counts = _tasks_per_node(variables.get("SLURM_STEP_TASKS_PER_NODE", ""))
    local_world = counts[node] if node < len(counts) else world
    parts = (variables.get(f"SLURM_{name}", "") for name in ("JOB_ID", "STEP_ID", "RESTART_COUNT"))
    return Rank(
        rank,
        world,
        local,
        local_world,
        " ".join(("slurm", *parts)),
        by_srun=True,
        cores=_asked(variables.get("SLURM_CPUS_PER_TASK", "")),
        threads=_asked(variables.get("OMP_NUM_THREADS", "")),
    )


def _tasks_per_node(text: str) -> list[int]:
    """Read Slurm's list.

    >>> _tasks_per_node("4(x2),1")
    [4, 4, 1]
    """
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(tasks) for tasks, times in found for _ in range(int(times or 1))]


def _asked(threads: str, *, but: str = "") -> int | None:
    return int(threads) if threads.isdecimal() and threads != but else None


def _number(variables: Mapping[str, str], name: str) -> int:
    text = variables.get(name, "")
    if not text.isdecimal():
        raise InputError(
            f"{name}={text!r}: expected a number, as torchrun and srun set it; unset RANK and "
            "SLURM_STEP_NUM_TASKS to work with a single process"
        )
    return int(text)
