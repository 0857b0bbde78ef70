"""Rows on their way to their answers; a bad row does not stop the others."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from lavis_dynrefer.bulk.answer_columns import RowAnswer
from lavis_dynrefer.bulk.each_alone import Outcome, answer_each, reason
from lavis_dynrefer.bulk.image_sources import load_image
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.reading.box_units import size_problem
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.views.regions import Regions, checked_regions

if TYPE_CHECKING:
    from lavis_dynrefer.predictor import RegionPredictor

logger = logging.getLogger(__name__)

WHOLE_IMAGE = object()  # in place of boxes


@dataclass
class RowJob:
    """A row on its way to its answers.

    Called in a reader thread, it opens the image and checks the boxes. A row that cannot be read
    counts as one without regions, so that it does not spoil a batch.

    Args:
        image: see `load_image`.
        boxes: (R, 4) lists or arrays, or `WHOLE_IMAGE`; an exception is the error of the row.
            None: those of the masks.
        format: see `images.pixel_boxes`.
        normalised: see `images.pixel_boxes`.
        drawn_on: width and height of the image that the boxes were drawn on; None: not known.
        root: see `load_image`.
        masks: R masks, see `images.boxes_of_masks`, each also as json text; None without any.
    """

    image: Any
    boxes: Any
    format: str = "xyxy"
    normalised: bool | None = None
    drawn_on: Any = None
    root: str | None = None
    masks: Any = None
    answer: RowAnswer = field(default_factory=RowAnswer)

    def __call__(self) -> tuple[Image.Image, Regions]:
        """The image and its checked regions."""
        self.answer = RowAnswer()
        kind = "image"
        try:
            image = load_image(self.image, self.root)
            kind = "boxes"
            self.answer = RowAnswer(image.size)
            regions = self._read_regions(image.size)
        except Exception as error:  # whatever is wrong with one row must not stop the others
            self.fail(kind, error)
            return Image.new("RGB", (8, 8)), Regions(torch.zeros(0, 4))
        return image, regions

    def finish(self, outcome: Outcome) -> None:
        """Keep the answers or their error, unless reading failed."""
        if self.answer.error is not None:
            return
        if isinstance(outcome, Exception):
            self.fail("answer", outcome)
        elif all(map(_is_finite, outcome)):
            self.answer = RowAnswer(self.answer.size, tuple(outcome))
        else:
            self.fail("answer", InputError("scores are not finite; is the checkpoint intact?"))

    def fail(self, kind: str, error: Exception) -> None:
        """Keep an error in place of answers."""
        logger.debug("a row failed", exc_info=error)
        text = reason(error).encode("utf-8", "replace").decode()  # Arrow takes no lone surrogates
        self.answer = RowAnswer(self.answer.size, error=text, error_kind=kind)

    def _read_regions(self, size: tuple[int, int]) -> Regions:
        if isinstance(self.boxes, Exception):
            raise self.boxes
        if self.boxes is WHOLE_IMAGE:
            return checked_regions([[0, 0, *size]], None, size, normalised=False)
        masks = None if self.masks is None else [_mask(mask, size) for mask in self.masks]
        if self.boxes is None and masks is not None:
            return checked_regions(None, masks, size)
        if self.boxes is None:
            raise InputError("boxes: they are null; an image without regions has an empty list")
        if self.drawn_on is not None:
            units = "fraction" if self.normalised else None
            if problem := size_problem(_drawn_on(self.drawn_on), size, units):
                raise InputError(problem)
        boxes = _plain(self.boxes)
        return checked_regions(boxes, masks, size, format=self.format, normalised=self.normalised)


def answer_jobs(
    predictor: RegionPredictor,
    jobs: Sequence[RowJob],
    questions: Questions,
    *,
    across_images: bool,
) -> list[RowAnswer]:
    """Answer about rows; each gets its answer or an error. See `answer_each`."""
    for job, outcome in answer_each(predictor, jobs, questions, across_images=across_images):
        job.finish(outcome)
    return [job.answer for job in jobs]


def _mask(value: Any, size: tuple[int, int]) -> Any:
    """A mask of a cell: pixels, or RLE or polygons, which may be written as json."""
    if isinstance(value, np.ndarray) and value.dtype in (np.bool_, np.uint8):
        return value
    if isinstance(value, np.ndarray) and value.dtype != object and value.shape[-2:] == size[::-1]:
        return value
    if not isinstance(value, str):
        return _plain(value)
    try:
        return json.loads(value)
    except ValueError as error:
        raise InputError(f"masks: expected RLE or polygons as json, got {value!r:.60}") from error


def _drawn_on(value: Any) -> tuple[int, int]:
    try:
        width, height = (int(side) for side in value)
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(
            f"image_size: expected width and height in pixels, got {value!r:.100}"
        ) from error
    return width, height


def _plain(value: Any) -> Any:
    """Arrays inside arrays, as pandas has them, as lists."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _is_finite(region: RegionPrediction) -> bool:
    pairs = (*region.tags, *region.attributes, *region.categories)
    scores = [score for _, score in pairs]
    return all(map(math.isfinite, [*scores, region.caption_score or 0.0]))
