"""Perceptual hashes of crops."""

from __future__ import annotations

import imagehash
import numpy as np
import pytest
from PIL import Image

from lavis_dynrefer.views.hashing import HASHES, MatrixCache, official_hash, phash


def noise(seed: int) -> Image.Image:
    """97 x 61 pixels of large random blocks: what a hash of low frequencies can see."""
    rng = np.random.default_rng(seed)
    blocks = Image.fromarray(rng.integers(0, 2, (4, 5, 3), dtype=np.uint8) * 255)
    return blocks.resize((97, 61), Image.Resampling.NEAREST)


def test_phash_is_that_of_imagehash():
    image = noise(0)
    assert phash(image, [(5, 6, 60, 50)]) == [imagehash.phash(image.crop((5, 6, 60, 50)))]


@pytest.mark.parametrize("name", sorted(HASHES))
def test_hashes_have_64_bits_and_differ_between_images(name):
    box = (0, 0, 97, 61)
    first, second = (HASHES[name](noise(seed), [box])[0] for seed in (0, 1))
    assert first.hash.size == 64
    assert first - first == 0
    assert first - second > 0


def test_official_hash_equals_resize_then_transform():
    cv2 = pytest.importorskip("cv2")
    image = noise(2)
    gray = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    low = cv2.dct(cv2.resize(gray[3:60, 10:90], (224, 224)))[:8, :8]

    (ours,) = official_hash(image, [(10, 3, 90, 60)])

    assert (ours.hash == (low > low.mean())).all()


@pytest.mark.parametrize("box", [(4, 4, 5, 5), (0, 10, 97, 11)])
def test_one_pixel_sides_are_hashed(box):
    assert official_hash(noise(3), [box])[0].hash.size == 64


def test_matrices_are_kept_up_to_a_number_of_bytes_the_last_used_ones():
    cache = MatrixCache(max_bytes=32 * 30)  # 32 bytes for each pixel of a side

    ten, twenty = cache(10), cache(20)

    assert cache.bytes == 32 * 30
    assert cache(10) is ten
    assert cache(5).shape == (8, 5)
    assert cache.bytes == 32 * 15
    assert cache(10) is ten
    assert cache(20) is not twenty
    assert (cache(20) == twenty).all()
    assert cache(31).shape == (8, 31)
    assert cache.bytes <= cache.max_bytes
