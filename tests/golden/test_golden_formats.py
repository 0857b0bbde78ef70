"""Answers in every number format: what changes against float32, and by how much.

The golden models have random weights, so that scores lie close together and captions are nearly
ties: what changes here is more than in a trained model. The summary lists it.
"""

from __future__ import annotations

import pytest
import torch

from lavis_dynrefer.models.answering import Answerer
from lavis_dynrefer.models.precision import HALVES, NumberFormats
from lavis_dynrefer.questions import Questions

FLOAT16, BFLOAT16 = HALVES
FORMATS = {
    "bfloat16": NumberFormats("bfloat16", *[BFLOAT16] * 4),
    "released": NumberFormats("released", FLOAT16, torch.float32, BFLOAT16, BFLOAT16),
}


def answers(model, inputs, formats):
    views, boxes = inputs
    sample = {
        "views": views,
        "boxes": boxes,
        "scales": torch.zeros(views.shape[:2]),
        "image_boxes": boxes[:, 0],
    }
    with torch.no_grad():
        return Answerer(model, formats).answer_in_parts(sample, Questions(), len(views))


@pytest.fixture(scope="session")
def exact(model, inputs):
    return answers(model, inputs, NumberFormats("float32"))


def worst(found, exact, field):
    pairs = [
        (dict(getattr(one, field)), dict(getattr(other, field))) for one, other in zip(found, exact)
    ]
    return max((abs(a[name] - b[name]) for a, b in pairs for name in a.keys() & b), default=0.0)


@pytest.mark.parametrize("name", FORMATS)
def test_half_formats_only_round(model, inputs, exact, close, changed, name):
    found = answers(model, inputs, FORMATS[name])

    for row, (one, other) in enumerate(zip(found, exact)):
        if one.caption != other.caption:
            changed.append(f"{name}, region {row}: {other.caption!r} became {one.caption!r}")
        tags = {tag for tag, _ in one.tags} ^ {tag for tag, _ in other.tags}
        if tags:
            changed.append(f"{name}, region {row}: tags at the threshold, {sorted(tags)}")
    close(f"attributes in {name}", worst(found, exact, "attributes"), 0.0, atol=0.02)
