"""Policies that choose among answers at every scale."""

from __future__ import annotations

import pytest

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.lab.policies.policy_images import draw_differing
from lavis_dynrefer.lab.policies.scale_answers import (
    BEST,
    ORACLE,
    OWN,
    ScaleAnswers,
    answers_at_scales,
    best_scale,
    columns_of,
)
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic import make_scene, render

FACTS = {
    **{"size": "small", "pattern": "solid", "colour": "red", "category": "mug"},
    **{"relation": "left of", "reference_colour": "blue", "reference_category": "house"},
}
TRUTH = [{"facts": FACTS}, {"facts": FACTS}]
RIGHT = "a small red mug left of a blue house"
NEARLY = "a small red mug left of a green house"
WRONG = "a large red mug"


def said(*captions, category="mug"):
    return tuple(
        RegionPrediction((0, 0, 1, 1), caption, 0.5, categories=((category, 1.0),))
        for caption in captions
    )


ANSWERS = ScaleAnswers(
    (0.25, 0.5, 1.0), (said(WRONG, NEARLY), said(RIGHT, WRONG), said(RIGHT, WRONG, category="car"))
)


def test_the_best_scale_has_most_full_captions_right():
    assert best_scale(ANSWERS, TRUTH) == 0.5


def test_the_oracle_takes_the_best_caption_of_each_region_and_else_the_best_scale():
    # Of equals it keeps the best scale of all regions; a nearly right caption beats a wrong one.
    columns = columns_of(ORACLE, None, (), ANSWERS, TRUTH, best=1.0)

    assert columns["caption"] == [2, 0]
    assert columns["categories"] == columns_of(BEST, None, (), ANSWERS, TRUTH, 1.0)["caption"]


def test_tasks_may_be_answered_at_different_scales():
    chosen = ANSWERS.chosen(
        {"caption": [1, 0], "tags": [0, 0], "attributes": [0, 0], "categories": [2, 2]}
    )

    assert [one.caption for one in chosen] == [RIGHT, NEARLY]
    assert [one.categories[0][0] for one in chosen] == ["car", "car"]


def test_a_scale_that_was_not_answered_at_is_refused():
    with pytest.raises(ValueError, match="expected a scale out of"):
        ANSWERS.column(0.3)


def test_answers_at_scales_are_those_of_the_policies_and_are_kept(tmp_path):
    scene = make_scene(0, 2_000_001)
    render(scene).save(tmp_path / "scene.png")
    pairs = [(tmp_path / "scene.png", [list(item.box) for item in scene.objects][:3])]
    predictor = RegionPredictor("tiny", device="cpu")
    scales = (0.0, 0.4, 0.5, 0.6, 0.7, 1.0)

    found = answers_at_scales(predictor, pairs, tmp_path / "answers.jsonl", scales)

    for name in ("fixed:0,0.4", "confidence"):
        columns = columns_of(name, predictor, pairs, found, TRUTH, 0.5)
        expected = predictor.predict(*pairs[0], views=name)
        chosen = found.chosen(columns)
        assert [one.caption for one in chosen] == [one.caption for one in expected]
    assert columns_of(OWN, predictor, pairs, found, TRUTH, 0.5)["caption"] == [4, 4, 4]
    assert answers_at_scales(None, pairs, tmp_path / "answers.jsonl", scales) == found
    with pytest.raises(ValueError, match="remove it"):
        answers_at_scales(None, pairs, tmp_path / "answers.jsonl", (0.0, 1.0))


def test_regions_with_other_views_are_drawn():
    scene = make_scene(0, 2_000_001)
    pair = (render(scene), [list(item.box) for item in scene.objects][:2])
    predictor = RegionPredictor("tiny", device="cpu")

    sheet = draw_differing(predictor, [pair, pair], ("fixed:0,0.1", "fixed:0,1"), count=1)

    assert sheet.width >= 320  # one image of 480 pixels at two thirds
    assert sheet.height > 240  # with lines below it
    with pytest.raises(ValueError, match="at least one image"):
        draw_differing(predictor, [pair], ("fixed:0,0.1", "fixed:0,0.1"))
