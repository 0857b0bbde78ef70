"""The image encoder: EVA-ViT and its output norm, from LAVIS's class, without a download."""

from __future__ import annotations

from functools import partial

import lavis  # noqa: F401  first, for threads
import torch
from lavis.models.eva_vit import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lavis_dynrefer.config import VisionConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.precision import without_autocast

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)  # CLIP


class _CheckpointedViT(VisionTransformer):
    """LAVIS's ViT, saying which kind of gradient checkpoint it wants: torch warns where none is."""

    def forward_features(self, x: Tensor) -> Tensor:
        """Tokens (M, N, C) of views (M, 3, S, S)."""
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = self.pos_drop(x + self.pos_embed)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.use_checkpoint else block(x)
        return x


class Backbone(nn.Module):
    """Turns square views into normed ViT tokens; random weights.

    Args:
        config: S is its `image_size` in pixels, C its `width`.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.vit = _CheckpointedViT(
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
        self.norm = nn.LayerNorm(config.width)
        self.width = config.width
        self.image_size = config.image_size
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD)[:, None, None], persistent=False)

    def forward(self, views: Tensor) -> Tensor:
        """Encode views.

        Args:
            views: (M, 3, S, S); uint8 pixels, or floats that are already normalised.

        Returns:
            (M, N, C) tokens, class token first.

        Raises:
            InputError: views of another size.
        """
        if views.shape[-2:] != (self.image_size, self.image_size):
            raise InputError(
                f"views: the model takes {self.image_size} x {self.image_size} pixels, got "
                f"{views.shape[-1]} x {views.shape[-2]}; use the view processor of the model"
            )
        if views.dtype == torch.uint8:
            # Times 1/255, not over 255: the released code's numbers to the last bit.
            views = (views.float() * (1 / 255) - self.mean) / self.std
        tokens = self.vit(views.to(self.vit.cls_token.dtype))  # where the ViT is stored in half
        # Normed in float32 whatever the ViT runs in, as BLIP-2 does.
        with without_autocast(tokens.device):
            return self.norm(tokens.float())
