"""Losses against hand-worked values and the official numbers."""

from __future__ import annotations

import math

import pytest
import torch

from lavis_dynrefer.models.decoders.contrast import ContrastDecoder
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


def test_labels_may_share_a_region():
    # Scores of 2 and 1, times e, minus 1; both labels hold of region 0 and none of region 1.
    class Scores(torch.nn.Module):
        def forward(self, texts, queries):
            return torch.tensor([[2.0, 1.0], [2.0, 1.0]])

    contrast = ContrastDecoder(Scores())
    torch.nn.init.ones_(contrast.log_scale)
    torch.nn.init.constant_(contrast.bias, -1.0)
    truth = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    logits = [2 * math.e - 1, math.e - 1]
    present = sum(math.log1p(math.exp(-logit)) for logit in logits)
    absent = sum(math.log1p(math.exp(logit)) for logit in logits)
    loss = contrast.label_loss(torch.zeros(2, 4), torch.zeros(2, 3, 4), truth)
    assert loss.item() == pytest.approx((present + absent) / 2, rel=1e-5)
