"""Failures of the machine and of other processes; what is said about them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from lavis_dynrefer.errors import InputError, TooLittleMemoryError
from lavis_dynrefer.training.process_group import OtherRankError
from lavis_dynrefer.training.run_failures import explained_failures

ROOT = Path(__file__).parents[2]
WORKER = "DataLoader worker (pid(s) 8809, 8810) exited unexpectedly"
GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"


@pytest.fixture
def in_a_group(tmp_path):
    """This process alone in a group."""
    dist.init_process_group("gloo", init_method=(tmp_path / "meet").as_uri(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("in_a_group")
@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (torch.cuda.OutOfMemoryError("out of memory"), TooLittleMemoryError, "batch_size_train"),
        (MemoryError(), TooLittleMemoryError, "out of memory on rank 0"),
        (RuntimeError(WORKER), InputError, "shm-size.*8809, 8810"),
        (RuntimeError(GLOO), OtherRankError, "another process of the run has ended"),
        (RuntimeError("shapes cannot be multiplied"), RuntimeError, "^shapes"),
        (InputError("gloo: no such file"), InputError, "^gloo"),
    ],
)
def test_failures_of_the_machine_say_what_to_do(error, kind, message):
    with pytest.raises(Exception, match=message) as found, explained_failures():
        raise error
    assert type(found.value) is kind


SCRIPT = """
import os, signal, sys, toy_plugin
from lavis_dynrefer.training.launch import train_main

def fail(*arguments, **options):
    if os.environ["RANK"] == "1":
        if sys.argv.pop() == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise {}
    return kept(*arguments, **options)

kept, toy_plugin.{} = toy_plugin.{}, fail
sys.exit(train_main(sys.argv[1:3]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["ToyTask.build_model", "ToyModel.forward", "ToyModel.predict"])
@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("OSError(2, 'No such file or directory', 'of_this_node')", "error: [Errno 2]"),
        ("RuntimeError('shapes cannot be multiplied')", "RuntimeError: shapes cannot"),
        ("MemoryError()", "error: out of memory on rank 1"),
        pytest.param(
            "kill",
            "Signal 9 (SIGKILL)",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL"),
        ),
    ],
)
def test_one_failing_process_ends_all_with_its_reason(tmp_path, place, failure, said):
    kill = failure == "kill"
    script = SCRIPT.format("None" if kill else failure, place, place)
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    (tmp_path / "run.yaml").write_text(
        "model: {arch: toy_regression, model_type: default}\n"
        "datasets: {toy_points: {sizes: {train: 10, val: 5}}}\n"
        "run: {task: toy_regression, runner: runner_dynrefer, init_lr: 0.1, max_epoch: 1,"
        " batch_size_train: 3, num_workers: 0, valid_splits: [val]}\n",
        encoding="utf-8",
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    result = subprocess.run(
        [*torchrun, "script.py", "--cfg-path", "run.yaml", "kill" if kill else "raise"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=900,
        check=False,
    )
    assert result.returncode != 0
    assert result.stderr.count(said) == 1, result.stderr
    assert result.stderr.count("error: another process of the run has ended") <= 1
