"""Every fast path on a GPU beside the plain one; the fused kernels that attention must find there.

Recorded steps, and weights stored as they are computed, are in test_gpu_answers.py.
"""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lavis_dynrefer.models.attention import aligned, attend, join_heads, split_heads
from lavis_dynrefer.models.llms.stored_weights import Int8Linear
from lavis_dynrefer.models.region_encoder import ViewFeatures
from lavis_dynrefer.training.loop.muon import Muon

HALF = torch.bfloat16
# Number format, heads, width of a head, queries, keys, shape of the bias; of the released model.
ATTENTIONS = {
    "ViT": (torch.float16, 16, 88, 257, 257, None),
    "Q-Former": (torch.float32, 12, 64, 32, 32, None),
    "Q-Former to region": (torch.float32, 12, 64, 32, 257, None),
    "tags": (HALF, 12, 64, 500, 32, None),
    "T5 encoder": (HALF, 32, 64, 34, 34, (2, 32, 34, 34)),
    "T5 decoder": (HALF, 32, 64, 9, 9, (1, 32, 9, 9)),
    "T5 decoder to encoder": (HALF, 32, 64, 9, 34, (2, 1, 1, 34)),
    "T5 step, 2 beams": (HALF, 32, 64, 2, 48, (2, 32, 2, 48)),
    "T5 step, 5 beams": (HALF, 32, 64, 5, 160, (2, 32, 5, 160)),
    "T5 step to encoder": (HALF, 32, 64, 5, 40, (2, 1, 1, 40)),
}
ALLOWED = {torch.float32: 1e-3, torch.float16: 0.01, HALF: 0.03}


def inputs_of(name, device):
    """Queries, keys and values as heads of joined states, and a bias, as the model makes them."""
    dtype, heads, width, queries, keys, shape = ATTENTIONS[name]
    generator = torch.Generator().manual_seed(0)

    def states(rows):
        made = torch.randn(2, rows, heads * width, generator=generator)
        return split_heads(made.to(device, dtype), heads)

    bias = None
    if shape is not None:
        bias = aligned(torch.randn(shape, generator=generator).to(device, dtype))
    return states(queries), states(keys), states(keys), bias


@pytest.mark.parametrize("name", list(ATTENTIONS))
def test_attention_is_the_formula(gpu, name):
    queries, keys, values, bias = inputs_of(name, gpu.device)

    found = attend(queries, keys, values, bias=bias)

    scores = queries.double() @ keys.double().transpose(-1, -2) / queries.shape[-1] ** 0.5
    weights = (scores if bias is None else scores + bias.double()).softmax(dim=-1)
    difference = (found.double() - weights @ values.double()).abs().max().item()
    assert difference <= ALLOWED[queries.dtype]
    assert join_heads(found).is_contiguous()


@pytest.mark.parametrize("name", list(ATTENTIONS))
def test_attention_is_one_kernel(gpu, name, record_property):
    attention = pytest.importorskip("torch.nn.attention")
    if torch.cuda.get_device_capability(gpu.device) < (8, 0):
        pytest.skip("bfloat16 and fused attention need Ampere")
    queries, keys, values, bias = inputs_of(name, gpu.device)
    kinds = attention.SDPBackend
    fused = [kinds.FLASH_ATTENTION, kinds.EFFICIENT_ATTENTION]
    fused += [kinds.CUDNN_ATTENTION] if hasattr(kinds, "CUDNN_ATTENTION") else []

    def takes(kind):
        try:
            with attention.sdpa_kernel(kind):
                attend(queries, keys, values, bias=bias)
        except RuntimeError:  # no kernel of that kind
            return False
        return True

    found = [kind.name for kind in fused if takes(kind)]
    record_property("fused kernels that accept it", found)
    assert found


def test_alignment_of_views_is_that_of_the_cpu(training_gpu, smallest_model):
    """What it reads between cells, and the gradients; without TF32, which rounds the offsets."""
    encoder = copy.deepcopy(smallest_model.region_encoder).cpu()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    width, views = encoder.fusion[-1].out_features, encoder.num_views
    summary = torch.randn(3, views, width, generator=generator)
    maps = torch.randn(3, views, width, encoder.roi_size, encoder.roi_size, generator=generator)
    there = copy.deepcopy(encoder).to(training_gpu.device)

    expected = encoder(ViewFeatures(summary, maps))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found = there(ViewFeatures(summary.to(training_gpu.device), maps.to(training_gpu.device)))
        found.square().sum().backward()

    torch.testing.assert_close(found.cpu(), expected, rtol=5e-3, atol=5e-3)
    expected.square().sum().backward()
    for mine, theirs in zip(there.parameters(), encoder.parameters()):
        difference = (mine.grad.cpu() - theirs.grad).norm() / theirs.grad.norm().clamp(min=1e-3)
        assert difference.item() < 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
def test_weights_in_8_bit_are_whole_numbers_times_scales(gpu, dtype):
    generator = torch.Generator().manual_seed(0)
    layer = Int8Linear(torch.randn(128, 64, generator=generator)).to(gpu.device)
    states = torch.randn(3, 5, 64, generator=generator).to(gpu.device, dtype)

    found = layer(states)

    expected = F.linear(states.float(), layer.values.float() * layer.scales[:, None])
    assert found.dtype == dtype
    largest = expected.abs().max().item()
    assert (found.float() - expected).abs().max().item() <= ALLOWED[dtype] * largest


def test_a_fused_optimiser_takes_the_same_steps(training_gpu):
    if "fused" not in inspect.signature(torch.optim.AdamW).parameters:
        pytest.skip("this torch has none")
    torch.manual_seed(0)
    start = nn.Linear(7, 5)
    weights = []
    for fused in (False, True):
        layer = copy.deepcopy(start).to(training_gpu.device)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.05, fused=fused)
        for step in range(3):
            optimizer.zero_grad()
            layer(
                torch.full((2, 7), step + 1.0, device=training_gpu.device)
            ).square().sum().backward()
            optimizer.step()
        weights.append(layer.weight.detach().cpu())
    assert not torch.equal(weights[0], start.weight)
    torch.testing.assert_close(weights[1], weights[0])


def test_muon_takes_the_steps_of_the_cpu(training_gpu):
    torch.manual_seed(0)
    start = nn.Linear(7, 5)
    batches = torch.randn(3, 4, 7)
    weights = []
    for device in (torch.device("cpu"), training_gpu.device):
        layer = copy.deepcopy(start).to(device)
        matrices = {"params": [layer.weight], "matrices": True, "weight_decay": 0.05}
        optimizer = Muon([matrices, {"params": [layer.bias], "weight_decay": 0.0}], lr=0.1)
        for batch in batches:
            optimizer.zero_grad()
            layer(batch.to(device)).square().sum().backward()
            optimizer.step()
        weights.append(layer.weight.detach().cpu())
    moved = (weights[0] - start.weight).abs().max().item()
    assert moved > 0.05
    # The iteration is in bfloat16 on a GPU, and stretches what is rounded off.
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=0.15 * moved)
