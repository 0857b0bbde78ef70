"""How long a command takes to begin, and what it does in that time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from lavis_dynrefer.host.deferred_imports import UNUSED_PACKAGES
from lavis_dynrefer.lab.benchmarks.resource_usage import Numbers
from lavis_dynrefer.lab.speed.pairs import summary
from lavis_dynrefer.synthetic import make_scene, render

# A program with LAVIS imports all its parts, and what these import, before its first line of work.
_EAGER = f"""
import contextlib, importlib, sys
for name in {(*UNUSED_PACKAGES, "torch._dynamo")!r}:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
import lavis.models, lavis.datasets.builders, lavis.processors, lavis.tasks
from lavis_dynrefer.cli import main
sys.exit(main(sys.argv[1:]))
"""
_COMMANDS = {
    "dynrefer --help": ["--help"],
    "dynrefer predict --help": ["predict", "--help"],
}
_STAGES = """
import json, sys, time
at = [time.process_time()]
from lavis_dynrefer.predictor import RegionPredictor
at.append(time.process_time())
predictor = RegionPredictor("tiny", device="cpu")
at.append(time.process_time())
predictor.predict(sys.argv[1], [json.loads(sys.argv[2])])
at.append(time.process_time())
print(json.dumps(at))
"""
_NAMES = ("imports", "model", "first answer")
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s*(\w+)")
_PACKAGES = 6  # that take longest


def measure_start(*, repeats: int = 3) -> Numbers:
    """Milliseconds of processor time of whole commands, and of the stages of an answer.

    Args:
        repeats: pairs of processes, after one of each.

    Returns:
        As `pairs.compare`, of each command: the plain path is the same command after LAVIS with all
        that it imports. `answer` describes one box of an image by the embedded model; then its
        stages, and its imports by package, which are in time that passes.
    """
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "scene.png"
        scene = make_scene(0, 1)
        render(scene).save(image)
        box = [round(value) for value in scene.objects[0].box]
        answer = ["predict", str(image), "--box", ",".join(map(str, box))]
        results: Numbers = {}
        for name, words in {**_COMMANDS, "answer": answer}.items():
            pairs = [
                (_seconds("-c", _EAGER, *words), _seconds("-m", "lavis_dynrefer.cli", *words))
                for _ in range(repeats + 1)
            ]
            results[name] = summary(pairs[1:], regions=1)
        found = _run("-X", "importtime", "-c", _STAGES, str(image), json.dumps(box))
    at = json.loads(found.stdout.splitlines()[-1])
    stages = zip(_NAMES, at, at[1:])
    results["answer, stages"] = {name: 1000 * (end - begin) for name, begin, end in stages}
    results["answer, imports by package"] = _imports(found.stderr)
    return results


def _imports(log: str) -> dict[str, float]:
    """Package -> milliseconds in its modules, by what `-X importtime` says."""
    spent: Counter[str] = Counter()
    for microseconds, package in _IMPORT.findall(log):
        spent[package] += int(microseconds)
    return {package: each / 1000 for package, each in spent.most_common(_PACKAGES)}


def _seconds(*words: str) -> float:
    before, begin = os.times(), time.perf_counter()
    _run(*words)
    after = os.times()
    spent = sum(after[2:4]) - sum(before[2:4])
    return spent or time.perf_counter() - begin  # Windows does not count its children


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], check=True, capture_output=True, encoding="utf-8"
    )
