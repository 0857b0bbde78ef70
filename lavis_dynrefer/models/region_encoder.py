"""From view tokens to region tokens: RoI-Align, alignment to the region's own view, fusion.

In the order of the data: `RegionEncoder.pool` takes the region out of every view's feature map,
and lets its cells count by the region's mask if there is one; `DeformableAlign` moves what the
nested views show to where it lies in the region's own view; a two-layer network fuses the views.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision import ops

from lavis_dynrefer.config import RegionEncoderConfig, VisionConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.mask_cover import FULL
from lavis_dynrefer.models.vision.roi_products import pool_by_products
from lavis_dynrefer.views.samples import CHOICE, DIMMED, MASKS

KERNEL = 3  # official: 3 x 3 taps, stride 1, padding 1, dilation 1
TAPS = KERNEL * KERNEL
MOST = 2.0  # times that a cell counts by a mask, at most


@dataclass(frozen=True)
class ViewFeatures:
    """The region as seen in each encoded view, before the views are combined.

    Args:
        summary: (B, V, C) class token of each view.
        maps: (B, V, C, h, w) feature map of the region in each view.
    """

    summary: Tensor
    maps: Tensor

    def rows(self, rows: slice) -> ViewFeatures:
        """Features of some regions."""
        return ViewFeatures(self.summary[rows], self.maps[rows])

    def select(self, route: Tensor) -> ViewFeatures:
        """Features of the views in `route` (B, n), indices into V."""
        route = route.to(self.maps.device)
        rows = torch.arange(len(route), device=route.device)[:, None]
        return ViewFeatures(self.summary[rows, route], self.maps[rows, route])


class RegionEncoder(nn.Module):
    """Combines V views of one region into one set of tokens.

    Args:
        width: C, of the image encoder.
        num_views: V, how many views are fused.
        image_size: side of a view in pixels; region boxes are given in these pixels.
        roi_size: side of the region's feature map in cells.
        sampling_ratio: samples per cell and axis in RoI-Align.
        offset_groups: channel groups of the alignment.
        masks: what the model was trained for: "cells" uses masks, "ignore" the box alone.
    """

    def __init__(
        self,
        width: int,
        *,
        num_views: int,
        image_size: int,
        roi_size: int,
        sampling_ratio: int,
        offset_groups: int,
        masks: str = "ignore",
    ) -> None:
        super().__init__()
        self.num_views = num_views
        self.roi_size = roi_size
        self.sampling_ratio = sampling_ratio
        self.image_size = image_size
        self.masks = masks
        if num_views > 1:
            self.align = DeformableAlign(width, groups=offset_groups)
        self.fusion = nn.Sequential(
            nn.Linear(num_views * width, width), nn.ReLU(), nn.Linear(width, width)
        )

    def check_views(self, sample: Mapping[str, Any]) -> None:
        """Refuse views of another size, or another number of them, before they are encoded.

        Args:
            sample: views (B, V, 3, S, S); routes or a choice, if only some of the views are used.

        Raises:
            InputError: names the keys to set.
        """
        count, _, *size = sample["views"].shape[1:]
        all_used = not sample.get("routes") and not sample.get(CHOICE)
        wanted = self.num_views if all_used else count
        if size != [self.image_size] * 2 or count != wanted:
            raise InputError(
                f"got {count} views of {' x '.join(map(str, size))} pixels per region, but the "
                f"model takes {wanted} of {self.image_size} x {self.image_size}: set num_views: "
                f"{wanted} and image_size: {self.image_size} of the view processor "
                "(vis_processor.train and .eval of a dataset), or use the model's own "
                "(dataset.set_processors)"
            )

    def masks_of(self, sample: Mapping[str, Any]) -> Tensor | None:
        """Masks (B, G, G) of a sample, None without any, or where the model takes boxes alone."""
        return sample.get(MASKS) if self.masks == "cells" else None

    def with_masks_as(self, masks_as: str | None, sample: Mapping[str, Any]) -> Mapping[str, Any]:
        """The sample, without its masks where they are not to be used on cells.

        Args:
            masks_as: as in `Questions`; views were dimmed, or not, when they were cropped.
            sample: of a view processor.

        Raises:
            InputError: the views do not fit that.
        """
        dimmed = sample.get(DIMMED)  # (B, V)
        if masks_as in ("box", "cells") and dimmed is not None and dimmed.any():
            raise InputError(
                f"masks_as: {masks_as!r}: the views of these samples were dimmed outside of their "
                "masks; crop them again with mask_views: none, or without masks to ask about boxes"
            )
        if masks_as == "dim":
            partly = MASKS in sample if dimmed is None else (dimmed.any(1) & ~dimmed.all(1)).any()
            if partly:
                raise InputError(
                    "masks_as: 'dim': not all views of these samples were dimmed outside of their "
                    "masks; crop them again with mask_views: dim"
                )
        use = masks_as or ("cells" if self.masks == "cells" else "box")
        if MASKS not in sample or use == "cells":
            return sample
        return {key: value for key, value in sample.items() if key != MASKS}

    def pool(self, tokens: Tensor, boxes: Tensor, masks: Tensor | None = None) -> ViewFeatures:
        """Take the region out of every view's feature map by RoI-Align.

        Args:
            tokens: (B, V, N, C).
            boxes: (B, V, 4) the region in pixels of each view.
            masks: (B, G, G) uint8, how much of each cell of a grid over the region is mask. All
                views show the same region, so one grid is for all of them.
        """
        batch, views = tokens.shape[:2]
        index = torch.arange(batch * views, device=boxes.device, dtype=torch.float32)
        rois = torch.cat([index[:, None], rearrange(boxes, "b v x -> (b v) x").float()], dim=1)
        flat = rearrange(tokens, "b v n c -> (b v) n c")

        def pool(side: int, samples: int) -> Tensor:
            maps = pool_rois(
                flat,
                rois,
                image_size=self.image_size,
                roi_size=side,
                sampling_ratio=samples,
            )
            return rearrange(maps, "(b v) c h w -> b v c h w", b=batch)

        maps = pool(self.roi_size, self.sampling_ratio)
        if masks is not None:
            # The same points of the feature map, of which each cell then takes those in the mask.
            masks = masks.to(maps.device)
            half, odd = divmod(max(self.sampling_ratio, 0), 2)
            parts = pool(2 * self.roi_size, self.sampling_ratio if odd or not half else half)
            kept = rearrange(masks == FULL, "b h w -> b (h w)").all(dim=1)
            maps = torch.where(kept[:, None, None, None, None], maps, masked_cells(parts, masks))
        return ViewFeatures(tokens[:, :, 0], maps)

    def forward(self, features: ViewFeatures) -> Tensor:
        """Align views 1.. to view 0 and fuse all; returns (B, 1 + roi_size ** 2, C).

        Raises:
            InputError: the number of views is not the one the fusion was built for.
        """
        batch, views = features.summary.shape[:2]
        if views != self.num_views:
            raise InputError(f"the model fuses {self.num_views} views, got {views} per region")
        maps = features.maps
        if views > 1:
            reference = repeat(maps[:, 0], "b c h w -> (v b) c h w", v=views - 1)
            nested = rearrange(maps[:, 1:], "b v c h w -> (v b) c h w")
            aligned = rearrange(self.align(reference, nested), "(v b) c h w -> b v c h w", b=batch)
            maps = torch.cat([maps[:, :1], aligned], dim=1)
        grids = rearrange(maps, "b v c h w -> b (h w) (v c)")
        summaries = rearrange(features.summary, "b v c -> b 1 (v c)")
        return self.fusion(torch.cat([summaries, grids], dim=1))


class DeformableAlign(nn.Module):
    """Moves the content of a nested view to where it lies in the region's own view.

    Offsets and masks are read from both views together, values from the nested view alone. Offsets
    and masks start at zero, and so does the output, as in the released code.

    Args:
        width: C, of the image encoder.
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


def pool_rois(
    tokens: Tensor, rois: Tensor, *, image_size: int, roi_size: int, sampling_ratio: int
) -> Tensor:
    """RoI-Align any boxes in the feature maps of views.

    Args:
        tokens: (M, N, C), class token first, then a square grid.
        rois: (K, 5) number of the view, then xyxy in its pixels.
        image_size: side of a view in pixels.
        roi_size: side of the result in cells.
        sampling_ratio: samples per cell and axis.

    Returns:
        (K, C, roi_size, roi_size).
    """
    grid = math.isqrt(tokens.shape[1] - 1)
    # Half precision would round the boxes, and the numbers of the views.
    exact = torch.promote_types(tokens.dtype, torch.float32)
    if tokens.requires_grad and tokens.device.type == "cpu" and sampling_ratio > 0:
        pooled = pool_by_products(
            tokens[:, 1:].to(exact),
            rois.to(exact),
            cells=roi_size,
            scale=grid / image_size,
            samples=sampling_ratio,
        )
        return pooled.to(tokens.dtype)
    maps = rearrange(tokens[:, 1:], "m (h w) c -> m c h w", h=grid).contiguous()
    # aligned=False: no half-cell shift, and sides below one cell count as one (official).
    features: Tensor = ops.roi_align(
        maps.to(exact),
        rois.to(maps.device, exact),
        output_size=roi_size,
        spatial_scale=grid / image_size,
        sampling_ratio=sampling_ratio,
        aligned=False,
    )
    return features.to(maps.dtype)


def masked_cells(parts: Tensor, masks: Tensor) -> Tensor:
    """Cells of a region, each the mean of those of its 2 x 2 parts that are mask.

    A cell counts by how much of it is mask. All cells together count as much as those of a region
    without a mask, so that a thin mask is not almost nothing, but none more than twice.

    Args:
        parts: (B, V, C, 2h, 2w).
        masks: (B, G, G) uint8, how much of each cell of a grid over the region is mask.

    Returns:
        (B, V, C, h, w); 0 where nothing is mask.
    """
    shares = mask_shares(masks, parts.shape[-1])
    of_cells = F.avg_pool2d(shares, 2)
    smallest = torch.finfo(torch.float32).tiny
    mean = of_cells.mean(dim=(1, 2), keepdim=True).clamp(min=smallest)
    factor = (1 / mean).minimum(MOST / of_cells.clamp(min=smallest))
    sums = F.avg_pool3d(parts.float() * shares[:, None, None], (1, 2, 2))
    return (sums * factor[:, None, None]).to(parts.dtype)


def mask_shares(masks: Tensor, side: int) -> Tensor:
    """Shares (B, side, side) in [0, 1] of a grid's cells that are mask; need not divide G.

    >>> mask_shares(torch.tensor([[[255, 0, 0], [255, 51, 0], [0, 0, 0]]]), 2)
    tensor([[[0.6889, 0.0222],
             [0.2222, 0.0222]]])
    """
    size = masks.shape[-1]
    starts = torch.arange(side, device=masks.device)[:, None] * size
    places = torch.arange(size, device=masks.device) * side
    shared = (starts + size).minimum(places + side) - starts.maximum(places)
    overlaps = shared.clamp(min=0) / size  # (side, G), of each length in those of the new cells
    return overlaps @ (masks / FULL) @ overlaps.T


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

    # Made on the device: a tensor copied to it would stop it for a moment.
    columns = torch.arange(width, device=value.device)
    rows = torch.arange(height, device=value.device)[:, None]

    def read(planes: Tensor, offset: Tensor, mask: Tensor, tap: int) -> Tensor:
        x = columns + (tap // KERNEL - 1) + offset[..., 0]  # ((M g), h, w), in cells
        y = rows + (tap % KERNEL - 1) + offset[..., 1]
        # grid_sample wants -1..1 from edge to edge of the map.
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
        return F.grid_sample(planes, grid, align_corners=False) * mask

    # One by one, and sampled again on the way back: all together take ninefold memory.
    run: Callable[..., Tensor] = read
    if torch.is_grad_enabled():
        run = partial(checkpoint, read, use_reentrant=False, preserve_rng_state=False)
    out = torch.zeros_like(planes)
    for tap, (offset, mask) in enumerate(zip(offsets, masks)):
        out = out + run(planes, offset, mask, tap)
    return rearrange(out, "(m g) c h w -> m h w (g c)", g=groups).to(dtype)


def build_region_encoder(config: RegionEncoderConfig, vision: VisionConfig) -> RegionEncoder:
    """Region encoder of any size with random weights."""
    return RegionEncoder(
        vision.width,
        num_views=config.num_views,
        image_size=vision.image_size,
        roi_size=config.roi_size,
        sampling_ratio=config.sampling_ratio,
        offset_groups=config.offset_groups,
        masks=config.masks,
    )
