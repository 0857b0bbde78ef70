"""Pretraining of the small backbone."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from lavis_dynrefer.models.pretraining import BackbonePretraining


@pytest.fixture
def pretraining(smallest_config):
    torch.manual_seed(0)
    keys = ("vision", "region", "tagging")
    return BackbonePretraining.from_config(
        OmegaConf.create({key: smallest_config[key] for key in keys})
    )


def test_untrained_heads_are_undecided_about_every_tag(pretraining, region_batch):
    for head in (pretraining.region_head, pretraining.summary_head):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    loss = pretraining(region_batch)["loss"].item()
    assert loss == pytest.approx(2 * 7 * 0.693147, rel=1e-5)  # log 2 for each of 7 tags, twice


def test_it_learns_one_batch(pretraining, region_batch):
    optimizer = torch.optim.Adam(pretraining.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        loss = pretraining(region_batch)["loss"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 2.0  # two heads, from 9.7


def test_its_backbone_fits_the_model(pretraining, smallest_model):
    state = {
        name: value
        for name, value in pretraining.state_dict().items()
        if name.startswith("backbone.")
    }
    own = {name for name in smallest_model.state_dict() if name.startswith("backbone.")}
    assert set(state) == own
