"""Masks that grow and shrink, on the grids of samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lavis_dynrefer.images.mask_cover import GRID
from lavis_dynrefer.views.mask_growth import grow_masks
from lavis_dynrefer.views.policies import FixedScales
from lavis_dynrefer.views.view_processor import ViewProcessor


def square(first, last):
    mask = torch.zeros(1, GRID, GRID, dtype=torch.uint8)
    mask[0, first:last, first:last] = 255
    return mask


@pytest.mark.parametrize(
    ("pixels", "first", "last"), [(0, 10, 18), (2, 6, 22), (-2, 14, 14), (-1, 12, 16), (9, 0, 28)]
)
def test_pixels_are_cells_of_the_grid(pixels, first, last):
    # A box of 14 pixels: two cells each. Shrunk by two pixels nothing is left, so it stays.
    box = torch.tensor([[3.0, 5.0, 17.0, 19.0]])
    expected = square(first, last) if last > first else square(10, 18)
    assert torch.equal(grow_masks(square(10, 18), box, torch.tensor([pixels])), expected)


def test_sides_of_a_box_have_cells_of_their_own():
    box = torch.tensor([[0.0, 0.0, 28.0, 56.0]])  # a cell is 1 pixel across, 2 down
    found = grow_masks(square(10, 18), box, torch.tensor([2]))[0]
    assert found.amax(dim=0).nonzero().flatten().tolist() == list(range(8, 20))
    assert found.amax(dim=1).nonzero().flatten().tolist() == list(range(9, 19))


def test_a_mask_shrinks_from_the_sides_of_its_box():
    found = grow_masks(square(0, 28), torch.tensor([[0.0, 0.0, 28.0, 28.0]]), torch.tensor([-3]))
    assert torch.equal(found, square(3, 25))


def test_only_used_masks_have_noise_and_one_generator_draws_it():
    image = Image.new("RGB", (40, 30))
    left = np.zeros((30, 40), dtype=bool)
    left[5:15, 4:12] = True
    box = [4.0, 5.0, 20.0, 15.0]

    def grids(noise, share, seed=0):
        options = {"mask_share": share, "mask_noise": noise}
        rng = torch.Generator().manual_seed(seed)
        built = ViewProcessor(FixedScales([0.0]), image_size=8, rng=rng, **options)
        return built(image, [box] * 40, masks=[left] * 39 + [None])["masks"]

    exact, noisy = grids(0, 1.0), grids(2, 1.0)
    same = (exact == noisy).flatten(1).all(dim=1)
    assert 0 < same.sum() < 20  # a fifth has no growth; the last has no mask
    assert noisy[-1].eq(255).all()
    assert noisy[:-1].float().mean(dim=(1, 2)).unique().numel() == 5  # -2 to 2 pixels
    assert torch.equal(noisy, grids(2, 1.0))
