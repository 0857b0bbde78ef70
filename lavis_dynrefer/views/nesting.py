"""Nested views: boxes between a region and its whole image, and the crops they give."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lavis_dynrefer.errors import InputError


def nest_boxes(boxes: Tensor, image_sizes: Tensor, scales: Tensor) -> Tensor:
    """Grow each box towards the whole image, once per scale.

    Args:
        boxes: (B, 4) xyxy in image pixels.
        image_sizes: (B, 2) width and height in pixels.
        scales: (B, V) in [0, 1]; 0 keeps the box, 1 is the whole image.

    Returns:
        (B, V, 4) xyxy boxes in image pixels; B may be 0.

    Raises:
        InputError: a scale lies outside [0, 1].

    >>> nest_boxes(torch.tensor([[40., 20., 60., 40.]]), torch.tensor([[100., 80.]]),
    ...            torch.tensor([[.5]]))
    tensor([[[20., 10., 80., 60.]]])
    """
    if ((scales < 0) | (scales > 1)).any():
        raise InputError(f"scales must lie in [0, 1], got {scales.tolist()}")
    image_boxes = torch.cat([torch.zeros_like(image_sizes), image_sizes], dim=-1)
    growth = (image_boxes - boxes)[:, None] * scales[..., None]
    return boxes[:, None] + growth


def whole_pixels(boxes: Tensor, width: int, height: int) -> Tensor:
    """Whole-pixel boxes inside the image: clipped, truncated, at least one pixel a side.

    Args:
        boxes: (..., 4) xyxy in pixels, overlapping the image.
        width: of the image in pixels.
        height: of the image in pixels.

    Returns:
        (..., 4) int64, x2 and y2 exclusive.
    """
    limits = torch.tensor([width, height])
    corners = torch.stack([boxes[..., :2], boxes[..., 2:]], dim=-2).clamp(min=0)
    whole = torch.minimum(corners, limits.to(corners.dtype)).long()
    start = torch.minimum(whole[..., 0, :], limits - 1)
    end = torch.maximum(whole[..., 1, :], start + 1)
    return torch.cat([start, end], dim=-1)


def crop_views(
    image: Image.Image, boxes: Tensor, frames: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Crop and resize every nested view, and find the region inside each.

    Crops ignore the aspect ratio and are resized with antialiased bicubic interpolation. Region
    boxes are truncated to whole view pixels, in float32, as the released code does: a view that
    shows exactly the region then sometimes ends at size - 1.

    Args:
        image: RGB image.
        boxes: (R, 4) xyxy boxes of the regions in image pixels.
        frames: (R, V, 4) xyxy boxes of the nested views in image pixels.
        size: side of a view in pixels.

    Returns:
        Views (R, V, 3, size, size) uint8, and the region in each view (R, V, 4) float32.
    """
    frames = whole_pixels(frames, *image.size)
    targets = whole_pixels(boxes, *image.size)[:, None]  # (R, 1, 4)
    sides = (frames[..., 2:] - frames[..., :2]).float()
    ratio = torch.full_like(sides, size) / sides  # `size / sides` rounds twice in torch
    shift = frames[..., :2].repeat(1, 1, 2)
    inside = (targets - shift).float() * ratio.repeat(1, 1, 2)
    return _resized_crops(image, frames, size), inside.long().float()


def _resized_crops(image: Image.Image, frames: Tensor, size: int) -> Tensor:
    """Crops (R, V, 3, size, size) uint8 of whole-pixel frames (R, V, 4); equal ones made once."""
    views = np.empty((*frames.shape[:2], 3, size, size), dtype=np.uint8)
    done: dict[tuple[int, ...], NDArray[np.uint8]] = {}
    for view, corners in zip(views.reshape(-1, 3, size, size), frames.reshape(-1, 4).tolist()):
        frame = tuple(corners)
        if frame in done:
            view[:] = done[frame]
            continue
        # `resize(box=...)` would let the pixels around the box shine through at its borders.
        crop = image.crop(frame).resize((size, size), Image.Resampling.BICUBIC)
        for channel, band in zip(view, crop.split()):
            channel[:] = band
        done[frame] = view
    return torch.from_numpy(views)
