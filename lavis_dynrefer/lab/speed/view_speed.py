"""Choosing and cropping views, beside the way of the released code."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lavis_dynrefer.cores import available_cores
from lavis_dynrefer.errors import InputError, MissingPackageError
from lavis_dynrefer.lab.benchmarks.resource_usage import Numbers
from lavis_dynrefer.lab.speed.pairs import Clock, compare
from lavis_dynrefer.models.backbone import PIXEL_MEAN, PIXEL_STD
from lavis_dynrefer.views.policies import FixedScales, ImagePrior
from lavis_dynrefer.views.reading_ahead import read_ahead
from lavis_dynrefer.views.view_processor import ViewProcessor

IMAGES = {"640x480": (640, 480), "1920x1080": (1920, 1080)}
_SIDE, _VIEWS, _SEED = 224, 3, 11
_TENTHS = np.arange(1, 11) / 10  # scales to choose from
_FIXED = [0.0, 0.1, 0.2]  # what it mostly chooses
_CALLS = 8  # images in a measurement


def measure_views(*, regions: int = 10, repeats: int = 3) -> Numbers:
    """Views by the image prior with the released hash: milliseconds per region.

    Args:
        regions: in one call.
        repeats: pairs of measurements.

    Returns:
        For each image size the whole, the choice and the cropping; `regions/s` is what
        `predict_iter` gets of its reader threads.

    Raises:
        InputError: the two ways give other views.
    """
    return {
        f"{title}, {part}": numbers
        for title, size in IMAGES.items()
        for part, numbers in _measure_size(size, regions, repeats).items()
    }


def _measure_size(size: tuple[int, int], regions: int, repeats: int) -> Numbers:
    jobs = [_job(size, regions, number) for number in range(_CALLS)]
    _check_equal(jobs[:2])
    chosen = ViewProcessor(ImagePrior(num_views=_VIEWS, hash="official"), image_size=_SIDE)
    fixed = ViewProcessor(FixedScales(_FIXED), image_size=_SIDE)

    def plain(part: str) -> None:
        for job in jobs:
            for box in job.boxes.numpy():
                scales = _FIXED if part == "crop" else _choose(job.image, box)
                if part != "choose":
                    _crop(job.image, box, scales)

    def ours(part: str) -> None:
        for job in jobs:
            if part == "choose":
                chosen.policy.plan(job.image, job.boxes)
            else:
                (chosen if part == "all" else fixed).crop(job.image, job.boxes)

    results = {
        part: compare(
            partial(plain, part),
            partial(ours, part),
            Clock(torch.device("cpu")),
            repeats=repeats,
            regions=regions * len(jobs),
        )
        for part in ("all", "choose", "crop")
    }
    results["all"]["regions/s"] = _threaded(jobs, chosen)
    return results


@dataclass(frozen=True)
class _Job:
    """An image and boxes (R, 4) inside it."""

    image: Image.Image
    boxes: Tensor


def _job(size: tuple[int, int], regions: int, number: int) -> _Job:
    """A cloudy image with boxes whose sides are 5 to 50 % of its sides."""
    rng = np.random.default_rng([_SEED, number])
    clouds = rng.integers(0, 256, (size[1] // 16, size[0] // 16, 3), dtype=np.uint8)
    image = Image.fromarray(clouds).resize(size, Image.Resampling.BICUBIC)
    limits = np.array(size)
    sides = rng.uniform(0.05, 0.5, (regions, 2)) * limits
    corners = rng.uniform(0, 1, (regions, 2)) * (limits - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1)
    return _Job(image, torch.from_numpy(boxes).float())


def _threaded(jobs: list[_Job], processor: ViewProcessor) -> float:
    """Regions per second of time that passes, by the readers of `predict_iter`."""
    rounds = max(1, 2 * available_cores() // len(jobs))
    work = [partial(_read, job) for job in jobs] * rounds
    begin = time.perf_counter()
    count = 0
    for regions, samples in read_ahead(work, processor, chunk=64):
        count += regions
        for _ in samples:
            pass
    return count / (time.perf_counter() - begin)


def _read(job: _Job) -> tuple[Image.Image, Tensor]:
    return job.image, job.boxes


# The released code's way ------------------------------------------------------------------------


def _choose(image: Image.Image, box: NDArray[np.float32]) -> list[float]:
    """Scales of one region: its whole image turned gray, eleven crops hashed one by one."""
    cv2 = _opencv()
    gray = cv2.cvtColor(np.array(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    frame = np.array([0, 0, *image.size], dtype=np.float32)
    boxes = [box, *(box + (frame - box) * np.float32(scale) for scale in _TENTHS)]
    hashes = []
    for x1, y1, x2, y2 in (np.trunc(one).astype(int) for one in boxes):
        crop = cv2.resize(gray[y1:y2, x1:x2], (_SIDE, _SIDE))
        low = cv2.dct(crop)[:8, :8]
        hashes.append(low > low.mean())
    scores = np.array([(one != hashes[0]).sum() for one in hashes[1:]]) / _TENTHS
    chosen = []
    for _ in range(_VIEWS - 1):
        best = int(scores.argmax())
        chosen.append(float(_TENTHS[best]))
        scores[best] = 0
    return [0.0, *chosen]


def _crop(image: Image.Image, box: NDArray[np.float32], scales: list[float]) -> Tensor:
    """Views (V, 3, S, S) of one region, normalised; the image becomes an array for each of them."""
    frame = np.array([0, 0, *image.size], dtype=np.float32)
    mean, std = (torch.tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    views = []
    for scale in scales:
        x1, y1, x2, y2 = np.trunc(box + (frame - box) * np.float32(scale)).astype(int)
        crop = Image.fromarray(np.array(image)[y1:y2, x1:x2])
        pixels = np.array(crop.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
        views.append((torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std)
    return torch.stack(views)


def _check_equal(jobs: list[_Job]) -> None:
    mean, std = (torch.tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    processor = ViewProcessor(ImagePrior(num_views=_VIEWS, hash="official"), image_size=_SIDE)
    for job in jobs:
        sample = processor.crop(job.image, job.boxes)
        for row, box in enumerate(job.boxes.numpy()):
            scales = _choose(job.image, box)
            if not np.allclose(scales, sample["scales"][row].numpy()):
                raise InputError(
                    f"the two ways choose other views: {scales} and {sample['scales'][row]}"
                )
            ours = (sample["views"][row] / 255 - mean) / std
            if not torch.equal(ours, _crop(job.image, box, scales)):
                raise InputError("the two ways give other pixels")


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingPackageError("benchmark views needs OpenCV, as the released code") from error
    return cv2
