"""A long run: memory, open files, threads and temporary files do not grow with the images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

IMAGES = 5_000
EVERY = 500

# Runs `dynrefer predict` in the main thread while another one watches the rows appear.
_WATCHED = """
import json, os, sys, tempfile, threading, time
from pathlib import Path
from lavis_dynrefer.cli import main

rows, report, every = Path(sys.argv[1]), [], int(sys.argv[2])
scratch = Path(tempfile.gettempdir())

def look(count):
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    report.append({
        "images": count,
        "rss_mib": round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "temporary": sum(1 for _ in scratch.rglob("*")),
    })

def watch():
    seen = count = 0
    while not done.wait(0.05):
        if rows.exists():
            with rows.open("rb") as file:
                file.seek(seen)
                new = file.read()
            seen += len(new)
            before, count = count, count + new.count(b"\\n")
            if before // every != count // every:
                look(count)

done = threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
try:
    code = main(["predict", *sys.argv[3:]])
finally:
    done.set()
    watcher.join()
print(json.dumps(report))
sys.exit(code)
"""


@pytest.fixture
def many(tmp_path, rng):
    """A folder of small images in sizes from 16 to 640 and boxes.json with 1 to 4 boxes each."""
    random, boxes = rng(), {}
    (tmp_path / "in").mkdir()
    for number in range(IMAGES):
        width, height = (int(side) for side in 2 ** random.uniform(4, 9.3, 2))
        pixels = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((width, height))
        name = f"{number:05}.{('jpg', 'png', 'webp')[number % 3]}"
        image.convert(("RGB", "L")[number % 7 == 0]).save(tmp_path / "in" / name)
        sides = (width, height) * 2
        corners = np.sort(random.uniform(0, 1, (number % 4 + 1, 2, 2)), axis=1).reshape(-1, 4)
        boxes[name] = (corners * sides * 0.9 + [0, 0, 2, 2]).tolist()
    (tmp_path / "boxes.json").write_text(json.dumps(boxes), encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_long_run_does_not_grow(many):
    scratch = many / "scratch"
    scratch.mkdir()
    arguments = [many / "in", "--boxes", many / "boxes.json", "--tasks", "caption,categories"]
    output = ["--output", many / "out", "--draw", "--format", "coco,csv"]
    run = subprocess.run(
        [sys.executable, "-c", _WATCHED, many / "out" / "results.jsonl", str(EVERY)]
        + [str(argument) for argument in (*arguments, *output)],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    report = json.loads(run.stdout.splitlines()[-1])
    print(*report, sep="\n")
    assert len(report) == IMAGES // EVERY
    early, late = report[1], report[-1]  # caches are full after a thousand images
    assert late["rss_mib"] - early["rss_mib"] < 60
    assert late["files"] <= early["files"] + 2  # those of the moment
    assert late["threads"] <= early["threads"]
    assert late["temporary"] == early["temporary"] == 0
