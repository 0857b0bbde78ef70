from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from lavis_dynrefer.lab.pretraining import RegionPretraining, shuffle_channels

HEADS = ("cells", "mean", "summary", "query")
PARTS = ("backbone", "region_encoder", "qformer", "text_encoder", "contrast")


@pytest.fixture
def config(smallest_config):
    keys = ("vision", "region", "qformer", "text", "tagging", "contrast")
    return {key: smallest_config[key] for key in keys}


@pytest.fixture
def pretraining(config):
    torch.manual_seed(0)
    return RegionPretraining.from_config(OmegaConf.create(config))


@pytest.fixture
def scattered(region_batch):
    """Five regions of five images."""
    return {**region_batch, "image_ids": [1, 2, 3, 4, 5]}


@pytest.fixture
def one_image():
    """Two regions of one image of 128 x 128 px, at t = 0 and t = 1."""
    region, whole = [0.0, 0.0, 32.0, 32.0], 32 / 128
    image_boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0], [32.0, 48.0, 96.0, 80.0]])
    return {
        "views": torch.zeros(2, 2, 3, 32, 32, dtype=torch.uint8),
        "boxes": torch.stack([torch.tensor([region, region]), image_boxes * whole], dim=1),
        "image_boxes": image_boxes,
        "image_ids": [7, 7],
        "tags": [[0], [3]],  # red, house
    }


def test_untrained_heads_give_every_label_probability_one_half(pretraining, scattered):
    for name in HEADS:
        head = getattr(pretraining, f"{name}_head")
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    torch.nn.init.zeros_(pretraining.contrast.log_scale)
    torch.nn.init.zeros_(pretraining.contrast.bias)
    torch.nn.init.zeros_(pretraining.contrast.decoder.classifier.weight)
    torch.nn.init.zeros_(pretraining.contrast.decoder.classifier.bias)
    losses = pretraining(scattered)
    undecided = pytest.approx(7 * math.log(2), rel=1e-5)  # log 2 for each of 7 labels
    assert [losses[f"loss_{name}"].item() for name in (*HEADS, "text")] == [undecided] * 5
    assert losses["loss"].item() == pytest.approx(35 * math.log(2), rel=1e-5)


def test_views_show_the_regions_that_lie_in_them(pretraining, one_image):
    rois, shown = pretraining._regions_in_views(one_image)
    found = sorted(zip(shown.tolist(), rois.int().tolist()))
    # The first view is the first region. It shows a quarter of the second region, which is too
    # little: 32 of 64 px across, 16 of 32 down.
    assert found == [
        (0, [0, 0, 0, 32, 32]),
        (0, [1, 0, 0, 16, 16]),
        (0, [3, 0, 0, 16, 16]),
        (1, [1, 8, 12, 24, 20]),
        (1, [2, 0, 0, 32, 32]),
        (1, [3, 8, 12, 24, 20]),
    ]


def test_the_own_view_of_a_masked_region_shows_that_region_alone(pretraining, one_image):
    masks = torch.full((2, 28, 28), 255, dtype=torch.uint8)
    masks[1, 0, 0] = 254  # of the second region a little is hidden
    scales = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0], [0.0, 0.0, 64.0, 60.0]])
    changed = {**one_image, "image_boxes": boxes, "masks": masks, "scales": scales}

    rois, shown = pretraining._regions_in_views(changed)

    pairs = set(zip(rois[:, 0].int().tolist(), shown.tolist()))
    assert pairs == {(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (3, 0), (3, 1)}


def test_views_show_no_regions_of_other_images(pretraining, one_image):
    rois, shown = pretraining._regions_in_views({**one_image, "image_ids": [7, 8]})
    assert list(zip(rois[:, 0].tolist(), shown.tolist())) == [(0, 0), (1, 0), (2, 1), (3, 1)]


def test_a_region_is_clipped_to_the_view(pretraining, one_image):
    moved = one_image["image_boxes"].clone()
    moved[1] = torch.tensor([32.0, 16.0, 96.0, 48.0])  # 32 of 64 px across, all of it down
    boxes = one_image["boxes"].clone()
    boxes[1, 1] = moved[1] / 4
    changed = {**one_image, "image_boxes": moved, "boxes": boxes}
    rois, shown = pretraining._regions_in_views(changed)
    assert rois[(rois[:, 0] == 0) & (shown == 1)].tolist() == [[0, 16, 8, 32, 24]]


def test_labels_may_share_a_region(pretraining, scattered):
    class Scores(torch.nn.Module):
        def forward(self, texts, queries):
            return torch.full((len(queries), len(texts)), 2.0)

    contrast = pretraining.contrast
    contrast.decoder = Scores()
    torch.nn.init.ones_(contrast.log_scale)
    torch.nn.init.constant_(contrast.bias, -1.0)
    logit, regions = 2 * math.e - 1, len(scattered["tags"])
    true = sum(len(set(tags)) for tags in scattered["tags"])
    present = true * math.log1p(math.exp(-logit))
    absent = (7 * regions - true) * math.log1p(math.exp(logit))
    loss = pretraining(scattered)["loss_text"].item()
    assert loss == pytest.approx((present + absent) / regions, rel=1e-5)


def test_one_batch_is_learned(pretraining, scattered):
    optimizer = torch.optim.Adam(pretraining.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        losses = pretraining(scattered)
        losses["loss"].backward()
        optimizer.step()
    assert losses["loss"].item() - losses["loss_text"].item() < 4.0  # four heads, from 19.4
    assert losses["loss_text"].item() < 4.0  # from 12.6


def test_labels_have_the_prompts_of_attributes(pretraining):
    prompts = {text for _ in range(20) for text in pretraining._sample_prompts()}
    assert {"the red", "the  is red"} <= prompts
    assert len(prompts) == 2 * len(pretraining.tag_names)


@pytest.mark.parametrize("part", PARTS)
def test_pretrained_parts_load_into_the_model(pretraining, smallest_model, part):
    ours = {name for name in pretraining.state_dict() if name.startswith(f"{part}.")}
    assert ours == {name for name in smallest_model.state_dict() if name.startswith(f"{part}.")}


def test_pretraining_goes_on_from_pretrained_parts(pretraining, config, tmp_path):
    file = tmp_path / "pretrained.safetensors"
    kept = {name: one for name, one in pretraining.state_dict().items() if "head" not in name}
    save_file(kept, file)
    torch.manual_seed(1)

    further = RegionPretraining.from_config(
        OmegaConf.create({**config, "pretrained": {"parts": str(file)}})
    ).state_dict()

    assert all(torch.equal(further[name], one) for name, one in kept.items())
    assert not torch.equal(further["query_head.weight"], pretraining.query_head.weight)


def test_new_heads_are_trained_alone(config, scattered):
    heads = [f"{name}_head" for name in HEADS]
    model = RegionPretraining.from_config(OmegaConf.create({**config, "trainable": heads}))
    model(scattered)["loss"].backward()
    moved = {name.split(".")[0] for name, one in model.named_parameters() if one.grad is not None}
    assert moved == set(heads)


def test_masks_reach_the_queries_and_not_the_heads_on_cells(pretraining, scattered):
    pretraining.eval()
    masks = torch.zeros(len(scattered["views"]), 28, 28, dtype=torch.uint8)
    masks[:, :14] = 255
    with torch.no_grad():
        plain = pretraining(scattered)
        ignored = pretraining({**scattered, "masks": masks})
        pretraining.region_encoder.masks = "cells"
        used = pretraining({**scattered, "masks": masks})

    assert ignored["loss_query"] == plain["loss_query"]
    assert [used[f"loss_{name}"] for name in HEADS[:3]] == [
        plain[f"loss_{name}"] for name in HEADS[:3]
    ]
    assert used["loss_query"] != plain["loss_query"]


def test_channels_change_places_in_the_chosen_regions_alone():
    channels = torch.tensor([10, 20, 30], dtype=torch.uint8)
    views = channels.view(1, 1, 3, 1, 1).expand(200, 2, 3, 4, 4)
    chosen = torch.arange(200) % 2 == 0

    shuffled = shuffle_channels(views, chosen)

    assert torch.equal(shuffled[~chosen], views[~chosen])
    assert (shuffled == shuffled[:, :1, :, :1, :1]).all()  # whole views, all of a region alike
    orders = {tuple(one) for one in shuffled[chosen, 0, :, 0, 0].tolist()}
    assert orders == set(permutations([10, 20, 30])) - {(10, 20, 30)}


def test_colours_are_not_learned_from_other_colours(config, scattered):
    recoloured = {**config, "recoloured": 1.0}
    model = RegionPretraining.from_config(OmegaConf.create(recoloured))
    colours = [label in ("red", "green", "blue") for label in model.tag_names]
    assert any(colours)
    model(scattered)["loss"].backward()
    for name in HEADS:
        learned = getattr(model, f"{name}_head").bias.grad != 0
        assert learned.tolist() == [not colour for colour in colours]


def test_colours_are_as_they_are_in_evaluation(config, scattered):
    losses = []
    for share in (0.0, 1.0):
        torch.manual_seed(0)
        model = RegionPretraining.from_config(OmegaConf.create({**config, "recoloured": share}))
        torch.manual_seed(1)
        losses.append(model.eval()(scattered)["loss"].item())
    assert losses[0] == losses[1]
