"""Grade the answers of a run, or a model on synthetic scenes.

FOLDER of a run (output/20261128195021): its answers are graded again, by its own configuration and
with its own data, such as those of a run that broke off. The numbers are those of the run's report.

FOLDER of synthetic scenes: a model describes them, and is graded fact by fact, with confidence
intervals. With several kinds of masks, the same regions are asked about with each, side by side.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.json_stream import replace_bytes
from lavis_dynrefer.lab.bootstrap_estimates import Estimate
from lavis_dynrefer.lab.occlusion.mask_errors import MASK_KINDS, mask_of_kind
from lavis_dynrefer.metrics.java_tools import meteor_kept
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic.scene_dataset import described_objects
from lavis_dynrefer.synthetic.scene_world import WORLDS

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
GROUPS = {  # names of other groups, the worlds, are shown as they are
    "all": "all",
    "held_out": "held out",
    "held_out_reference": "reference held out",
    "occluded": "visible < 60 %",
    "shared_box": "sharing a box",
}
OWN_OPTIONS = ("model", "checkpoint", "views", "images", "world", "masks", "masks_as", "output")


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
    scenes.add_argument(
        "--world", choices=WORLDS, help="of a folder of several worlds: only the images of one"
    )
    scenes.add_argument(
        "--masks",
        nargs="+",
        choices=MASK_KINDS,
        help="ask with these masks: none (the box alone, as by default), given (those of the "
        "scenes), dilated or eroded by 2 pixels, as those of a segmentation model may be; several "
        "are compared",
    )
    scenes.add_argument(
        "--masks-as", choices=("box", "cells", "dim"), help="what masks are used as"
    )
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
    others = OWN_OPTIONS if is_run else ("options",)
    surplus = [
        f"--{name.replace('_', '-')}" for name in others if getattr(arguments, name) is not None
    ]
    if surplus:
        kind = "a run" if is_run else "synthetic scenes"
        raise InputError(f"{folder} is a folder of {kind}; leave out {surplus}")
    return _grade_run(arguments) if is_run else _grade_scenes(arguments)


@meteor_kept()
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
    described = described_objects(arguments.folder, split, None)
    if arguments.world is not None:
        described = {
            path: rows for path, rows in described.items() if rows[0]["world"] == arguments.world
        }
        if not described:
            raise InputError(
                f"{arguments.folder}: no image of {split} is of the world {arguments.world}"
            )
    images = dict(islice(described.items(), arguments.images))
    predictor = RegionPredictor(arguments.model or "tiny", checkpoint=arguments.checkpoint)
    truth = [row for rows in images.values() for row in rows]
    kinds = list(dict.fromkeys(arguments.masks or ["none"]))
    asked = {"views": arguments.views}
    if arguments.masks_as is not None:
        asked["masks_as"] = arguments.masks_as
    answers, grades = {}, {}
    for kind in kinds:
        jobs = (_job(path, rows, kind) for path, rows in images.items())
        predictions = predictor.predict_iter(jobs, **asked)
        groups = track(predictions, description=f"regions, masks: {kind}", total=len(images))
        answers[kind] = [answer for group in groups for answer in group]
        grades[kind] = grade(truth, answers[kind])
    console = Console()
    console.print(_table(grades[kinds[0]]) if len(kinds) == 1 else _comparison(grades))
    console.print(f"{len(truth)} regions of {len(images)} images, {time.time() - start:.0f} s")
    if arguments.output is not None:
        documents = {kind: _document(grades[kind], truth, answers[kind]) for kind in kinds}
        document = documents[kinds[0]] if len(kinds) == 1 else {"masks": documents}
        replace_bytes(arguments.output, json.dumps(document).encode())
    return 0


def _job(path: Path, rows: Sequence[Mapping[str, Any]], kind: str) -> tuple[Any, ...]:
    """An image with its boxes and masks, for `predict_iter`."""
    masks = [mask_of_kind(row["mask"], kind) for row in rows]
    return path, [row["box"] for row in rows], None if kind == "none" else masks


def _document(
    grades: Mapping[str, Mapping[str, Estimate]],
    truth: Sequence[Mapping[str, Any]],
    answers: Sequence[RegionPrediction],
) -> dict[str, Any]:
    return {
        "grades": {
            group: {name: vars(estimate) for name, estimate in numbers.items()}
            for group, numbers in grades.items()
        },
        "answers": [
            {"truth": row, "answer": answer.to_dict()} for row, answer in zip(truth, answers)
        ],
    }


def _table(grades: Mapping[str, Mapping[str, Estimate]]) -> Table:
    heads = [head for group in grades for head in (GROUPS.get(group, group), "n")]
    table = Table("percent [95 % interval]", *heads)
    for name in grades["all"]:
        cells = []
        for numbers in grades.values():
            one = numbers[name]
            cells += [_shown(one), f"{one.count:,}"]
        table.add_row(NAMES[name], *cells)
    return table


def _comparison(by_kind: Mapping[str, Mapping[str, Mapping[str, Estimate]]]) -> Table:
    """A row for each number of each group, a column for each kind of masks."""
    table = Table("regions", "percent [95 % interval]", "n", *by_kind)
    first = next(iter(by_kind.values()))
    for group, numbers in first.items():
        for place, name in enumerate(numbers):
            table.add_row(
                GROUPS.get(group, group) if place == 0 else "",
                NAMES[name],
                f"{numbers[name].count:,}",
                *(_shown(grades[group][name]) for grades in by_kind.values()),
            )
        table.add_section()
    return table


def _shown(one: Estimate) -> str:
    return f"{one.value:.1f} [{one.low:.1f}, {one.high:.1f}]"
