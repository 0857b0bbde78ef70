"""kill -9 at random moments: whatever is left continues, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from lavis_dynrefer.synthetic import write_dataset

KILLS = int(os.environ.get("DYNREFER_KILLS", 20))
SEED = int(os.environ.get("DYNREFER_KILL_SEED", 0))
LORA = "model.captioning.llm_options.lora"
PARTS = "region_encoder,qformer,text_encoder,tagging,contrast,captioning.prefix"


def command(scenes, output):
    settings = [
        f"datasets.synthetic_region.build_info.root={scenes}",
        "datasets.synthetic_region.build_info.scenes=20",
        "datasets.synthetic_region.build_info.seed=3",
        f"run.output_dir={output}",
        "run.batch_size_train=8",
        "run.accum_grad_iters=2",
        "run.num_workers=2",
        "run.max_epoch=3",
        "run.warmup_steps=5",
        "run.amp=false",
        "run.device=cpu",
        "run.test_splits=[]",
        "run.save_freq=1",
        "run.resume_ckpt_path=auto",
        "run.resume_in_place=true",
        f"{LORA}.rank=4",
        f"{LORA}.alpha=8",
        f"model.trainable=[{PARTS}]",
    ]
    module = [sys.executable, "-m", "lavis_dynrefer.train"]
    return [*module, "--cfg-path", "dynrefer/synthetic.yaml", "--options", *settings]


def start(scenes, output):
    with output.with_suffix(".txt").open("wb") as messages:
        return subprocess.Popen(
            command(scenes, output),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=messages,
            start_new_session=True,
        )


def check(run, output):
    assert run.returncode == 0, output.with_suffix(".txt").read_text(encoding="utf-8")


def end_of(output):
    """The last checkpoint and the mean losses by epoch of a finished run.

    One that was killed before its first checkpoint has left a folder without any.
    """
    (folder,) = (path.parent for path in output.rglob("checkpoint_last.pth"))
    last = torch.load(folder / "checkpoint_last.pth")
    rows = [
        json.loads(line)
        for line in (folder / "log.txt").read_text(encoding="utf-8").splitlines()
        if line.startswith('{"train_epoch"')
    ]
    return (
        last["epoch"],
        last["model"],
        last["optimizer"],
        {row["train_epoch"]: row for row in rows},
    )


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def wait_for_a_save(run, output):
    """Until the run has written a checkpoint or ended."""
    last = {path: path.stat().st_mtime_ns for path in output.rglob("*_last.pth")}
    while run.poll() is None:
        if any(last.get(path) != path.stat().st_mtime_ns for path in output.rglob("*_last.pth")):
            return
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a group of processes")
def test_killed_runs_end_with_the_weights_of_an_uninterrupted_one(tmp_path, capsys):
    rng = random.Random(SEED)
    scenes = tmp_path / "scenes"
    write_dataset(scenes, scenes=20, seed=3, world="neighbour")
    began = time.monotonic()
    whole = start(scenes, tmp_path / "whole")
    whole.wait()
    check(whole, tmp_path / "whole")
    expected = end_of(tmp_path / "whole")
    longest = time.monotonic() - began
    kills = saving = ends = 0
    while kills < KILLS:
        output, finished = tmp_path / f"run{ends}", False
        while not finished:
            run = start(scenes, output)
            moment = rng.uniform(0, longest)  # one in four anywhere, also while it starts
            if rng.random() < 0.75:
                wait_for_a_save(run, output)
                moment /= 8
            try:
                run.wait(moment if kills < KILLS else None)
                check(run, output)
                finished = True
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                kills += 1
                saving += bool(list(output.rglob("*.tmp")))
        assert same(end_of(output), expected)
        ends += 1
    with capsys.disabled():
        print(f"seed {SEED}: {kills} kills, {saving} while saving, {ends} runs ended equal")
