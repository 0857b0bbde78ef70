"""Describe regions of images: captions, tags, attributes and categories.

dynrefer predict photo.jpg --box 10,20,110,220
dynrefer predict photos/ --boxes boxes.json --output answers --format coco,csv --draw
dynrefer predict photos/ --boxes boxes.json --output answers.json
dynrefer predict photo.jpg --box 10,20,110,220 --output answers --explain
dynrefer predict photos/ --whole-image --attributes wet,dry --categories @names.txt --output out
dynrefer predict photo.jpg --point 60,120 --sam weights/sam-vit-base --tags @tags.txt

Exit code 0: every image is answered. 2: invalid call. 3: some images could not be read or have
invalid boxes; these are listed, the others answered. 4: the GPU is lost. 130: stopped by Ctrl-C,
143: by a signal. After 4, 130 and 143 the same command continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_dynrefer.cli.model_arguments import (
    add_model_arguments,
    at_least,
    check_model,
    checkpoint_in_use,
    load_predictor,
)
from lavis_dynrefer.cli.predict.predict_questions import (
    add_question_arguments,
    read_questions,
    split_at_commas,
)
from lavis_dynrefer.cli.stopping import exit_code, stop_on_signals
from lavis_dynrefer.errors import EXIT_DEVICE_LOST

if TYPE_CHECKING:
    from lavis_dynrefer.cli.predict.output_target import OutputTarget
    from lavis_dynrefer.cli.predict.predict_run import PredictRun

EXIT_SOME_FAILED = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer predict`."""
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE_OR_FOLDER",
        help="or a pattern in quotes: 'photos/**/*.jpg'",
    )
    parser.add_argument("--recursive", action="store_true", help="include subfolders")
    _add_region_arguments(parser)
    add_question_arguments(parser)
    add_model_arguments(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER_OR_FILE",
        help="folder, new or of an earlier run; or a new .json, .jsonl or .csv file",
    )
    output.add_argument(
        "--format",
        default="",
        metavar="FORMAT,FORMAT",
        help="some of jsonl, json, coco, csv, excel-csv, label-studio, fiftyone; without --output "
        "one of them, to standard output",
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
        help="skip images that --output has answers for; --no-resume starts over, and replaces "
        "a file",
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
    source.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="json, jsonl or csv, COCO json, or a file or folder of an annotation tool",
    )
    source.add_argument("--whole-image", action="store_true", help="one region: the whole image")
    source.add_argument("--proposals", choices=("rpn",), help="regions proposed by a detector")
    options = parser.add_argument_group("options of regions")
    options.add_argument(
        "--box-format", choices=("xyxy", "xywh"), help="of --box and --boxes; default xyxy"
    )
    options.add_argument(
        "--normalised",
        action=argparse.BooleanOptionalAction,
        help="the same as --box-units fraction; --no-normalised: pixels, however small",
    )
    options.add_argument(
        "--box-units",
        choices=("pixels", "fraction", "percent", "thousandths"),
        help="of --box and --boxes; without it pixels, but what looks like another unit is refused",
    )
    options.add_argument(
        "--images-json", type=Path, help="COCO json with the images of a COCO results list"
    )
    options.add_argument(
        "--proposal-weights", type=Path, help="weight file of a torchvision Faster R-CNN"
    )
    options.add_argument("--proposal-count", type=at_least(1), default=20, help="maximum per image")
    options.add_argument("--sam", type=Path, metavar="FOLDER", help="SAM weights, for --point")


def run(arguments: argparse.Namespace) -> int:
    """Predict; returns the exit code."""
    with stop_on_signals():
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    # Imported here, so that --help does not wait for torch.
    from lavis_dynrefer.cli.predict import predict_report as report
    from lavis_dynrefer.cli.predict.output_folder import ImageFiles, clashing_names, open_log
    from lavis_dynrefer.cli.predict.output_target import OutputTarget
    from lavis_dynrefer.cli.predict.predict_images import find_images
    from lavis_dynrefer.cli.predict.predict_regions import (
        check_region_options,
        region_finder,
        region_settings,
    )
    from lavis_dynrefer.cli.predict.predict_run import PredictRun, still_to_do

    target = OutputTarget.of(arguments, split_at_commas(arguments.format))
    check_region_options(arguments)
    questions = read_questions(arguments)
    found, passed_over = find_images(
        arguments.images, recursive=arguments.recursive, leave_out=target.path
    )
    find, images, notes = region_finder(arguments, found)
    settings = {
        "model": arguments.model,
        "checkpoint": _file_state(checkpoint_in_use(arguments)),
        **asdict(questions),
        **region_settings(arguments),
    }
    with target.folder() as folder:
        if not folder.exists():  # it is not made for a model that cannot be loaded
            check_model(arguments)
        with open_log(folder, settings, resume=arguments.resume) as log:
            clashing = clashing_names({*images, *log.names()})
            drawings = ImageFiles(folder / "annotated", ".jpg", arguments.draw, clashing)
            pages = ImageFiles(folder / "explain", ".html", arguments.explain, clashing)
            load = cache(lambda: load_predictor(arguments))
            job = PredictRun(load, find, questions, log, drawings, pages)
            code = _answer(job, still_to_do(images, log, find), target, debug=arguments.debug)
    if code in (0, EXIT_SOME_FAILED):
        target.clean()
        if "coco" in target.formats:  # the only one with numbers of categories
            notes += find.categories.notes()
        for text in (*passed_over, *notes):
            report.note(text)
        report.list_failures(job.failures)
    return code


def _answer(
    job: PredictRun, images: Mapping[str, Path], target: OutputTarget, *, debug: bool
) -> int:
    """Answer, then report on the files or print the results; returns the exit code."""
    from lavis_dynrefer.cli.predict import predict_report as report
    from lavis_dynrefer.cli.predict.output_folder import keep_failures, outdated
    from lavis_dynrefer.models.device_errors import device_loss

    cure = "; run the same command again to continue" if target.keeps_rows else ""
    try:
        with redirect_stdout(sys.stderr):  # libraries print, and results may go to stdout
            job.answer(images)
            written = target.write(job.log)
            job.complete()
    except KeyboardInterrupt as stop:
        report.note(f"stopped: {len(job.log):,} images are answered{cure}")
        return exit_code(stop)
    except RuntimeError as error:
        loss = device_loss(error)
        if loss is None or debug:
            raise
        report.note(f"error: {loss}: {len(job.log):,} images are answered{cure}")
        return EXIT_DEVICE_LOST
    if target.path is None:
        report.print_results(job.log, written)
    elif target.is_file:
        report.print_summary(job.log, target.path.parent, written)
    else:
        keep_failures(job.failures, target.path)
        if old := outdated(job.log, written):
            report.note(f"without the newest answers, as --format does not name them: {old[0]}")
        report.print_summary(job.log, target.path, [job.log.path, *written, *job.folders()])
    return EXIT_SOME_FAILED if job.failures else 0


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
