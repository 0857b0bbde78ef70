"""What torchrun and srun set, and what a process makes of it."""

from __future__ import annotations

import pytest

from lavis_dynrefer.cli.predict.ranks.rank_variables import find_rank
from lavis_dynrefer.errors import InputError

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "9",
    "SLURM_STEP_NUM_TASKS": "11",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2),3",
}


def test_torchrun_tells_the_places_in_all_and_on_the_machine():
    rank = find_rank(TORCHRUN)
    assert (rank.rank, rank.world, rank.local, rank.local_world) == (5, 8, 1, 4)


def test_srun_tells_the_tasks_of_each_machine():
    rank = find_rank(SRUN)
    assert (rank.rank, rank.world, rank.local, rank.local_world) == (9, 11, 1, 3)
    assert rank.launch == find_rank({**SRUN, "SLURM_PROCID": "0"}).launch
    assert rank.launch != find_rank({**SRUN, "SLURM_STEP_ID": "1"}).launch


def test_torchrun_within_a_task_of_srun_comes_first():
    assert find_rank({**SRUN, **TORCHRUN}).rank == 5


@pytest.mark.parametrize(
    "variables",
    [
        {},
        # a batch script, before it calls srun
        {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"},
        {**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"},
        {**SRUN, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},  # srun --pty bash
    ],
)
def test_a_process_may_be_alone(variables):
    assert find_rank(variables) is None


@pytest.mark.parametrize("variables", [{"RANK": "1"}, {**TORCHRUN, "WORLD_SIZE": "two"}])
def test_an_incomplete_environment_is_refused(variables):
    with pytest.raises(InputError, match=r"WORLD_SIZE=.*expected a number.*unset RANK"):
        find_rank(variables)


@pytest.mark.parametrize(
    ("variables", "asked", "gpus", "device"),
    [
        (TORCHRUN, "auto", 0, "auto"),
        (TORCHRUN, "auto", 4, "cuda:1"),
        (TORCHRUN, "cuda", 8, "cuda:1"),
        (TORCHRUN, "cpu", 4, "cpu"),
        (TORCHRUN, "cuda:3", 4, "cuda:3"),
        (SRUN, "auto", 1, "cuda:0"),  # srun --gpus-per-task=1
        (SRUN, "auto", 4, "cuda:1"),
    ],
)
def test_each_process_of_a_machine_has_its_own_gpu(variables, asked, gpus, device):
    assert find_rank(variables).device(asked, gpus) == device


def test_fewer_gpus_than_processes_are_refused():
    with pytest.raises(InputError, match=r"4 processes on a machine with 2 GPU\(s\)"):
        find_rank(TORCHRUN).device("auto", 2)


@pytest.mark.parametrize(
    ("variables", "available", "cores", "threads"),
    [
        (TORCHRUN, 64, 16, None),
        ({**TORCHRUN, "OMP_NUM_THREADS": "1"}, 64, 16, None),  # torchrun's own
        ({**TORCHRUN, "OMP_NUM_THREADS": "3"}, 64, 16, 3),
        (TORCHRUN, 2, 1, None),
        (SRUN, 30, 10, None),
        ({**SRUN, "SLURM_CPUS_PER_TASK": "8"}, 64, 8, None),  # no affinity
        ({**SRUN, "SLURM_CPUS_PER_TASK": "8"}, 6, 6, None),
        ({**SRUN, "OMP_NUM_THREADS": "1"}, 30, 10, 1),
    ],
)
def test_processes_divide_the_cores(variables, available, cores, threads):
    rank = find_rank(variables)
    assert (rank.share_of_cores(available), rank.threads) == (cores, threads)
