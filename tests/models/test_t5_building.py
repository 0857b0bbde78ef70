"""Flan-T5's output layer is its own under every transformers; a shared one stays shared."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.llms import build_llm
from lavis_dynrefer.models.llms.t5_building import head_scale
from lavis_dynrefer.models.weights.checkpoint import load_weights
from lavis_dynrefer.models.weights.tensor_reading import CheckpointError

SIZES = {"d_model": 64, "d_kv": 32, "d_ff": 64, "num_layers": 1, "num_heads": 2, "vocab_size": 640}
TOKENS = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
TOKENIZER = "assets/tiny/tokenizer.json"
GATED = {"feed_forward_proj": "gated-gelu"}


def build(**options):
    return build_llm("flan_t5", {"tokenizer": TOKENIZER, **options}).model


@pytest.fixture(scope="module")
def weights():
    """Of an untied T5, without the copies of the words."""
    state = build(config=SIZES).state_dict()
    return {name: value for name, value in state.items() if "embed_tokens" not in name}


@pytest.fixture
def folder(weights, tmp_path):
    def write(*, head=None, **config):
        tensors = dict(weights)
        if head == "none":
            del tensors["lm_head.weight"]
        elif head == "words":
            tensors["lm_head.weight"] = tensors["shared.weight"].clone()
        save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
        settings = {"model_type": "t5", **SIZES, **TOKENS, **GATED, **config}
        (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
        return str(tmp_path)

    return write


def is_tied(model):
    words = model.get_input_embeddings().weight
    assert model.get_encoder().embed_tokens.weight is words
    assert model.get_decoder().embed_tokens.weight is words
    return model.get_output_embeddings().weight is words


FLAN = {"tie_word_embeddings": False}
WRITTEN_BY_5 = {"tie_word_embeddings": True, "transformers_version": "5.24.0"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(
    "config",
    [
        FLAN,
        {**WRITTEN_BY_5, "scale_decoder_outputs": False},
        {**FLAN, "model_type": "mt5"},
        {"model_type": "mt5"},
        {**WRITTEN_BY_5, "model_type": "mt5"},
    ],
    ids=str,
)
def test_an_output_layer_of_its_own_stays_so(folder, weights, config, dtype):
    model = build(pretrained=folder(**config), dtype=dtype)

    assert not is_tied(model)
    assert head_scale(model.config) is None
    stored = torch.float32 if dtype == "float32" else torch.bfloat16
    for layer, name in ((model.lm_head, "lm_head"), (model.shared, "shared")):
        assert torch.equal(layer.weight, weights[f"{name}.weight"].to(stored))
    model.tie_weights()  # libraries call it
    assert not is_tied(model)


@pytest.mark.parametrize(
    ("config", "head", "scale"),
    [
        ({}, "none", 1 / 8),
        ({"tie_word_embeddings": True}, "words", 1 / 8),
        ({**WRITTEN_BY_5, "scale_decoder_outputs": True}, "none", 1 / 8),
        ({**WRITTEN_BY_5, "scale_decoder_outputs": False}, "words", None),
        ({**WRITTEN_BY_5, "model_type": "mt5"}, "none", None),
    ],
    ids=str,
)
def test_a_shared_matrix_stays_shared(folder, config, head, scale):
    model = build(pretrained=folder(head=head, **config))

    assert is_tied(model)
    assert head_scale(model.config) == scale


@pytest.mark.parametrize("tied", [False, True])
def test_random_weights(tied):
    model = build(config={**SIZES, "tie_word_embeddings": tied})

    assert is_tied(model) == tied
    assert (head_scale(model.config) is not None) == tied
    assert model.lm_head.weight.std().item() == pytest.approx(1, abs=0.02)  # that of 4.26


def test_a_saved_model_is_the_same_when_it_is_read(tmp_path):
    model = build(config=SIZES)
    model.save_pretrained(tmp_path)

    again = build(pretrained=str(tmp_path))

    assert not is_tied(again)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert saved["architectures"] == ["T5ForConditionalGeneration"]


def test_two_matrices_for_one_are_refused(folder, weights):
    with pytest.raises(CheckpointError, match="one tensor in the model and two in the file"):
        build(pretrained=folder(tie_word_embeddings=True))
    tied = build(config={**SIZES, "tie_word_embeddings": True})
    with pytest.raises(
        CheckpointError, match=r"lm_head\.weight and shared\.weight|shared.*lm_head"
    ):
        load_weights(tied, weights)


def test_another_kind_of_model_is_refused(folder):
    with pytest.raises(InputError, match=r"pretrained: .*\['mt5', 't5'\], .* has 'umt5'"):
        build(pretrained=folder(model_type="umt5"))
