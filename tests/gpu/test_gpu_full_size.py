"""The full size with random weights: training step, answers, memory and speed."""

from __future__ import annotations

import time

import pytest
import torch
from full_size import build_full_model, full_batch

from lavis_dynrefer.models.precision import autocast

NEEDED = 40  # GiB: weights 13, a training step of 64 regions about 24
GIB = 2**30


@pytest.fixture(scope="module")
def model(gpu, tmp_path_factory):
    free = torch.cuda.mem_get_info()[0] / GIB
    if free < NEEDED:
        pytest.skip(f"the full size needs {NEEDED} GiB on the GPU, {free:.0f} are free")
    return build_full_model(tmp_path_factory.mktemp("full"), gpu.device)


def test_a_training_step(gpu, model, record_property):
    torch.cuda.reset_peak_memory_stats()
    model.train()
    with autocast(gpu.device, "bf16"):
        losses = model(full_batch(gpu.device))
    losses["loss"].backward()

    record_property("peak of the memory, GiB", torch.cuda.max_memory_allocated() / GIB)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert bool(weight.grad.isfinite().all()), name
    model.zero_grad()


def test_answers(gpu, model, record_property):
    batch = full_batch(gpu.device)
    model.eval().predict(batch, tasks=["caption"], dtype="released")  # sets up the kernels
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    start = time.perf_counter()

    answers = model.predict(batch, tasks=["caption"], dtype="released")

    torch.cuda.synchronize()
    record_property("captions of 64 regions, seconds", time.perf_counter() - start)
    record_property("peak of the memory, GiB", torch.cuda.max_memory_allocated() / GIB)
    assert len(answers) == 64
    assert all(0 <= answer.caption_score <= 1 for answer in answers)
