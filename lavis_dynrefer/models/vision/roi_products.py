"""RoI-Align as products of matrices: the same numbers, with a quick backward pass on a CPU.

Torchvision's backward pass adds pixel by pixel. Here a cell is a weighted mean of the map: the
weights of all cells of a view's regions are one matrix, and both passes are products with it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pool_by_products(
    maps: Tensor, rois: Tensor, *, cells: int, scale: float, samples: int
) -> Tensor:
    """What `torchvision.ops.roi_align` computes with `aligned=False`.

    Args:
        maps: (M, g * g, C) float, square grids row by row.
        rois: (K, 5) number of the map, then xyxy.
        cells: of the result, a side.
        scale: from the units of the boxes to those of the grid.
        samples: per cell and axis, at least 1.

    Returns:
        (K, C, cells, cells).
    """
    grid = round(maps.shape[1] ** 0.5)
    x1, y1, x2, y2 = (rois[:, 1:] * scale).unbind(dim=1)
    down = _axis_weights(y1, y2, grid, cells, samples)  # (K, cells, g)
    across = _axis_weights(x1, x2, grid, cells, samples)
    weights = (down[:, :, None, :, None] * across[:, None, :, None, :]).reshape(
        len(rois), cells * cells, grid * grid
    )
    # Regions of one map side by side, with empty places where another map has more.
    number = rois[:, 0].long()
    order = number.argsort(stable=True)
    counts = torch.bincount(number, minlength=len(maps))
    starts = counts.cumsum(dim=0) - counts
    place = torch.empty_like(number)
    place[order] = torch.arange(len(rois), device=rois.device) - starts[number[order]]
    most = int(counts.max())
    matrix = weights.new_zeros(len(maps), most, *weights.shape[1:])
    matrix[number, place] = weights
    pooled = (matrix.flatten(1, 2) @ maps).unflatten(1, (most, cells * cells))
    return pooled[number, place].transpose(1, 2).unflatten(2, (cells, cells))


def _axis_weights(low: Tensor, high: Tensor, grid: int, cells: int, samples: int) -> Tensor:
    """(K, cells, grid) what each line of a grid counts in each cell, along one axis.

    Args:
        low: (K,) where the regions begin, in lines of the grid.
        high: (K,) where they end; sides below one line count as one.
        grid: lines of the grid.
        cells: of a region.
        samples: per cell.
    """
    step = (high - low).clamp(min=1) / cells
    places = (torch.arange(cells * samples, device=low.device) + 0.5) / samples  # in cells
    at = low[:, None] + places * step[:, None]
    inside = (at >= -1) & (at <= grid)  # a sample beyond counts as zero
    near = at.clamp(0, grid - 1)[..., None] - torch.arange(grid, device=low.device)
    weights = (1 - near.abs()).clamp(min=0) * inside[..., None]
    return weights.unflatten(1, (cells, samples)).mean(dim=2)
