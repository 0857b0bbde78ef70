"""T5 over whole sequences against Hugging Face's own forward."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from lavis_dynrefer.models.hugging_face import IGNORED, losses_by_row, mean_loss
from lavis_dynrefer.models.llms.t5_stacks import encode, teacher_forced

FULL, BRAIN = torch.float32, torch.bfloat16
TARGETS = torch.tensor([[7, 8, 9, 10, 1], [11, 12, 1, 0, 0], [13, 1, 0, 0, 0]])
LABELS = TARGETS.masked_fill(TARGETS == 0, IGNORED)


def build(dtype=FULL, **changes):
    """A T5 of two blocks whose weights and norms are far from their start values."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2}
    buckets = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 6}
    options = {"dropout_rate": 0.0, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    config = T5Config(
        **{**sizes, **buckets, **options, "num_heads": 2, "decoder_start_token_id": 0, **changes}
    )
    config.dense_act_fn = "gelu"
    model = T5ForConditionalGeneration(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.requires_grad_(False).to(dtype)


@pytest.fixture
def prefix():
    return torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(1)).requires_grad_(True)


@pytest.fixture
def mask():
    return torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1, 0, 1, 1, 0, 0, 0, 0, 1]])


def ours(model, prefix, mask, dtype=FULL, **options):
    encoded = encode(model, prefix, mask, dtype, **options)
    return teacher_forced(model, encoded, mask, TARGETS, **options)


def theirs(model, prefix, mask):
    return model(
        inputs_embeds=prefix,
        attention_mask=mask,
        decoder_attention_mask=(TARGETS != 0).long(),
        labels=LABELS,
    ).logits


def loss_and_gradient(logits, prefix):
    loss = mean_loss(logits, LABELS)
    return loss, torch.autograd.grad(loss, prefix)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True},
        {"feed_forward_proj": "relu"},
        {"num_decoder_layers": 1},
    ],
)
@pytest.mark.parametrize("recompute", [False, True])
def test_losses_and_gradients_are_hugging_faces(prefix, mask, changes, recompute):
    model = build(**changes)
    expected = theirs(model, prefix, mask)

    found = ours(model, prefix, mask, recompute=recompute)

    real = TARGETS != 0
    torch.testing.assert_close(found[real], expected[real], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        loss_and_gradient(found, prefix),
        loss_and_gradient(expected, prefix),
        rtol=1e-5,
        atol=1e-5,
    )


def test_in_bfloat16_ours_is_as_close_to_float32_as_hugging_faces(prefix, mask):
    exact = theirs(build(BRAIN).float(), prefix, mask)[TARGETS != 0]
    their_error = (theirs(build(BRAIN), prefix, mask)[TARGETS != 0] - exact).abs().mean()

    found = ours(build(BRAIN), prefix, mask, BRAIN)

    assert found.dtype == BRAIN
    assert (found[TARGETS != 0] - exact).abs().mean() < 1.2 * their_error


def test_float32_products_of_weights_in_bfloat16_are_those_of_the_same_weights(prefix, mask):
    expected = ours(build(BRAIN).float(), prefix, mask)
    found = ours(build(BRAIN), prefix, mask, FULL)
    torch.testing.assert_close(
        loss_and_gradient(found, prefix), loss_and_gradient(expected, prefix), rtol=1e-5, atol=1e-6
    )


def test_dropout_is_where_hugging_face_has_it(prefix, mask):
    model = build(dropout_rate=0.1).train()
    calls = Counter()
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    theirs(model, prefix, mask)
    expected = calls.copy()
    calls.clear()

    ours(model, prefix, mask)

    assert calls == expected


def test_probabilities_of_attention_are_dropped_in_training_only(prefix, mask):
    model = build()
    for module in model.modules():
        if hasattr(module, "has_relative_attention_bias"):
            module.dropout = 0.5
    once, again = (ours(model.train(), prefix, mask) for _ in range(2))
    assert not torch.equal(once, again)
    once, again = (ours(model.eval(), prefix, mask) for _ in range(2))
    assert torch.equal(once, again)


def test_recomputed_blocks_drop_the_same_numbers_again(prefix, mask):
    model = build(dropout_rate=0.3).train()
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        logits = ours(model, prefix, mask, recompute=recompute)
        found.append(loss_and_gradient(logits, prefix))
    torch.testing.assert_close(*found)


def kept(model, prefix, mask, **options):
    """Tensors that are kept for the backward pass, weights and views of one tensor once."""
    tensors = {}

    def keep(tensor):
        tensors[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = ours(model, prefix, mask, **options)
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    return logits, [tensor for place, tensor in tensors.items() if place not in own]


def test_no_cast_weight_is_kept_for_the_backward_pass(prefix, mask):
    model = build(BRAIN, d_ff=48)
    _, tensors = kept(model, prefix, mask)
    shapes = {tuple(weight.shape) for weight in model.parameters() if weight.ndim == 2}
    assert tensors
    assert not shapes & {shape for t in tensors for shape in (tuple(t.shape), tuple(t.shape[::-1]))}


def test_recomputing_keeps_the_inputs_of_the_blocks(prefix, mask):
    model = build(num_layers=6)
    _, everything = kept(model, prefix, mask)
    _, inputs = kept(model, prefix, mask, recompute=True)
    # 12 blocks of two or three parts, of which only the first states are kept.
    assert sum(t.numel() for t in inputs) < 0.1 * sum(t.numel() for t in everything)


def test_losses_are_float32_and_means_over_real_tokens():
    logits = torch.randn(3, 5, 40).bfloat16()
    exact = -logits.double().log_softmax(-1).gather(-1, TARGETS[..., None])[..., 0]
    exact = exact * (TARGETS != 0)
    counts = torch.tensor([5, 3, 2])

    assert mean_loss(logits, LABELS).item() == pytest.approx(exact.sum().item() / 10, rel=1e-6)
    rows = losses_by_row(logits, LABELS)
    assert rows.dtype == FULL
    assert rows.tolist() == pytest.approx((exact.sum(1) / counts).tolist(), rel=1e-6)
    # What Hugging Face returns moves in steps.
    assert F.cross_entropy(logits.flatten(0, 1), LABELS.flatten()).dtype == BRAIN
