"""Benchmarks on generated data: annotations, training loader, answers, view policies.

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
from importlib import import_module
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.json_stream import replace_bytes
from lavis_dynrefer.synthetic.scene_world import WORLDS

_FUNCTIONS = {
    "data": ("table_speed", "measure_data"),
    "loader": ("training_loader", "measure_loader"),
    "predict": ("answer_speed", "measure_predict"),
    "policies": ("policy_study", "measure_policies"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer benchmark`."""
    names = parser.add_subparsers(dest="name", required=True)
    data = names.add_parser("data", help="annotations: raw files to tables, tables to regions")
    data.add_argument("--images", type=int, default=108_077)
    data.add_argument("--regions-per-image", type=int, default=50)
    loader = names.add_parser("loader", help="images: regions per second in training")
    loader.add_argument("--images", type=int, default=200, help="to draw")
    loader.add_argument("--regions", type=int, default=2000, help="to load, per setting")
    predict = names.add_parser("predict", help="the embedded model: ms per region")
    predict.add_argument("--repeats", type=int, default=25, help="of each measurement")
    policies = names.add_parser("policies", help="effect of the views: trains tiny models")
    policies.add_argument(
        "--train", nargs="*", default=["fixed:0,0.5", "random"], help="policies to train with"
    )
    policies.add_argument(
        "--views",
        nargs="+",
        default=["fixed:0,0.5", "random", "image", "task"],
        help="policies to answer with",
    )
    policies.add_argument("--seeds", type=int, default=3, help="trainings with each policy")
    policies.add_argument("--scenes", type=int, default=1_500, help="80 %% of them to train on")
    policies.add_argument("--split", choices=("val", "test"), default="test", help="to grade on")
    policies.add_argument("--images", type=int, default=120, help="of the split to grade on")
    policies.add_argument("--world", choices=WORLDS, default="landmark")
    for one in (data, loader, predict, policies):
        one.add_argument("--output", type=Path, required=True, help="folder for all files")


def run(arguments: argparse.Namespace) -> int:
    """Measure; returns the exit code."""
    from lavis_dynrefer.lab.benchmarks.resource_usage import describe_machine

    hidden = ("command", "name", "output", "debug")
    options = {key: value for key, value in vars(arguments).items() if key not in hidden}
    for option, value in options.items():
        if isinstance(value, int) and value < 1:
            raise InputError(f"--{option.replace('_', '-')}: expected at least 1, got {value}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    module, function = _FUNCTIONS[arguments.name]
    measure = getattr(import_module(f"lavis_dynrefer.lab.benchmarks.{module}"), function)
    results = measure(arguments.output, **options)
    path = arguments.output / f"benchmark_{arguments.name}.json"
    report = {"machine": machine, "options": options, "results": results}
    replace_bytes(path, json.dumps(report, indent=2).encode())
    sys.stdout.write(f"{_table(results)}report: {path}\n")
    return 0


def _table(results: Mapping[str, Any]) -> str:
    """Every number: a row for each name, a column for each measurement."""
    from lavis_dynrefer.metrics import plain_table

    columns = {title: dict(_numbers(numbers)) for title, numbers in results.items()}
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [[name, *(column.get(name, "") for column in columns.values())] for name in names]
    return plain_table(["", *columns], rows, numbers=len(columns))


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{name} {key}".strip())
    elif isinstance(value, float):
        yield name, f"{value:,.4g}"
    else:
        yield name, f"{value:,}" if isinstance(value, int) else str(value)
