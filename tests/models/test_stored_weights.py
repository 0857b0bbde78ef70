"""Frozen weights that are stored in another format than they compute in."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from lavis_dynrefer.config import GenerationConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.llms import build_llm
from lavis_dynrefer.models.llms.stored_weights import (
    Int8Linear,
    _has_kernel,
    _kernel_is_right,
    frozen_product,
)
from lavis_dynrefer.models.model_parts import set_trainable

SIZES = {"vocab_size": 560, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A published Flan-T5, as small as can be."""
    torch.manual_seed(0)
    config = T5Config(
        **SIZES, feed_forward_proj="gated-gelu", tie_word_embeddings=False, dropout_rate=0.0
    )
    config.decoder_start_token_id = 0
    path = tmp_path_factory.mktemp("t5")
    T5ForConditionalGeneration(config).save_pretrained(path)
    return str(path)


def build(folder, **options):
    return build_llm(
        "flan_t5", {"pretrained": folder, "tokenizer": "assets/tiny/tokenizer.json", **options}
    )


def test_eight_bit_weights_by_hand():
    layer = Int8Linear(torch.tensor([[1.0, -0.5, 0.0], [0.0, 0.0, 0.0]]))
    # The scale is 1/127, rounded up to what bfloat16 has: 65/8192, 126.03 times of which are 1.
    assert layer.scales[0].item() == 65 / 8192
    assert layer.values.tolist() == [[126, -63, 0], [0, 0, 0]]
    states = torch.tensor([[1.0, 1.0, 1.0]])
    assert layer(states).tolist() == [[63 * 65 / 8192, 0.0]]


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_eight_bit_weights_are_off_by_half_a_step_at_most(stored):
    weight = torch.randn(700, 512).to(stored)  # in two blocks
    before = weight.clone()
    layer = Int8Linear(weight)
    error = (layer.values * layer.scales[:, None] - weight.float()).abs()
    assert torch.equal(weight, before)
    assert (error <= layer.scales[:, None] * 0.5001).all()


def test_few_rows_and_many_rows_give_the_same():
    layer = Int8Linear(torch.randn(320, 64))
    states = torch.randn(5, 9, 64).bfloat16().float()
    # Few rows are multiplied by torch's product with 8-bit weights, whose results are bfloat16.
    few = torch.stack([layer(row) for row in states])
    torch.testing.assert_close(few, layer(states), rtol=2**-8, atol=1e-5)


@pytest.mark.skipif(not hasattr(torch, "_weight_int8pack_mm"), reason="torch < 2.2")
def test_torchs_product_with_eight_bit_weights_is_used_where_it_is_safe():
    assert _kernel_is_right()
    assert _has_kernel(torch.zeros(128, 64, dtype=torch.int8))
    assert not _has_kernel(torch.zeros(128, 72, dtype=torch.int8))  # would read beyond its end


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_gradients_go_through_frozen_weights(kind):
    weight = torch.randn(1000, 300).bfloat16()  # in two blocks
    scales, exact = None, weight.float()
    if kind == "int8":
        layer = Int8Linear(weight)
        weight, scales = layer.values, layer.scales
        exact = weight * scales[:, None]
    states = torch.randn(2, 20, 300, requires_grad=True)
    plain = states.detach().clone().requires_grad_(True)

    found, expected = frozen_product(states, weight, scales), plain @ exact.T
    (found**2).sum().backward()
    (expected**2).sum().backward()

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(states.grad, plain.grad, rtol=1e-4, atol=1e-1)


def test_t5_in_eight_bit_scores_nearly_as_before_and_moves_as_a_whole(folder):
    prefix, mask, targets = torch.randn(2, 5, 16), torch.ones(2, 5), ["a red boat", "a tree"]
    plain, small = build(folder, dtype="bfloat16"), build(folder, dtype="int8")

    expected = plain.loss(prefix, mask, targets, max_length=8)
    assert small.loss(prefix, mask, targets, max_length=8).item() == pytest.approx(
        expected.item(), rel=0.01
    )
    assert not any(
        "SelfAttention" in name for name in small.model.state_dict() if "bias" not in name
    )
    assert {b.dtype for n, b in small.named_buffers() if n.endswith("scales")} == {torch.float32}
    on_meta = small.to("meta")
    assert all(tensor.is_meta for tensor in on_meta.buffers())


@pytest.mark.parametrize("num_beams", [1, 3])
def test_captions_in_eight_bit_are_those_of_the_rounded_weights(folder, num_beams):
    small, plain = build(folder, dtype="int8").float().eval(), build(folder).eval()
    rounded = {
        f"{name}.weight": module.values * module.scales[:, None]
        for name, module in small.model.named_modules()
        if isinstance(module, Int8Linear)
    }
    plain.model.load_state_dict({**small.model.state_dict(), **rounded})
    prefix, mask = torch.randn(2, 5, 16), torch.ones(2, 5)
    options = GenerationConfig(num_beams=num_beams, max_new_tokens=6)

    captions, scores = small.generate(prefix, mask, options)

    expected, expected_scores = plain.generate(prefix, mask, options)
    assert captions == expected
    assert scores == pytest.approx(expected_scores, rel=1e-3)


def test_lora_is_trained_beside_eight_bit_weights(folder):
    pytest.importorskip("peft")
    llm = build(folder, dtype="int8", lora={"rank": 2})
    llm.loss(torch.randn(1, 5, 16), torch.ones(1, 5), ["a tree"], max_length=8).backward()
    trained = {name: p for name, p in llm.named_parameters() if ".lora_" in name}
    assert all(p.dtype == torch.float32 and p.grad is not None for p in trained.values())
    assert any(isinstance(module, Int8Linear) for module in llm.modules())


def test_eight_bit_weights_are_not_trained_in_silence(folder):
    model = nn.Sequential()
    model.add_module("llm", build(folder, dtype="int8"))
    with pytest.raises(InputError, match="llm is stored in 8 bit and stays as it is"):
        set_trainable(model, ["llm"])


def test_eight_bit_needs_published_weights():
    with pytest.raises(InputError, match="dtype: int8 needs `pretrained`"):
        build_llm(
            "flan_t5",
            {"tokenizer": "assets/tiny/tokenizer.json", "config": SIZES, "dtype": "int8"},
        )
