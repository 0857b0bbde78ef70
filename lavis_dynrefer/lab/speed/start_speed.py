"""How long a command takes to begin."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lavis_dynrefer.lab.benchmarks.resource_usage import Numbers
from lavis_dynrefer.lab.speed.pairs import summary
from lavis_dynrefer.synthetic import make_scene, render

# What a program with LAVIS imports before its first line of work.
_PLAIN = "import lavis.models, lavis.datasets.builders, lavis.processors, lavis.tasks"
_COMMANDS = {
    "dynrefer --help": ["--help"],
    "dynrefer predict --help": ["predict", "--help"],
}


def measure_start(*, repeats: int = 3) -> Numbers:
    """Seconds of processor time of whole commands, beside `import lavis` with all its parts.

    Args:
        repeats: pairs of processes, after one of each.

    Returns:
        As `pairs.compare`, in milliseconds per command; `answer` describes one box of one image by
        the embedded model.
    """
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "scene.png"
        scene = make_scene(0, 1)
        render(scene).save(image)
        box = ",".join(str(round(value)) for value in scene.objects[0].box)
        commands = {**_COMMANDS, "answer": ["predict", str(image), "--box", box]}
        results: Numbers = {}
        for name, words in commands.items():
            pairs = [
                (_seconds("-c", _PLAIN), _seconds("-m", "lavis_dynrefer.cli", *words))
                for _ in range(repeats + 1)
            ]
            results[name] = summary(pairs[1:], regions=1)
        return results


def _seconds(*words: str) -> float:
    before, begin = os.times(), time.perf_counter()
    subprocess.run(
        [sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    after = os.times()
    spent = sum(after[2:4]) - sum(before[2:4])
    return spent or time.perf_counter() - begin  # Windows does not count its children
