"""Losses and the alignment module of the official code, values and gradients."""

from __future__ import annotations

import pytest
import torch
from golden_folder import read_json, read_tensors

from lavis_dynrefer.models.losses import asymmetric_loss, sigmoid_contrastive_loss
from lavis_dynrefer.models.region_encoder import DeformableAlign

OFFICIAL_DEFAULTS = {"gamma_neg": 4, "gamma_pos": 1, "clip": 0.05}
CASES = {
    "name": lambda folder: [
        name.split("_", 1)[1]
        for name, value in read_json(folder / "losses.json").items()
        if name.startswith("asl_") and isinstance(value, dict)
    ],
    "part": lambda folder: [
        name[len("grad_") :]
        for name in read_tensors(folder / "align.safetensors.xz")
        if name.startswith("grad_") and name != "grad_out"
    ],
}


@pytest.fixture(scope="module")
def recorded(golden_dir):
    numbers = read_json(golden_dir / "losses.json")
    return numbers, read_tensors(golden_dir / "losses.safetensors.xz")


def test_asymmetric_loss_equals_the_official_one(recorded, name):
    numbers, tensors = recorded
    case = numbers[f"asl_{name}"]
    settings = {**OFFICIAL_DEFAULTS, **case["kwargs"]}
    logits = tensors["asl/x"].clone().requires_grad_(True)

    loss = asymmetric_loss(
        logits,
        tensors["asl/y"].float(),
        gamma_negative=settings["gamma_neg"],
        gamma_positive=settings["gamma_pos"],
        clip=settings["clip"],
    )

    (grad,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(case["loss"], rel=1e-5)
    assert torch.allclose(grad, tensors[f"asl/grad_{name}"], atol=1e-5)


def test_contrastive_loss_equals_the_official_one(recorded):
    numbers, tensors = recorded
    expected = numbers["contrastive"]
    first = tensors["contrastive/first_call_img_by_txt"].clone().requires_grad_(True)
    second = tensors["contrastive/second_call_img_by_txt"].clone().requires_grad_(True)
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


@pytest.fixture(scope="module")
def aligned(golden_dir):
    """What the folder recorded of the alignment, our output, and its gradients by name."""
    golden = read_tensors(golden_dir / "align.safetensors.xz")
    groups = read_json(golden_dir / "configs/model.json")["dcn"]["group"]
    align = DeformableAlign(golden["ref"].shape[1], groups=groups)
    align.load_state_dict(
        {name[6:]: value for name, value in golden.items() if name.startswith("param/")}
    )
    given = {name: golden[name].clone().requires_grad_(True) for name in ("ref", "input")}
    out = align(given["ref"], given["input"])
    (out * golden["grad_out"]).sum().backward()
    leaves = {**given, **{f"param/{name}": value for name, value in align.named_parameters()}}
    return golden, out.detach(), {name: leaf.grad for name, leaf in leaves.items()}


def test_alignment_equals_the_official_module(aligned):
    golden, out, _ = aligned

    assert torch.allclose(out, golden["output"], atol=1e-4)


def test_gradients_of_the_alignment_equal_the_official_ones(aligned, part):
    golden, _, gradients = aligned

    assert torch.allclose(gradients[part], golden[f"grad_{part}"], rtol=1e-3, atol=1e-3)
