"""Answers about many pictures, one after the other, whatever is wrong with some of them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from lavis_dynrefer.cli.predict_pictures import PictureFile
from lavis_dynrefer.cli.predict_regions import Asked, RegionFinder
from lavis_dynrefer.inputs.pictures import open_picture
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.results import PictureResult, ResultLog
from lavis_dynrefer.structures import RegionPrediction

logger = logging.getLogger(__name__)


@dataclass
class PredictRun:
    """Answers the same questions about the regions of many pictures.

    Args:
        predictor: answers.
        find: the regions of a picture.
        questions: arguments of `RegionPredictor.predict_iter`.
        failures: name of a picture -> why there is no answer; filled while it goes on.
    """

    predictor: RegionPredictor
    find: RegionFinder
    questions: Mapping[str, Any]
    failures: dict[str, str] = field(default_factory=dict)

    def answers(self, pictures: Sequence[PictureFile]) -> Iterator[PictureResult]:
        """The results of all pictures but those that are in `failures` afterwards."""
        to_do = iter(pictures)
        waiting: deque[tuple[PictureFile, tuple[int, int], Asked]] = deque()
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
            for picture, _, _ in waiting:
                yield from self._alone(picture)
            waiting.clear()

    def _pairs(
        self,
        to_do: Iterator[PictureFile],
        waiting: deque[tuple[PictureFile, tuple[int, int], Asked]],
    ) -> Iterator[tuple[Image.Image, Any]]:
        for picture in to_do:
            try:
                image, asked = self._open(picture)
            except Exception as error:  # whatever is wrong with one picture is not the others'
                self._fail(picture, error)
                continue
            waiting.append((picture, image.size, asked))
            yield image, asked.boxes

    def _alone(self, picture: PictureFile) -> Iterator[PictureResult]:
        try:
            image, asked = self._open(picture)
            predictions = self.predictor.predict(
                image, asked.boxes, normalised=False, **self.questions
            )
        except Exception as error:  # see `_pairs`
            self._fail(picture, error)
        else:
            yield _result(picture, image.size, asked, predictions)

    def _open(self, picture: PictureFile) -> tuple[Image.Image, Asked]:
        image = open_picture(picture.path)
        asked = self.find(picture.name, image.size, image)
        if asked is None:
            raise ValueError("its regions could not be found")
        return image, asked

    def _fail(self, picture: PictureFile, error: Exception) -> None:
        logger.debug("%s", picture.path, exc_info=True)
        known = isinstance(error, (ValueError, OSError))
        self.failures[picture.name] = str(error) if known else f"{type(error).__name__}: {error}"


def still_to_do(
    pictures: Sequence[PictureFile], log: ResultLog, find: RegionFinder
) -> list[PictureFile]:
    """The pictures without an answer to these very regions.

    Raises:
        ValueError: the log has a picture of that name from another place.
    """
    return [picture for picture in pictures if not _is_done(picture, log, find)]


def _is_done(picture: PictureFile, log: ResultLog, find: RegionFinder) -> bool:
    row = log.get(picture.name)
    if row is None:
        return False
    if row.path != str(picture.path):
        raise ValueError(
            f"{log.path} has answers about {row.path}, which is called {picture.name!r} like "
            f"{picture.path}; name another --output, or begin anew with --no-resume"
        )
    try:
        asked = find(picture.name, (row.width, row.height), None)
    except (OverflowError, ValueError):  # no such boxes: let it fail again, and be listed
        return False
    if asked is None:  # only the picture tells, and the settings of the run say the rest
        return True
    ids = asked.ids or tuple(range(1, len(asked.boxes) + 1))
    return row.ids == ids and [list(region.box) for region in row.regions] == asked.boxes.tolist()


def _result(
    picture: PictureFile,
    size: tuple[int, int],
    asked: Asked,
    predictions: Sequence[RegionPrediction],
) -> PictureResult:
    return PictureResult(
        picture=picture.name,
        path=str(picture.path),
        width=size[0],
        height=size[1],
        regions=tuple(predictions),
        ids=asked.ids,
        image_id=asked.image_id,
    )
