"""Describe regions of images: captions, tags, attributes and categories.

dynrefer predict photo.jpg --box 10,20,110,220
dynrefer predict photos/ --boxes boxes.json --output answers --format coco,csv --draw
dynrefer predict photo.jpg --box 10,20,110,220 --output answers --explain
dynrefer predict photos/ --whole-image --attributes wet,dry --categories @names.txt --output out
dynrefer predict photo.jpg --point 60,120 --sam weights/sam-vit-base --tags @tags.txt

Exit code 0: every image is answered. 2: invalid call. 3: some images could not be read or their
boxes not be used; they are listed, the others are answered. 130: stopped by Ctrl-C; run the same
command again to continue.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_dynrefer.cli.model_arguments import add_model_arguments, load_predictor

# What needs torch is imported in `run`, so that --help is quick.
if TYPE_CHECKING:
    from lavis_dynrefer.predictor import RegionPredictor
    from lavis_dynrefer.questions import Questions

EXIT_SOME_FAILED = 3
EXIT_STOPPED = 130  # as shells report a command ended by Ctrl-C
_WORDS = "WORD,WORD or @FILE"
_QUESTIONS = {  # option -> metavar and help
    "attributes": (_WORDS, "to score; @FILE: one per line, or OVAD's json"),
    "categories": (_WORDS, "to choose from; @FILE: one per line"),
    "tags": (_WORDS, "to tag with; @FILE: one per line"),
    "controls": (_WORDS, "words every caption should mention"),
    "tasks": ("TASK,TASK", "some of caption, tags, attributes, categories; default: all"),
    "views": ("POLICY", "fixed:0,0.5 (scales), task, image or random; default: the model's own"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer predict`."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--recursive", action="store_true", help="include subfolders")
    _add_region_arguments(parser)
    questions = parser.add_argument_group("questions")
    for name, (metavar, meaning) in _QUESTIONS.items():
        questions.add_argument(f"--{name}", metavar=metavar, help=meaning)
    add_model_arguments(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--output", type=Path, metavar="FOLDER", help="new, or of an earlier run")
    output.add_argument(
        "--format",
        default="",
        metavar="FORMAT,FORMAT",
        help="some of jsonl, json, coco, csv, label-studio, fiftyone; without --output one of "
        "them, to standard output",
    )
    output.add_argument("--draw", action="store_true", help="also write annotated images")
    output.add_argument(
        "--explain",
        action="store_true",
        help="also write a page per image: the views, and what each contributes",
    )
    output.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="skip images that --output has answers for; --no-resume starts over",
    )


def _add_region_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("regions, from one of").add_mutually_exclusive_group(
        required=True
    )
    source.add_argument(
        "--box",
        action="append",
        type=lambda text: _numbers(text, 4, "10,20,110,220"),
        metavar="X1,Y1,X2,Y2",
        help="in pixels; may be repeated; write --box=-5,0,9,9 if it starts with a minus",
    )
    source.add_argument(
        "--point",
        action="append",
        type=lambda text: _numbers(text, 2, "60,120"),
        metavar="X,Y",
        help="in pixels, on an object whose box SAM finds; may be repeated; needs --sam",
    )
    source.add_argument("--boxes", type=Path, metavar="FILE", help="json, jsonl, COCO json or csv")
    source.add_argument("--whole-image", action="store_true", help="one region: the whole image")
    source.add_argument("--proposals", choices=("rpn",), help="regions proposed by a detector")
    options = parser.add_argument_group("options of regions")
    options.add_argument(
        "--box-format", choices=("xyxy", "xywh"), help="of --box and --boxes; default xyxy"
    )
    options.add_argument(
        "--normalised",
        action=argparse.BooleanOptionalAction,
        help="boxes are fractions of the image, 0 to 1; --no-normalised: pixels, however small",
    )
    options.add_argument(
        "--images-json", type=Path, help="COCO json with the images of a COCO results list"
    )
    options.add_argument(
        "--proposal-weights", type=Path, help="weight file of a torchvision Faster R-CNN"
    )
    options.add_argument("--proposal-count", type=int, default=20, help="most proposals per image")
    options.add_argument("--sam", type=Path, metavar="FOLDER", help="SAM weights, for --point")


def run(arguments: argparse.Namespace) -> int:
    """Predict; returns the exit code."""
    from lavis_dynrefer.cli.predict import predict_report as report
    from lavis_dynrefer.cli.predict.output_folder import (
        ImageFiles,
        OutputOptions,
        keep_failures,
        open_log,
    )
    from lavis_dynrefer.cli.predict.predict_images import find_images
    from lavis_dynrefer.cli.predict.predict_questions import read_questions
    from lavis_dynrefer.cli.predict.predict_regions import RegionOptions, region_finder
    from lavis_dynrefer.cli.predict.predict_run import PredictRun, still_to_do
    from lavis_dynrefer.formats import write_results

    output = OutputOptions(**_given(arguments, OutputOptions))
    regions = RegionOptions(**_given(arguments, RegionOptions))
    questions = read_questions({name: getattr(arguments, name) for name in _QUESTIONS})
    images = find_images(arguments.images, recursive=arguments.recursive, leave_out=output.output)
    find, asked, notes = region_finder(regions, images, device=arguments.device)
    settings = {
        "model": arguments.model,
        "checkpoint": _file_state(arguments.checkpoint),
        **asdict(questions),
        **regions.settings(),
    }
    load = _loader(arguments, questions)
    scratch = nullcontext(output.output) if output.output else tempfile.TemporaryDirectory()
    with scratch as place:
        folder = Path(place)
        log = open_log(folder, settings, resume=output.resume)
        to_do = still_to_do(asked, log, find)
        drawings = ImageFiles(folder / "annotated", ".jpg", output.draw)
        pages = ImageFiles(folder / "explain", ".html", output.explain)
        job = PredictRun(load, find, questions, log, drawings, pages)
        try:
            with redirect_stdout(sys.stderr):  # libraries print, and results may go to stdout
                job.answer(to_do)
                written = write_results(log, folder, output.formats)
                job.complete()
        except KeyboardInterrupt:
            cure = "; run the same command again to continue" if output.output else ""
            report.note(f"stopped: {len(log):,} of {len(asked):,} images are answered{cure}")
            return EXIT_STOPPED
        if output.output is None:
            report.show(log, written)
        else:
            keep_failures(job.failures, folder)
            written += [files.folder for files in (drawings, pages) if files.wanted]
            report.summarise(log, folder, [log.path, *written])
    for text in notes:
        report.note(text)
    report.list_failures(job.failures)
    return EXIT_SOME_FAILED if job.failures else 0


def _given(arguments: argparse.Namespace, kind: type[Any]) -> dict[str, Any]:
    """The arguments that are fields of a dataclass."""
    return {field.name: getattr(arguments, field.name) for field in fields(kind)}


def _loader(arguments: argparse.Namespace, questions: Questions) -> Callable[[], RegionPredictor]:
    """Loads the model when it is first needed, and checks that it can answer the questions."""

    @cache
    def load() -> RegionPredictor:
        predictor = load_predictor(arguments)
        predictor.check(questions)
        return predictor

    return load


def _file_state(checkpoint: str | None) -> list[Any] | None:
    """Path, size and time of change: a later run may write another checkpoint to the same path."""
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    state = [path.stat().st_size, int(path.stat().st_mtime)] if path.is_file() else []
    return [str(path.absolute()), *state]


def _numbers(text: str, count: int, example: str) -> list[float]:
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise argparse.ArgumentTypeError(
            f"expected {count} numbers separated by commas, such as {example}, got {text!r}"
        )
    return numbers
