"""Checkpoints: key checks and the official names."""

from __future__ import annotations

import json

import pytest
import torch

from lavis_dynrefer.models.weights.checkpoint import (
    OFFICIAL_DERIVED,
    from_official,
    is_official,
    load_weights,
    to_official,
)
from lavis_dynrefer.models.weights.tensor_reading import CheckpointError


def test_names_survive_translation_both_ways(smallest_model):
    state = smallest_model.state_dict()
    official = to_official(state)
    assert is_official(official)
    back = from_official(official)
    assert set(back) == set(state) - {"qformer.bert.embeddings.position_ids"}
    assert all(torch.equal(back[name], state[name]) for name in back)


def test_official_weights_fill_the_model(smallest_model):
    official = {
        name: torch.full_like(value, 0.5)
        for name, value in to_official(smallest_model.state_dict()).items()
    }
    report = load_weights(smallest_model, official)
    assert report.missing == ()
    assert all((weight == 0.5).all() for weight in smallest_model.parameters())


def test_every_official_name_has_a_translation(parity):
    shapes = json.loads((parity / "state_dict_keys.json").read_text(encoding="utf-8"))["all_keys"]
    state = {name: torch.empty(0) for name in shapes}
    assert len(from_official(state)) == len(set(shapes) - set(OFFICIAL_DERIVED))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update(extra=torch.zeros(1)), r"1 unexpected \['extra'\]"),
        (lambda state: state.pop("backbone.norm.weight"), r"1 missing \['backbone.norm.weight'\]"),
        (
            lambda state: state.update({"backbone.norm.weight": torch.zeros(3)}),
            r"backbone.norm.weight: file \(3,\), model \(32,\)",
        ),
        (
            lambda state: state.update({"backbone.norm.weight": torch.ones(32, dtype=torch.int8)}),
            r"backbone.norm.weight: file \(32,\) of integers, model \(32,\)",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(smallest_model, change, message):
    state = dict(smallest_model.state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=message):
        load_weights(smallest_model, state)


def test_named_parts_may_be_missing(smallest_model):
    state = {
        name: value
        for name, value in smallest_model.state_dict().items()
        if not name.startswith("backbone.")
    }
    report = load_weights(smallest_model, state, may_miss=["backbone."])
    assert all(name.startswith("backbone.") for name in report.missing)
    assert report.missing
