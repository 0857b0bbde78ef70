"""Draw synthetic scenes, grade the embedded model on them, train it further and grade it again.

Everything is done by LAVIS's own commands, which are printed before they run.
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

from PIL import Image
from rich.console import Console
from rich.table import Table

from lavis_dynrefer.cores import available_cores
from lavis_dynrefer.host.compat import require_lavis
from lavis_dynrefer.pages.region_drawing import contact_sheet, draw_regions
from lavis_dynrefer.paths import project_path
from lavis_dynrefer.structures import RegionPrediction, RegionSet

RUN_FILE = "dynrefer/quickstart.yaml"
SHOWN = {"test": "map", "synthetic_attributes": "map", "synthetic_categories": "acc"}
REGIONS_PER_IMAGE = 4
IMAGES = 6
# As the shell of the system wants it.
_QUOTE = subprocess.list2cmdline if os.name == "nt" else shlex.join


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
        default=max(1, available_cores() - 1),  # one core crops views meanwhile
        help="CPU threads of the training",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the quickstart; returns the exit code of the first command that failed, else 0."""
    require_lavis("dynrefer quickstart")
    console = Console(markup=False, emoji=False)  # paths may look like either
    output: Path = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    start = time.time()
    options = [*_number_format(), *arguments.options]
    runs = {}
    for name, module in (("before", "lavis.evaluate"), ("after", "lavis.train")):
        folder = output / name
        code = _run_lavis(console, module, folder, options, threads=arguments.threads)
        if code:
            return code
        # LAVIS names the folder of a run after the time.
        runs[name] = max(path for path in folder.iterdir() if path.is_dir())
    console.print(_comparison(**runs))
    after = runs["after"]
    _draw_answers(after, arguments.options).save(output / "regions.png")
    console.print(f"regions and answers: {output / 'regions.png'}", soft_wrap=True)
    console.print(f"reports, predictions, checkpoint: {after}", soft_wrap=True)
    console.print(f"{time.time() - start:.0f} s")
    return 0


def _number_format() -> list[str]:
    """Options that choose the fastest number formats of this machine."""
    from lavis_dynrefer.models.precision import choose_device, fastest_amp_dtype

    device = choose_device("auto")
    fastest = fastest_amp_dtype(device)
    if fastest is None:
        return ["run.amp=false"]
    dtype = "bfloat16" if device.type == "cpu" else "auto"
    return ["run.amp=true", f"run.amp_dtype={fastest}", f"run.dtype={dtype}"]


def _run_lavis(
    console: Console, module: str, folder: Path, options: Sequence[str], *, threads: int
) -> int:
    """Run a LAVIS command in a separate process; its log goes to the terminal."""
    run_file = project_path(RUN_FILE)
    command = [sys.executable, "-m", module, "--cfg-path", run_file, "--options", *options]
    command.append(f"run.output_dir={folder}")
    shown = _QUOTE(["python", *command[1:]])
    console.print("$", shown, soft_wrap=True, highlight=False)
    # Unlimited, torch's threads compete with the data loader on small machines.
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.run(command, env=environment, check=False).returncode


def _comparison(before: Path, after: Path) -> Table:
    table = Table("split", "metric", title="synthetic scenes: before and after training")
    for column in ("before", "after"):
        table.add_column(column, justify="right")
    first, last = _reports(before), _reports(after)
    for split, name in SHOWN.items():
        if split in first and split in last:
            values = (report[split]["metrics"][name] for report in (first, last))
            table.add_row(split, name, *(f"{value:.2f}" for value in values))
    lines = (after / "log.txt").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line) for line in lines if line.startswith('{"') and "train_loss" in line]
    for name in ("loss", "loss_caption", "loss_tag", "loss_contrast"):
        ends = (float(row[f"train_{name}"]) for row in (losses[0], losses[-1]))
        table.add_row("train", f"{name}, first and last epoch", *(f"{value:.3f}" for value in ends))
    return table


def _reports(run_folder: Path) -> dict[str, dict[str, Any]]:
    documents = [
        json.loads(path.read_text(encoding="utf-8")) for path in run_folder.glob("report_*.json")
    ]
    return {document["split"]: document for document in documents}


def _draw_answers(run_folder: Path, options: Sequence[str]) -> Image.Image:
    """Some test regions with reference and answer."""
    predictions = Path(_reports(run_folder)["test"]["predictions"]).read_text(encoding="utf-8")
    rows = (json.loads(line) for line in predictions.splitlines())
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
        regions = sorted(by_box.values(), key=lambda region: region.region_id)[:REGIONS_PER_IMAGE]
        lines = [
            f"{answers[region.region_id].caption}\nreference: {region.caption}"
            for region in regions
        ]
        with Image.open(region_set.images[image_id].path) as image:
            sheets.append(draw_regions(image, [region.box for region in regions], lines))
    return contact_sheet(sheets, columns=3)


def _test_regions(options: Sequence[str]) -> RegionSet:
    """The test split of the run, read again with the same settings."""
    from lavis_dynrefer.training.known_names import dataset_class
    from lavis_dynrefer.training.run_config import load_run_config

    config = load_run_config(project_path(RUN_FILE), options, evaluate=True)
    name = "synthetic_region"
    regions: RegionSet = dataset_class(name)(config.datasets_cfg[name]).read_splits()["test"]
    return regions
