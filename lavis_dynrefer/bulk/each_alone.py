"""Answers about many images; one that fails does not take the others with it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar, Union

from PIL import Image

from lavis_dynrefer.errors import DynReferError
from lavis_dynrefer.models.device_errors import is_out_of_memory
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.views.regions import Regions

if TYPE_CHECKING:
    from lavis_dynrefer.predictor import RegionPredictor

logger = logging.getLogger(__name__)


class ReadingJob(Protocol):
    """Returns an image and its checked regions; called in a reader thread, maybe twice."""

    def __call__(self) -> tuple[Image.Image, Regions]:  # noqa: D102
        ...


J = TypeVar("J", bound=ReadingJob)
Outcome = Union[Sequence[RegionPrediction], Exception]


def answer_each(
    predictor: RegionPredictor,
    jobs: Iterable[J],
    questions: Questions,
    *,
    across_images: bool = True,
) -> Iterator[tuple[J, Outcome]]:
    """Answer about images; those on their way when one fails are tried again one by one.

    Args:
        predictor: the model.
        jobs: taken as they are needed.
        questions: what `RegionPredictor.check` returned.
        across_images: see `RegionPredictor.answer_iter`.

    Returns:
        Each job in order, with one prediction per box or the error of that image.

    Raises:
        RuntimeError: torch or the GPU failed otherwise than for lack of memory.
    """
    to_do = iter(jobs)
    taken: deque[J] = deque()  # but not answered yet

    def take() -> Iterator[J]:
        for job in to_do:
            taken.append(job)
            yield job

    while True:
        try:
            for regions in predictor.answer_iter(take(), questions, across_images=across_images):
                yield taken.popleft(), regions
            return
        except Exception as error:  # whatever is wrong with one image must not stop the others
            if not taken:
                raise
            raise_if_torch_failed(error)
            logger.debug("one of %d images failed", len(taken), exc_info=True)
        while taken:
            job = taken.popleft()
            yield job, _alone(predictor, job, questions)


def raise_if_torch_failed(error: Exception) -> None:
    """Re-raise errors of torch, such as a GPU that is gone: the next image would fail as well.

    Too little memory is an error of one image, which may have too many regions.
    """
    if isinstance(error, RuntimeError) and not is_out_of_memory(error):
        raise error


def reason(error: Exception) -> str:
    """Why an image failed, as a sentence for a list."""
    known = isinstance(error, (DynReferError, ValueError, OSError))
    return str(error) if known else f"{type(error).__name__}: {error}"


def _alone(predictor: RegionPredictor, job: ReadingJob, questions: Questions) -> Outcome:
    try:
        (regions,) = predictor.answer_iter([job], questions, across_images=False)
    except Exception as error:  # see `answer_each`
        raise_if_torch_failed(error)
        return error
    return regions
