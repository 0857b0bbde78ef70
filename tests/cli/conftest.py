"""Drawn scenes to predict on."""

from __future__ import annotations

import json

import pytest

from lavis_dynrefer.cli import main
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
    (folder / "boxes.json").write_text(json.dumps(boxes))
    return folder, boxes


@pytest.fixture
def image(scenes):
    return scenes[0] / "scene 0.png"


@pytest.fixture(scope="session")
def predict():
    """Runs `dynrefer predict` in this process; returns its exit code."""
    return lambda *arguments: main(["predict", *map(str, arguments)])
