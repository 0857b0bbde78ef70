"""Teach the embedded model new objects with 200 boxes, and grade it before and after.

The boxes are drawn into OUTPUT/data as a user would write them: a json in COCO's layout for each
split, and a folder of images. --data takes such a folder of your own instead. Everything else is
done by LAVIS's own commands, which are printed; their logs are kept.
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
from functools import partial
from pathlib import Path

from rich.console import Console

from lavis_dynrefer.cli.quickstart.answer_images import draw_before_after
from lavis_dynrefer.cli.quickstart.answer_table import comparison_table
from lavis_dynrefer.cli.quickstart.answers_before_after import read_answers, read_region_sets
from lavis_dynrefer.cli.quickstart.lavis_process import LoggedCommand, last_lines, run_logged
from lavis_dynrefer.cli.quickstart.progress_lines import ProgressLines
from lavis_dynrefer.cli.stopping import stop_on_signals
from lavis_dynrefer.cores import available_cores
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.host.compat import require_lavis
from lavis_dynrefer.paths import project_path
from lavis_dynrefer.synthetic.lesson.lesson_files import TAGS, write_lesson

RUN_FILE = "dynrefer/quickstart.yaml"
DRAWN = "data"  # folder of the boxes, in the output folder
RUNS = {"before": "lavis.evaluate", "after": "lavis.train"}  # folder -> what makes it
TAUGHT = "new_captions"  # split of the run file
_NAMED = "new_categories"  # the same regions, asked for their categories
# As the shell of the system wants it.
_QUOTE = subprocess.list2cmdline if os.name == "nt" else shlex.join


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer quickstart`."""
    parser.add_argument(
        "--output", type=Path, default=Path("quickstart"), help="folder of everything it makes"
    )
    parser.add_argument(
        "--data", type=Path, help="folder of your own train.json, test.json and images/"
    )
    parser.add_argument(
        "--options", nargs="+", default=[], help="settings of the run, as in LAVIS: run.max_epoch=1"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=max(1, available_cores() // 2),  # two runs at the same time
        help="CPU threads of each run",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the quickstart; returns the exit code of the first command that failed, else 0."""
    require_lavis("dynrefer quickstart")
    console = Console(markup=False, emoji=False)  # paths may look like either
    given = None if arguments.data is None else _own_data(arguments.data)
    output: Path = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    start = time.time()
    with stop_on_signals():
        data = given or _draw_data(console, output / DRAWN)
        options = [*_data_options(data), *arguments.options]
        code, folders = _run_lavis(console, output, options, threads=arguments.threads)
        if code:
            return code
        before, after = folders
        splits = read_answers(read_region_sets(project_path(RUN_FILE), options), before, after)
        console.print(comparison_table(splits))
        for split in splits:
            if split.name == TAUGHT:
                draw_before_after(split).save(output / "before_after.png")
                _tell(console, "test images, before and after", output / "before_after.png")
        _tell(console, "reports, answers, checkpoint", after)
        _tell(console, "what it was taught", data)
        if given is None:
            console.print("the same with yours: dynrefer quickstart --data FOLDER", highlight=False)
        console.print(f"{time.time() - start:.0f} s")
    return 0


def _own_data(folder: Path) -> Path:
    data = folder.resolve()
    absent = [name for name in ("train.json", "test.json") if not (data / name).is_file()]
    if absent:
        raise InputError(
            f"--data: expected train.json and test.json in {data}, {absent} missing; "
            "docs/train_on_your_data.md says what they contain"
        )
    return data


def _draw_data(console: Console, data: Path) -> Path:
    with ProgressLines(console) as lines:
        write_lesson(data, progress=lambda done, total: lines.show("drawing boxes", done, total))
    _tell(console, "boxes of new objects", data)
    return data


def _data_options(data: Path) -> list[str]:
    """Settings of a run for the files of a folder, and for this machine."""
    from lavis_dynrefer.training.run_config import load_run_config

    options = [f"datasets.custom_region.build_info.root={data}"]
    if (data / TAGS).is_file():
        options.append(f"model.tagging.vocabulary={data / TAGS}")
    if not _has_categories(data / "test.json"):
        graded = load_run_config(project_path(RUN_FILE)).run_cfg.test_splits
        options.append(f"run.test_splits=[{','.join(name for name in graded if name != _NAMED)}]")
    return [*options, *_number_format()]


def _has_categories(file: Path) -> bool:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["annotations"]
        return any("category_id" in row for row in rows)
    except (ValueError, KeyError, TypeError):  # the run says what is wrong with it
        return False


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
    console: Console, output: Path, options: Sequence[str], *, threads: int
) -> tuple[int, list[Path]]:
    """Evaluate the model and train it, side by side.

    Returns:
        The exit code, and the folders of the two runs; none if one of them failed.
    """
    # Unlimited, torch's threads compete with the data loader on small machines.
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    jobs, earlier = [], []
    with ProgressLines(console) as lines:
        for name, module in RUNS.items():
            root, log = output / name, output / f"{name}.log"
            command = [sys.executable, "-m", module, "--cfg-path", project_path(RUN_FILE)]
            command += ["--options", *options, f"run.output_dir={root}"]
            console.print("$", _QUOTE(["python", *command[1:]]), soft_wrap=True, highlight=False)
            _tell(console, "  log", log)
            watch = partial(lines.read, run=f"{name}: ", bar=name == "after")
            jobs.append(LoggedCommand(command, log, watch))
            earlier.append(_folders(root))
        codes = run_logged(jobs, environment=environment)
    for code, module, job in zip(codes, RUNS.values(), jobs):
        if code:
            for line in last_lines(job.log):
                console.print(f"  {line}", soft_wrap=True, highlight=False)
            failed = f"{module} failed with exit code {code}; its log is {job.log}"
            console.print(failed, soft_wrap=True)
            return code, []
    # LAVIS names the folder of a run after the time.
    return 0, [max(_folders(output / name) - found) for name, found in zip(RUNS, earlier)]


def _folders(root: Path) -> set[Path]:
    return {path for path in root.iterdir() if path.is_dir()} if root.is_dir() else set()


def _tell(console: Console, what: str, path: Path) -> None:
    console.print(f"{what}: {path}", soft_wrap=True, highlight=False)
