"""Policies that leave the choice to the model."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from lavis_dynrefer.views.model_priors import ConfidencePrior, LearnedPrior
from lavis_dynrefer.views.policies import TaskPrior, parse_policy, views_by_task
from lavis_dynrefer.views.samples import concat_samples, rows_of
from lavis_dynrefer.views.view_processor import ViewProcessor

IMAGE = Image.new("RGB", (100, 80))
BOXES = torch.tensor([[40.0, 20.0, 60.0, 40.0], [0.0, 0.0, 10.0, 10.0]])


def rounded(scales):
    return [round(scale, 4) for scale in scales.tolist()]


def test_a_plan_has_every_candidate_once_and_says_what_belongs_together():
    policy = LearnedPrior(2, candidates=[0.3, 0.6, 1.0], scales={"attributes": [0, 0.6]})

    plan = policy.plan(IMAGE, BOXES)

    assert [rounded(row) for row in plan.scales] == [[0, 0.3, 0.6, 1.0]] * 2
    assert plan.routes == {"attributes": (0, 2)}
    assert plan.choice.chooser == "learned"
    assert plan.choice.choices == ((1,), (2,), (3,))


def test_more_than_two_views_are_neighbours():
    plan = ConfidencePrior(3, candidates=[0.1, 0.2, 0.4, 0.8]).plan(IMAGE, BOXES)

    assert plan.choice.choices == ((1, 2), (2, 3), (3, 4))
    assert plan.choice.chooser == "confidence"


@pytest.mark.parametrize("policy", [LearnedPrior, ConfidencePrior])
def test_a_task_gets_as_many_views_as_the_model_fuses(policy):
    chosen = policy(2, candidates=[0.3, 0.6], scales={"attributes": [0, 0.1]})

    assert views_by_task(chosen) == {2}
    assert views_by_task(chosen, ["caption", "attributes"]) == {2}
    assert views_by_task(policy(3)) == {3}


def test_samples_carry_the_choice_through_joining_and_splitting():
    processor = ViewProcessor(LearnedPrior(2, candidates=[0.3, 1.0]), image_size=8)
    sample = processor(IMAGE, BOXES)

    joined = concat_samples([sample, processor(IMAGE, BOXES[:1])])
    part = rows_of(joined, slice(1, 3))

    assert joined["views"].shape[:2] == (3, 3)
    assert joined["choice"]["learned"].tolist() == [[[1], [2]]] * 3
    assert part["choice"]["learned"].shape == (2, 2, 1)
    assert processor(IMAGE, torch.zeros(0, 4))["choice"]["learned"].shape == (0, 2, 1)


def test_other_tasks_keep_the_views_of_the_models_own_policy():
    own = TaskPrior({"caption": [0, 0.5], "attributes": [0, 0.1], "categories": [0, 0.6]})

    named = parse_policy("learned", num_views=2, own=own, candidates=(0.3, 0.6, 1.0))

    assert rounded(named.scales) == [0, 0.1, 0.3, 0.6, 1.0]
    assert named.routes == {"attributes": (0, 1), "categories": (0, 3)}
    assert named.choice.choices == ((2,), (3,), (4,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_views": 1}, "num_views: expected at least 2"),
        ({"num_views": 2, "candidates": [0.6, 0.3]}, "in order"),
        ({"num_views": 2, "candidates": [0, 0.3]}, "above 0"),
        ({"num_views": 2, "candidates": [0.3, 0.3]}, "different"),
        ({"num_views": 3, "candidates": [0.3]}, "3 views need 2 candidates"),
        ({"num_views": 2, "scales": {"tags": [0.1, 0.2]}}, "beginning with 0"),
    ],
)
def test_refuses_what_it_cannot_choose_from(options, message):
    with pytest.raises(ValueError, match=message):
        LearnedPrior(**options)
