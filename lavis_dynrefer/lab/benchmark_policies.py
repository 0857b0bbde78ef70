"""The table of `dynrefer benchmark policies`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from rich.box import MARKDOWN
from rich.table import Table

from lavis_dynrefer.lab.benchmarks.policy_table import SHOWN, measure_policies
from lavis_dynrefer.synthetic.world import WORLDS

_HEADS = ("attributes", "category", "own", "relation", "reference", "full")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the benchmark, apart from its folder."""
    parser.add_argument("--scenes", type=int, default=8_000, help="of the data set")
    parser.add_argument("--train-images", type=int, default=1_200, help="of them, trained on")
    parser.add_argument("--images", type=int, default=120, help="of val and test, asked about")
    parser.add_argument("--steps", type=int, default=700, help="of each training, decoders alone")
    parser.add_argument("--tuning-steps", type=int, default=250, help="then, of all parts")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--world", choices=WORLDS, default="landmark")


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Table]]:
    """Numbers and how to show them."""
    results = measure_policies(
        scenes=arguments.scenes,
        train_images=arguments.train_images,
        images=arguments.images,
        steps=arguments.steps,
        tuning_steps=arguments.tuning_steps,
        seeds=arguments.seeds,
        world=arguments.world,
    )
    return results, [_table(results), _validation(results)]


def _table(results: Mapping[str, Any]) -> Table:
    """In Markdown, to be copied."""
    chosen = ", ".join(f"{task} {scale}" for task, scale in results["task_scales"].items())
    table = Table("training", "asked with", "views", *_HEADS, box=MARKDOWN)
    table.title = f"percent [95 % interval], test; task prior: {chosen}"
    for row in results["rows"]:
        views = f"{row['views']} + {row['hashed']} hashed" if row["hashed"] else str(row["views"])
        cells = (_cell(row["numbers"][name]) for name in SHOWN)
        table.add_row(row["training"], row["policy"], views, *cells)
    return table


def _validation(results: Mapping[str, Any]) -> Table:
    """How good each second view is on the validation split."""
    table = Table("second view", *_HEADS, box=MARKDOWN)
    table.title = "percent [95 % interval], validation; trained with random views"
    for scale, numbers in results["validation"].items():
        table.add_row(f"t = {scale}", *(_cell(numbers[name]) for name in SHOWN))
    return table


def _cell(number: Mapping[str, float]) -> str:
    return f"{number['value']:.1f} [{number['low']:.1f}, {number['high']:.1f}]"
