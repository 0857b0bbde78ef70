"""RegionPredictor with other views than the model's own."""

from __future__ import annotations

import re

import pytest

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.views.policies import POLICIES, TaskPrior


@pytest.fixture(scope="module")
def scene():
    made = make_scene(0, 2_000_001)
    return render(made), [item.box for item in made.objects]


@pytest.fixture(scope="module")
def predictor():
    return RegionPredictor("tiny", device="cpu")


def test_views_need_only_fit_the_tasks_that_are_asked(predictor, scene):
    image, boxes = scene
    partly = TaskPrior({"categories": [0, 0.5], "attributes": [0, 0.1]})  # three views in all
    expected = predictor.predict(image, boxes, tasks=["categories"], views="fixed:0,0.5")

    encoded = predictor.encode(image, boxes, views=partly)

    for found in (
        predictor.answer(encoded, tasks=["categories"]),
        predictor.predict(image, boxes, tasks=["categories"], views=partly),
    ):
        for one, other in zip(found, expected):
            assert dict(one.categories) == pytest.approx(dict(other.categories), abs=1e-4)
    with pytest.raises(ValueError, match="the model fuses 2 views, got 3"):
        predictor.predict(image, boxes, tasks=["tags"], views=partly)


def test_an_encoding_answers_for_its_own_views_only(predictor, scene):
    encoded = predictor.encode(*scene, views="fixed:0,0.5")

    assert predictor.answer(encoded, views="fixed:0,0.5") == predictor.answer(encoded)
    own = predictor.encode(*scene)
    assert predictor.answer(own, views="task") == predictor.answer(own)
    with pytest.raises(ValueError, match=r"encoded with 'fixed:0,0\.5', got 'image'"):
        predictor.answer(encoded, views="image")
    with pytest.raises(ValueError, match="encoded by another model"):
        RegionPredictor("tiny", device="cpu").answer(encoded)


@pytest.mark.parametrize(
    ("views", "scales"),
    [
        ("fixed:0,0.5", {"caption": (0.0, 0.5), "attributes": (0.0, 0.5)}),
        ("task", {"caption": (0.0, 0.7), "attributes": (0.0, 0.7)}),
    ],
)
def test_views_are_chosen_by_name(predictor, scene, views, scales):
    (answer,) = predictor.predict(scene[0], scene[1][:1], views=views, tasks=list(scales))
    assert answer.scales == scales


def test_the_policy_of_the_model_keeps_its_settings_when_named(predictor, scene):
    image, boxes = scene
    assert predictor.predict(image, boxes, views="task") == predictor.predict(image, boxes)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ("best", re.escape(f"expected one of {sorted(POLICIES)}, got 'best'")),
        ("fixed", "expected scales as in fixed:0,0.5, got 'fixed'"),
        ("fixed:0,wide", "expected scales as in fixed:0,0.5, got 'fixed:0,wide'"),
        ("fixed:0.5", "expected scales as in fixed:0,0.5"),
        (7, "expected a name or an object with `plan`, got 7"),
        ("fixed:0,0.2,0.5", "the model fuses 2 views, got 3 per region"),
    ],
)
def test_invalid_views_are_named(predictor, scene, views, message):
    with pytest.raises(ValueError, match=message):
        predictor.predict(*scene, views=views)
