"""Grade the answers of a run, or a model on synthetic scenes.

FOLDER of a run (output/20261128195021): its answers are graded again, by its own configuration and
with its own data, such as those of a run that broke off. The numbers are those of the run's report.

FOLDER of synthetic scenes: a model describes them, and is graded fact by fact, with confidence
intervals.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.json_stream import replace_bytes
from lavis_dynrefer.lab.bootstrap_estimates import Estimate
from lavis_dynrefer.synthetic.scene_dataset import described_objects

LOG = "log.txt"  # in the folder of a run
TRUTH = "truth.jsonl"  # in a folder of scenes

NAMES = {
    "attribute_map": "attribute mAP (text queries)",
    "category": "category, top-1 (text queries)",
    "own": "own-property phrase exact",
    "relation": "relation word right",
    "reference": "reference noun phrase right",
    "full": "full caption exact",
    "full_related": "full caption exact, regions with a reference",
}
GROUPS = {"all": "all", "held_out": "held out", "held_out_reference": "reference held out"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer grade`."""
    parser.add_argument("folder", type=Path, help="folder of a run, or of synthetic scenes")
    parser.add_argument(
        "--split", help="of a run: all without a report by default; of scenes: val by default"
    )
    run = parser.add_argument_group("answers of a run")
    run.add_argument(
        "--options",
        nargs="+",
        help="settings of the run that differ now: datasets.x.build_info.root=/data",
    )
    scenes = parser.add_argument_group("a model on synthetic scenes")
    scenes.add_argument("--model", help="model type, by default tiny")
    scenes.add_argument("--checkpoint", help="weights to use instead of the model type's")
    scenes.add_argument("--views", help="view policy: image, task, fixed:0,0.5, ...")
    scenes.add_argument("--images", type=int, help="only the first images of the split")
    scenes.add_argument("--output", type=Path, help="json file for the numbers and all answers")


def run(arguments: argparse.Namespace) -> int:
    """Grade and print a table; returns the exit code."""
    folder: Path = arguments.folder
    is_run = (folder / LOG).is_file()
    if not is_run and not (folder / TRUTH).is_file():
        raise InputError(
            f"{folder} is neither the folder of a run, which has a {LOG}, nor one of synthetic "
            f"scenes, which has a {TRUTH}"
        )
    others = ("model", "checkpoint", "views", "images", "output") if is_run else ("options",)
    surplus = [f"--{name}" for name in others if getattr(arguments, name) is not None]
    if surplus:
        kind = "a run" if is_run else "synthetic scenes"
        raise InputError(f"{folder} is a folder of {kind}; leave out {surplus}")
    return _grade_run(arguments) if is_run else _grade_scenes(arguments)


def _grade_run(arguments: argparse.Namespace) -> int:
    from lavis_dynrefer.training.answers.run_grading import grade_run

    graded = grade_run(arguments.folder, split=arguments.split, options=arguments.options or ())
    for one in graded:
        print(f"{one.answers.split}, epoch {one.answers.epoch}\n{one.table}")
        print(f"{one.missing:,} of {one.regions:,} regions have no answer; report: {one.stem}.json")
    return 0


def _grade_scenes(arguments: argparse.Namespace) -> int:
    from lavis_dynrefer.lab.answer_grading import grade
    from lavis_dynrefer.predictor import RegionPredictor

    start = time.time()
    split = arguments.split or "val"
    images = described_objects(arguments.folder, split, arguments.images)
    predictor = RegionPredictor(arguments.model or "tiny", checkpoint=arguments.checkpoint)
    truth = [row for rows in images.values() for row in rows]
    pairs = ((path, [row["box"] for row in rows]) for path, rows in images.items())
    predictions = predictor.predict_iter(pairs, views=arguments.views)
    groups = track(predictions, description="regions", total=len(images))
    answers = [answer for group in groups for answer in group]
    grades = grade(truth, answers)
    console = Console()
    console.print(_table(grades))
    console.print(f"{len(truth)} regions of {len(images)} images, {time.time() - start:.0f} s")
    if arguments.output is not None:
        document = {
            "grades": {
                group: {name: vars(estimate) for name, estimate in numbers.items()}
                for group, numbers in grades.items()
            },
            "answers": [
                {"truth": row, "answer": answer.to_dict()} for row, answer in zip(truth, answers)
            ],
        }
        replace_bytes(arguments.output, json.dumps(document).encode())
    return 0


def _table(grades: Mapping[str, Mapping[str, Estimate]]) -> Table:
    heads = [head for group in grades for head in (GROUPS[group], "n")]
    table = Table("percent [95 % interval]", *heads)
    for name in grades["all"]:
        cells = []
        for numbers in grades.values():
            one = numbers[name]
            cells += [f"{one.value:.1f} [{one.low:.1f}, {one.high:.1f}]", f"{one.count:,}"]
        table.add_row(NAMES[name], *cells)
    return table
