"""Describe regions of images: captions, tags, attributes and categories.

dynrefer predict photo.jpg --box 10,20,110,220
dynrefer predict photos/ --boxes boxes.json --output answers --format coco,csv --draw
dynrefer predict photo.jpg --box 10,20,110,220 --output answers --explain
dynrefer predict photos/ --whole-image --attributes wet,dry --categories @names.txt --output out
dynrefer predict photo.jpg --point 60,120 --sam weights/sam-vit-base --tags @tags.txt

Exit code 0: all is answered. 2: the call is wrong. 3: images could not be read or their boxes
not be used; they are listed, the others are answered. 130: stopped by Ctrl-C; the same command
goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lavis_dynrefer.cli.predict.predict_explain import EXPLAINED, explain_results
from lavis_dynrefer.cli.predict.predict_images import ImageFile, find_images
from lavis_dynrefer.cli.predict.predict_output import (
    ANNOTATED,
    MOST_ROWS,
    draw_results,
    open_log,
    printable,
    table,
)
from lavis_dynrefer.cli.predict.predict_questions import (
    add_question_arguments,
    questions_of,
    settings_of,
    typed_words,
)
from lavis_dynrefer.cli.predict.predict_regions import (
    RegionFinder,
    add_region_arguments,
    check_region_arguments,
    region_finder,
)
from lavis_dynrefer.cli.predict.predict_run import PredictRun, still_to_do
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats import FORMATS, ResultLog, write_results
from lavis_dynrefer.predictor import RegionPredictor

EXIT_SOME_FAILED = 3
EXIT_STOPPED = 130  # as the shell says of a command ended by Ctrl-C
_BLANK = Image.new("RGB", (8, 8))
FAILURES = "failures.json"
_LISTED = 20  # names in a list on the terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer predict`."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--recursive", action="store_true", help="look into folders of folders")
    add_region_arguments(parser)
    add_question_arguments(parser)
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="new, or of an earlier run")
    parser.add_argument(
        "--format",
        default="",
        metavar="FORMAT,FORMAT",
        help=f"out of {', '.join(FORMATS)}; without --output one of them, to the standard output",
    )
    parser.add_argument("--draw", action="store_true", help="also annotated images")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="also a page per image: the views, and what each contributes",
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="skip what --output has answers to; --no-resume begins anew",
    )


def run(arguments: argparse.Namespace) -> int:
    """Predict; returns the exit code."""
    formats = _formats(arguments)
    check_region_arguments(arguments)
    questions = questions_of(arguments)
    images = find_images(
        arguments.images, recursive=arguments.recursive, leave_out=arguments.output
    )
    find, with_boxes, notes = region_finder(arguments, images)
    load = _loader(arguments)
    scratch = tempfile.TemporaryDirectory() if arguments.output is None else None
    with scratch or nullcontext(str(arguments.output)) as place:
        folder = Path(place)
        log = open_log(folder, settings_of(arguments, questions), resume=arguments.resume)
        to_do = still_to_do(with_boxes, log, find)
        try:
            failures = _answer(load, questions, find, to_do, log)
            if arguments.output is None:
                _show(log, formats)
            else:
                written = [log.path, *write_results(log, folder, formats)]
                anew = {image.name for image in to_do}
                if arguments.draw:
                    drawings = draw_results(log, folder / ANNOTATED, anew=anew)
                    failures.update(_follow("drawings", drawings, len(log)))
                    written.append(folder / ANNOTATED)
                if arguments.explain:
                    pages = explain_results(
                        log, folder / EXPLAINED, predictor=load, questions=questions, anew=anew
                    )
                    failures.update(_follow("pages", pages, len(log)))
                    written.append(folder / EXPLAINED)
                _keep_failures(failures, folder)
                _summarise(log, folder, written)
        except KeyboardInterrupt:
            cure = "; the same command goes on from there" if arguments.output else ""
            _note(f"stopped with {len(log):,} of {len(with_boxes):,} images answered{cure}")
            return EXIT_STOPPED
    for note in notes:
        _note(note)
    _list_failures(failures)
    return EXIT_SOME_FAILED if failures else 0


def _loader(arguments: argparse.Namespace) -> Callable[[], RegionPredictor]:
    """What loads the model once it is needed."""

    @cache
    def load() -> RegionPredictor:
        return RegionPredictor(
            arguments.model, device=arguments.device, checkpoint=arguments.checkpoint
        )

    return load


def _answer(
    load: Callable[[], RegionPredictor],
    questions: Mapping[str, Any],
    find: RegionFinder,
    images: Sequence[ImageFile],
    log: ResultLog,
) -> dict[str, str]:
    """Put the answers into the log; returns image -> reason for those that have none."""
    if not images:
        return {}
    with redirect_stdout(sys.stderr):  # libraries talk, and the results may go there
        predictor = load()
        for _ in predictor.look(_BLANK, [[0, 0, 8, 8]], views=questions["views"]):
            pass  # an unknown policy stops here, and not at every image
        job = PredictRun(predictor, find, questions)
        with _progress() as progress:
            bar = progress.add_task("images", total=len(images))
            for done, result in enumerate(job.answers(images), start=1):
                try:
                    log.append(result)
                except ValueError as error:  # nan, of a broken checkpoint
                    job.failures[result.image] = f"answers that are no numbers: {error}"
                progress.update(bar, completed=done + len(job.failures))
            progress.update(bar, completed=len(images))
    log.compact()
    return job.failures


def _show(log: ResultLog, formats: Sequence[str]) -> None:
    """Results on the standard output: in the format asked for, or as a table."""
    if not formats:
        _print_table(log)
        count = sum(len(result.regions) for result in log)
        if count > MOST_ROWS:
            _note(f"{count - MOST_ROWS:,} more regions; --output FOLDER keeps them")
        return
    (path,) = write_results(log, log.path.parent, formats)
    with path.open(encoding="utf-8", newline="") as lines:
        sys.stdout.writelines(lines)


def _follow(what: str, done: Iterable[tuple[str, str | None]], total: int) -> dict[str, str]:
    """Make something of every image; returns image -> reason where that failed."""
    failures = {}
    with redirect_stdout(sys.stderr), _progress() as progress:  # the model may be loaded
        bar = progress.add_task(what, total=total)
        for name, reason in done:
            if reason is not None:
                failures[name] = reason
            progress.advance(bar)
    return failures


def _keep_failures(failures: Mapping[str, str], folder: Path) -> None:
    """Image -> reason as json; no file where there are none."""
    if not failures:
        (folder / FAILURES).unlink(missing_ok=True)
        return
    rows = json.dumps(failures, indent=1)
    (folder / FAILURES).write_text(rows + "\n", encoding="utf-8")


def _summarise(log: ResultLog, folder: Path, written: Sequence[Path]) -> None:
    count = sum(len(result.regions) for result in log)
    if count <= MOST_ROWS:
        _print_table(log)
    names = dict.fromkeys(path.relative_to(folder).as_posix() for path in written)
    print(f"images: {len(log):,}, regions: {count:,}")
    print(f"in {printable(str(folder))}: {', '.join(names)}")


def _print_table(log: ResultLog) -> None:
    if any(result.regions for result in log):
        Console().print(table(log))


def _list_failures(failures: Mapping[str, str]) -> None:
    if failures:
        _note(f"images without an answer or a drawing: {len(failures):,}")
    for name, reason in list(failures.items())[:_LISTED]:
        _note(f"  {name}: {reason}")
    if len(failures) > _LISTED:
        _note(f"  and {len(failures) - _LISTED:,} more")


def _note(text: str) -> None:
    sys.stderr.write(printable(text) + "\n")


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _formats(arguments: argparse.Namespace) -> list[str]:
    formats = typed_words(arguments.format)
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise InputError(f"--format: expected some of {', '.join(FORMATS)}, got {unknown}")
    if arguments.output is None:
        for option in ("draw", "explain"):
            if getattr(arguments, option):
                raise InputError(f"--{option} needs --output")
        if sum(len(FORMATS[name]) for name in formats) > 1:
            raise InputError(
                f"--format {arguments.format}: without --output expected one format of one file"
            )
    return formats
