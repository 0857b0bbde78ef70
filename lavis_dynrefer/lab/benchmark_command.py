"""Benchmarks: stages of the model beside a plain reference path, data, loaders, view policies.

dynrefer benchmark inference --size middle --regions 16 --beams 2 --tokens 20
dynrefer benchmark inference --size tiny --regions 1 --tokens 12
dynrefer benchmark all --size full --device cuda --minutes 8
dynrefer benchmark data --output /data/benchmark

The models of encoder, caption, inference, training and all have random weights; the reference does
what the released code does, and both are measured in turns. On a CPU the times are processor time,
on a GPU those of its queue.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lavis_dynrefer.config import DTYPES
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.json_stream import replace_bytes
from lavis_dynrefer.synthetic.scene_world import WORLDS

_FUNCTIONS = {  # (folder for files, options)
    "data": "benchmarks.table_speed.measure_data",
    "loader": "benchmarks.training_loader.measure_loader",
    "policies": "policies.policy_study.measure_policies",
    "probabilities": "benchmarks.probability_study.measure_probabilities",
}
_SIZES = ("tiny", "middle", "full")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer benchmark`."""
    names = parser.add_subparsers(dest="name", required=True)
    views = names.add_parser("views", help="choosing and cropping views: ms per region")
    views.add_argument("--regions", type=int, default=10, help="in one call; default 10")
    summaries = {
        "encoder": "ViT, region encoder, Q-Former, tags, attributes and categories",
        "caption": "captions, and the time to the first token",
        "inference": "all answers, and their stages",
        "training": "a training step",
        "all": "inference, training and views within a few minutes, for a borrowed GPU",
    }
    for name, summary in summaries.items():
        _add_model_arguments(names.add_parser(name, help=summary), name)
    names.add_parser("start", help="processor time of short commands")
    for name in ("views", *summaries, "start"):
        one = names.choices[name]
        one.add_argument("--repeats", type=int, default=3, help="pairs of measurements; default 3")
        one.add_argument("--output", type=Path, help="folder for a json with all numbers")
    _add_data_arguments(names)


def _add_model_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        "--size",
        choices=_SIZES,
        default="middle",
        help="of the model: as the embedded one, between, or as the released one; default middle",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; default auto")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="number formats of answers; default auto"
    )
    regions = 64 if name == "all" else 16  # as many as the released code was measured with
    parser.add_argument(
        "--regions", type=int, default=regions, help=f"in one call; default {regions}"
    )
    parser.add_argument("--tokens", type=int, default=20, help="of each caption; default 20")
    if name == "all":
        parser.add_argument(
            "--minutes", type=float, default=8, help="after which nothing more is begun; default 8"
        )
    else:
        parser.add_argument("--beams", type=int, default=2, help="of the beam search; default 2")
    if name in ("inference", "training"):
        parser.add_argument("--profile", action="store_true", help="print torch's profile, too")


def _add_data_arguments(names: Any) -> None:
    data = names.add_parser("data", help="annotations: raw files to tables, tables to regions")
    data.add_argument("--images", type=int, default=108_077)
    data.add_argument("--regions-per-image", type=int, default=50)
    loader = names.add_parser("loader", help="images: regions per second in training")
    loader.add_argument("--images", type=int, default=200, help="to draw")
    loader.add_argument("--regions", type=int, default=2000, help="to load, per setting")
    policies = names.add_parser("policies", help="effect of the views: trains tiny models")
    policies.add_argument(
        "--train",
        nargs="*",
        default=["fixed:0,0.5", "random", "random:loss"],
        help="policies to train with; random:loss samples scales by their loss",
    )
    policies.add_argument(
        "--views",
        nargs="+",
        default=[
            *("fixed:0,0", "best", "random", "image:official", "image", "own"),
            *("confidence", "learned", "oracle"),
        ],
        help="policies to answer with; also best (the best fixed pair on val), oracle (the best "
        "scale of each region), image:official (the released hash), own (the model's yaml)",
    )
    policies.add_argument("--seeds", type=int, default=3, help="trainings with each policy")
    policies.add_argument("--scenes", type=int, default=1_500, help="80 %% of them to train on")
    policies.add_argument(
        "--train-images", type=int, metavar="N", help="of the training split; default all"
    )
    policies.add_argument(
        "--options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="settings of all runs, such as run.amp=true run.amp_dtype=bf16",
    )
    policies.add_argument("--split", choices=("val", "test"), default="test", help="to grade on")
    policies.add_argument(
        "--images", type=int, default=120, help="of the split to grade on, of each world"
    )
    policies.add_argument("--world", nargs="+", choices=WORLDS, default=["landmark"])
    probabilities = names.add_parser(
        "probabilities", help="are they right on test scenes; what is unfamiliar"
    )
    probabilities.add_argument(
        "--world", nargs="+", choices=WORLDS, default=["landmark", "neighbour"]
    )
    probabilities.add_argument(
        "--images", type=int, default=300, help="of each world, and the most photographs"
    )
    probabilities.add_argument(
        "--photographs", type=Path, metavar="FOLDER", help="other images, to be told from scenes"
    )
    probabilities.add_argument("--checkpoint", help="weights instead of the shipped ones")
    for one in (data, loader, policies, probabilities):
        one.add_argument("--output", type=Path, required=True, help="folder for all files")


def run(arguments: argparse.Namespace) -> int:
    """Measure; returns the exit code."""
    from lavis_dynrefer.lab.benchmarks.resource_usage import describe_machine

    hidden = ("command", "name", "output", "debug")
    options = {key: value for key, value in vars(arguments).items() if key not in hidden}
    for option, value in options.items():
        if type(value) in (int, float) and value <= 0:
            raise InputError(f"--{option.replace('_', '-')}: expected at least 1, got {value}")
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
    load = describe_machine()["load"]  # before our own
    results = _measure(arguments.name, arguments.output, options)
    machine = {**describe_machine(options.get("device", "cpu")), "load": load}
    sys.stdout.write(_table(results))
    if arguments.name in _FUNCTIONS or arguments.output is not None:
        path = arguments.output / f"benchmark_{arguments.name}.json"
        report = {"machine": machine, "options": options, "results": results}
        replace_bytes(path, json.dumps(report, indent=2, default=str).encode())
        sys.stdout.write(f"report: {path}\n")
        if arguments.name == "policies":
            path = arguments.output / "policy_scales.png"
            _load("policies.policy_plot.scale_plot")(results["scales"]).save(path)
            sys.stdout.write(f"chosen scales: {path}\n")
    else:
        sys.stdout.write("".join(f"{key}: {value}\n" for key, value in machine.items()))
    return 0


def _measure(name: str, folder: Path | None, options: Mapping[str, Any]) -> Mapping[str, Any]:
    if name in _FUNCTIONS:
        return _load(_FUNCTIONS[name])(folder, **options)
    if name in ("views", "start"):
        kind = name.removesuffix("s")
        return _load(f"speed.{kind}_speed.measure_{name}")(**options)
    chosen = dict(options)
    minutes, profile = chosen.pop("minutes", None), chosen.pop("profile", False)
    speed_options = _load("speed.model_speed.SpeedOptions")(**chosen)
    if name == "all":
        return _load("speed.all_speed.measure_all")(speed_options, minutes=minutes)
    results = _load(f"speed.model_speed.measure_{name}")(speed_options)
    if profile:
        sys.stdout.write(_load("speed.model_speed.profile_of")(speed_options, name))
    return results


def _load(name: str) -> Callable[..., Any]:
    """A function of the laboratory, whose module is imported now."""
    module, _, function = name.rpartition(".")
    return getattr(import_module(f"lavis_dynrefer.lab.{module}"), function)


def _table(results: Mapping[str, Any]) -> str:
    """Every number: a row for each name, a column for each measurement, or the other way round."""
    from lavis_dynrefer.metrics import plain_table

    columns = {title: dict(_numbers(numbers)) for title, numbers in results.items()}
    if any("ratio" in column for column in columns.values()):  # stages: a row for each
        alone = {title: column for title, column in columns.items() if "ratio" not in column}
        stages = {title: column for title, column in columns.items() if title not in alone}
        names = list(dict.fromkeys(name for column in stages.values() for name in column))
        rows = [
            [title, *(column.get(name, "") for name in names)] for title, column in stages.items()
        ]
        lines = [
            f"{title}: {name} {value}\n" for title, c in alone.items() for name, value in c.items()
        ]
        return plain_table(["", *names], rows, numbers=len(names)) + "".join(lines)
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
