"""Measure preparing, opening and loading of generated data, answering, and view policies.

dynrefer benchmark data --output /data/benchmark
dynrefer benchmark loader --output /data/benchmark
dynrefer benchmark predict --output /data/benchmark
dynrefer benchmark policies --output /data/benchmark
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.lab import benchmark_policies
from lavis_dynrefer.lab.benchmarks import generated_visual_genome
from lavis_dynrefer.lab.benchmarks.answer_speed import measure_predict
from lavis_dynrefer.lab.benchmarks.data_layer import measure_data
from lavis_dynrefer.lab.benchmarks.machine import describe_machine
from lavis_dynrefer.lab.benchmarks.training_loader import measure_loader

_COLUMNS = {
    "train": "training split",
    "sample_tables": "sample",
    "sample_released": "sample, pycocotools",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer benchmark`."""
    names = parser.add_subparsers(dest="name", required=True)
    data = names.add_parser("data", help="annotations: raw files to tables, tables to regions")
    data.add_argument("--images", type=int, default=generated_visual_genome.IMAGES)
    mean = generated_visual_genome.REGIONS / generated_visual_genome.IMAGES
    data.add_argument("--regions-per-image", type=float, default=mean)
    data.add_argument(
        "--sample", type=int, default=200_000, help="regions to compare with pycocotools"
    )
    loader = names.add_parser("loader", help="images: regions per second in training")
    loader.add_argument("--images", type=int, default=200, help="to paint")
    loader.add_argument("--regions", type=int, default=2000, help="to load, per setting")
    predict = names.add_parser("predict", help="the embedded model: ms per region on one core")
    predict.add_argument("--repeats", type=int, default=25, help="of each measurement")
    policies = names.add_parser("policies", help="what views are worth: trains 12 tiny models")
    benchmark_policies.add_arguments(policies)
    for one in (data, loader, predict, policies):
        one.add_argument("--output", type=Path, required=True, help="folder for all files made")


def run(arguments: argparse.Namespace) -> int:
    """Measure; returns the exit code."""
    hidden = ("command", "name", "output")
    options = {key: value for key, value in vars(arguments).items() if key not in hidden}
    for option, value in options.items():
        if not isinstance(value, str) and value <= 0:
            raise InputError(f"--{option.replace('_', '-')}: expected more than 0, got {value}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    console = Console()
    if arguments.name == "data":
        results = measure_data(
            arguments.output,
            images=arguments.images,
            regions=round(arguments.images * arguments.regions_per_image),
            sample=arguments.sample,
        )
        tables = [_preparing(results), _reading(results)]
    elif arguments.name == "loader":
        results = measure_loader(
            arguments.output, images=arguments.images, regions=arguments.regions
        )
        tables = [_loading(results), _stages(results)]
    elif arguments.name == "policies":
        results, tables = benchmark_policies.measure(arguments)
    else:
        results = measure_predict(repeats=arguments.repeats)
        tables = [_answering(dtype, batches) for dtype, batches in results.items()]
    for table in tables:
        console.print(table)
    path = arguments.output / f"benchmark_{arguments.name}.json"
    report = {"machine": machine, "options": options, "results": results}
    path.write_text(json.dumps(report, indent=2), encoding="utf-8")
    console.print(f"report: {path}", soft_wrap=True)
    return 0


def _preparing(results: dict[str, Any]) -> Table:
    step = results["prepare"]
    kept, dropped = step["regions"].values(), step["dropped"].values()
    table = Table("preparing", "", title="raw files to tables")
    table.add_row("regions kept", f"{sum(kept):,}")
    table.add_row("regions dropped", f"{sum(sum(reasons.values()) for reasons in dropped):,}")
    table.add_row("raw files", _megabytes(step["raw_bytes"]))
    table.add_row("tables", _megabytes(step["table_bytes"]))
    table.add_row("time", _time(step, 0))
    table.add_row("most memory", _memory(step["peak"]))
    return table


def _reading(results: dict[str, Any]) -> Table:
    table = Table("reading", *_COLUMNS.values(), title="tables to regions")
    for label, show in {
        "regions": lambda step: f"{step['regions']:,}",
        "memory before": lambda step: _memory(step["before"]),
        "open": lambda step: _time(step["open"], 2),
        "memory when opened": lambda step: _memory(step["opened"]),
        "after random reads": lambda step: _memory(step["after_reads"]),
        "number of these reads": lambda step: f"{step['reads']:,}",
        "random regions/s": lambda step: f"{step['random']:,.0f}",
        "regions/s in a row": lambda step: f"{step['in_a_row']:,.0f}",
        "4 forked workers, each its own": lambda step: _each(step["workers"], "private"),
        "4 forked workers, with their part of shared pages": lambda step: _each(
            step["workers"], "share"
        ),
        "sent to a spawned worker": lambda step: f"{step['pickled']:,} bytes",
    }.items():
        table.add_row(label, *(show(results[name]) for name in _COLUMNS))
    return table


def _loading(results: dict[str, Any]) -> Table:
    table = Table("regions_per_image", "regions/s of a core", "ratio", title="training loader")
    first = next(iter(results["loader"].values()))
    for group, speed in results["loader"].items():
        table.add_row(str(group), f"{speed:.0f}", f"{speed / first:.2f}")
    return table


def _stages(results: dict[str, Any]) -> Table:
    size = results["image_bytes"] / 1e3
    table = Table("step", "ms of a core", title=f"where it goes; JPEGs of {size:.0f} kB")
    for step, milliseconds in results["stages"].items():
        table.add_row(step, f"{milliseconds:.2f}")
    return table


def _answering(dtype: str, batches: dict[str, Any]) -> Table:
    columns = [f"batch {size}" for size in batches]
    table = Table("part", *columns, title=f"ms per region (of a core), {dtype}")
    for part in next(iter(batches.values())):
        spent = [parts[part] for parts in batches.values()]
        table.add_row(part, *(f"{one['ms']:.2f} ({one['cpu_ms']:.2f})" for one in spent))
    return table


def _time(spent: dict[str, float], digits: int) -> str:
    return f"{spent['seconds']:.{digits}f} s ({spent['cpu_seconds']:.{digits}f} s of a core)"


def _memory(found: dict[str, int]) -> str:
    own, files = found["anonymous"], found["file"]
    return f"{_megabytes(found['resident'])} ({own / 1e6:.0f} own, {files / 1e6:.0f} of files)"


def _each(workers: list[dict[str, int]], kind: str) -> str:
    return _megabytes(sum(worker[kind] for worker in workers) / len(workers))


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
