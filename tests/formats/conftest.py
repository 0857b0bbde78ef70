"""Two images with three regions, every field of a prediction filled, and odd names."""

from __future__ import annotations

import pytest

from lavis_dynrefer.formats import ImageResult
from lavis_dynrefer.structures import RegionPrediction


@pytest.fixture
def regions():
    flower = RegionPrediction(
        box=(10.0, 20.0, 50.0, 80.0),
        caption='a "red", wet flower',
        caption_score=0.25,
        tags=(("flower", 0.75), ("a;b", 0.5)),
        attributes=(("color:red", 0.9), ("wet", 0.2), ("dry", 0.1)),
        categories=(("flower", 2.0), ("tree", -3.0)),
        scales={"caption": (0.0, 0.5), "tags": (0.0, 0.1)},
    )
    tree = RegionPrediction(
        box=(-4.0, 0.0, 100.0, 40.0),
        caption="a tree",
        caption_score=0.5,
        attributes=(("color:red", 0.5), ("wet", 0.25), ("dry", 0.125)),
        categories=(("tree", 0.0), ("flower", -1.0)),
        scales={"caption": (0.0, 0.5)},
    )
    return flower, tree


@pytest.fixture
def results(regions):
    flower, tree = regions
    return [
        ImageResult("a b/ü\u2028\udc80.jpg", "/data/a b/ü.jpg", 100, 80, (flower, tree), (7, 3)),
        ImageResult("empty.png", "/data/empty.png", 30, 20, ()),
        ImageResult("c.png", "/data/c.png", 200, 100, (tree,), (9,), image_id=12),
    ]
