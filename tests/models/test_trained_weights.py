"""What a run saves and takes back: trained weights, without those that other files hold."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lavis_dynrefer.models.weights.pretrained import (
    fill_trained,
    load_sources,
    read_trained,
    trained_weights,
)
from lavis_dynrefer.models.weights.tensor_reading import CheckpointError


class Net(nn.Module):
    """A frozen table under two names, a buffer, and a trained layer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(3, 2).requires_grad_(False)
        self.tied = self.embed
        self.register_buffer("steps", torch.zeros(1))
        self.head = nn.Linear(2, 1)


def test_frozen_parameters_are_not_saved_under_any_name():
    assert sorted(trained_weights(Net())) == ["head.bias", "head.weight", "steps"]


def test_trained_weights_are_restored_and_a_missing_buffer_keeps_its_value():
    source, target = Net(), Net()
    weights = trained_weights(source)
    del weights["steps"]
    fill_trained(target, weights, source="file")
    assert torch.equal(target.head.weight, source.head.weight)
    assert target.steps.item() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head.bias": None}, r"run\.pth: .*missing \['head\.bias'\]"),
        ({"tail.bias": torch.zeros(1)}, r"run\.pth: .*unexpected \['tail\.bias'\]"),
        ({"head.bias": torch.zeros(2)}, r"run\.pth: .*another shape \['head\.bias"),
        (
            {"head.bias": torch.tensor([torch.nan])},
            r"run\.pth: nan or infinite .* \['head\.bias'\]",
        ),
    ],
)
def test_weights_of_another_model_are_refused(changes, message):
    weights = {**trained_weights(Net()), **changes}
    weights = {name: value for name, value in weights.items() if value is not None}
    with pytest.raises(CheckpointError, match=message):
        fill_trained(Net(), weights, source="run.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_in_short_formats_are_taken(dtype):
    weights = {name: torch.ones_like(value) for name, value in trained_weights(Net()).items()}
    net = Net()
    fill_trained(net, {name: value.to(dtype) for name, value in weights.items()}, source="a.pth")
    assert torch.equal(net.head.weight, weights["head.weight"])


def test_later_files_win_and_official_names_become_ours(tmp_path):
    torch.save({"a": torch.tensor(1), "b": torch.tensor(1)}, tmp_path / "1.pth")
    torch.save({"model": {"b": torch.tensor(2)}}, tmp_path / "2.pth")
    torch.save({"model": {"cem_memory": torch.tensor(3)}}, tmp_path / "official.pth")
    names = ("1.pth", "2.pth", "official.pth")
    weights = read_trained([str(tmp_path / name) for name in names], key="x")
    ours = "captioning.prefix.control_embedding"
    assert weights == {"a": torch.tensor(1), "b": torch.tensor(2), ours: torch.tensor(3)}


def test_frozen_weights_that_no_other_file_holds_are_saved(smallest_model):
    smallest_model.filled = {
        name for name, _ in smallest_model.named_parameters() if name.startswith("backbone.")
    }
    saved = set(trained_weights(smallest_model))
    assert not any(name.startswith("backbone.") for name in saved)
    assert any(name.startswith("captioning.llm.") for name in saved)


def test_a_published_language_model_is_not_saved_under_any_name(smallest_model):
    smallest_model.captioning.llm.pretrained = True
    smallest_model.filled = load_sources(smallest_model, {})

    saved = trained_weights(smallest_model)

    assert not any(name.startswith("captioning.llm.") for name in saved)
    fill_trained(smallest_model, saved, source="run.pth")
