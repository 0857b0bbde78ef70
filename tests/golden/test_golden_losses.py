"""Losses and the alignment module of the released code, values and gradients."""

from __future__ import annotations

import pytest
import torch
from golden_folder import read_json, read_tensors

from lavis_dynrefer.models.region_encoder import DeformableAlign
from lavis_dynrefer.models.losses import asymmetric_loss, sigmoid_contrastive_loss


@pytest.fixture(scope="module")
def recorded(golden_dir):
    numbers = read_json(golden_dir / "losses.json")
    return numbers, read_tensors(golden_dir / "losses.safetensors.xz")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dynrefer", {"gamma_negative": 7, "gamma_positive": 0, "clip": 0.05}),
        ("default", {"gamma_negative": 4, "gamma_positive": 1, "clip": 0.05}),
        ("pos2_noclip", {"gamma_negative": 3, "gamma_positive": 2, "clip": 0}),
    ],
)
def test_asymmetric_loss_equals_the_official_one(recorded, name, settings):
    numbers, tensors = recorded
    logits = tensors["asl/x"].requires_grad_(True)
    loss = asymmetric_loss(logits, tensors["asl/y"].float(), **settings)
    (grad,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(numbers[f"asl_{name}"]["loss"], rel=1e-5)
    assert torch.allclose(grad, tensors[f"asl/grad_{name}"], atol=1e-5)


def test_contrastive_loss_equals_the_official_one(recorded):
    numbers, tensors = recorded
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


def test_alignment_equals_the_official_module(golden_dir):
    golden = read_tensors(golden_dir / "align.safetensors.xz")
    align = DeformableAlign(golden["ref"].shape[1], groups=4)
    align.load_state_dict(
        {name[6:]: value for name, value in golden.items() if name.startswith("param/")}
    )
    reference = golden["ref"].requires_grad_(True)
    nested = golden["input"].requires_grad_(True)

    out = align(reference, nested)
    (out * golden["grad_out"]).sum().backward()

    assert torch.allclose(out, golden["output"], atol=1e-4)
    assert torch.allclose(nested.grad, golden["grad_input"], atol=1e-3)
    assert torch.allclose(reference.grad, golden["grad_ref"], atol=1e-3)
    weight = align.offset_mask.weight.grad
    assert torch.allclose(weight, golden["grad_param/offset_mask.weight"], rtol=1e-3, atol=1e-3)
