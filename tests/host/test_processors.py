"""The LAVIS processors: an image and boxes in, views out."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from lavis_dynrefer.host.processors import EvalProcessor, TrainProcessor

IMAGE = Image.linear_gradient("L").resize((100, 80)).convert("RGB")
BOXES = [[10, 10, 40, 50], [0, 0, 100, 80], [90, 70, 120, 95]]


def processor(kind=EvalProcessor, **settings):
    return kind.from_config(OmegaConf.create({"name": "x", "image_size": 32, **settings}))


def test_shapes_of_a_sample():
    sample = processor(policy="image", num_views=3)(IMAGE, BOXES)
    assert {
        key: tuple(sample[key].shape) for key in ("views", "boxes", "scales", "image_boxes")
    } == {
        "views": (3, 3, 3, 32, 32),
        "boxes": (3, 3, 4),
        "scales": (3, 3),
        "image_boxes": (3, 4),
    }
    assert sample["views"].dtype == torch.uint8
    assert sample["routes"] == {}


def test_task_policy_routes_views_to_tasks():
    sample = processor(policy="task", scales={"caption": [0, 0.5], "tags": [0, 0.1]})(IMAGE, BOXES)
    assert sample["scales"][0].tolist() == pytest.approx([0, 0.1, 0.5])
    assert sample["routes"]["caption"].tolist() == [[0, 2]] * 3


def test_num_views_follows_from_fixed_scales():
    sample = processor(policy="fixed", scales=[0, 0.5], num_views=7)(IMAGE, BOXES)
    assert sample["scales"].shape == (3, 2)


def test_no_boxes_give_an_empty_sample():
    sample = processor(policy="random", num_views=2, kind=TrainProcessor)(IMAGE, [])
    assert sample["views"].shape == (0, 2, 3, 32, 32)
    assert sample["boxes"].shape == (0, 2, 4)


def test_images_of_any_mode_are_read_as_rgb():
    assert (
        processor(policy="fixed", scales=[0])(IMAGE.convert("CMYK"), BOXES)["views"].shape[2] == 3
    )


def test_invalid_boxes_are_rejected():
    with pytest.raises(ValueError, match="no part inside the 100 x 80 image"):
        processor(policy="fixed", scales=[0])(IMAGE, [[200, 10, 220, 20]])


def test_training_needs_num_views():
    with pytest.raises(ValueError, match="num_views"):
        processor(TrainProcessor)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_views": "two"}, "num_views: expected a whole number of at least 1, got 'two'"),
        ({"num_views": 0}, "num_views: expected a whole number"),
        ({"num_views": 2, "image_size": 64.5}, "image_size: expected a whole number .* got 64.5"),
        ({"num_views": 2, "image_size": 0}, "image_size: expected"),
        ({"policy": ["image"], "num_views": 2}, r"expected one of \[.*'fixed', .*got \['image'\]"),
        ({"policy": "task", "scales": [0, 0.5]}, "scales: expected a list of numbers for each"),
        ({"policy": "task", "scales": {"caption": 3}}, r"scales\.caption: expected numbers"),
        ({"policy": "fixed", "scales": "0,0.5"}, "scales: expected numbers in"),
        ({"policy": "fixed", "scales": [0, "half"]}, "scales: expected numbers in"),
        ({"num_views": 2, "hash": ["phash"]}, "hash: expected one of"),
        ({"num_views": 2, "candidates": 0.5}, "candidates: expected numbers"),
        ({"num_views": 2, "candidates": [0, 0.5]}, "candidates: expected numbers above 0"),
        ({"num_views": 4, "candidates": [0.1, 0.5]}, "4 views need 3 candidates"),
    ],
)
def test_invalid_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        processor(**settings)


def test_task_policy_has_default_scales():
    sample = processor(policy="task", num_views=2)(IMAGE, BOXES)
    assert sample["scales"][0].tolist() == pytest.approx([0, 0.1, 0.2, 0.4])
    assert sample["routes"]["attributes"].tolist() == [[0, 1]] * 3
