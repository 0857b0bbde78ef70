"""Measure preparing, opening and loading of generated data, answering, and view policies.

dynrefer benchmark data --output /data/benchmark
dynrefer benchmark loader --output /data/benchmark
dynrefer benchmark predict --output /data/benchmark
dynrefer benchmark policies --output /data/benchmark
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.synthetic.world import WORLDS

_HEADS = ("attributes", "category", "own", "relation", "reference", "full")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer benchmark`."""
    names = parser.add_subparsers(dest="name", required=True)
    data = names.add_parser("data", help="annotations: raw files to tables, tables to regions")
    data.add_argument("--images", type=int, default=108_077)
    data.add_argument("--regions-per-image", type=float, default=5_408_689 / 108_077)
    data.add_argument(
        "--sample", type=int, default=200_000, help="regions to compare with pycocotools"
    )
    loader = names.add_parser("loader", help="images: regions per second in training")
    loader.add_argument("--images", type=int, default=200, help="to paint")
    loader.add_argument("--regions", type=int, default=2000, help="to load, per setting")
    predict = names.add_parser("predict", help="the embedded model: ms per region on one core")
    predict.add_argument("--repeats", type=int, default=25, help="of each measurement")
    policies = names.add_parser("policies", help="effect of the views: trains 18 tiny models")
    policies.add_argument("--scenes", type=int, default=8_000, help="of the dataset")
    policies.add_argument("--train-images", type=int, default=1_200, help="of them, to train on")
    policies.add_argument("--images", type=int, default=120, help="of val and test, to ask about")
    policies.add_argument("--steps", type=int, default=700, help="of each training, decoders only")
    policies.add_argument("--tuning-steps", type=int, default=250, help="after that, of all parts")
    policies.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    policies.add_argument("--world", choices=WORLDS, default="landmark")
    for one in (data, loader, predict, policies):
        one.add_argument("--output", type=Path, required=True, help="folder for all files")


def run(arguments: argparse.Namespace) -> int:
    """Measure; returns the exit code."""
    from lavis_dynrefer.lab.benchmarks.measuring import describe_machine

    hidden = ("command", "name", "output", "debug")
    options = {key: value for key, value in vars(arguments).items() if key not in hidden}
    for option, value in options.items():
        if not isinstance(value, str) and value <= 0:
            raise InputError(f"--{option.replace('_', '-')}: expected more than 0, got {value}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    results, text = _measure(arguments.name, arguments.output, options)
    path = arguments.output / f"benchmark_{arguments.name}.json"
    report = {"machine": machine, "options": options, "results": results}
    path.write_text(json.dumps(report, indent=2), encoding="utf-8")
    sys.stdout.write(f"{text}report: {path}\n")
    return 0


def _measure(name: str, folder: Path, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Numbers, and how to show them."""
    if name == "policies":
        from lavis_dynrefer.lab.benchmarks.policy_table import measure_policies

        results = measure_policies(**options)
        return results, _policies(results)
    if name == "data":
        from lavis_dynrefer.lab.benchmarks.annotations import measure_data

        regions = round(options["images"] * options["regions_per_image"])
        results = measure_data(
            folder, images=options["images"], regions=regions, sample=options["sample"]
        )
    elif name == "loader":
        from lavis_dynrefer.lab.benchmarks.training_loader import measure_loader

        results = measure_loader(folder, **options)
    else:
        from lavis_dynrefer.lab.benchmarks.answer_speed import measure_predict

        results = measure_predict(**options)
    return results, _table(results)


def _table(results: Mapping[str, Any]) -> str:
    """Every number: a row for each name, a column for each measurement."""
    from lavis_dynrefer.metrics import plain_table

    columns = {title: dict(_numbers(found)) for title, found in results.items()}
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [[name, *(column.get(name, "") for column in columns.values())] for name in names]
    return plain_table(["", *columns], rows, numbers=len(columns))


def _numbers(found: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(found, Mapping):
        for key, value in found.items():
            yield from _numbers(value, f"{name} {key}".strip())
    else:
        yield name, f"{found:,}" if isinstance(found, int) else f"{found:,.4g}"


def _policies(results: Mapping[str, Any]) -> str:
    """Two tables in Markdown, to be copied."""

    def cells(numbers: Mapping[str, Any]) -> str:
        found = (f"{n['value']:.1f} [{n['low']:.1f}, {n['high']:.1f}]" for n in numbers.values())
        return " | ".join(found)

    heads = " | ".join(_HEADS)
    chosen = ", ".join(f"{task} {scale}" for task, scale in results["task_scales"].items())
    lines = [f"Percent [95 % interval], test; task prior: {chosen}", ""]
    lines += [f"| training | asked with | views | {heads} |", "|---" * (3 + len(_HEADS)) + "|"]
    for row in results["rows"]:
        views = f"{row['views']} + {row['hashed']} hashed" if row["hashed"] else row["views"]
        lines.append(f"| {row['training']} | {row['policy']} | {views} | {cells(row['numbers'])} |")
    lines += ["", "Validation, trained with random views", ""]
    lines += [f"| second view | {heads} |", "|---" * (1 + len(_HEADS)) + "|"]
    for scale, numbers in results["validation"].items():
        lines.append(f"| t = {scale} | {cells(numbers)} |")
    return "\n".join(lines) + "\n\n"
