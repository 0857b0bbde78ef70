"""The released way to make views, which ours is measured against."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lavis_dynrefer.lab.benchmarks import view_speed
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.views.policies import ImagePrior
from lavis_dynrefer.views.view_processor import ViewProcessor


def test_both_ways_make_the_same_views():
    pytest.importorskip("cv2")
    image = render(make_scene(0, 3))
    boxes = view_speed.random_boxes(25, image.size, np.random.default_rng(1))
    ours = ViewProcessor(ImagePrior(3, hash="official"), image_size=32).crop(image, boxes)

    views, inside, scales = view_speed.plain_views(image, boxes, size=32)

    assert torch.equal(scales, ours["scales"])
    assert torch.equal(inside, ours["boxes"])
    pixels = (views * view_speed._STD + view_speed._MEAN) * 255
    assert torch.equal(pixels.round().to(torch.uint8), ours["views"])


def test_each_size_is_measured(monkeypatch):
    pytest.importorskip("cv2")
    monkeypatch.setattr(view_speed, "SIZES", ((64, 48),))
    results = view_speed.measure_views(pairs=2)
    assert set(results) == {"64x48, 1 a call", "64x48, 10 a call"}
    assert all(numbers["ratio"] > 0 for numbers in results.values())
