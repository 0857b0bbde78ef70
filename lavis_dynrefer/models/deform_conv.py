"""Modulated deformable sampling (DCNv4's operator) in plain PyTorch, for CPU and CUDA."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from lavis_dynrefer.errors import InputError

KERNEL = 3  # official: 3 x 3 taps, stride 1, padding 1, dilation 1
TAPS = KERNEL * KERNEL


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
    height, width = value.shape[1:3]
    dtype = value.dtype
    # Positions need float32: in bfloat16 a cell in 16 would move by a quarter of a cell.
    if dtype in (torch.float16, torch.bfloat16):
        value, offset_mask = value.float(), offset_mask.float()
    packed = offset_mask[..., : groups * TAPS * 3]
    packed = rearrange(packed, "m h w (g p) -> (m g) h w p", g=groups)
    offsets = rearrange(packed[..., : TAPS * 2], "n h w (k two) -> k n h w two", two=2)
    masks = rearrange(packed[..., TAPS * 2 :], "n h w k -> k n 1 h w")
    planes = rearrange(value, "m h w (g c) -> (m g) c h w", g=groups)

    rows = torch.arange(height, device=value.device, dtype=offsets.dtype)
    columns = torch.arange(width, device=value.device, dtype=offsets.dtype)
    size = torch.tensor([width, height], device=value.device, dtype=offsets.dtype)
    centre = torch.stack(
        [columns.expand(height, width), rows[:, None].expand(height, width)], dim=-1
    )
    out = torch.zeros_like(planes)
    for tap in range(TAPS):
        start = torch.tensor([tap // KERNEL - 1, tap % KERNEL - 1], device=value.device)
        position = centre + start + offsets[tap]  # (M g) h w 2, in cells
        # grid_sample wants -1..1 from edge to edge of the map.
        grid = (2 * position + 1) / size - 1
        sample = F.grid_sample(planes, grid, align_corners=False)
        out = out + sample * masks[tap]
    return rearrange(out, "(m g) c h w -> m h w (g c)", g=groups).to(dtype)


class DeformableAlign(nn.Module):
    """Moves the content of a nested view to where it lies in the region's own view.

    Offsets and masks are read from both views together, values from the nested view alone. Offsets
    and masks start at zero, and so does the output, as in the released code.

    Args:
        width: C.
        groups: channel groups with offsets of their own; divides C.
    """

    def __init__(self, width: int, *, groups: int) -> None:
        super().__init__()
        if width % groups:
            raise InputError(f"width {width} must be a multiple of offset_groups {groups}")
        self.groups = groups
        self.offset_mask_dw = nn.Conv2d(2 * width, width, KERNEL, padding=1, groups=width)
        self.offset_mask = nn.Linear(width, offset_mask_channels(groups))
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        nn.init.zeros_(self.offset_mask.weight)
        nn.init.zeros_(self.offset_mask.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, reference: Tensor, nested: Tensor) -> Tensor:
        """Align `nested` to `reference`, both (M, C, h, w); returns (M, C, h, w)."""
        both = torch.cat([nested, reference], dim=1)
        offset_mask = self.offset_mask(rearrange(self.offset_mask_dw(both), "m c h w -> m h w c"))
        value = self.value_proj(rearrange(nested, "m c h w -> m h w c"))
        aligned = self.output_proj(deform_conv(value, offset_mask, groups=self.groups))
        return rearrange(aligned, "m h w c -> m c h w")
