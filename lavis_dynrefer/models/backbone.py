"""The image encoder: EVA-ViT and its output norm, without a download."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lavis_dynrefer.config import VisionConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.precision import without_autocast
from lavis_dynrefer.models.vision.vit import VisionTransformer

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)  # CLIP


class Backbone(nn.Module):
    """Turns square views into normed ViT tokens; random weights.

    Args:
        config: S is its `image_size` in pixels, C its `width`.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.vit = VisionTransformer(config)
        self.norm = nn.LayerNorm(config.width)
        self.width = config.width
        self.image_size = config.image_size
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD)[:, None, None], persistent=False)

    @property
    def bytes_of_a_view(self) -> int:
        """Of its N x C tokens in float32."""
        return 4 * self.vit.pos_embed.shape[1] * self.width

    def store_for(self, dtype: torch.dtype) -> None:
        """Cast the weights once, if the device is a GPU and nothing of the ViT is trained.

        A CPU computes from weights as their file has them: mapped, they cost no memory of ours.

        Args:
            dtype: in which the ViT will compute.
        """
        weights = list(self.vit.parameters())
        if weights[0].device.type != "cpu" and not any(weight.requires_grad for weight in weights):
            self.vit.store_in(dtype)

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
        tokens = self.vit(views)
        # Normed in float32 whatever the ViT runs in, as BLIP-2 does.
        with without_autocast(tokens.device):
            return self.norm(tokens.float())
