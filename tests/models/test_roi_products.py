"""RoI-Align as products, against torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align

from lavis_dynrefer.models.vision.roi_products import pool_by_products


def test_a_cell_of_one_grid_line_by_hand():
    # Samples of [1, 2] at 1.25 and 1.75 on both axes, of a map that counts columns: their mean.
    maps = torch.tensor([[0.0, 1.0, 2.0] * 3])[..., None]
    found = pool_by_products(maps, torch.tensor([[0.0, 1, 1, 2, 2]]), cells=1, scale=1.0, samples=2)
    assert found.item() == pytest.approx(1.5)


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("cells", [1, 4])
def test_values_and_gradients_are_those_of_torchvision(cells, samples):
    generator = torch.Generator().manual_seed(cells + samples)
    grid, views, regions = 6, 4, 30
    corners = torch.rand(regions, 2, generator=generator) * 60 - 6  # some begin outside
    sides = torch.rand(regions, 2, generator=generator) * torch.tensor([50.0, 4.0])
    number = torch.randint(views - 1, (regions, 1), generator=generator)  # none of the last map
    rois = torch.cat([number.double(), corners, corners + sides], dim=1)
    tokens = torch.randn(
        views, grid * grid, 5, generator=generator, dtype=torch.float64, requires_grad=True
    )
    scale = grid / 48
    maps = tokens.transpose(1, 2).unflatten(2, (grid, grid))
    expected = roi_align(maps, rois, cells, scale, samples, aligned=False)
    found = pool_by_products(tokens, rois, cells=cells, scale=scale, samples=samples)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        *(torch.autograd.grad((one * weights).sum(), tokens)[0] for one in (found, expected))
    )
