"""Whole runs in processes of their own, of one rank under NCCL and DistributedDataParallel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONS = [
    "datasets.synthetic_region.build_info.scenes=3",
    "run.device=cuda",
    "run.batch_size_train=7",
    "run.num_workers=1",
    "run.max_epoch=1",
    "run.test_splits=[synthetic_categories]",  # graded without Java
]


def train(folder, options, *, ranks=1):
    """`python -m lavis.train` under torchrun; returns its exit code and what it wrote."""
    torchrun = ["-m", "torch.distributed.run", f"--nproc_per_node={ranks}", "--standalone"]
    command = [sys.executable, *torchrun, "-m", "lavis.train"]
    command += ["--cfg-path", "projects/dynrefer/synthetic.yaml", "--options", *options]
    command.append(f"run.output_dir={folder}")
    ours = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **ours},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("amp", ["fp16", "bf16"])
def test_one_rank_trains_and_evaluates(gpu, tmp_path, amp, record_property):
    code, text = train(tmp_path, [*OPTIONS, "run.amp=true", f"run.amp_dtype={amp}"])

    assert code == 0, text[-4000:]
    saved = {path.name for path in tmp_path.rglob("*.pth")}
    record_property("checkpoints", sorted(saved))
    assert saved
    reports = list(tmp_path.rglob("report_synthetic_categories_epoch*.json"))
    assert len(reports) == 1, text[-4000:]
