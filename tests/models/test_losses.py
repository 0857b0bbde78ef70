"""Losses against hand-worked values and the official numbers."""

from __future__ import annotations

import json
import lzma
import math

import pytest
import torch
from safetensors.torch import load

from lavis_dynrefer.models.losses import asymmetric_loss, sigmoid_contrastive_loss


def test_asymmetric_loss_of_one_positive_is_its_log_likelihood():
    # gamma_positive 0: plain -log sigmoid(0) = log 2
    loss = asymmetric_loss(torch.zeros(1, 1), torch.ones(1, 1))
    assert loss.item() == pytest.approx(math.log(2))


def test_asymmetric_loss_of_one_negative_is_clipped_and_focused():
    # p = .5, absent = .55: -log(.55) * (1 - .55) ** 7
    loss = asymmetric_loss(torch.zeros(1, 1), torch.zeros(1, 1))
    assert loss.item() == pytest.approx(-math.log(0.55) * 0.45**7, rel=1e-5)


def test_asymmetric_loss_forgives_sure_negatives():
    assert asymmetric_loss(torch.full((1, 1), -4.0), torch.zeros(1, 1)).item() == 0


def test_contrastive_loss_of_one_pair():
    loss = sigmoid_contrastive_loss(
        torch.tensor([[0.3]]), log_scale=torch.tensor(math.log(10)), bias=torch.tensor(-10.0)
    )
    assert loss.item() == pytest.approx(math.log(1 + math.exp(7)), rel=1e-6)


def test_contrastive_loss_knows_its_columns():
    similarity = torch.tensor([[0.0, 9.0, 0.0, 0.0], [0.0, 0.0, 9.0, 0.0]])
    arguments = {"log_scale": torch.tensor(0.0), "bias": torch.tensor(0.0)}
    right = sigmoid_contrastive_loss(similarity, first_column=1, **arguments)
    wrong = sigmoid_contrastive_loss(similarity, first_column=2, **arguments)
    assert right < wrong


@pytest.fixture(scope="module")
def golden(shared):
    numbers = json.loads((shared / "parity" / "losses.json").read_text())
    return numbers, load(
        lzma.decompress((shared / "parity" / "losses.safetensors.xz").read_bytes())
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dynrefer", {"gamma_negative": 7, "gamma_positive": 0, "clip": 0.05}),
        ("default", {"gamma_negative": 4, "gamma_positive": 1, "clip": 0.05}),
        ("pos2_noclip", {"gamma_negative": 3, "gamma_positive": 2, "clip": 0}),
    ],
)
def test_asymmetric_loss_equals_the_official_one(golden, name, settings):
    numbers, tensors = golden
    logits = tensors["asl/x"].requires_grad_(True)
    loss = asymmetric_loss(logits, tensors["asl/y"].float(), **settings)
    (grad,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(numbers[f"asl_{name}"]["loss"], rel=1e-5)
    assert torch.allclose(grad, tensors[f"asl/grad_{name}"], atol=1e-5)


def test_contrastive_loss_equals_the_official_one(golden):
    numbers, tensors = golden
    expected = numbers["contrastive"]
    first = tensors["contrastive/first_call_img_by_txt"].requires_grad_(True)
    second = tensors["contrastive/second_call_img_by_txt"].requires_grad_(True)
    scale = torch.tensor(expected["attr_t"], requires_grad=True)
    bias = torch.tensor(expected["attr_b"], requires_grad=True)

    halves = [
        sigmoid_contrastive_loss(similarity, log_scale=scale, bias=bias)
        for similarity in (first.T, second)
    ]
    loss = expected["attr_weight"] * sum(halves) / 2
    loss.backward()

    assert loss.item() == pytest.approx(expected["loss"], rel=1e-6)
    assert scale.grad.item() == pytest.approx(expected["grad_attr_t"], rel=1e-5)
    assert bias.grad.item() == pytest.approx(expected["grad_attr_b"], rel=1e-4)
    assert torch.allclose(first.grad, tensors["contrastive/grad_first"], atol=1e-6)
    assert torch.allclose(second.grad, tensors["contrastive/grad_second"], atol=1e-6)
