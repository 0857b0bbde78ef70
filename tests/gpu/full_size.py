"""The released model at its full size, with random weights, and what to ask it."""

from __future__ import annotations

from dataclasses import replace

import torch

from lavis_dynrefer.config import CaptioningConfig, DynReferConfig, TaggingConfig
from lavis_dynrefer.lab.random_weights import FLAN_T5_XL, TAG_COUNT
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.model_parts import build_parts


def build_full_model(folder, device, *, depth=None, tags=TAG_COUNT):
    """The model on a device, made there: 4.1 billion weights.

    Args:
        folder: for the list of tags.
        device: where its weights are made.
        depth: layers of each part instead of the released numbers; the widths stay.
        tags: their number.
    """
    path = folder / "tags.txt"
    path.write_text("\n".join(f"tag {number}" for number in range(tags)), encoding="utf-8")
    sizes = FLAN_T5_XL if depth is None else {**FLAN_T5_XL, "num_layers": depth}
    llm = {"config": sizes, "tokenizer": "assets/tiny/tokenizer.json", "dtype": "bfloat16"}
    config = DynReferConfig(
        tagging=TaggingConfig(vocabulary=str(path)), captioning=CaptioningConfig(llm_options=llm)
    )
    if depth is not None:
        parts = {name: getattr(config, name) for name in ("vision", "text", "qformer")}
        config = replace(config, **{n: replace(part, depth=depth) for n, part in parts.items()})
    with device:
        return DynRefer(**build_parts(config), trainable=config.trainable)


def full_batch(device, *, regions=64, views=3, side=224):
    """Regions to train on or to describe, with their pixels on a device."""
    whole = torch.tensor([0.0, 0.0, float(side), float(side)])
    return {
        "views": torch.zeros(regions, views, 3, side, side, dtype=torch.uint8, device=device),
        "boxes": whole.repeat(regions, views, 1).to(device),
        "scales": torch.zeros(regions, views),
        "image_boxes": whole.repeat(regions, 1),
        "captions": ["a red house left of a green tree"] * regions,
        "tags": [[0, 2]] * regions,
        "controls": ["|"] * regions,
    }
