"""Sampled sentences: which tokens may be sampled, how often each is, and their probability."""

from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from lavis_dynrefer.config import CaptionSearch
from lavis_dynrefer.models.llms.beam_search import beam_search

START, END, A, B = range(4)
# After START comes A (.6) or B (.4), after A the end or another A, after B the end.
TABLE = torch.tensor([[0, 0, 0.6, 0.4], [0, 1.0, 0, 0], [0, 0.5, 0.5, 0], [0, 1.0, 0, 0]])
ROWS = 4000


def sample(top_p, table=TABLE, rows=ROWS, **options):
    torch.manual_seed(0)
    settings = {"num_beams": 1, "max_new_tokens": 3, "repetition_penalty": 1.0, **options}
    return beam_search(
        lambda tokens, parents: table.log()[tokens],
        torch.full((rows,), START),
        CaptionSearch(top_p=top_p, **settings),
        end=END,
    )


def test_tokens_come_as_often_as_they_are_likely():
    tokens, _ = sample(1.0)

    assert (tokens[:, 1] == A).float().mean().item() == pytest.approx(0.6, abs=0.03)  # 4 sigma


def test_a_sentence_has_the_product_of_its_probabilities():
    tokens, scores = sample(1.0)

    known = {(B, END): 0.4, (A, END): 0.3, (A, A): 0.15}  # three tokens: the last A or the end
    found = {tuple(row[1:3].tolist()): score for row, score in zip(tokens, scores.exp().tolist())}
    assert found == pytest.approx(known)


def test_only_the_likeliest_tokens_are_sampled():
    tokens, scores = sample(0.5, rows=50, max_new_tokens=1)

    assert set(tokens[:, 1].tolist()) == {A}
    assert set(scores.exp().tolist()) == {1.0}


def test_a_low_temperature_makes_likely_tokens_likelier():
    tokens, _ = sample(1.0, temperature=0.5)

    # .6 ** 2 of .6 ** 2 + .4 ** 2
    assert (tokens[:, 1] == A).float().mean().item() == pytest.approx(0.692, abs=0.03)


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.99])
def test_as_many_tokens_are_left_as_in_transformers(top_p):
    logits = torch.randn(40, generator=torch.Generator().manual_seed(1)) * 2
    both = LogitsProcessorList([TemperatureLogitsWarper(0.7), TopPLogitsWarper(top_p)])
    kept = both(None, logits[None].clone())[0].softmax(dim=-1)

    table = logits.softmax(dim=-1).repeat(40, 1)
    tokens, scores = sample(top_p, table, max_new_tokens=1, temperature=0.7)

    expected = kept[tokens[:, 1]]
    assert (expected > 0).all()
    torch.testing.assert_close(scores.exp(), expected)
