"""The image encoder: EVA-ViT and its output norm, from LAVIS's class, without a download."""

from __future__ import annotations

from functools import partial

import torch
from lavis.models.eva_vit import VisionTransformer
from torch import Tensor, nn

from lavis_dynrefer.config import VisionConfig
from lavis_dynrefer.models.precision import without_autocast

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)  # CLIP


class Backbone(nn.Module):
    """Turns square views into normed ViT tokens.

    Args:
        vit: maps (M, 3, S, S) to (M, N, C), class token first, no final norm.
        width: C.
        image_size: S in pixels.
    """

    def __init__(self, vit: nn.Module, *, width: int, image_size: int) -> None:
        super().__init__()
        self.vit = vit
        self.norm = nn.LayerNorm(width)
        self.width = width
        self.image_size = image_size
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD)[:, None, None], persistent=False)

    def forward(self, views: Tensor) -> Tensor:
        """Encode views.

        Args:
            views: (M, 3, S, S); uint8 pixels, or floats that are already normalised.

        Returns:
            (M, N, C) tokens, class token first.
        """
        if views.dtype == torch.uint8:
            # Times 1/255, not over 255: the released code's numbers to the last bit.
            views = (views.float() * (1 / 255) - self.mean) / self.std
        tokens = self.vit(views)
        # Normed in float32 whatever the ViT runs in, as BLIP-2 does.
        with without_autocast(tokens.device):
            return self.norm(tokens.float())


def build_backbone(config: VisionConfig) -> Backbone:
    """Backbone of any size with random weights."""
    vit = VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        mlp_ratio=config.mlp_ratio,
        qkv_bias=True,
        use_mean_pooling=False,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_checkpoint=config.grad_checkpoint,
    )
    return Backbone(vit, width=config.width, image_size=config.image_size)
