"""Describe the regions of very many images with Ray, on this machine or on a cluster.

dynrefer predict-many rows.parquet --output answers
dynrefer predict-many shards/ --output answers --workers 8 --gpus-per-worker 1
dynrefer predict-many photos/ --boxes boxes.json --output answers --tasks caption,tags
dynrefer predict-many rows/ --output answers --address head:6379

INPUT is Parquet (columns image and boxes; a file or a folder), shards of WebDataset (.tar files of
images and json), or a folder of images. The answers are Parquet files in the folder --output, a row
for each row of INPUT and in its order; all nodes see both under the same path. A row that cannot be
answered has an error in place of answers. A job that was stopped continues with the same command.

Exit code 0: every row is answered. 2: invalid call. 3: some rows have an error; these are counted,
the others answered. 4: a GPU is lost. 130: stopped by Ctrl-C, 143: by a signal. After 4, 130 and
143 the same command continues.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing, redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_dynrefer.cli.model_arguments import (
    add_model_arguments,
    at_least,
    check_model,
    checkpoint_in_use,
)
from lavis_dynrefer.cli.predict.predict_questions import add_question_arguments, read_questions
from lavis_dynrefer.cli.stopping import exit_code, stop_on_signals
from lavis_dynrefer.errors import EXIT_DEVICE_LOST, InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from lavis_dynrefer.bulk.answer_folder import AnswerCounts
    from lavis_dynrefer.bulk.bulk_predictor import BulkPredictor
    from lavis_dynrefer.bulk.part_answerer import PartAnswerer
    from lavis_dynrefer.bulk.work_parts import Part

EXIT_SOME_FAILED = 3  # as of `dynrefer predict`
_STATE = "_job"  # folder in the output, passed over by readers of Parquet
# Options of regions of `dynrefer predict` that workers do not have.
_NOT_OFFERED = dict.fromkeys(("box", "point", "sam", "proposals", "proposal_weights", "normalised"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer predict-many`."""
    parser.add_argument("input", type=Path, metavar="INPUT", help="a file or a folder, see above")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    rows = parser.add_argument_group("rows")
    rows.add_argument("--image-column", metavar="NAME", help="default image, bytes, path or url")
    rows.add_argument("--boxes-column", default="boxes", metavar="NAME", help="default boxes")
    rows.add_argument("--masks-column", metavar="NAME", help="masks of regions; default: none")
    rows.add_argument(
        "--root",
        metavar="FOLDER",
        help="that relative paths of images begin at; default: where INPUT is",
    )
    rows.add_argument("--boxes", type=Path, metavar="FILE", help="of a folder of images")
    rows.add_argument("--recursive", action="store_true", help="include subfolders of images")
    rows.add_argument("--whole-image", action="store_true", help="one region: the whole image")
    rows.add_argument("--box-format", choices=("xyxy", "xywh"), help="default xyxy")
    rows.add_argument(
        "--box-units",
        choices=("pixels", "fraction", "percent", "thousandths"),
        help="the last two for --boxes only; without it pixels, but fractions are refused",
    )
    rows.add_argument(
        "--images-json", type=Path, help="COCO json with the images of a COCO results list"
    )
    parser.set_defaults(**_NOT_OFFERED)
    add_question_arguments(parser)
    add_model_arguments(parser)
    work = parser.add_argument_group("work")
    work.add_argument(
        "--address", help="of a Ray cluster; default RAY_ADDRESS, else Ray starts on this machine"
    )
    work.add_argument(
        "--workers",
        type=at_least(0),
        metavar="NUMBER",
        help="default: one per GPU, or one; 0: this process answers, without Ray",
    )
    work.add_argument(
        "--cpus-per-worker", type=float, default=1, metavar="NUMBER", help="default 1"
    )
    work.add_argument(
        "--gpus-per-worker", type=float, metavar="NUMBER", help="default 1 where there are GPUs"
    )
    work.add_argument(
        "--batch-size",
        type=at_least(1),
        default=64,
        metavar="ROWS",
        help="that a worker has in memory at once; default 64",
    )
    work.add_argument(
        "--rows-per-part",
        type=at_least(1),
        default=1000,
        metavar="ROWS",
        help="in a file of answers, and lost when a worker dies; default 1000",
    )
    work.add_argument(
        "--across-images",
        action="store_true",
        help="compute regions of several images together: faster, but the last digits of scores "
        "then depend on the neighbours",
    )
    work.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the answers in --output; --no-resume starts over",
    )
    work.add_argument(
        "--retry-errors", action="store_true", help="do parts again that have rows with errors"
    )


def run(arguments: argparse.Namespace) -> int:
    """Answer; returns the exit code."""
    with stop_on_signals():
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from lavis_dynrefer.bulk.answer_folder import clean, count_answers, parts_to_do
    from lavis_dynrefer.bulk.part_answerer import PartAnswerer
    from lavis_dynrefer.bulk.ray_job import require_ray
    from lavis_dynrefer.bulk.work_parts import find_parts
    from lavis_dynrefer.cli.predict.output_folder import SETTINGS, check_settings, read_settings
    from lavis_dynrefer.cli.predict.output_folder import locked as locked_folder
    from lavis_dynrefer.formats.json_stream import replace_bytes

    if arguments.workers != 0:
        require_ray()
    folder = Path(os.path.abspath(arguments.output))
    _check_output(folder, arguments.input)
    predictor = _predictor(arguments)
    check_model(arguments)
    with locked_folder(folder / _STATE):
        if not arguments.resume:
            clean(folder)
        files, predictor, settings = _input(arguments, predictor, folder / _STATE)
        known = folder / _STATE / SETTINGS
        if any(folder.glob("part-*.parquet")):
            check_settings(folder, read_settings(known), settings)
        replace_bytes(known, (json.dumps({"settings": settings}, indent=1) + "\n").encode())
        parts = find_parts(files, arguments.rows_per_part)
        if not parts:
            raise InputError(f"{arguments.input} has no rows")
        answerer = PartAnswerer(
            predictor, str(folder), arguments.batch_size, _columns(parts, predictor)
        )
        left = parts_to_do(parts, folder, retry_errors=arguments.retry_errors)
        start = time.monotonic()
        code = _answer(arguments, answerer, left, len(parts))
        counts = count_answers(parts, folder)
        done = len(parts) - sum(not (folder / part.file_name).is_file() for part in parts)
    _report(counts, folder, done, len(parts), time.monotonic() - start)
    return code or (EXIT_SOME_FAILED if counts.errors else 0)


def _predictor(arguments: argparse.Namespace) -> BulkPredictor:
    from lavis_dynrefer.bulk.bulk_predictor import BulkPredictor

    units = arguments.box_units
    if arguments.boxes is None and units in ("percent", "thousandths"):
        raise InputError(f"--box-units {units} goes with --boxes; other rows: pixels or fraction")
    if arguments.boxes is not None and arguments.whole_image:
        raise InputError("--boxes and --whole-image: give one of the two")
    checkpoint = arguments.checkpoint
    return BulkPredictor(
        read_questions(arguments),
        model_type=_absolute(arguments.model),
        device=arguments.device,
        dtype=arguments.dtype,
        checkpoint=None if checkpoint is None else _absolute(checkpoint),
        chunk=arguments.chunk,
        offload=arguments.offload,
        image=arguments.image_column,
        boxes=arguments.boxes_column,
        masks=arguments.masks_column,
        whole_image=arguments.whole_image,
        format=arguments.box_format or "xyxy",
        normalised=None if units is None else units != "pixels",
        root=arguments.root or str(_place(arguments.input)),
        across_images=arguments.across_images,
    )


def _place(path: Path) -> Path:
    path = Path(os.path.abspath(path))
    return path if path.is_dir() else path.parent


def _absolute(name: str) -> str:
    """The name for workers, which have another current folder."""
    return os.path.abspath(name) if os.path.exists(name) else name


def _check_output(folder: Path, given: Path) -> None:
    if folder == (given := Path(os.path.abspath(given))) or given in folder.parents:
        raise InputError(f"--output {folder} is inside of {given}; name a folder beside it")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: expected a folder, got a file")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _STATE).is_dir():
        raise InputError(f"--output {folder} holds other files; name a new or empty folder")


def _input(
    arguments: argparse.Namespace, predictor: BulkPredictor, state: Path
) -> tuple[list[Path], BulkPredictor, dict[str, Any]]:
    """The files to read, how, and what the answers depend on, as plain json."""
    from lavis_dynrefer.bulk.work_parts import PARQUET, SHARDS, find_files, fingerprint
    from lavis_dynrefer.cli.predict.predict_job import file_state

    path: Path = arguments.input
    kinds = PARQUET + SHARDS
    is_table = path.name.lower().endswith(kinds) or (
        path.is_dir() and any(file.name.lower().endswith(kinds) for file in path.rglob("*"))
    )
    if not is_table:
        files = [state / "rows.parquet"]
        predictor, checksum = _write_images(arguments, predictor, files[0])
    elif arguments.boxes is not None:
        raise InputError("--boxes goes with a folder of images; rows have a column of boxes")
    else:
        files = find_files(path, kinds)
        if len({file.name.lower().endswith(SHARDS) for file in files}) == 2:
            raise InputError(f"{path} holds Parquet files and shards; name files of one kind")
        if predictor.masks is not None and files[0].name.lower().endswith(SHARDS):
            raise InputError("--masks-column goes with Parquet files; shards have no such column")
        checksum = fingerprint(files)
    depends = asdict(predictor)
    for name in ("device", "chunk", "offload", "root"):
        del depends[name]
    depends["checkpoint"] = file_state(checkpoint_in_use(arguments))
    depends.update(rows_per_part=arguments.rows_per_part, input=checksum)
    return files, predictor, json.loads(json.dumps(depends, default=str))


def _write_images(
    arguments: argparse.Namespace, predictor: BulkPredictor, manifest: Path
) -> tuple[BulkPredictor, str]:
    """Write the table of images and boxes; returns how to read it, and its checksum."""
    from lavis_dynrefer.bulk.image_manifest import ImageRow, fractions, write_manifest
    from lavis_dynrefer.bulk.work_parts import digest
    from lavis_dynrefer.cli.predict.predict_images import find_images
    from lavis_dynrefer.cli.predict.predict_regions import region_finder
    from lavis_dynrefer.cli.predict.predict_report import note

    if arguments.boxes is None and not arguments.whole_image:
        raise InputError(
            f"{arguments.input} has no Parquet files or shards, so it is taken as images, which "
            "need --boxes FILE or --whole-image"
        )
    found, passed_over = find_images(
        [arguments.input], recursive=arguments.recursive, leave_out=arguments.output
    )
    finder, images, notes = region_finder(arguments, found)
    for text in (*passed_over, *notes):
        note(text)
    if arguments.whole_image:
        rows = [ImageRow(name, str(path), None) for name, path in images.items()]
    else:
        normalised = None if finder.units is None else finder.units != "pixels"
        predictor = replace(predictor, format=finder.format, normalised=normalised)
        entries = ((name, path, finder.entries[name]) for name, path in images.items())
        rows = [
            ImageRow(
                name,
                str(path),
                fractions(entry.boxes, finder.units),
                finder.ids(name, len(entry.boxes)),
                entry.size,
                finder.masks_of(name),
            )
            for name, path, entry in entries
        ]
    write_manifest(rows, manifest)
    masks = "masks" if any(row.masks for row in rows) else None
    return replace(predictor, image="path", boxes="boxes", masks=masks), digest(rows)


def _columns(parts: Sequence[Part], predictor: BulkPredictor) -> pa.Schema | None:
    """The columns of the first Parquet file that can be read.

    Raises:
        InputError: one is missing, which is found out before the job begins.
    """
    import pyarrow.parquet as pq

    for part in parts:
        if part.error is None and not part.is_shard:
            columns = pq.read_schema(part.path)
            try:
                predictor.schema(columns)
            except InputError as error:
                raise InputError(f"{part.path}: {error}") from error
            return columns
    return None


def _answer(
    arguments: argparse.Namespace, answerer: PartAnswerer, parts: Sequence[Part], count: int
) -> int:
    """Answer the parts that are left; returns the exit code, 0 unless it was stopped."""
    from rich.console import Console
    from rich.progress import Progress

    from lavis_dynrefer.bulk.ray_job import Workers, run_parts
    from lavis_dynrefer.cli.predict.predict_report import note
    from lavis_dynrefer.models.device_errors import device_loss

    if not parts:
        return 0
    workers = Workers(
        arguments.workers,
        arguments.cpus_per_worker,
        arguments.gpus_per_worker,
        arguments.address or os.environ.get("RAY_ADDRESS") or None,
    )
    if workers.count == 0:
        results = (answerer(asdict(part)) for part in parts)
    else:
        results = run_parts(parts, answerer, workers)
    console = Console(stderr=True)
    try:
        with (
            redirect_stdout(sys.stderr),
            closing(results) as answered,
            Progress(console=console, disable=not console.is_terminal) as progress,
        ):
            task = progress.add_task("parts", total=count, completed=count - len(parts))
            for _ in answered:
                progress.advance(task)
    except KeyboardInterrupt as stop:
        note("stopped; run the same command again to continue")
        return exit_code(stop)
    except RuntimeError as error:
        loss = device_loss(error)
        if loss is None or arguments.debug:
            raise
        note(f"error: {loss}; run the same command again to continue")
        return EXIT_DEVICE_LOST
    return 0


def _report(counts: AnswerCounts, folder: Path, done: int, count: int, seconds: float) -> None:
    from lavis_dynrefer.cli.predict.predict_report import note, printable

    good = counts.rows - sum(counts.errors.values())
    print(f"rows: {counts.rows:,}, answered: {good:,}, regions: {counts.regions:,}")
    print(f"seconds: {seconds:,.0f}")
    print(f"in {printable(str(folder))}: {done:,} of {count:,} parts")
    for kind, number in counts.errors.most_common():
        note(f"rows with an error of the {kind}: {number:,}")
        for text in counts.examples[kind]:
            note(f"  {text}")
