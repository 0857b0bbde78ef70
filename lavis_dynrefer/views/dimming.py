"""Views whose pixels outside of a mask are dimmed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lavis_dynrefer.images.mask_cover import RegionMask

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
                kept = KEPT + (1 - KEPT) * cover
                pixels = GRAY + (view.numpy() - GRAY) * kept
                view[:] = torch.from_numpy(np.rint(pixels).astype(np.uint8))
    return dimmed
