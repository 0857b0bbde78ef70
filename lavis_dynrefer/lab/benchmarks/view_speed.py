"""Views as the released code makes them, to compare speed and results with ours."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lavis_dynrefer.errors import MissingPackageError
from lavis_dynrefer.lab.benchmarks.resource_usage import Numbers
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.views.hashing import HASH_SIDE, OFFICIAL_SIZE
from lavis_dynrefer.views.policies import CANDIDATES, ImagePrior
from lavis_dynrefer.views.view_processor import ViewProcessor

SIZES = ((640, 480), (1920, 1080))  # of images, in pixels
REGIONS = (1, 10)  # in a call
VIEWS, SIZE = 3, 224  # of the released model
# Of CLIP; the released code does it with the crops, we do it on the device.
_MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073))[:, None, None]
_STD = torch.tensor((0.26862954, 0.26130258, 0.27577711))[:, None, None]


def plain_views(
    image: Image.Image, boxes: Tensor, *, num_views: int = VIEWS, size: int = SIZE
) -> tuple[Tensor, Tensor, Tensor]:
    """Views chosen and cropped one region after another, each from an array of the whole image.

    A region's hashes are those of crops that OpenCV resizes and transforms whole.

    Args:
        image: RGB image.
        boxes: (R, 4) xyxy in pixels, inside the image.
        num_views: V.
        size: side of a view in pixels.

    Returns:
        Views (R, V, 3, size, size) float32, normalised; the region in each view (R, V, 4) in
        pixels; scales (R, V).

    Raises:
        MissingPackageError: there is no OpenCV; LAVIS brings it.
    """
    whole = np.array([0, 0, *image.size], dtype=np.float32)
    views, inside, scales = [], [], []
    for box in boxes.numpy().astype(np.float32):
        frames = np.stack([box, *(box + (whole - box) * np.float32(t) for t in CANDIDATES)])
        chosen = [0, *_best(_hashes(image, frames), num_views - 1)]
        limits = np.tile(image.size, 2)
        corners = np.clip(frames[chosen], 0, limits).astype(np.int64)
        views.append(torch.stack([_view(image, frame, size) for frame in corners.tolist()]))
        sides = (corners[:, 2:] - corners[:, :2]).astype(np.float32)
        shifted = (corners[0] - np.tile(corners[:, :2], 2)).astype(np.float32)
        inside.append(shifted * np.tile(np.float32(size) / sides, 2))
        scales.append([0.0, *(CANDIDATES[place - 1] for place in chosen[1:])])
    found = torch.from_numpy(np.stack(inside)).long().float()
    return torch.stack(views), found, torch.tensor(scales)


def _hashes(image: Image.Image, frames: np.ndarray) -> np.ndarray:
    """Bits (frames, 64)."""
    try:
        import cv2
    except ImportError as error:
        raise MissingPackageError("the released way needs OpenCV: pip install opencv-python") from (
            error
        )
    gray = cv2.cvtColor(np.array(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    bits = []
    for left, top, right, bottom in frames.astype(int).tolist():
        resized = cv2.resize(gray[top:bottom, left:right], (OFFICIAL_SIZE, OFFICIAL_SIZE))
        low = cv2.dct(resized)[:HASH_SIDE, :HASH_SIDE]
        bits.append((low > low.mean()).ravel())
    return np.stack(bits)


def _best(bits: np.ndarray, count: int) -> list[int]:
    """Places of the chosen frames."""
    scores = (bits[1:] != bits[0]).sum(axis=1) / CANDIDATES
    chosen = []
    for _ in range(count):
        chosen.append(int(scores.argmax()) + 1)
        scores[chosen[-1] - 1] = 0
    return chosen


def _view(image: Image.Image, frame: Sequence[int], size: int) -> Tensor:
    """(3, size, size) float32, normalised."""
    left, top, right, bottom = frame
    crop = Image.fromarray(np.array(image)[top:bottom, left:right])
    resized = np.array(crop.resize((size, size), Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(resized).permute(2, 0, 1).contiguous().float().div(255)
    return (pixels - _MEAN) / _STD


def random_boxes(count: int, size: Sequence[int], rng: np.random.Generator) -> Tensor:
    """(count, 4) xyxy in pixels, their sides 5 to 50 % of the image's."""
    sides = rng.uniform(0.05, 0.5, (count, 2))
    starts = rng.uniform(0, 1, (count, 2)) * (1 - sides)
    corners = np.concatenate([starts, starts + sides], axis=1) * [*size, *size]
    return torch.from_numpy(corners.astype(np.float32))


def measure_views(*, pairs: int = 15) -> Numbers:
    """CPU milliseconds per region of the released way and of ours, in turns.

    Set the number of threads to one before, as for the numbers in the documentation.

    Args:
        pairs: calls of each.

    Returns:
        "WIDTHxHEIGHT, REGIONS a call" -> medians of `plain`, `ours`, our `selection`, and of the
        `ratio` of each pair.
    """
    processor = ViewProcessor(ImagePrior(VIEWS, hash="official"), image_size=SIZE)
    rng = np.random.default_rng(0)
    results: Numbers = {}
    for size in SIZES:
        image = render(make_scene(0, 1)).resize(size, Image.Resampling.BICUBIC)
        for regions in REGIONS:
            rows = []
            for _ in range(pairs + 1):  # the first one fills caches
                boxes = random_boxes(regions, size, rng)
                times = [time.process_time()]
                for work in (plain_views, processor.crop, processor.policy.plan):
                    work(image, boxes)
                    times.append(time.process_time())
                rows.append(np.diff(times) * 1000 / regions)
            plain, ours, selection = zip(*rows[1:])
            results[f"{size[0]}x{size[1]}, {regions} a call"] = {
                "plain": median(plain),
                "ours": median(ours),
                "selection": median(selection),
                "ratio": median(one / two for one, two in zip(plain, ours)),
            }
    return results
