"""Answers, draws and explains image by image; one bad image does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from lavis_dynrefer.bulk.each_alone import answer_each, raise_if_torch_failed, reason
from lavis_dynrefer.cli.predict.output_folder import ImageFiles
from lavis_dynrefer.cli.predict.predict_regions import RegionFinder
from lavis_dynrefer.cli.predict.predict_report import annotated_jpeg, resize_for_drawing
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats import ImageResult, ResultLog
from lavis_dynrefer.images import open_image
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.views.regions import Regions, checked_regions

if TYPE_CHECKING:  # a run with nothing left to answer does not load the model
    from lavis_dynrefer.models.answering import EncodedRegions
    from lavis_dynrefer.predictor import RegionPredictor

logger = logging.getLogger(__name__)


@dataclass
class _ImageJob:
    """An image on its way to its answers.

    Called in a reader thread, it opens the image and finds its regions. An image that cannot be
    read counts as one without regions, so that it does not spoil a batch.
    """

    name: str
    path: Path
    find: RegionFinder
    draw: bool = False
    size: tuple[int, int] = (0, 0)
    image: Image.Image | None = None  # at the size of a drawing: whole ones would fill memory
    encoded: EncodedRegions | None = None
    predictions: Sequence[RegionPrediction] = ()
    error: Exception | None = None

    def __call__(self) -> tuple[Image.Image, Regions]:
        self.error = None
        try:
            image = open_image(self.path)
            regions = self.find(self.name, image)
        except Exception as error:  # whatever is wrong with one image must not stop the others
            raise_if_torch_failed(error)  # in a detector
            self.error = error
            return Image.new("RGB", (8, 8)), Regions(torch.zeros(0, 4))
        self.size = image.size
        self.image = resize_for_drawing(image) if self.draw else None
        return image, regions

    def result(self) -> ImageResult:
        result = ImageResult(
            image=self.name,
            path=str(self.path),
            width=self.size[0],
            height=self.size[1],
            regions=tuple(self.predictions),
        )
        return self.find.annotated(result)


@dataclass
class PredictRun:
    """Answers the same questions about the regions of many images.

    Args:
        load: returns the predictor; called when it is needed.
        find: finds the regions of an image.
        questions: what to answer about each region.
        log: gets the answers.
        drawings: annotated images.
        pages: pages that explain the answers.
        failures: name of an image -> why it has no answer, drawing or page.
        shown_as: beside the progress bar; without it there is none.
        on_image: called with the name of each image that is answered or has failed.
    """

    load: Callable[[], RegionPredictor]
    find: RegionFinder
    questions: Questions
    log: ResultLog
    drawings: ImageFiles
    pages: ImageFiles
    failures: dict[str, str] = field(default_factory=dict)
    shown_as: str = "images"
    on_image: Callable[[str], object] = lambda name: None

    def answer(self, images: Mapping[str, Path]) -> None:
        """Answer questions about images, draw and explain them.

        Raises:
            RuntimeError: torch or the GPU failed otherwise than for lack of memory.
        """
        if images:
            self.load().check(self.questions)
            jobs = (
                _ImageJob(name, path, self.find, self.drawings.wanted)
                for name, path in images.items()
            )
            answered = map(self._with_page, jobs) if self.pages.wanted else self._in_batches(jobs)
            with _progress(shown=bool(self.shown_as)) as progress:
                for job in progress.track(answered, total=len(images), description=self.shown_as):
                    self._keep(job)
                    self.on_image(job.name)

    def complete(self, results: Iterable[ImageResult]) -> None:
        """Draw and explain images that were answered earlier, where the file is missing."""
        if self.drawings.wanted or self.pages.wanted:
            with _progress(shown=bool(self.shown_as)) as progress:
                for result in progress.track(results, description="drawings and pages"):
                    if result.image not in self.failures:
                        self._illustrate(result)

    def folders(self) -> list[Path]:
        """The folders of the drawings and pages asked for."""
        return [files.folder for files in (self.drawings, self.pages) if files.wanted]

    def _in_batches(self, jobs: Iterable[_ImageJob]) -> Iterator[_ImageJob]:
        """Batches span images; reader threads open and crop them."""
        for job, outcome in answer_each(self.load(), jobs, self.questions):
            if isinstance(outcome, Exception):
                job.error = job.error or outcome
            else:
                job.predictions = outcome
            yield job

    def _with_page(self, job: _ImageJob) -> _ImageJob:
        """Answer about one image, keeping the encoding that its page needs."""
        from lavis_dynrefer.explain.explain_page import MAX_REGIONS

        predictor, questions = self.load(), self.questions
        image, regions = job()
        try:
            job.image = image
            uses = {"views": questions.views, "masks_as": questions.masks_as}
            job.encoded = predictor.encode_regions(image, regions[:MAX_REGIONS], **uses)
            shown = predictor.answer(job.encoded, questions)
            samples = predictor.crop(image, regions[MAX_REGIONS:], **uses)
            job.predictions = [*shown, *predictor.answer_samples(samples, questions)]
        except Exception as error:  # see `_ImageJob`
            raise_if_torch_failed(error)
            job.error = job.error or error
        return job

    def _keep(self, job: _ImageJob) -> None:
        if job.error is not None:
            self._fail(job.name, job.error)
            return
        for files in (self.drawings, self.pages):  # of earlier answers
            files.path(job.name).unlink(missing_ok=True)
        result = job.result()
        try:
            self.log.append(result)
        except InputError:  # it cannot be written, and neither could the next one
            raise
        except ValueError as error:  # nan, from a broken checkpoint
            self._fail(job.name, error, "scores are not finite: ")
        else:
            self._illustrate(result, job.image, job.encoded)

    def _illustrate(
        self,
        result: ImageResult,
        image: Image.Image | None = None,
        encoded: EncodedRegions | None = None,
    ) -> None:
        """Draw and explain a result, unless its files are there."""
        for files, done in ((self.drawings, "drawn"), (self.pages, "explained")):
            if not files.wanted or files.path(result.image).exists():
                continue
            try:
                image = image or open_image(result.path)
                if files is self.drawings:
                    files.write(result.image, annotated_jpeg(image, result))
                else:
                    files.write(result.image, self._page(result, image, encoded).encode("utf-8"))
            except Exception as error:  # see `_ImageJob`
                raise_if_torch_failed(error)
                self._fail(result.image, error, f"cannot be {done}: ")

    def _page(self, result: ImageResult, image: Image.Image, encoded: EncodedRegions | None) -> str:
        from lavis_dynrefer.explain.explain_page import MAX_REGIONS, explanation_page
        from lavis_dynrefer.explain.explanation import explain

        predictor, questions = self.load(), self.questions
        shown, rest = result.regions[:MAX_REGIONS], result.regions[MAX_REGIONS:]
        predictions: Sequence[RegionPrediction] | None = shown
        if encoded is None:
            corners = [region.box for region in shown]
            masks = result.masks[:MAX_REGIONS] or None
            regions = checked_regions(corners, masks, image.size, normalised=False)
            encoded = predictor.encode_regions(
                image, regions, views=questions.views, masks_as=questions.masks_as
            )
            if questions.views == "random":  # the answers were given from other views
                predictions = None
        explanations = explain(predictor, encoded, predictions=predictions, questions=questions)
        return explanation_page(image, explanations, name=result.image, left_out=len(rest))

    def _fail(self, name: str, error: Exception, what: str = "") -> None:
        logger.debug("%s", name, exc_info=error)
        self.failures[name] = f"{what}{reason(error)}"


def _progress(*, shown: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(console=console, disable=not (shown and console.is_terminal))


def still_to_do(images: Mapping[str, Path], log: ResultLog, find: RegionFinder) -> dict[str, Path]:
    """The images without an answer to these very regions.

    What a file of boxes says beside the boxes may have changed; it is brought up to date.

    Raises:
        InputError: the log has an image of that name from another place.
    """
    to_do = {}
    for name, path in images.items():
        row = log.get(name)
        if row is None or not _is_done(row, path, log, find):
            to_do[name] = path
        elif (current := find.annotated(row)) != row:
            log.append(current)
    return to_do


def _is_done(row: ImageResult, path: Path, log: ResultLog, find: RegionFinder) -> bool:
    name = row.image
    if row.path != str(path):
        raise InputError(
            f"{log.path} has answers about {row.path}, which is called {name!r} like "
            f"{path}; name another --output, or start over with --no-resume"
        )
    if find.detect is not None:  # the detector and its settings are those of the run
        return True
    try:
        boxes = find.given(name, (row.width, row.height)).boxes.tolist()
    except (OverflowError, ValueError):  # invalid boxes: let them fail again, and be listed
        return False
    return (
        row.ids == find.ids(name, len(boxes))
        and row.masks == find.annotated(row).masks
        and [list(region.box) for region in row.regions] == boxes
    )
