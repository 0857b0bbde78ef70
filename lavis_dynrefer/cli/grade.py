"""Grade a tiny model on synthetic scenes, fact by fact, with confidence intervals.

python -m lavis_dynrefer.cli.grade DATASET_FOLDER --split val --scales 0 0.5
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lavis_dynrefer.metrics.attributes import average_precisions
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic import read_truth
from lavis_dynrefer.synthetic.grading import Estimate, bootstrap, grade_captions, share
from lavis_dynrefer.synthetic.vocabulary import attribute_labels
from lavis_dynrefer.synthetic.world import SPLIT_START, held_out_pairs
from lavis_dynrefer.views.policies import FixedScales, ImagePrior, RandomScales, ViewPolicy

Truth = Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("folder", type=Path, help="a data set made by write_dataset")
    parser.add_argument("--split", choices=list(SPLIT_START), default="val")
    parser.add_argument("--checkpoint", help="weights; without it the embedded ones")
    parser.add_argument("--scales", type=float, nargs="+", help="the same views for every region")
    parser.add_argument("--policy", choices=["image", "random"], help="another way to choose views")
    parser.add_argument("--pictures", type=int, help="only the first ones of the split")
    parser.add_argument("--output", type=Path, help="json file for the numbers and all answers")


def run(arguments: argparse.Namespace) -> int:
    """Grade and print a table; returns the exit code."""
    start = time.time()
    rows = pictures_of(arguments.folder, arguments.split, arguments.pictures)
    predictor = RegionPredictor("tiny", checkpoint=arguments.checkpoint)
    truth, answers = ask(predictor, rows, views=_policy(arguments))
    grades = grade(truth, answers)
    console = Console()
    for name, estimate in grades.items():
        console.print(f"{name:32} {estimate}", highlight=False)
    console.print(f"{time.time() - start:.0f} s")
    if arguments.output is not None:
        document = {
            "grades": {name: vars(estimate) for name, estimate in grades.items()},
            "answers": [
                {"truth": dict(row), "answer": answer.to_dict()}
                for row, answer in zip(truth, answers)
            ],
        }
        arguments.output.write_text(json.dumps(document), encoding="utf-8")
    return 0


def _policy(arguments: argparse.Namespace) -> ViewPolicy | None:
    if arguments.scales:
        return FixedScales(arguments.scales)
    return (
        {"image": ImagePrior, "random": RandomScales}[arguments.policy](2)
        if (arguments.policy)
        else None
    )


def pictures_of(folder: Path, split: str, limit: int | None = None) -> dict[Path, list[Truth]]:
    """Picture file -> truth of its objects, each object once."""
    by_picture: dict[Path, list[Truth]] = {}
    for row in read_truth(folder, split).values():
        if row["form"] != "full":
            continue
        number = row["image_id"]
        name = f"coco/val2017/{number:012d}.jpg" if split == "val2017" else None
        path = folder / (name or f"vg/images/VG_100K/{number}.jpg")
        by_picture.setdefault(path, []).append(row)
    return dict(list(by_picture.items())[:limit])


def ask(
    predictor: RegionPredictor,
    rows: Mapping[Path, Sequence[Truth]],
    *,
    views: ViewPolicy | None = None,
    at_once: int = 8,
) -> tuple[list[Truth], list[RegionPrediction]]:
    """Everything about every object; truth and answers in the same order."""
    truth = [row for group in rows.values() for row in group]
    pairs = [(path, [row["box"] for row in group]) for path, group in rows.items()]
    answers = []
    for start in range(0, len(pairs), at_once):
        for group in predictor.predict_batch(pairs[start : start + at_once], views=views):
            answers += group
    return truth, answers


def grade(truth: Sequence[Truth], answers: Sequence[RegionPrediction]) -> dict[str, Estimate]:
    """Every number of the embedded model's card.

    Returns:
        The numbers of all regions; with the suffix "_held_out" those of the regions whose colour
        and category never occur together in training; with "_held_out_reference" those of the
        regions whose reference object is such a pair. Groups without a region are left out.
    """
    pairs = held_out_pairs()
    groups = {
        "": list(range(len(truth))),
        "_held_out": [row for row, item in enumerate(truth) if item["held_out"]],
        "_held_out_reference": [
            row
            for row, item in enumerate(truth)
            if (item["facts"]["reference_colour"], item["facts"]["reference_category"]) in pairs
        ],
    }
    return {
        name + suffix: estimate
        for suffix, chosen in groups.items()
        if chosen
        for name, estimate in _grade_group(
            [truth[row] for row in chosen], [answers[row] for row in chosen]
        ).items()
    }


def _grade_group(
    truth: Sequence[Truth], answers: Sequence[RegionPrediction]
) -> dict[str, Estimate]:
    named = [
        bool(answer.categories) and answer.categories[0][0] == row["facts"]["category"]
        for row, answer in zip(truth, answers)
    ]
    return {
        "attribute_map": _attribute_map(truth, answers),
        "category": share(named, [row["image_id"] for row in truth]),
        **grade_captions(truth, [answer.caption or "" for answer in answers]),
    }


def _attribute_map(truth: Sequence[Truth], answers: Sequence[RegionPrediction]) -> Estimate:
    names = list(dict(answers[0].attributes))
    labels = np.array([[attribute_labels(row["facts"])[name] for name in names] for row in truth])
    given = [dict(answer.attributes) for answer in answers]
    scores = np.array([[row[name] for name in names] for row in given])

    def mean(rows: np.ndarray) -> float:
        return 100 * float(np.nanmean(average_precisions(scores[rows], labels[rows])))

    return bootstrap(mean, [row["image_id"] for row in truth], rounds=100)


if __name__ == "__main__":
    command = argparse.ArgumentParser(description=__doc__)
    add_arguments(command)
    sys.exit(run(command.parse_args()))
