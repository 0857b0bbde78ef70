"""The decoder of tags and contrast, against LAVIS's layers run as they are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lavis_dynrefer.config import QueryDecoderConfig
from lavis_dynrefer.models.decoders import query_decoder
from lavis_dynrefer.models.decoders.query_decoder import QueryDecoder


def decoder(dropout=0.0, normalise=False):
    torch.manual_seed(0)
    config = QueryDecoderConfig(width=16, depth=2, heads=2, mlp_width=32, dropout=dropout)
    made = QueryDecoder(config, text_dim=6, region_dim=10, normalise=normalise)
    for parameter in made.parameters():  # biases and norms start as zeros and ones
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return made.eval()


def inputs(texts=7, regions=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(texts, 6, generator=generator), torch.randn(
        regions, 5, 10, generator=generator
    )


def by_lavis(made, texts, queries):
    """Every text beside every region, through the modules' own `forward`."""
    states = made.text_proj(texts).repeat(len(queries), 1, 1)
    vision = made.vision_proj(queries)
    for layer in made.layers:
        attended = layer.crossattention(states, encoder_hidden_states=vision)[0]
        states = layer.output(layer.intermediate(attended), attended)
    states = F.normalize(states, dim=-1) if made.normalise else states
    return made.classifier(states).squeeze(-1)


def gradients(made, score, texts, queries):
    made.zero_grad()
    queries = queries.clone().requires_grad_(True)
    (score(texts, queries) ** 2).sum().backward()
    return [queries.grad, *(parameter.grad.clone() for parameter in made.parameters())]


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("rows", [1, 6, 1000])  # 1, 2 and all texts at once
def test_is_the_layers_of_lavis(monkeypatch, normalise, rows):
    monkeypatch.setattr(query_decoder, "ROWS_ON_CPU", rows)
    made = decoder(normalise=normalise)
    with torch.no_grad():
        assert torch.allclose(made(*inputs()), by_lavis(made, *inputs()), atol=1e-6)


@pytest.mark.parametrize("kept", [0, 1000])  # recomputed in the backward pass, or not
def test_gradients_are_those_of_the_layers_of_lavis(monkeypatch, kept):
    monkeypatch.setattr(query_decoder, "ROWS_KEPT", kept)
    monkeypatch.setattr(query_decoder, "ROWS_ON_CPU", 6)
    made = decoder().train()
    ours = gradients(made, made, *inputs())
    theirs = gradients(made, lambda *given: by_lavis(made, *given), *inputs())
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kept", [0, 1000])
def test_dropout_differs_between_regions_and_is_the_same_in_the_backward_pass(monkeypatch, kept):
    monkeypatch.setattr(query_decoder, "ROWS_KEPT", kept)
    made = decoder(dropout=0.5).train()
    texts, queries = inputs(regions=1)
    queries = queries.repeat(2, 1, 1).requires_grad_(True)
    torch.manual_seed(3)
    logits = made(texts, queries)
    assert not torch.allclose(logits[0], logits[1])
    # With the same dropout the step that the gradient promises is the step that is made.
    (gradient,) = torch.autograd.grad(logits.sum(), queries)
    torch.manual_seed(3)
    moved = made(texts, queries + 1e-2 * gradient)
    promised = 1e-2 * gradient.square().sum().item()
    assert (moved - logits).sum().item() == pytest.approx(promised, rel=0.05)


@pytest.mark.parametrize(("texts", "regions"), [(0, 2), (3, 0), (0, 0)])
@pytest.mark.parametrize("trains", [False, True])
def test_no_texts_or_no_regions_give_no_logits(texts, regions, trains):
    with torch.set_grad_enabled(trains):
        assert decoder()(*inputs(texts, regions)).shape == (regions, texts)
