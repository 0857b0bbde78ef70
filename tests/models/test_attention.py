"""Attention against the formula written out."""

from __future__ import annotations

import math

import pytest
import torch

from lavis_dynrefer.models.attention import aligned, attend, join_heads, split_heads


def naive(queries, keys, values, bias, scale):
    logits = queries @ keys.transpose(-1, -2) * scale + bias
    return logits.softmax(dim=-1) @ values


def test_two_keys_of_equal_score_share_the_values():
    queries = torch.tensor([[[[0.0]]]])
    values = torch.tensor([[[[2.0], [4.0]]]])
    assert attend(queries, torch.ones(1, 1, 2, 1), values).item() == pytest.approx(3)
    bias = torch.tensor([[0.0, math.log(3)]])  # probabilities 1/4 and 3/4
    result = attend(queries, torch.ones(1, 1, 2, 1), values, bias=bias)
    assert result.item() == pytest.approx(3.5)


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize(
    ("shape", "causal"), [(None, False), (None, True), ((1, 3, 5, 5), False), ((2, 1, 1, 5), False)]
)
def test_is_the_formula_and_so_are_its_gradients(scale, shape, causal):
    generator = torch.Generator().manual_seed(0)
    triple = [
        torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(3)
    ]
    # In float32, as T5's: the format of the queries decides.
    bias = None if shape is None else torch.randn(shape, generator=generator)
    full = torch.zeros(1, dtype=torch.float64) if bias is None else bias.double()
    if causal:
        full = torch.full((5, 5), float("-inf"), dtype=torch.float64).triu(1)
    expected = naive(*triple, full, 0.5 if scale is None else scale)
    result = attend(*triple, bias=bias, scale=scale, causal=causal)
    torch.testing.assert_close(result, expected)
    weights = torch.randn(result.shape, generator=generator, dtype=torch.float64)
    for mine, theirs in zip(
        torch.autograd.grad((result * weights).sum(), triple),
        torch.autograd.grad((expected * weights).sum(), triple),
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("shape", "causal"), [(None, False), (None, True), ((1, 3, 5, 5), False), ((2, 1, 1, 5), False)]
)
def test_training_in_16_bits_on_a_cpu_is_the_formula(shape, causal):
    # Another path than without gradients; both are compared with the formula in 32 bits.
    generator = torch.Generator().manual_seed(0)
    triple = [torch.randn(2, 3, 5, 4, generator=generator).bfloat16() for _ in range(3)]
    bias = None if shape is None else torch.randn(shape, generator=generator).bfloat16()
    full = torch.zeros(1) if bias is None else bias.float()
    if causal:
        full = torch.full((5, 5), float("-inf")).triu(1)
    exact = [part.float().requires_grad_() for part in triple]
    expected = naive(*exact, full, 0.5)
    rounded = [part.requires_grad_() for part in triple]
    result = attend(*rounded, bias=bias, causal=causal)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), expected, atol=0.04, rtol=0.02)
    for mine, theirs in zip(
        torch.autograd.grad(result.float().pow(2).sum(), rounded),
        torch.autograd.grad(expected.pow(2).sum(), exact),
    ):
        torch.testing.assert_close(mine.float(), theirs, atol=0.1, rtol=0.05)


def test_dropout_keeps_the_mean():
    torch.manual_seed(0)
    ones = torch.ones(64, 4, 8, 8)
    result = attend(ones, ones, ones, dropout=0.5)
    assert result.mean().item() == pytest.approx(1, abs=0.05)
    assert result.std() > 0.1


@pytest.mark.parametrize(
    ("kind", "size", "strides"),
    [("cpu", 10, (10, 10, 1)), ("meta", 10, (16, 16, 1)), ("meta", 16, (16, 16, 1))],
)
def test_rows_of_a_bias_are_aligned_elsewhere_than_on_a_cpu(kind, size, strides):
    bias = aligned(torch.ones(2, 1, size, device=kind))
    assert (bias.shape, bias.stride()) == ((2, 1, size), strides)


def test_heads_are_split_and_joined():
    states = torch.arange(12.0).reshape(1, 2, 6)
    assert split_heads(states, 3)[0, 1].tolist() == [[2, 3], [8, 9]]
    assert torch.equal(join_heads(split_heads(states, 3)), states)
