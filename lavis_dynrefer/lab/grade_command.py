"""Grade a model on synthetic scenes fact by fact, with confidence intervals."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from lavis_dynrefer.lab.bootstrap_estimates import Estimate
from lavis_dynrefer.synthetic.scene_dataset import described_objects
from lavis_dynrefer.synthetic.scene_world import SPLIT_START

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
    parser.add_argument("folder", type=Path, help="folder of synthetic scenes")
    parser.add_argument("--split", choices=list(SPLIT_START), default="val")
    parser.add_argument("--model", default="tiny", help="model type")
    parser.add_argument("--checkpoint", help="weights to use instead of the model type's")
    parser.add_argument("--views", help="view policy: image, task, fixed:0,0.5, ...")
    parser.add_argument("--images", type=int, help="only the first images of the split")
    parser.add_argument("--output", type=Path, help="json file for the numbers and all answers")


def run(arguments: argparse.Namespace) -> int:
    """Grade and print a table; returns the exit code."""
    from lavis_dynrefer.lab.answer_grading import grade
    from lavis_dynrefer.predictor import RegionPredictor

    start = time.time()
    images = described_objects(arguments.folder, arguments.split, arguments.images)
    predictor = RegionPredictor(arguments.model, checkpoint=arguments.checkpoint)
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
        arguments.output.write_text(json.dumps(document), encoding="utf-8")
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
