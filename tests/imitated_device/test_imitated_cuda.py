"""What the imitated device notices; and the released size on it, without numbers."""

from __future__ import annotations

import pytest
import torch
from imitated_cuda import CUDA, ImitatedCuda, MixedDevicesError, Wait, problem

from lavis_dynrefer.lab.random_weights import TAG_COUNT
from lavis_dynrefer.models.precision import autocast
from tests.gpu.full_size import build_full_model, full_batch

pytestmark = pytest.mark.skipif(bool(problem()), reason=problem() or "-")


def test_an_operator_that_mixes_devices_raises():
    with ImitatedCuda() as machine:
        there, here = torch.ones(2, device="cuda"), torch.ones(2)
        with pytest.raises(MixedDevicesError, match=r"add.Tensor.*shapes \[\(2,\)\] on the CPU"):
            there + here
        with pytest.raises(MixedDevicesError, match="indices on cuda"):
            here[torch.zeros(1, dtype=torch.long, device="cuda")]
        assert (there * torch.tensor(3.0)).tolist() == [3, 3]  # a number may come from the CPU
        assert machine.waits == [Wait("read", machine.waits[0].place)]


@pytest.mark.parametrize(
    ("act", "kinds"),
    [
        (lambda x: x.cpu(), ["to host"]),
        (lambda x: x[0].item(), ["read"]),
        (lambda x: float(x.sum()), ["read"]),
        (lambda x: bool((x > 0).all()), ["read"]),
        (lambda x: x.nonzero(), ["size"]),
        (lambda x: x[x > 1], ["size"]),
        (lambda x: torch.tensor([1.0], device=x.device), ["to device"]),
        (lambda x: x.copy_(torch.ones(3)), ["to device"]),
        (lambda x: x[torch.tensor([0])], ["to device"]),
        (lambda x: torch.arange(3, device=x.device) + x.topk(2)[1][0], []),
        (lambda x: torch.ones(3).to(x.device, non_blocking=True), []),
    ],
)
def test_what_makes_the_cpu_wait(act, kinds):
    with ImitatedCuda() as machine:
        x = torch.arange(3.0, device="cuda")
        act(x)
    assert [wait.kind for wait in machine.waits] == kinds
    assert {wait.place.split(":")[0] for wait in machine.waits} <= {"test_imitated_cuda.py"}


def test_autocast_and_backward_are_those_of_cuda():
    with ImitatedCuda():
        layer = torch.nn.Linear(3, 3).to("cuda")
        with torch.autocast("cuda", torch.float16):
            product = layer(torch.ones(1, 3, device="cuda"))
            assert product.dtype == torch.float16
            assert product.softmax(dim=-1).dtype == torch.float32
    with ImitatedCuda(backward=True):
        weight = torch.nn.Parameter(torch.ones(3, device="cuda"))
        (weight * weight).sum().backward()
        assert weight.grad.device == CUDA
        assert weight.grad.tolist() == [2, 2, 2]


def reached(loss):
    """The weights that a backward from a loss would reach, by identity."""
    found, waiting, seen = set(), [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [following for following, _ in node.next_functions]
    return found


def result_types(module):
    """A set that is filled with the types of what a module and its parts return."""
    types = set()

    def note(_module, _inputs, result):
        types.update({result.dtype} if isinstance(result, torch.Tensor) else ())

    for part in module.modules():
        part.register_forward_hook(note)
    return types


# The released depth (39 layers of the ViT, 24 of T5) takes 15 s of a core.
@pytest.mark.parametrize(
    ("depth", "tags"), [(2, 300), pytest.param(None, TAG_COUNT, marks=pytest.mark.slow)]
)
def test_the_full_size(tmp_path, depth, tags):
    with ImitatedCuda(numbers=False):
        model = build_full_model(tmp_path, CUDA, depth=depth, tags=tags).train()
        of_t5, of_vit = (result_types(part) for part in (model.captioning.llm, model.backbone.vit))

        with autocast(CUDA, "fp16"):
            losses = model(full_batch(CUDA))

        assert {(loss.dtype, loss.device) for loss in losses.values()} == {(torch.float32, CUDA)}
        assert torch.float16 not in of_t5
        assert torch.bfloat16 in of_t5
        assert torch.float16 in of_vit
        found = reached(losses["loss"])
        trained = {name: id(p) for name, p in model.named_parameters() if p.requires_grad}
        assert {name for name, key in trained.items() if key not in found} == set()

        of_t5.clear()
        answers = model.predict(
            full_batch(CUDA), dtype="released", generation={"max_new_tokens": 1}
        )
        assert len(answers) == 64
        assert torch.float16 not in of_t5
