"""Draw synthetic scenes, grade the embedded model on them, train it further and grade it again.

Everything happens through LAVIS's own commands, which are printed before they run.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from lavis_dynrefer.pages.region_drawing import contact_sheet, draw_regions
from lavis_dynrefer.paths import project_path
from lavis_dynrefer.structures import RegionPrediction, RegionSet

# What the table shows of each report.
SHOWN = {
    "test": ("map",),
    "synthetic_attributes": ("map",),
    "synthetic_categories": ("acc",),
}
REGIONS_PER_IMAGE = 4
IMAGES = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer quickstart`."""
    parser.add_argument(
        "--output", type=Path, default=Path("quickstart"), help="folder of everything it makes"
    )
    parser.add_argument(
        "--options", nargs="+", default=[], help="settings of the run, as in LAVIS: run.max_epoch=1"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=max(1, (os.cpu_count() or 1) - 1),  # one core cuts the views meanwhile
        help="CPU threads of the training",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the quickstart; returns the exit code of the first command that failed, else 0."""
    console = Console()
    output: Path = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    start = time.time()
    arguments.number_format = fastest_number_format()
    runs = {}
    for name, module in (("before", "lavis.evaluate"), ("after", "lavis.train")):
        runs[name] = output / name
        code = _command(console, module, runs[name], arguments)
        if code:
            return code
    before, after = (_newest(folder) for folder in runs.values())
    console.print(_comparison(before, after))
    images = _images(after, output / "regions.png", arguments.options)
    console.print(f"images of regions and answers: {images}")
    console.print(f"reports, predictions, checkpoint: {after}")
    console.print(f"{time.time() - start:.0f} s")
    return 0


def _command(console: Console, module: str, folder: Path, arguments: argparse.Namespace) -> int:
    """Run a LAVIS command in a process of its own and show it; its log goes to the terminal."""
    command = [
        sys.executable,
        "-m",
        module,
        "--cfg-path",
        project_path("dynrefer/quickstart.yaml"),
        "--options",
        f"run.amp={str(arguments.number_format == 'bf16').lower()}",
        "run.amp_dtype=bf16",
        *arguments.options,
        f"run.output_dir={folder}",
    ]
    console.print("$", shlex.join(["python", *command[1:]]), soft_wrap=True, highlight=False)
    # Torch's threads fight the data loader's on small machines unless their number is set.
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    console.print(f"number format: {arguments.number_format}, {arguments.threads} threads")
    return subprocess.run(command, env=environment, check=False).returncode


def fastest_number_format() -> str:
    """Name "bf16" where this machine multiplies matrices faster so, else "fp32"."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    seconds = {}
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        matrix = torch.ones(512, 512, dtype=dtype)
        matrix @ matrix  # the first product also sets the kernels up
        start = time.perf_counter()
        for _ in range(8):
            matrix @ matrix
        seconds[name] = time.perf_counter() - start
    return "bf16" if seconds["bf16"] < 0.7 * seconds["fp32"] else "fp32"


def _newest(folder: Path) -> Path:
    """The run LAVIS made last under `folder`."""
    return max((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.name)


def _reports(run_folder: Path) -> dict[str, dict[str, Any]]:
    documents = [json.loads(path.read_text()) for path in run_folder.glob("report_*.json")]
    return {document["split"]: document for document in documents}


def _comparison(before: Path, after: Path) -> Table:
    table = Table(title="synthetic scenes: before and after training")
    for column in ("split", "metric", "before", "after"):
        table.add_column(column, justify="right" if column in ("before", "after") else "left")
    first, last = _reports(before), _reports(after)
    for split in (split for split in SHOWN if split in first and split in last):
        for name in SHOWN[split]:
            values = (first[split]["metrics"][name], last[split]["metrics"][name])
            table.add_row(split, name, *(f"{value:.2f}" for value in values))
    log = [json.loads(line) for line in _json_lines(after / "log.txt")]
    losses = [row for row in log if "train_loss" in row]
    for name in ("loss", "loss_caption", "loss_tag", "loss_contrast"):
        ends = (losses[0][f"train_{name}"], losses[-1][f"train_{name}"])
        table.add_row("train", f"{name}, first and last epoch", *(f"{float(v):.3f}" for v in ends))
    return table


def _json_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.startswith('{"')]


def _images(run_folder: Path, path: Path, options: Sequence[str]) -> Path:
    """Draw test regions with reference and answer."""
    report = _reports(run_folder)["test"]
    rows = [json.loads(line) for line in Path(report["predictions"]).read_text().splitlines()]
    answers = {
        row["region_id"]: RegionPrediction.from_dict(row["prediction"])
        for row in rows
        if "prediction" in row
    }
    region_set = _test_regions(options)
    sheets = []
    for image_id in list(region_set.images)[:IMAGES]:
        by_box = {  # the first of the descriptions that share a box
            region.box: region
            for region in reversed(region_set.regions)
            if region.image_id == image_id and region.region_id in answers
        }
        regions = sorted(by_box.values(), key=lambda region: region.region_id)
        regions = regions[:REGIONS_PER_IMAGE]
        lines = [
            f"{answers[region.region_id].caption}\nreference: {region.caption}"
            for region in regions
        ]
        with Image.open(region_set.images[image_id].path) as image:
            sheets.append(draw_regions(image, [region.box for region in regions], lines))
    contact_sheet(sheets, columns=3).save(path)
    return path


def _test_regions(options: Sequence[str]) -> RegionSet:
    """The test split of the run, read again with the same settings."""
    from lavis_dynrefer.datasets.builders import SyntheticBuilder  # imports LAVIS: slow
    from lavis_dynrefer.training.run_config import load_run_config

    config = load_run_config(project_path("dynrefer/quickstart.yaml"), options, evaluate=True)
    dataset = SyntheticBuilder(config.datasets_cfg.synthetic_region).build()["test"]
    return dataset.region_set
