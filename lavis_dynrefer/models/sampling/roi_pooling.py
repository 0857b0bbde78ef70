"""RoI-Align: a region cut out of the feature map of a view."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor
from torchvision.ops import roi_align

from lavis_dynrefer.models.precision import without_autocast


def pool_boxes(
    tokens: Tensor, boxes: Tensor, *, image_size: int, roi_size: int, sampling_ratio: int
) -> Tensor:
    """RoI-Align one box in the feature map of each view.

    Args:
        tokens: (M, N, C), class token first, then a square grid.
        boxes: (M, 4) xyxy in pixels of the view.
        image_size: side of a view in pixels.
        roi_size: side of the result in cells.
        sampling_ratio: samples per cell and axis; 0 or less adapts to the size of the box.

    Returns:
        (M, roi_size, roi_size, C).
    """
    if sampling_ratio <= 0:
        index = torch.arange(len(boxes), device=boxes.device, dtype=torch.float32)
        maps = pool_rois(
            tokens,
            torch.cat([index[:, None], boxes.float()], dim=1),
            image_size=image_size,
            roi_size=roi_size,
            sampling_ratio=sampling_ratio,
        )
        return rearrange(maps, "m c h w -> m h w c")
    # The samples of a box are a grid, so that its mean samples are one product per axis.
    grid = math.isqrt(tokens.shape[1] - 1)
    # Half precision would round the boxes.
    exact = torch.promote_types(tokens.dtype, torch.float32)
    scaled = boxes.to(tokens.device, exact) * (grid / image_size)
    across, down = (
        _axis_weights(scaled[:, axis], scaled[:, axis + 2], grid, roi_size, sampling_ratio)
        for axis in (0, 1)
    )
    with without_autocast(tokens.device):
        rows = rearrange(tokens[:, 1:], "m (h w) c -> m h (w c)", h=grid).to(exact)
        rows = rearrange(down @ rows, "m r (w c) -> m r w c", w=grid)
        return (across[:, None] @ rows).to(tokens.dtype)


def _axis_weights(low: Tensor, high: Tensor, cells: int, size: int, samples: int) -> Tensor:
    """How much of each cell of a map each cell of a region reads, on one axis.

    Args:
        low: (M,) where the region begins, in cells of the map.
        high: (M,) where it ends.
        cells: of the map.
        size: of the region, in its own cells.
        samples: per cell of the region.

    Returns:
        (M, size, cells).
    """
    # No half-cell shift, and sides below one cell count as one (official).
    step = (high - low).clamp(min=1) / size
    step = step[:, None]
    # In the order of torchvision's sums, so that positions round alike.
    number = torch.arange(size, device=low.device).repeat_interleave(samples)
    within = (torch.arange(samples, device=low.device) + 0.5).repeat(size)
    position = low[:, None] + number * step + within * step / samples
    inside = (position >= -1) & (position <= cells)  # beyond, torchvision reads zeros
    distance = position.clamp(0, cells - 1)[..., None] - torch.arange(cells, device=low.device)
    weights = (1 - distance.abs()).clamp(min=0) * inside[..., None]
    return weights.unflatten(1, (size, samples)).mean(dim=2)


def pool_rois(
    tokens: Tensor, rois: Tensor, *, image_size: int, roi_size: int, sampling_ratio: int
) -> Tensor:
    """RoI-Align any boxes in the feature maps of views.

    Args:
        tokens: (M, N, C), class token first, then a square grid.
        rois: (K, 5) number of the view, then xyxy in its pixels.
        image_size: side of a view in pixels.
        roi_size: side of the result in cells.
        sampling_ratio: samples per cell and axis; 0 or less adapts to the size of each box.

    Returns:
        (K, C, roi_size, roi_size).
    """
    grid = math.isqrt(tokens.shape[1] - 1)
    maps = rearrange(tokens[:, 1:], "m (h w) c -> m c h w", h=grid).contiguous()
    # Half precision would round the boxes, and the numbers of the views.
    exact = torch.promote_types(maps.dtype, torch.float32)
    features: Tensor = roi_align(
        maps.to(exact),
        rois.to(maps.device, exact),
        output_size=roi_size,
        spatial_scale=grid / image_size,
        sampling_ratio=sampling_ratio,
        aligned=False,  # as in `_axis_weights`
    )
    return features.to(maps.dtype)
