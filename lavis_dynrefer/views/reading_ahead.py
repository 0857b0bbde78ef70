"""Images opened and cropped by reader threads, a few ahead of the model."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from lavis_dynrefer.views.policies import RandomScales
from lavis_dynrefer.views.samples import Sample
from lavis_dynrefer.views.view_processor import ViewProcessor

READERS = min(4, os.cpu_count() or 1)
ReadImage = Callable[[], tuple[Image.Image, Tensor]]  # an RGB image and its checked boxes


def read_ahead(
    jobs: Iterable[ReadImage], processor: ViewProcessor, chunk: int
) -> Iterator[tuple[int, Iterator[Sample]]]:
    """Read images in the order of the jobs, at most 2 * READERS + 1 ahead of the caller.

    Args:
        jobs: taken by the calling thread, called in reader threads.
        processor: crops the views.
        chunk: most regions in a sample.

    Returns:
        For each image the number of its boxes, and its samples; those after the first are cropped
        one by one, each while the one before it is in use, to save memory. The error of a job is
        raised in its turn.
    """
    # Random scales come from one generator: the order of several threads would be chance.
    readers = 1 if isinstance(processor.policy, RandomScales) else READERS
    pending: deque[Future[_Reading]] = deque()
    with ThreadPoolExecutor(readers, thread_name_prefix="reader") as pool:
        try:
            for job in jobs:
                pending.append(pool.submit(_begin, job, processor, chunk))
                if len(pending) > 2 * readers:
                    yield _finish(pending.popleft().result(), processor, pool)
            while pending:
                yield _finish(pending.popleft().result(), processor, pool)
        finally:  # the caller has stopped early, or a job has failed
            for future in pending:
                future.cancel()


@dataclass(frozen=True)
class _Reading:
    """An image, its first sample, and the boxes of the others; no sample without boxes."""

    count: int
    image: Image.Image
    first: Sample | None
    rest: tuple[Tensor, ...]


def _begin(job: ReadImage, processor: ViewProcessor, chunk: int) -> _Reading:
    image, boxes = job()
    first, *rest = (boxes[start : start + chunk] for start in range(0, max(len(boxes), 1), chunk))
    sample = processor.crop(image, first) if len(boxes) else None
    return _Reading(len(boxes), image, sample, tuple(rest))


def _finish(
    reading: _Reading, processor: ViewProcessor, pool: ThreadPoolExecutor
) -> tuple[int, Iterator[Sample]]:
    def samples() -> Iterator[Sample]:
        sample = reading.first
        for part in reading.rest:
            following = pool.submit(processor.crop, reading.image, part)
            if sample is not None:
                yield sample
            sample = following.result()
        if sample is not None:
            yield sample

    return reading.count, samples()
