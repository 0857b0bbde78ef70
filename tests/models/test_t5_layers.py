"""T5's arithmetic against Hugging Face's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5LayerFF, T5LayerNorm

from lavis_dynrefer.models.llms import t5_layers

FORMATS = [
    # weights, states, result
    (torch.float32, torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32, torch.bfloat16),  # the encoder's: its states are float32
]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("stored", "given", "result"), FORMATS)
def test_the_norm_is_hugging_faces(stored, given, result, fused, monkeypatch):
    if not fused:  # torch before 2.4
        monkeypatch.setattr(t5_layers, "rms_norm", t5_layers._rms_norm)
    layer = T5LayerNorm(16)
    nn.init.normal_(layer.weight, mean=1.0)
    layer.to(stored)
    states = (10 * torch.randn(3, 5, 16)).to(given)

    found = t5_layers.normed(layer, states, result)

    assert found.dtype == result
    # Hugging Face rounds to bfloat16 once more, in between: at most one last bit of difference.
    tolerance = 1e-6 if result == torch.float32 else 2**-7
    torch.testing.assert_close(found, layer(states), rtol=tolerance, atol=0)


@pytest.mark.skipif(not hasattr(nn, "RMSNorm"), reason="torch < 2.4")
def test_another_librarys_norm_may_stand_in_its_place():
    layer, states = nn.RMSNorm(16, eps=0.5), torch.randn(3, 16)
    nn.init.normal_(layer.weight)
    torch.testing.assert_close(t5_layers.normed(layer, states), layer(states))


@pytest.mark.parametrize("kind", ["gated-gelu", "relu"])
def test_the_feed_forward_is_hugging_faces(kind):
    torch.manual_seed(0)
    config = T5Config(d_model=16, d_ff=32, feed_forward_proj=kind)
    config.dense_act_fn = "gelu"
    layer = T5LayerFF(config).eval()
    states = torch.randn(2, 3, 16)
    torch.testing.assert_close(t5_layers.feed_forward(layer, states), layer(states))


def test_weights_in_bfloat16_are_multiplied_in_the_format_of_the_states():
    layer = nn.Linear(64, 8, bias=False).bfloat16()
    states = torch.randn(4, 64)
    expected = states @ layer.weight.float().T
    assert torch.equal(t5_layers.product(layer, states), expected)
