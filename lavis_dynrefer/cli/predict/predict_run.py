"""Answers, draws and explains image by image; one bad image does not stop the others."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from lavis_dynrefer.cli.predict.output_folder import ImageFiles
from lavis_dynrefer.cli.predict.predict_images import ImageFile
from lavis_dynrefer.cli.predict.predict_regions import RegionFinder, RegionRequest
from lavis_dynrefer.cli.predict.predict_report import annotated_jpeg, resize_for_drawing
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats import ImageResult, ResultLog
from lavis_dynrefer.images import open_image
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.structures import RegionPrediction

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

    file: ImageFile
    find: RegionFinder
    draw: bool = False
    size: tuple[int, int] = (0, 0)
    image: Image.Image | None = None  # at the size of a drawing: whole ones would fill memory
    request: RegionRequest | None = None
    encoded: EncodedRegions | None = None
    predictions: Sequence[RegionPrediction] = ()
    error: Exception | None = None

    def __call__(self) -> tuple[Image.Image, Tensor]:
        self.error = None
        try:
            image = open_image(self.file.path)
            self.request = self.find(self.file.name, image)
        except Exception as error:  # whatever is wrong with one image must not stop the others
            self.error = error
            return Image.new("RGB", (8, 8)), torch.zeros(0, 4)
        self.size = image.size
        self.image = resize_for_drawing(image) if self.draw else None
        return image, self.request.boxes

    def result(self) -> ImageResult:
        return ImageResult(
            image=self.file.name,
            path=str(self.file.path),
            width=self.size[0],
            height=self.size[1],
            regions=tuple(self.predictions),
            ids=self.request.ids if self.request else (),
            image_id=self.request.image_id if self.request else None,
        )


@dataclass
class PredictRun:
    """Answers the same questions about the regions of many images.

    Args:
        load: returns the predictor; called when it is needed.
        find: finds the regions of an image.
        questions: what is asked about each region.
        log: gets the answers.
        drawings: annotated images.
        pages: pages that explain the answers.
        failures: name of an image -> why it has no answer, drawing or page.
    """

    load: Callable[[], RegionPredictor]
    find: RegionFinder
    questions: Questions
    log: ResultLog
    drawings: ImageFiles
    pages: ImageFiles
    failures: dict[str, str] = field(default_factory=dict)

    def answer(self, images: Sequence[ImageFile]) -> None:
        """Answer questions about images, draw and explain them."""
        if not images:
            return
        self.load().check(self.questions)
        jobs = self._one_by_one(images) if self.pages.wanted else self._in_batches(images)
        with _progress() as progress:
            for job in progress.track(jobs, total=len(images), description="images"):
                self._keep(job)
        self.log.compact()

    def complete(self) -> None:
        """Draw and explain images that were answered earlier, where the file is missing."""
        if self.drawings.wanted or self.pages.wanted:
            with _progress() as progress:
                for result in progress.track(self.log, description="drawings and pages"):
                    if result.image not in self.failures:
                        self._illustrate(result)

    def folders(self) -> list[Path]:
        """The folders of the drawings and pages asked for."""
        return [files.folder for files in (self.drawings, self.pages) if files.wanted]

    def _in_batches(self, images: Sequence[ImageFile]) -> Iterator[_ImageJob]:
        """Batches span images; reader threads open and crop them."""
        to_do = iter(images)
        taken: deque[_ImageJob] = deque()  # but not answered yet

        def jobs() -> Iterator[_ImageJob]:
            for file in to_do:
                taken.append(_ImageJob(file, self.find, self.drawings.wanted))
                yield taken[-1]

        while True:
            try:
                for predictions in self.load().answer_iter(jobs(), self.questions):
                    job = taken.popleft()
                    job.predictions = predictions
                    yield job
                return
            except Exception:  # one of those taken caused it; alone, each shows whether it did
                if not taken:
                    raise
                logger.debug("a batch failed", exc_info=True)
            while taken:
                job = taken.popleft()
                try:
                    job.predictions = next(self.load().answer_iter([job], self.questions))
                except Exception as error:  # see `_ImageJob`
                    job.error = error
                yield job

    def _one_by_one(self, images: Sequence[ImageFile]) -> Iterator[_ImageJob]:
        """Explanations need the encoding: each image is opened, encoded and explained at once."""
        from lavis_dynrefer.explain.explain_page import MOST_REGIONS

        predictor, questions = self.load(), self.questions
        for file in images:
            job = _ImageJob(file, self.find)
            image, boxes = job()
            job.image = image
            explained, rest = boxes[:MOST_REGIONS], boxes[MOST_REGIONS:]
            try:
                job.encoded = predictor.encode(
                    image, explained, normalised=False, views=questions.views
                )
                job.predictions = predictor.answer(job.encoded, questions)
                if len(rest):
                    job.predictions += predictor.predict(
                        image, rest, normalised=False, questions=questions
                    )
            except Exception as error:  # see `_ImageJob`
                job.error = job.error or error
            yield job

    def _keep(self, job: _ImageJob) -> None:
        name = job.file.name
        if job.error is not None:
            self._fail(name, job.error)
            return
        for files in (self.drawings, self.pages):  # of earlier answers
            files.path(name).unlink(missing_ok=True)
        result = job.result()
        try:
            self.log.append(result)
        except ValueError as error:  # nan, from a broken checkpoint
            self._fail(name, error, "scores are not finite: ")
        else:
            self._illustrate(result, job.image, job.encoded)

    def _illustrate(
        self,
        result: ImageResult,
        image: Image.Image | None = None,
        encoded: EncodedRegions | None = None,
    ) -> None:
        """Draw and explain a result, unless its files are there."""
        kinds = ((self.drawings, self._drawing, "drawn"), (self.pages, self._page, "explained"))
        for files, make, done in kinds:
            if not files.wanted or files.path(result.image).exists():
                continue
            try:
                image = image or open_image(result.path)
                files.write(result.image, make(result, image, encoded))
            except Exception as error:  # see `_ImageJob`
                self._fail(result.image, error, f"cannot be {done}: ")

    def _drawing(self, result: ImageResult, image: Image.Image, _: object) -> bytes:
        return annotated_jpeg(image, result)

    def _page(
        self, result: ImageResult, image: Image.Image, encoded: EncodedRegions | None
    ) -> bytes:
        from lavis_dynrefer.explain.explain_page import MOST_REGIONS, explanation_page
        from lavis_dynrefer.explain.explanation import explain

        predictor, questions = self.load(), self.questions
        shown, rest = result.regions[:MOST_REGIONS], result.regions[MOST_REGIONS:]
        predictions: Sequence[RegionPrediction] | None = shown
        if encoded is None:
            boxes = [region.box for region in shown]
            encoded = predictor.encode(image, boxes, normalised=False, views=questions.views)
            if questions.views == "random":  # the answers were given from other views
                predictions = None
        explanations = explain(predictor, encoded, predictions=predictions, questions=questions)
        page = explanation_page(image, explanations, name=result.image, left_out=len(rest))
        return page.encode("utf-8")

    def _fail(self, name: str, error: Exception, what: str = "") -> None:
        logger.debug("%s", name, exc_info=error)
        known = isinstance(error, (ValueError, OSError))
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        self.failures[name] = f"{what}{reason}"


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(console=console, disable=not console.is_terminal)


def still_to_do(images: Sequence[ImageFile], log: ResultLog, find: RegionFinder) -> list[ImageFile]:
    """The images without an answer to these very regions.

    Raises:
        InputError: the log has an image of that name from another place.
    """
    return [image for image in images if not _is_done(image, log, find)]


def _is_done(image: ImageFile, log: ResultLog, find: RegionFinder) -> bool:
    row = log.get(image.name)
    if row is None:
        return False
    if row.path != str(image.path):
        raise InputError(
            f"{log.path} has answers about {row.path}, which is called {image.name!r} like "
            f"{image.path}; name another --output, or start over with --no-resume"
        )
    if find.detect is not None:  # the detector and its settings are those of the run
        return True
    try:
        request = find.given(image.name, (row.width, row.height))
    except (OverflowError, ValueError):  # invalid boxes: let them fail again, and be listed
        return False
    ids = request.ids or tuple(range(1, len(request.boxes) + 1))
    return row.ids == ids and [list(region.box) for region in row.regions] == request.boxes.tolist()
