"""What each view contributes, with the embedded model on a drawn scene."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.explain.explanation import explain
from lavis_dynrefer.synthetic import make_scene, render
from lavis_dynrefer.views.policies import FixedScales, TaskPrior

TWO_WAYS = TaskPrior(
    {"caption": [0, 0.5], "tags": [0, 0.5], "attributes": [0, 0.1], "categories": [0, 0.1]}
)


@pytest.fixture(scope="module")
def scene():
    made = make_scene(0, 2_000_001)
    return render(made), [item.box for item in made.objects][:3]


@pytest.fixture(scope="module")
def predictor():
    return RegionPredictor("tiny", device="cpu")


@pytest.fixture(scope="module")
def explained(predictor, scene):
    return explain(predictor, predictor.encode(*scene, views=FixedScales([0, 0.5])))


def test_the_answers_are_those_of_predict(predictor, scene, explained):
    expected = predictor.predict(*scene, views=FixedScales([0, 0.5]))

    assert [one.prediction.caption for one in explained] == [one.caption for one in expected]
    assert [one.prediction.tags for one in explained] == [one.tags for one in expected]


def test_every_view_shows_its_part_of_the_image(scene, explained):
    image, boxes = scene
    region, context = explained[0].views

    assert (region.scale, context.scale) == (0.0, 0.5)
    assert region.frame == tuple(int(value) for value in boxes[0])
    assert context.frame[0] == int(boxes[0][0] / 2)
    assert np.asarray(region.crop).shape == (64, 64, 3)
    expected = image.crop(context.frame).resize((64, 64), 3)
    assert np.asarray(context.crop).tolist() == np.asarray(expected).tolist()
    assert region.region == pytest.approx((0, 0, 64, 64), abs=1)


def test_the_region_lies_inside_its_wider_view(explained):
    x1, y1, x2, y2 = explained[0].views[1].region

    assert 0 <= x1 < x2 <= 64
    assert 0 <= y1 < y2 <= 64
    assert (x2 - x1) * (y2 - y1) < 64 * 64 / 2


def test_changes_are_those_between_the_two_answers(predictor, scene, explained):
    image, boxes = scene
    alone = predictor.predict(image, boxes, views=FixedScales([0, 0]))[0]

    for_context = dict(explained[0].views[1].attributes)

    expected = {
        name: score - dict(alone.attributes)[name]
        for name, score in explained[0].prediction.attributes
    }
    assert for_context == pytest.approx(expected, abs=1e-5)


def test_the_largest_change_comes_first(explained):
    sizes = [abs(change) for _, change in explained[1].views[0].categories]

    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0


def test_the_gain_of_a_caption_is_a_finite_number_of_nats(explained):
    gains = [view.caption_gain for one in explained for view in one.views]

    assert all(math.isfinite(gain) for gain in gains)
    assert any(gain != 0 for gain in gains)


def test_a_view_belongs_to_the_tasks_that_look_at_it(predictor, scene):
    (one,) = explain(predictor, predictor.encode(scene[0], scene[1][:1], views=TWO_WAYS))

    assert [view.tasks for view in one.views] == [
        ("caption", "tags", "attributes", "categories"),
        ("attributes", "categories"),
        ("caption", "tags"),
    ]
    region, small, large = one.views
    assert small.caption_gain is None
    assert large.attributes == ()
    assert small.attributes
    assert region.caption_gain is not None


def test_only_what_is_asked_is_explained(predictor, scene):
    (one,) = explain(predictor, predictor.encode(scene[0], scene[1][:1]), tasks=["caption"])

    assert one.prediction.tags == ()
    assert one.prediction.attributes == ()
    assert one.views[0].tasks == ("caption",)
    assert one.views[0].attributes == ()


def test_no_boxes_need_no_explanation(predictor, scene):
    assert explain(predictor, predictor.encode(scene[0], [])) == []


def test_answers_given_before_are_not_asked_for_again(predictor, scene, explained, monkeypatch):
    encoded = predictor.encode(*scene, views="fixed:0,0.5")
    predictions = predictor.answer(encoded)
    monkeypatch.setattr(predictor, "answer", None)

    again = explain(predictor, encoded, predictions=predictions)

    assert [one.prediction for one in again] == predictions
    assert [[view.caption_gain for view in one.views] for one in again] == [
        [view.caption_gain for view in one.views] for one in explained
    ]
