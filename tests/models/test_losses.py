"""Losses against hand-worked values and the official numbers."""

from __future__ import annotations

import math

import pytest
import torch

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


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_asymmetric_loss_is_finite_in_half_precision(target):
    logits = torch.tensor([[-30.0, 30.0]], dtype=torch.float16)
    assert asymmetric_loss(logits, torch.full((1, 2), target)).isfinite()
