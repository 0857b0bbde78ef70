"""A tiny SAM of random weights, for tests of points."""

from __future__ import annotations

import pytest
import torch
import transformers

HAS_SAM = hasattr(transformers, "SamModel")
needs_sam = pytest.mark.skipif(
    not HAS_SAM, reason=f"transformers {transformers.__version__} has no SamModel; 4.29 has"
)


def save_tiny_sam(folder):
    """Save a SAM whose masks depend strongly on the point."""
    sizes = {"hidden_size": 16, "image_size": 64, "patch_size": 8}
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 16}
    config = transformers.SamConfig(
        vision_config={
            **sizes,
            **small,
            "output_channels": 16,
            "window_size": 4,
            "num_pos_feats": 8,
            "global_attn_indexes": [0],
        },
        prompt_encoder_config={**sizes, "mask_input_channels": 4},
        mask_decoder_config={**small, "hidden_size": 16, "iou_head_hidden_dim": 16},
    )
    model = transformers.SamModel(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            std = 8 if name.endswith("positional_embedding") else 0.7
            weight.normal_(std=std, generator=generator)
    model.save_pretrained(folder)
    images = transformers.SamImageProcessor(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}
    )
    transformers.SamProcessor(images).save_pretrained(folder)
    return folder
