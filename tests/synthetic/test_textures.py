from __future__ import annotations

import hashlib

import numpy as np
import pytest

from lavis_dynrefer.synthetic.draws import Draws
from lavis_dynrefer.synthetic.textures import MARGIN, ground, smooth_noise
from lavis_dynrefer.synthetic.world import HEIGHT, SURFACES, WIDTH


@pytest.mark.parametrize("surface", SURFACES)
def test_a_ground_is_an_image_larger_than_a_scene(surface):
    image = ground(surface)
    assert image.shape == (HEIGHT + MARGIN, WIDTH + MARGIN, 3)
    assert 0 <= image.min() < image.max() < 300


def test_grounds_have_different_colours():
    means = np.array([ground(surface).mean(axis=(0, 1)) for surface in SURFACES])
    apart = np.abs(means[:, None] - means[None]).max(axis=-1) + 999 * np.eye(len(SURFACES))
    assert apart.min() > 15  # grey levels


def test_a_cached_ground_is_read_only():
    with pytest.raises(ValueError, match="read-only"):
        ground("sand")[0, 0] = 0


def test_noise_is_smooth_and_bounded():
    noise = smooth_noise(Draws(5), 20, 20)
    assert np.abs(noise).max() <= 1
    assert np.abs(np.diff(noise, axis=0)).max() < 0.2  # at most 2 * 1.5 / 20 per pixel


@pytest.mark.parametrize("surface", SURFACES)
def test_the_ground_is_the_same_on_every_machine(surface):
    pixels = np.clip(ground(surface), 0, 255).round().astype(np.uint8)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:12] == GOLDEN[surface]


GOLDEN = {
    "grass": "c857ad050a26",
    "sand": "7de63be0eb0d",
    "water": "a2b26aefe13c",
    "snow": "d2ebf92ce4bf",
    "wood": "744427a46e70",
    "brick": "0ac2da5fb88c",
    "stone": "759233dcd37d",
    "carpet": "f62dc6cfa1b6",
}
