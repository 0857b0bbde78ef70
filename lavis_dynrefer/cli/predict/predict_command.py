"""Describe regions of images: captions, tags, attributes and categories.

dynrefer predict photo.jpg --box 10,20,110,220
dynrefer predict photos/ --boxes boxes.json --output answers --format coco,csv --draw
dynrefer predict photos/ --boxes boxes.json --output answers.json
dynrefer predict photo.jpg --box 10,20,110,220 --output answers --explain
dynrefer predict photos/ --whole-image --attributes wet,dry --categories @names.txt --output out
dynrefer predict photo.jpg --point 60,120 --sam weights/sam-vit-base --tags @tags.txt

Exit code 0: every image is answered. 2: invalid call. 3: some images could not be read or have
invalid boxes; these are listed, the others answered. 4: the GPU is lost. 5: one of several
processes has ended. 130: stopped by Ctrl-C, 143: by a signal. After 4, 5, 130 and 143 the same
command continues.

torchrun --nproc_per_node=8 -m lavis_dynrefer.cli predict ... shares the images among processes, and
so does srun; see docs/distributed.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from lavis_dynrefer.cli.model_arguments import add_model_arguments, at_least, check_model
from lavis_dynrefer.cli.predict.predict_questions import add_question_arguments, split_at_commas
from lavis_dynrefer.cli.predict.ranks.rank_variables import find_rank
from lavis_dynrefer.cli.stopping import exit_code, stop_on_signals
from lavis_dynrefer.cores import available_cores, limit_cores
from lavis_dynrefer.errors import EXIT_DEVICE_LOST

if TYPE_CHECKING:
    from lavis_dynrefer.cli.predict.output_target import OutputTarget
    from lavis_dynrefer.cli.predict.predict_job import PredictJob
    from lavis_dynrefer.cli.predict.predict_run import PredictRun


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
    output.add_argument(
        "--rank-timeout",
        type=at_least(10),
        default=300,
        metavar="SECONDS",
        help="under torchrun or srun: after which a process is taken for dead that has not shown "
        "itself in --output; default 300",
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
    rank = find_rank(os.environ)
    if rank is not None:
        limit_cores(rank.share_of_cores(available_cores()))
    # Imported here, so that --help does not wait for torch.
    from lavis_dynrefer.cli.predict.output_target import OutputTarget
    from lavis_dynrefer.cli.predict.predict_regions import check_region_options

    target = OutputTarget.of(arguments, split_at_commas(arguments.format))
    check_region_options(arguments)
    if rank is not None:
        from lavis_dynrefer.cli.predict.ranks.rank_run import run_as_rank

        return run_as_rank(arguments, target, rank)
    return _run_alone(arguments, target)


def _run_alone(arguments: argparse.Namespace, target: OutputTarget) -> int:
    from lavis_dynrefer.cli.predict.output_folder import open_log
    from lavis_dynrefer.cli.predict.predict_job import EXIT_SOME_FAILED, PredictJob

    job = PredictJob.of(arguments, target)
    with target.folder() as folder:
        if not folder.exists():  # it is not made for a model that cannot be loaded
            check_model(arguments)
        with open_log(folder, job.settings, resume=arguments.resume) as log:
            run = job.run(log, folder, log.names())
            code = _answer(job, run)
    if code in (0, EXIT_SOME_FAILED):
        target.clean()
        job.tell_rest(run)
    return code


def _answer(job: PredictJob, run: PredictRun) -> int:
    """Answer, then report on the files or print the results; returns the exit code."""
    from lavis_dynrefer.cli.predict.predict_report import note
    from lavis_dynrefer.cli.predict.predict_run import still_to_do
    from lavis_dynrefer.models.device_errors import device_loss

    log = run.log
    cure = "; run the same command again to continue" if job.target.keeps_rows else ""
    try:
        with redirect_stdout(sys.stderr):  # libraries print, and results may go to stdout
            run.answer(still_to_do(job.images, log, job.find))
            log.compact(job.images)
            written = job.target.write(log)
            run.complete(log)
    except KeyboardInterrupt as stop:
        note(f"stopped: {len(log):,} images are answered{cure}")
        return exit_code(stop)
    except RuntimeError as error:
        loss = device_loss(error)
        if loss is None or job.arguments.debug:
            raise
        note(f"error: {loss}: {len(log):,} images are answered{cure}")
        return EXIT_DEVICE_LOST
    return job.report(run, log, written)


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
