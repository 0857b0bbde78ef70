"""From view tokens to region tokens: RoI-Align, alignment to the region's own view, fusion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torchvision.ops import roi_align

from lavis_dynrefer.config import RegionEncoderConfig, VisionConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.deform_conv import DeformableAlign


@dataclass(frozen=True)
class ViewFeatures:
    """The region as seen in each encoded view, before the views are combined.

    Args:
        summary: (B, V, C) class token of each view.
        region: (B, V, C, h, w) the region cut out of each view's feature map.
    """

    summary: Tensor
    region: Tensor

    def select(self, route: Tensor) -> ViewFeatures:
        """Features of the views in `route` (B, n), indices into V."""
        route = route.to(self.region.device)
        rows = torch.arange(len(route), device=route.device)[:, None]
        return ViewFeatures(self.summary[rows, route], self.region[rows, route])


def roi_features(
    tokens: Tensor, rois: Tensor, *, image_size: int, roi_size: int, sampling_ratio: int
) -> Tensor:
    """Cut any boxes out of the feature maps of views by RoI-Align.

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
    maps = rearrange(tokens[:, 1:], "m (h w) c -> m c h w", h=grid).contiguous()
    # aligned=False: no half-cell shift, and sides below one cell count as one (official).
    features: Tensor = roi_align(
        maps,
        rois.to(maps),
        output_size=roi_size,
        spatial_scale=grid / image_size,
        sampling_ratio=sampling_ratio,
        aligned=False,
    )
    return features


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

    def crop(self, tokens: Tensor, boxes: Tensor) -> ViewFeatures:
        """Cut the region out of every view; tokens (B, V, N, C), boxes (B, V, 4) in view pixels."""
        batch, views = tokens.shape[:2]
        index = torch.arange(batch * views, device=boxes.device, dtype=torch.float32)
        rois = torch.cat([index[:, None], rearrange(boxes, "b v x -> (b v) x").float()], dim=1)
        regions = self.cut(rearrange(tokens, "b v n c -> (b v) n c"), rois)
        return ViewFeatures(
            tokens[:, :, 0], rearrange(regions, "(b v) c h w -> b v c h w", b=batch)
        )

    def cut(self, tokens: Tensor, rois: Tensor) -> Tensor:
        """Cut any boxes out of the feature maps of views, see `roi_features`."""
        return roi_features(
            tokens,
            rois,
            image_size=self.image_size,
            roi_size=self.roi_size,
            sampling_ratio=self.sampling_ratio,
        )

    def forward(self, features: ViewFeatures) -> Tensor:
        """Align views 1.. to view 0 and fuse all; returns (B, 1 + roi_size ** 2, C).

        Raises:
            ValueError: the number of views is not the one the fusion was built for.
        """
        batch, views = features.summary.shape[:2]
        if views != self.num_views:
            raise InputError(f"the model fuses {self.num_views} views, got {views} per region")
        regions = features.region
        if views > 1:
            reference = repeat(regions[:, 0], "b c h w -> (v b) c h w", v=views - 1)
            nested = rearrange(regions[:, 1:], "b v c h w -> (v b) c h w")
            aligned = rearrange(self.align(reference, nested), "(v b) c h w -> b v c h w", b=batch)
            regions = torch.cat([regions[:, :1], aligned], dim=1)
        grids = rearrange(regions, "b v c h w -> b (h w) (v c)")
        summaries = rearrange(features.summary, "b v c -> b 1 (v c)")
        return self.fusion(torch.cat([summaries, grids], dim=1))


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
