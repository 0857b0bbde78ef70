"""Drawn scenes to predict on, and a small split to inspect."""

from __future__ import annotations

import json

import numpy as np
import pytest
from page_elements import EVIL
from PIL import Image

from lavis_dynrefer.cli import main
from lavis_dynrefer.structures import (
    AttributeInfo,
    ImageRecord,
    RegionRecord,
    RegionSet,
    Rejection,
)
from lavis_dynrefer.synthetic import make_scene, render


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A folder of three images and boxes.json; and image -> boxes."""
    folder = tmp_path_factory.mktemp("scenes")
    boxes = {}
    for number in range(3):
        scene = make_scene(0, 2_000_001 + number)
        render(scene).save(folder / f"scene {number}.png")
        boxes[f"scene {number}.png"] = [list(item.box) for item in scene.objects[:2]]
    (folder / "boxes.json").write_text(json.dumps(boxes), encoding="utf-8")
    return folder, boxes


@pytest.fixture
def image(scenes):
    return scenes[0] / "scene 0.png"


@pytest.fixture(scope="session")
def predict():
    """Runs `dynrefer predict` in this process; returns its exit code."""
    return lambda *arguments: main(["predict", *map(str, arguments)])


@pytest.fixture
def region_set(tmp_path):
    """Two images: one large with two regions and two dropped ones, one that is not there."""
    Image.new("RGB", (1200, 600), "white").save(tmp_path / "1.png")
    images = {
        1: ImageRecord(1, str(tmp_path / "1.png"), 1200, 600),
        2: ImageRecord(2, str(tmp_path / "2.png"), 40, 30),
    }
    regions = [
        RegionRecord(10, 1, (120.0, 60.0, 240.0, 180.0), "a small dog", tags=("dog",)),
        RegionRecord(11, 1, (0.0, 0.0, 1200.0, 600.0), EVIL, category="house"),
        RegionRecord(20, 2, (5.0, 5.0, 20.0, 25.0), "a cat", attributes=(1, 0), score=0.5),
    ]
    outside = RegionRecord(12, 1, (30.0, -904.0, 50.0, -800.0), "far away")
    empty = RegionRecord(13, 1, (70.0, 80.0, 70.0, 95.0), "thin")
    rejected = [
        Rejection("outside_image", "region 12 lies outside", 1, outside),
        Rejection("empty_box", "region 13 is empty", 1, empty),
        Rejection("long_caption", "region 14 is long", 1),
    ]
    colours = [AttributeInfo(f"color:{name}/x", "color", "color", "is", "head") for name in "ab"]
    return RegionSet("demo-protocol", "val", images, regions, rejected, tuple(colours))


@pytest.fixture
def rng():
    """Makes a generator of random numbers."""
    return lambda seed=0: np.random.default_rng(seed)
