"""The released size: every tensor of the official model has its twin here, of the same shape."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from lavis_dynrefer.config import CaptioningConfig, DynReferConfig, TaggingConfig
from lavis_dynrefer.models.backbone import Backbone
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.model_parts import build_parts
from lavis_dynrefer.models.weights.checkpoint import OFFICIAL_DERIVED, from_official

FLAN_T5_XL = {  # google/flan-t5-xl, config.json
    "vocab_size": 32128,
    "d_model": 2048,
    "d_kv": 64,
    "d_ff": 5120,
    "num_layers": 24,
    "num_heads": 32,
}


@pytest.fixture(scope="module")
def official(parity):
    return json.loads((parity / "official_shapes.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full_model(tmp_path_factory):
    """The whole model without memory for its weights, the ViT cut to the one block of the list."""
    tags = tmp_path_factory.mktemp("full") / "tags.txt"
    tags.write_text("dog\ncat\n", encoding="utf-8")
    config = DynReferConfig(
        tagging=TaggingConfig(vocabulary=str(tags)),
        captioning=CaptioningConfig(
            llm_options={"config": FLAN_T5_XL, "tokenizer": "assets/tiny/tokenizer.json"}
        ),
    )
    one_block = replace(config.vision, depth=1)
    backbone = Backbone(one_block)  # LAVIS's ViT reads a number off a tensor: not on meta
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr("lavis_dynrefer.models.model_parts.Backbone", lambda _: backbone)
        return DynRefer(**build_parts(config), trainable=config.trainable)


def shapes(state):
    return {name: tuple(value.shape) for name, value in state.items()}


def ours(official_shapes):
    """Official shapes under our names."""
    state = {name: torch.empty(shape, device="meta") for name, shape in official_shapes.items()}
    return shapes(from_official(state))


def test_every_tensor_has_the_official_shape(official, full_model):
    expected = ours(official["all"])
    found = shapes(full_model.state_dict())
    found.pop("qformer.bert.embeddings.position_ids", None)
    assert found == expected


def test_the_official_checkpoint_is_what_is_trained(official, full_model):
    checkpoint = {
        name: shape
        for name, shape in official["checkpoint"].items()
        if name not in OFFICIAL_DERIVED
    }
    trained = {name for name, weight in full_model.named_parameters() if weight.requires_grad}
    aliases = {name for name in ours(checkpoint) if name.endswith("embed_tokens.weight")}
    assert len(official["checkpoint"]) == 350
    assert set(ours(checkpoint)) - aliases == trained


def test_number_of_trained_weights(full_model):
    count = sum(weight.numel() for weight in full_model.parameters() if weight.requires_grad)
    assert round(count / 1e6, 1) == 122.9  # official
