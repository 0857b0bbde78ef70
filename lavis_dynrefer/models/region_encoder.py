"""From view tokens to region tokens: RoI-Align, alignment to the region's own view, fusion.

In the order of the data: `RegionEncoder.pool` takes the region out of every view's feature map,
`DeformableAlign` moves what the nested views show to where it lies in the region's own view, and a
two-layer network fuses the views.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from lavis_dynrefer.config import RegionEncoderConfig, VisionConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.sampling.deform_conv import KERNEL, deform_conv, offset_mask_channels
from lavis_dynrefer.models.sampling.roi_pooling import pool_boxes


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
        width: C.
        num_views: V, how many views are fused.
        image_size: side of a view in pixels; region boxes are given in these pixels.
        roi_size: side of the region's feature map in cells.
        sampling_ratio: samples per cell and axis in RoI-Align.
        offset_groups: channel groups of the alignment.
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
    ) -> None:
        super().__init__()
        self.num_views = num_views
        self.roi_size = roi_size
        self.sampling_ratio = sampling_ratio
        self.image_size = image_size
        if num_views > 1:
            self.align = DeformableAlign(width, groups=offset_groups)
        self.fusion = nn.Sequential(
            nn.Linear(num_views * width, width), nn.ReLU(), nn.Linear(width, width)
        )

    def pool(self, tokens: Tensor, boxes: Tensor) -> ViewFeatures:
        """Take the region out of every view's feature map by RoI-Align.

        Args:
            tokens: (B, V, N, C).
            boxes: (B, V, 4) the region in pixels of each view.
        """
        batch = len(tokens)
        maps = pool_boxes(
            rearrange(tokens, "b v n c -> (b v) n c"),
            rearrange(boxes, "b v x -> (b v) x"),
            image_size=self.image_size,
            roi_size=self.roi_size,
            sampling_ratio=self.sampling_ratio,
        )
        return ViewFeatures(tokens[:, :, 0], rearrange(maps, "(b v) h w c -> b v c h w", b=batch))

    def forward(self, features: ViewFeatures) -> Tensor:
        """Align views 1.. to view 0 and fuse all; returns (B, 1 + roi_size ** 2, C).

        Raises:
            InputError: the number of views is not the one the fusion was built for.
        """
        views = features.summary.shape[1]
        if views != self.num_views:
            raise InputError(f"the model fuses {self.num_views} views, got {views} per region")
        maps = rearrange(features.maps, "b v c h w -> b v h w c")  # as `pool` has stored them
        grids = [maps[:, 0]]
        if views > 1:
            aligned = self.align(maps[:, 0], maps[:, 1:])
            grids += aligned.unbind(dim=1)
        together = torch.cat([grid.flatten(1, 2) for grid in grids], dim=-1)
        summaries = rearrange(features.summary, "b v c -> b 1 (v c)")
        return self.fusion(torch.cat([summaries, together], dim=1))


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
        if width % groups or width % 2:
            raise InputError(
                f"width {width} must be even, and a multiple of offset_groups {groups}"
            )
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
        """Align the nested views (B, V, h, w, C) of each region to its `reference` (B, h, w, C).

        Returns:
            (B, V, h, w, C).
        """
        batch = len(nested)
        flat = rearrange(nested, "b v h w c -> (b v) h w c")
        # The convolution reads its input in pairs of channels, nested views first: one half of its
        # output comes from the nested views alone, the other from the reference alone.
        half = len(self.offset_mask_dw.weight) // 2
        parts = (slice(None, half), slice(half, None))
        of_nested, of_reference = (
            F.linear(self._pairs(maps, part), self.offset_mask.weight[:, part])
            for maps, part in zip((flat, reference), parts)
        )
        of_nested = rearrange(of_nested, "(b v) h w k -> b v h w k", b=batch)
        offset_mask = of_nested + (of_reference + self.offset_mask.bias)[:, None]
        aligned = deform_conv(self.value_proj(flat), offset_mask.flatten(0, 1), groups=self.groups)
        return rearrange(self.output_proj(aligned), "(b v) h w c -> b v h w c", b=batch)

    def _pairs(self, maps: Tensor, part: slice) -> Tensor:
        """Some output channels of the convolution, from the maps (M, h, w, C) that they read."""
        conv = self.offset_mask_dw
        channels = rearrange(maps, "m h w c -> m c h w")
        weight, bias = conv.weight[part], conv.bias[part]
        first, second = (
            F.conv2d(
                channels[:, start::2],
                weight[:, start : start + 1],
                bias if start == 0 else None,
                padding=conv.padding,
                groups=len(weight),
            )
            for start in (0, 1)  # a kernel per channel is faster than one per pair
        )
        return rearrange(first + second, "m c h w -> m h w c")


def build_region_encoder(config: RegionEncoderConfig, vision: VisionConfig) -> RegionEncoder:
    """Region encoder of any size with random weights."""
    return RegionEncoder(
        vision.width,
        num_views=config.num_views,
        image_size=vision.image_size,
        roi_size=config.roi_size,
        sampling_ratio=config.sampling_ratio,
        offset_groups=config.offset_groups,
    )
