"""Views whose pixels outside of a mask are dimmed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_dynrefer.images.mask_cover import FULL, RegionMask

GRAY = 127.5
KEPT = 0.5  # of the difference to gray, outside of the mask


def dim_outside(views: Tensor, frames: Tensor, masks: Sequence[RegionMask | None]) -> Tensor:
    """Move the pixels outside of each region's mask halfway to gray.

    Args:
        views: (R, V, 3, S, S) uint8.
        frames: (R, V, 4) xyxy of the views in whole image pixels.
        masks: R, None for a region whose views stay as they are.

    Returns:
        (R, V, 3, S, S) uint8. A pixel that is partly mask is dimmed in part.
    """
    size = views.shape[-1]
    dimmed = views.clone()
    for row, mask in enumerate(masks):
        if mask is None:
            continue
        for view, (left, top, right, bottom) in zip(dimmed[row], frames[row].tolist()):
            cover = mask.cover((left, top, right, bottom), size)
            if cover.any():  # a line is seen nowhere
                view[:] = _towards_gray(view, torch.from_numpy(cover))
    return dimmed


def dim_own_views(views: Tensor, scales: Tensor, grids: Tensor) -> Tensor:
    """Move the pixels outside of each region's mask halfway to gray in the region's own view.

    The other views show what is around the region, to which a caption may relate it.

    Args:
        views: (R, V, 3, S, S) uint8.
        scales: (R, V); 0 for a view that shows exactly the region.
        grids: (R, G, G) uint8, how much of each cell of a grid over the region is mask.

    Returns:
        (R, V, 3, S, S) uint8. Between the centres of cells a pixel is dimmed in part.
    """
    own = scales == 0
    cover = grids[own.nonzero()[:, 0], None].float() / FULL
    cover = F.interpolate(cover, size=views.shape[-2:], mode="bilinear", antialias=True)
    dimmed = views.clone()
    dimmed[own] = _towards_gray(views[own], cover)
    return dimmed


def _towards_gray(pixels: Tensor, cover: Tensor) -> Tensor:
    """Dim pixels (..., 3, S, S) as far as they are not covered; `cover` broadcasts to them."""
    kept = KEPT + (1 - KEPT) * cover
    return (GRAY + (pixels - GRAY) * kept).round().to(torch.uint8)
