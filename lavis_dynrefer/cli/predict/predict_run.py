"""Answers about many images, one after the other, whatever is wrong with some of them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from lavis_dynrefer.cli.predict.predict_images import ImageFile
from lavis_dynrefer.cli.predict.predict_regions import Asked, RegionFinder
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats import ImageResult, ResultLog
from lavis_dynrefer.images.opening import open_image
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.structures import RegionPrediction

logger = logging.getLogger(__name__)


@dataclass
class PredictRun:
    """Answers the same questions about the regions of many images.

    Args:
        predictor: answers.
        find: the regions of an image.
        questions: arguments of `RegionPredictor.predict_iter`.
        failures: name of an image -> why there is no answer; filled while it goes on.
    """

    predictor: RegionPredictor
    find: RegionFinder
    questions: Mapping[str, Any]
    failures: dict[str, str] = field(default_factory=dict)

    def answers(self, images: Sequence[ImageFile]) -> Iterator[ImageResult]:
        """The results of all images but those that are in `failures` afterwards."""
        to_do = iter(images)
        waiting: deque[tuple[ImageFile, tuple[int, int], Asked]] = deque()
        while True:
            answers = self.predictor.predict_iter(
                self._pairs(to_do, waiting), normalised=False, **self.questions
            )
            try:
                for predictions in answers:
                    yield _result(*waiting.popleft(), predictions)
                return
            except Exception as error:  # of one of those waiting; alone each shows whether it is
                if not waiting:
                    raise
                logger.debug("one by one: %s", error, exc_info=True)
            for image, _, _ in waiting:
                yield from self._alone(image)
            waiting.clear()

    def _pairs(
        self,
        to_do: Iterator[ImageFile],
        waiting: deque[tuple[ImageFile, tuple[int, int], Asked]],
    ) -> Iterator[tuple[Image.Image, Any]]:
        for file in to_do:
            try:
                image, asked = self._open(file)
            except Exception as error:  # whatever is wrong with one image is not the others'
                self._fail(file, error)
                continue
            waiting.append((file, image.size, asked))
            yield image, asked.boxes

    def _alone(self, file: ImageFile) -> Iterator[ImageResult]:
        try:
            image, asked = self._open(file)
            predictions = self.predictor.predict(
                image, asked.boxes, normalised=False, **self.questions
            )
        except Exception as error:  # see `_pairs`
            self._fail(file, error)
        else:
            yield _result(file, image.size, asked, predictions)

    def _open(self, file: ImageFile) -> tuple[Image.Image, Asked]:
        image = open_image(file.path)
        asked = self.find(file.name, image.size, image)
        if asked is None:
            raise InputError("its regions could not be found")
        return image, asked

    def _fail(self, image: ImageFile, error: Exception) -> None:
        logger.debug("%s", image.path, exc_info=True)
        known = isinstance(error, (ValueError, OSError))
        self.failures[image.name] = str(error) if known else f"{type(error).__name__}: {error}"


def still_to_do(images: Sequence[ImageFile], log: ResultLog, find: RegionFinder) -> list[ImageFile]:
    """The images without an answer to these very regions.

    Raises:
        ValueError: the log has an image of that name from another place.
    """
    return [image for image in images if not _is_done(image, log, find)]


def _is_done(image: ImageFile, log: ResultLog, find: RegionFinder) -> bool:
    row = log.get(image.name)
    if row is None:
        return False
    if row.path != str(image.path):
        raise InputError(
            f"{log.path} has answers about {row.path}, which is called {image.name!r} like "
            f"{image.path}; name another --output, or begin anew with --no-resume"
        )
    try:
        asked = find(image.name, (row.width, row.height), None)
    except (OverflowError, ValueError):  # no such boxes: let it fail again, and be listed
        return False
    if asked is None:  # only the image tells, and the settings of the run say the rest
        return True
    ids = asked.ids or tuple(range(1, len(asked.boxes) + 1))
    return row.ids == ids and [list(region.box) for region in row.regions] == asked.boxes.tolist()


def _result(
    image: ImageFile,
    size: tuple[int, int],
    asked: Asked,
    predictions: Sequence[RegionPrediction],
) -> ImageResult:
    return ImageResult(
        image=image.name,
        path=str(image.path),
        width=size[0],
        height=size[1],
        regions=tuple(predictions),
        ids=asked.ids,
        image_id=asked.image_id,
    )
