"""The Q-Former against LAVIS's own forward pass."""

from __future__ import annotations

import torch

from lavis_dynrefer.config import QFormerConfig
from lavis_dynrefer.models.qformer import QFormer


def qformer(dropout=0.0):
    torch.manual_seed(0)
    config = QFormerConfig(num_queries=4, width=16, depth=3, heads=2, mlp_width=32, dropout=dropout)
    made = QFormer(config, region_width=12).eval()
    for parameter in made.parameters():  # biases and norms start as zeros and ones
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return made


def by_lavis(made, tokens):
    queries = made.query_tokens.expand(len(tokens), -1, -1)
    return made.bert.encoder(
        made.bert.embeddings(query_embeds=queries),
        encoder_hidden_states=tokens,
        query_length=queries.shape[1],
    ).last_hidden_state


def test_is_the_forward_pass_of_lavis():
    made, tokens = qformer(), torch.randn(3, 5, 12)
    ours, theirs = made(tokens), by_lavis(made, tokens)
    assert torch.allclose(ours, theirs, atol=1e-6)
    parameters = list(made.parameters())
    for mine, other in zip(
        torch.autograd.grad(ours.square().sum(), parameters),
        torch.autograd.grad(theirs.square().sum(), parameters),
    ):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_dropout_differs_between_regions():
    made = qformer(dropout=0.5).train()
    # Without attention and feed-forward blocks only the dropout of the query tokens is left.
    tokens = torch.randn(1, 5, 12).repeat(2, 1, 1)
    for parameter in made.bert.encoder.parameters():
        if parameter.ndim == 2:
            parameter.data.zero_()
    first, second = made(tokens)
    assert not torch.allclose(first, second)


def test_the_state_dict_has_the_buffer_of_blip2():
    assert qformer().state_dict()["bert.embeddings.position_ids"].shape == (1, 512)


def test_no_regions_give_no_queries():
    assert qformer()(torch.zeros(0, 5, 12)).shape == (0, 4, 16)
