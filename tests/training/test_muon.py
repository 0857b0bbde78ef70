"""Muon: the numbers of a step, which weights it takes, and its state in a checkpoint."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.training import checkpoints
from lavis_dynrefer.training.loop.muon import Muon, orthogonalize
from lavis_dynrefer.training.loop.optimizer_choice import muon_of
from lavis_dynrefer.training.run_settings import RunSettings

RUN = RunSettings(max_epoch=1, init_lr=0.01, batch_size_train=1, optimizer="muon", num_workers=0)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.names = nn.Embedding(5, 6)
        self.body = nn.Linear(6, 4)
        self.norm = nn.LayerNorm(4)
        self.class_head = nn.Linear(4, 3)

    def forward(self, numbers):
        return self.class_head(self.norm(self.body(self.names(numbers))))


def trained(model, optimizer, steps=1):
    for step in range(steps):
        numbers = torch.tensor([step % 5, 2, 4])
        nn.functional.cross_entropy(model(numbers), torch.tensor([0, 1, 2])).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (128, 384), (1, 5)])
def test_singular_values_get_near_one_and_their_vectors_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.T @ orthogonalize(matrix) @ right.T
    values = turned.diagonal()
    assert 0.65 < values.min() <= values.max() < 1.25
    torch.testing.assert_close(turned, torch.diag(values), rtol=0, atol=1e-9)


def test_no_gradient_moves_nothing():
    assert orthogonalize(torch.zeros(3, 4)).equal(torch.zeros(3, 4))


def test_the_first_step_by_hand():
    """A diagonal gradient (3, 3), of norm 4.2426: x -> 3.4445 x - 4.775 x^3 + 2.0315 x^5 takes both
    values from 0.7071 to 1.1065, 0.7121, 1.1006, 0.7058 and 1.1081."""
    value = 1.1081111
    weight = nn.Parameter(torch.eye(2))
    optimizer = Muon([{"params": [weight], "matrices": True, "weight_decay": 0.5}], lr=0.1)
    weight.grad = 3 * torch.eye(2)
    optimizer.step()
    # Decay by 0.1 * 0.5, then a step of 0.1 * 0.2 * sqrt(2).
    expected = 0.95 - 0.1 * 0.2 * 2**0.5 * value
    torch.testing.assert_close(weight.data, expected * torch.eye(2))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has no Muon before 2.9")
@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_steps_are_those_of_torch(shape):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    group = {"params": [ours], "matrices": True, "weight_decay": 0.05}
    options = {"lr": 0.01, "weight_decay": 0.05, "adjust_lr_fn": "match_rms_adamw"}
    optimizers = (Muon([group], lr=0.01), torch.optim.Muon([theirs], **options))
    for _ in range(4):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        [optimizer.step() for optimizer in optimizers]
    assert (ours - start).abs().max() > 0.01
    # torch iterates in bfloat16.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-4)


def test_linear_layers_are_matrices_unless_they_are_heads():
    model = Small()
    model.norm.requires_grad_(False)
    matrices, others, flat = muon_of(model, RUN).param_groups
    names = {id(item): name for name, item in model.named_parameters()}
    assert [names[id(item)] for item in matrices["params"]] == ["body.weight"]
    assert [names[id(item)] for item in others["params"]] == ["names.weight", "class_head.weight"]
    assert [names[id(item)] for item in flat["params"]] == ["body.bias", "class_head.bias"]
    assert [group["weight_decay"] for group in (matrices, others, flat)] == [0.05, 0.05, 0.0]


def test_a_run_goes_on_from_its_state():
    whole = Small()
    optimizer = muon_of(whole, RUN)
    trained(whole, optimizer, 2)
    state = copy.deepcopy(optimizer.state_dict())  # torch shares its tensors
    resumed = copy.deepcopy(whole)
    again = muon_of(resumed, RUN)
    checkpoints.load_optimizer(again, state, source="run.pth")

    one, other = trained(whole, optimizer), trained(resumed, again)

    assert all(torch.equal(one[name], other[name]) for name in one)
    assert len({int(values["step"]) for values in again.state.values()}) == 1


@pytest.mark.parametrize("muon_first", [True, False])
def test_the_state_of_the_other_optimiser_is_refused(muon_first):
    model = Small()
    muon = muon_of(model, RUN)
    adamw = torch.optim.AdamW([{"params": group["params"]} for group in muon.param_groups])
    kinds = [muon, adamw]
    before, now = kinds if muon_first else kinds[::-1]
    trained(model, before)
    with pytest.raises(InputError, match=r"another optimiser \(the optimiser had .*'momentum'"):
        checkpoints.load_optimizer(now, before.state_dict(), source="run.pth")
