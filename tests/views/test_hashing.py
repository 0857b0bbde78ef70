"""Perceptual hashes of crops."""

from __future__ import annotations

import imagehash
import numpy as np
import pytest
from PIL import Image

from lavis_dynrefer.views.hashing import HASHES, OfficialHash, PerceptualHash

WHOLE = (0, 0, 1500, 1200)
# Sides below and above 224; read whole (up to 448 rows and 640 columns) and at some pixels only.
BOXES = [
    *[(4, 4, 5, 5), (0, 10, 97, 11), (10, 3, 90, 60), (11, 7, 235, 231), (3, 1, 451, 449)],
    *[(500, 100, 1140, 549), (500, 100, 1141, 549), (7, 8, 800, 1100), WHOLE],
]


@pytest.fixture(scope="module")
def image() -> Image.Image:
    """Large random blocks, which low frequencies can see, with noise; one corner is even."""
    rng = np.random.default_rng(2)
    blocks = Image.fromarray(rng.integers(0, 200, (12, 15, 3), dtype=np.uint8))
    pixels = np.asarray(blocks.resize(WHOLE[2:], Image.Resampling.BICUBIC))
    pixels = pixels + rng.integers(0, 56, pixels.shape, dtype=np.uint8)
    pixels[-200:, -200:] = (13, 200, 77)
    return Image.fromarray(pixels)


def test_phash_is_that_of_imagehash(image):
    boxes = [*BOXES, (1310, 1010, 1480, 1190)]  # the even corner: its bits are rounding alone
    theirs = [imagehash.phash(image.crop(box)).hash.ravel() for box in boxes]
    assert (PerceptualHash(image)(boxes) == theirs).all()


def test_official_hash_is_resize_then_transform(image):
    cv2 = pytest.importorskip("cv2")
    gray = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    crops = [gray[top:bottom, left:right] for left, top, right, bottom in BOXES]
    low = np.array([cv2.dct(cv2.resize(crop, (224, 224)))[:8, :8] for crop in crops])

    bits = OfficialHash(image)(BOXES)

    assert (bits == (low > low.mean(axis=(1, 2), keepdims=True)).reshape(-1, 64)).all()


def test_official_gray_is_that_of_opencv_for_every_colour_in_doubt():
    # 3 * 9798 + 2 * 19235 + 8 * 3735 of 32768 ths is 2.9846; its neighbours are nearer to a half.
    colours = np.array([[3, 2, 8], [0, 0, 255], [255, 255, 255], [1, 1, 1], [5, 0, 0], [4, 1, 2]])
    exact = (colours @ [9798, 19235, 3735] + (1 << 14)) >> 15
    rng = np.random.default_rng(0)
    many = rng.integers(0, 256, (4096, 3), dtype=np.uint8)
    pixels = np.concatenate([colours.astype(np.uint8), many])[None]
    gray = OfficialHash(Image.fromarray(pixels))._gray[0]
    assert gray[: len(exact)].tolist() == exact.tolist() == [3, 29, 255, 1, 1, 2]
    assert (gray == (pixels[0].astype(int) @ [9798, 19235, 3735] + (1 << 14)) >> 15).all()


@pytest.mark.parametrize("name", sorted(HASHES))
def test_hashes_have_64_bits_and_differ_between_crops(name, image):
    first, second, again = HASHES[name](image)([BOXES[2], BOXES[3], BOXES[2]])
    assert first.shape == (64,)
    assert (first == again).all()
    assert (first != second).any()
