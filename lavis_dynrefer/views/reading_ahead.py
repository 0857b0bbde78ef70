"""Images opened and cropped by reader threads, a few ahead of the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from PIL import Image

from lavis_dynrefer.cores import available_cores
from lavis_dynrefer.views.regions import BoxesOrRegions, Regions, as_regions
from lavis_dynrefer.views.samples import Sample, batches
from lavis_dynrefer.views.view_processor import ViewProcessor

# Most of a crop is Pillow's resizing, during which other threads run. At most 2 * READERS + 1
# samples wait for the model: 1 GB of views with 16 readers and 64 regions in each.
READERS = min(16, available_cores())
_TOGETHER = 16  # regions of one image that a reader crops at once; fewer do not need several
ReadImage = Callable[[], tuple[Image.Image, BoxesOrRegions]]  # an RGB image and its regions


def read_ahead(
    jobs: Iterable[ReadImage], processor: ViewProcessor, chunk: int
) -> Generator[tuple[int, Iterator[Sample]], None, None]:
    """Read images in the order of the jobs, at most 2 * READERS + 1 ahead of the caller.

    Args:
        jobs: taken by the calling thread, called in reader threads.
        processor: crops the views.
        chunk: most regions in a sample.

    Returns:
        For each image the number of its boxes, and its samples; those after the first are cropped
        one by one, each while the one before it is in use, to save memory. An exception in a job
        is raised when its image is due.
    """
    # Random draws come from one generator: several threads would not be reproducible.
    readers = 1 if processor.draws else READERS
    pending: deque[Future[_Reading]] = deque()
    with ThreadPoolExecutor(readers, thread_name_prefix="reader") as pool:
        try:
            for job in jobs:
                pending.append(pool.submit(_begin, job, processor, chunk))
                if len(pending) > 2 * readers:
                    yield _finish(pending.popleft(), pool)
            while pending:
                yield _finish(pending.popleft(), pool)
        finally:  # the caller has stopped early, or a job has failed
            for future in pending:
                future.cancel()


def crop_ahead(
    image: Image.Image, regions: BoxesOrRegions, processor: ViewProcessor, chunk: int
) -> Generator[Sample, None, None]:
    """Samples of at most `chunk` regions of one image; others are cropped while one is in use.

    Args:
        image: RGB image.
        regions: of the image.
        processor: crops the views.
        chunk: most regions in a sample.
    """
    regions = as_regions(regions)
    if len(regions) <= _TOGETHER:
        yield from (_crop(processor, image, part) for part in _split(regions, chunk))
        return
    parts = (part for whole in _split(regions, chunk) for part in _split(whole, _TOGETHER))
    jobs = (partial(_with_regions, image, part) for part in parts)
    with closing(read_ahead(jobs, processor, _TOGETHER)) as reading:
        yield from batches((sample for _, samples in reading for sample in samples), chunk)


def _with_regions(image: Image.Image, regions: Regions) -> tuple[Image.Image, Regions]:
    return image, regions


def _split(regions: Regions, size: int) -> list[Regions]:
    """Parts with at most `size` rows; none where there are no regions."""
    return [regions[start : start + size] for start in range(0, len(regions), size)]


def _crop(processor: ViewProcessor, image: Image.Image, regions: Regions) -> Sample:
    return processor.crop(image, regions.boxes, regions.masks)


@dataclass(frozen=True)
class _Reading:
    """Number of an image's boxes, its first sample (None without boxes), crops of the others."""

    count: int
    first: Sample | None
    rest: tuple[Callable[[], Sample], ...]


def _begin(job: ReadImage, processor: ViewProcessor, chunk: int) -> _Reading:
    image, given = job()
    regions = as_regions(given)
    crops = [partial(_crop, processor, image, part) for part in _split(regions, chunk)]
    return _Reading(len(regions), crops[0]() if crops else None, tuple(crops[1:]))


def _samples(reading: _Reading, pool: ThreadPoolExecutor) -> Iterator[Sample]:
    sample = reading.first
    for crop in reading.rest:
        following = pool.submit(crop)
        if sample is not None:
            yield sample
        sample = following.result()
    if sample is not None:
        yield sample


def _finish(future: Future[_Reading], pool: ThreadPoolExecutor) -> tuple[int, Iterator[Sample]]:
    reading = future.result()
    return reading.count, _samples(reading, pool)
