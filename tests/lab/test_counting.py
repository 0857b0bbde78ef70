"""Counts worked out by hand, and against what torch and the operating system say."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

from lavis_dynrefer.lab.benchmarks.counting import Counting, Roofline
from lavis_dynrefer.lab.benchmarks.like_gpu import LikeCuda
from lavis_dynrefer.lab.benchmarks.model_sizes import (
    build_model,
    example_batch,
    model_without_weights,
)

FLOAT = 4  # bytes
WEIGHTS = (1000 * 1000 + 1000) * FLOAT  # of the layer below
ROWS = 64 * 1000 * FLOAT  # of its input and of its output


@pytest.fixture
def layer():
    with torch.device("meta"):
        return nn.Linear(1000, 1000)


def test_operators_bytes_and_operations_of_a_layer(layer):
    with Counting() as counting:
        counting.adopt(layer)
        weights = counting.live
        states = torch.empty(64, 1000)
        with torch.no_grad(), counting.stage("layer") as stage:
            F.gelu(layer(states).view(64, 10, 100))

    assert weights == WEIGHTS
    assert dict(stage.operators) == {"addmm": 1, "gelu": 1}  # a view is none
    assert dict(stage.flops) == {"float32": 2 * 64 * 1000 * 1000}
    assert stage.moved == ROWS + WEIGHTS + ROWS + 2 * ROWS
    assert stage.peak == WEIGHTS + 3 * ROWS  # input, product, result
    assert stage.live == WEIGHTS + ROWS  # all but the input is gone


def test_bytes_kept_for_the_backward_pass(layer):
    with Counting() as counting:
        counting.adopt(layer)
        with counting.saving(dict(layer.named_parameters())):
            loss = F.gelu(layer(torch.empty(64, 1000))).sum()
        before = counting.live
        loss.backward()

    assert counting.total.saved == 2 * ROWS  # the input of each operator, without the weights
    assert before >= WEIGHTS + 2 * ROWS
    assert layer.weight.grad.shape == (1000, 1000)


def test_inference_mode_is_counted_like_no_grad(layer):
    def operators(mode):
        with Counting() as counting:
            counting.adopt(layer)
            states = torch.empty(2, 4, 16, 1000)
            with mode:
                F.scaled_dot_product_attention(states, states, layer(states))
        return counting.total.operators

    assert operators(torch.inference_mode()) == operators(torch.no_grad())


def test_gpu_autocast_keeps_norms_in_float32_and_dropout_is_one_kernel(layer):
    with Counting() as counting, LikeCuda(), torch.autocast("cpu", dtype=torch.bfloat16):
        counting.adopt(layer)
        states = layer(torch.empty(8, 1000))
        formats = [states.dtype, F.layer_norm(states, (1000,)).dtype, states.softmax(-1).dtype]
        with counting.stage("dropout") as stage:
            F.dropout(states, 0.1)

    assert formats == [torch.bfloat16, torch.float32, torch.float32]
    assert dict(stage.operators) == {"native_dropout": 1}


def test_values_cannot_be_read_and_are_counted():
    with Counting() as counting:
        states = torch.ones(3)
        answers = states.tolist(), states.sum().item(), bool((states > 0).all())
        with counting.ending_loops():
            ended = bool((states > 0).all())

    assert (answers, ended) == (([0.0, 0.0, 0.0], 0.0, False), True)
    assert counting.total.reads == 4


@pytest.mark.parametrize(
    ("flops", "moved", "dtype", "expected"),
    [
        (480e12, 0, torch.bfloat16, 1.0),  # by its products
        (0, 2.8e12, torch.float32, 1.0),  # by its bytes
        (0, 0, torch.float32, 2e-6),  # by what any kernel takes
    ],
)
def test_roofline(flops, moved, dtype, expected):
    assert Roofline().seconds(flops, moved, dtype) == pytest.approx(expected)


def answer(model, batch):
    with torch.inference_mode():
        features = model.encode_views(batch["views"], batch["boxes"])
        queries = model.qformer(model.region_encoder(features))
        tags = torch.ones(len(model.tagging.tags), model.tagging.decoder.text_proj.in_features)
        return model.tagging(tags, queries)


def train(model, batch):
    model.train()(batch)["loss"].backward()
    assert [
        name for name, one in model.named_parameters() if one.requires_grad and one.grad is None
    ] == []
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("work", [answer, pytest.param(train, marks=pytest.mark.slow)])
def test_the_peak_of_the_whole_model_is_that_of_the_allocator(work):
    model = model_without_weights("tiny")
    with Counting() as counting:
        counting.adopt(model)
        weights = counting.live
        work(model, example_batch("tiny", 4))

    model = build_model("tiny")
    work(model, example_batch("tiny", 4))  # what is kept from then on is no part of the peak
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work(model, example_batch("tiny", 4))
    events = profiler.profiler.kineto_results.events()
    changes = [(one.start_ns(), one.nbytes()) for one in events if one.name() == "[memory]"]
    peak = max(accumulate(size for _, size in sorted(changes)))
    assert counting.total.peak - weights == pytest.approx(peak, rel=0.01)
