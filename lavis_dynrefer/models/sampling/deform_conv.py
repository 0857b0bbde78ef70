"""Deformable sampling as DCNv4 defines it: nine displaced taps per pixel and channel group."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from lavis_dynrefer.models.precision import without_autocast

KERNEL = 3  # official: 3 x 3 taps, stride 1, padding 1, dilation 1
TAPS = KERNEL * KERNEL
_LARGEST = 2**26  # entries of the matrices that one step of the backward pass makes


def offset_mask_channels(groups: int) -> int:
    """Channels of an offset-and-mask map: 27 per group, padded to a multiple of 8 as in DCNv4."""
    return math.ceil(groups * TAPS * 3 / 8) * 8


def deform_conv(value: Tensor, offset_mask: Tensor, *, groups: int) -> Tensor:
    """Sum `value` over nine displaced taps per pixel and group.

    Group g reads channels 27g..27g+26 of `offset_mask`: dx0, dy0, ..., dx8, dy8, m0, ..., m8. Tap
    k = 3i + j starts at (x - 1 + i, y - 1 + j), so i runs over columns. Each tap is a bilinear
    sample, zero outside the map, times its raw mask m. Numbers: DCNv4 as called by the released
    DynRefer.

    Args:
        value: (M, h, w, C); C is a multiple of `groups`.
        offset_mask: (M, h, w, offset_mask_channels(groups)), offsets in cells.
        groups: number of channel groups with offsets of their own.

    Returns:
        (M, h, w, C).
    """
    dtype = value.dtype
    # Positions need float32: in bfloat16 a cell in 16 would move by a quarter of a cell.
    if dtype in (torch.float16, torch.bfloat16):
        value, offset_mask = value.float(), offset_mask.float()
    with without_autocast(value.device):
        result: Tensor = _Sampling.apply(value, offset_mask, groups)
    return result.to(dtype)


class _Sampling(torch.autograd.Function):
    """The sum over taps, of which only the inputs are kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, offset_mask: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(value, offset_mask)
        ctx.groups = groups
        places, weights = _corners(offset_mask, groups)
        if value.device.type not in ("cpu", "cuda"):  # elsewhere torch may have no embedding_bag
            planes = rearrange(value, "m h w (g c) -> m g (h w) c", g=groups)
            summed = _matrices(places, weights).transpose(-1, -2) @ planes
            return rearrange(summed, "m g (h w) c -> m h w (g c)", h=value.shape[1])
        count, height, width, channels = value.shape
        # As rows of a table: row ((m h w) g) holds the channels of one group at one cell.
        maps = torch.arange(count, device=value.device)[:, None] * (height * width * groups)
        first = maps + torch.arange(groups, device=value.device)
        rows = places * groups + first[..., None, None]
        summed = F.embedding_bag(
            rearrange(rows, "m g k p -> (m p g) k"),
            value.reshape(-1, channels // groups),
            per_sample_weights=rearrange(weights, "m g k p -> (m p g) k"),
            mode="sum",
        )
        return summed.view(value.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        value, offset_mask = ctx.saved_tensors
        cells = value.shape[1] * value.shape[2]
        size = max(1, _LARGEST // (ctx.groups * cells**2))
        parts = (tensor.split(size) for tensor in (value, offset_mask, gradient))
        with without_autocast(value.device):
            gradients = [_gradients(*part, ctx.groups) for part in zip(*parts)]
        of_value, of_offset_mask = (torch.cat(part) for part in zip(*gradients))
        return of_value, of_offset_mask, None


def _gradients(
    value: Tensor, offset_mask: Tensor, gradient: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    """Gradients of some maps, by matrix products: sums in any order of cells would be slower."""
    height = value.shape[1]
    with torch.enable_grad():
        offset_mask = offset_mask.detach().requires_grad_(True)
        places, weights = _corners(offset_mask, groups)
    gradient = rearrange(gradient, "m h w (g c) -> m g (h w) c", g=groups)
    of_value = _matrices(places, weights.detach()) @ gradient
    planes = rearrange(value, "m h w (g c) -> m g (h w) c", g=groups)
    of_weights = (planes @ gradient.transpose(-1, -2)).gather(2, places)
    (of_offset_mask,) = torch.autograd.grad(weights, offset_mask, of_weights)
    return rearrange(of_value, "m g (h w) c -> m h w (g c)", h=height), of_offset_mask


def _matrices(places: Tensor, weights: Tensor) -> Tensor:
    """(M, g, cells, pixels): how much of each cell each pixel reads."""
    cells = places.shape[-1]
    matrices = weights.new_zeros(*places.shape[:2], cells, cells)
    return matrices.scatter_add_(2, places, weights)


def _corners(offset_mask: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The cells around each tap and their weights: the bilinear sample times the mask.

    Args:
        offset_mask: (M, h, w, channels) as for `deform_conv`.
        groups: as for `deform_conv`.

    Returns:
        Cells (M, g, 36, h w), counted row by row, and weights of that shape; 0 outside the map.
    """
    height, width = offset_mask.shape[1:3]
    device = offset_mask.device
    packed = offset_mask[..., : groups * TAPS * 3]
    packed = rearrange(packed, "m h w (g k) -> m g k (h w)", g=groups).contiguous()
    # Made on the device: a tensor copied to it would stop it for a moment.
    taps = torch.arange(TAPS, device=device)[:, None]
    columns = torch.arange(width, device=device).repeat(height) + (taps // KERNEL - 1)
    rows = torch.arange(height, device=device).repeat_interleave(width) + (taps % KERNEL - 1)
    x = _two_cells(packed[:, :, 0 : 2 * TAPS : 2] + columns, width)
    y = _two_cells(packed[:, :, 1 : 2 * TAPS : 2] + rows, height)
    masks = packed[:, :, 2 * TAPS :]
    corners = [
        (row * width + column, row_weight * column_weight)
        for row, row_weight in ((row, weight * masks) for row, weight in y)
        for column, column_weight in x
    ]
    places, weights = (torch.cat(part, dim=2) for part in zip(*corners))
    return places.long(), weights


def _two_cells(position: Tensor, size: int) -> tuple[tuple[Tensor, Tensor], ...]:
    """The cells before and after each position on an axis, and their weights: 0 if outside."""
    before = position.detach().floor()
    share = position - before
    return tuple(
        (cell.clamp(0, size - 1), weight * ((cell >= 0) & (cell < size)))
        for cell, weight in ((before, 1 - share), (before + 1, share))
    )
