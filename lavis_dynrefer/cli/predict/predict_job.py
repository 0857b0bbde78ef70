"""What a call of `dynrefer predict` is to do, and the report at its end."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lavis_dynrefer import __version__
from lavis_dynrefer.cli.model_arguments import checkpoint_in_use, load_predictor
from lavis_dynrefer.cli.predict import predict_report as report
from lavis_dynrefer.cli.predict.output_folder import (
    ImageFiles,
    clashing_names,
    keep_failures,
    outdated,
)
from lavis_dynrefer.cli.predict.output_target import OutputTarget
from lavis_dynrefer.cli.predict.predict_images import find_images
from lavis_dynrefer.cli.predict.predict_questions import read_questions
from lavis_dynrefer.cli.predict.predict_regions import (
    RegionFinder,
    region_finder,
    region_settings,
)
from lavis_dynrefer.cli.predict.predict_run import PredictRun
from lavis_dynrefer.formats import ResultLog
from lavis_dynrefer.questions import Questions

EXIT_SOME_FAILED = 3


@dataclass(frozen=True)
class PredictJob:
    """Images, their regions, and the questions about them.

    Args:
        arguments: of the command line.
        target: where answers go.
        questions: about each region.
        images: name -> path.
        find: finds the regions of an image.
        settings: what the answers depend on besides images and boxes, as plain json.
        notes: sentences about what is not used.
    """

    arguments: argparse.Namespace
    target: OutputTarget
    questions: Questions
    images: Mapping[str, Path]
    find: RegionFinder
    settings: Mapping[str, Any]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, arguments: argparse.Namespace, target: OutputTarget) -> PredictJob:
        """What the arguments ask for.

        Raises:
            InputError, MissingFileError: questions, images or boxes that cannot be used.
        """
        questions = read_questions(arguments)
        found, passed_over = find_images(
            arguments.images, recursive=arguments.recursive, leave_out=target.path
        )
        find, images, notes = region_finder(arguments, found)
        settings = {
            "model": arguments.model,
            "checkpoint": file_state(checkpoint_in_use(arguments)),
            **asdict(questions),
            **region_settings(arguments),
        }
        return cls(arguments, target, questions, images, find, settings, (*passed_over, *notes))

    def run(self, log: ResultLog, folder: Path, others: Iterable[str] = ()) -> PredictRun:
        """A run that answers into a log, with drawings and pages in a folder.

        Args:
            log: gets the answers.
            folder: of all files.
            others: names of images that have answers there.
        """
        clashing = clashing_names({*self.images, *others})
        drawings = ImageFiles(folder / "annotated", ".jpg", self.arguments.draw, clashing)
        pages = ImageFiles(folder / "explain", ".html", self.arguments.explain, clashing)
        load = cache(lambda: load_predictor(self.arguments))
        return PredictRun(load, self.find, self.questions, log, drawings, pages)

    def identity(self) -> dict[str, Any]:
        """What must be the same in processes that share this job, as plain json."""
        digest = hashlib.sha256()
        for name, path in self.images.items():
            entry = self.find.entries.get(name)
            row = (name, str(path), entry and (entry.boxes, entry.ids))
            digest.update(repr(row).encode("utf-8", "surrogateescape"))
        settings = {key: _short(value) for key, value in self.settings.items()}
        images = f"{len(self.images):,} images with boxes of checksum {digest.hexdigest()[:8]}"
        return {"version": __version__, "images": images, **settings}

    def report(self, run: PredictRun, log: ResultLog, written: list[Path]) -> int:
        """Report on the files or print the results; returns the exit code.

        Args:
            run: has the failures.
            log: has the answers.
            written: files besides it.
        """
        path = self.target.path
        if path is None:
            report.print_results(log, written)
        elif self.target.is_file:
            report.print_summary(log, path.parent, written)
        else:
            keep_failures(run.failures, path)
            if old := outdated(log, written):
                report.note(f"without the newest answers, as --format does not name them: {old[0]}")
            report.print_summary(log, path, [log.path, *written, *run.folders()])
        return EXIT_SOME_FAILED if run.failures else 0

    def tell_rest(self, run: PredictRun) -> None:
        """List what was not used, and the failures."""
        notes = self.notes
        if "coco" in self.target.formats:  # the only one with numbers of categories
            notes += tuple(self.find.categories.notes())
        for text in notes:
            report.note(text)
        report.list_failures(run.failures)


def file_state(checkpoint: str | None) -> list[Any] | None:
    """Path, size and time of change: a later run may write another checkpoint to the same path."""
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    state = [path.stat().st_size, int(path.stat().st_mtime)] if path.is_file() else []
    return [str(path.absolute()), *state]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"of checksum {hashlib.sha256(text.encode()).hexdigest()}"
