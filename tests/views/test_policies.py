"""How scales are chosen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lavis_dynrefer.views.policies import (
    FixedScales,
    ImagePrior,
    RandomScales,
    TaskPrior,
    build_policy,
    default_task_scales,
    parse_policy,
)

IMAGE = Image.new("RGB", (100, 80))
BOXES = torch.tensor([[40.0, 20.0, 60.0, 40.0], [0.0, 0.0, 10.0, 10.0]])


def half_and_half() -> Image.Image:
    """Left half blocks of black and white, right half white: wider views look different."""
    blocks = np.random.default_rng(0).integers(0, 2, (8, 5, 1), dtype=np.uint8) * 255
    pixels = np.full((80, 100, 3), 255, dtype=np.uint8)
    pixels[:, :50] = blocks.repeat(10, axis=0).repeat(10, axis=1)
    return Image.fromarray(pixels)


def test_random_scales_begin_with_the_region_and_do_not_repeat():
    scales = RandomScales(4, rng=torch.Generator().manual_seed(0)).plan(IMAGE, BOXES).scales
    assert scales.shape == (2, 4)
    assert (scales[:, 0] == 0).all()
    assert all(len(set(row)) == 4 for row in scales.tolist())


def test_random_scales_follow_their_generator():
    plans = [
        RandomScales(3, rng=torch.Generator().manual_seed(7)).plan(IMAGE, BOXES).scales
        for _ in range(2)
    ]
    assert torch.equal(*plans)


def test_random_scales_of_no_region():
    assert RandomScales(3).plan(IMAGE, torch.zeros(0, 4)).scales.shape == (0, 3)


def test_random_scales_may_be_weighted():
    often = RandomScales(2, candidates=[0.5, 1.0], weights=[3, 1])
    often.rng = torch.Generator().manual_seed(0)

    scales = often.plan(IMAGE, BOXES.repeat(500, 1)).scales[:, 1]

    assert (scales == 0.5).float().mean() == pytest.approx(0.75, abs=0.05)
    both = RandomScales(3, candidates=[0.5, 1.0], weights=[3, 1]).plan(IMAGE, BOXES).scales
    assert both[:, 1:].sort(dim=1).values.tolist() == [[0.5, 1.0]] * 2


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, "a"], "losses", 3, [1, float("inf")]])
def test_weights_are_numbers_above_0_for_each_candidate(weights):
    with pytest.raises(ValueError, match="weights: expected 'loss', or a number above 0"):
        RandomScales(2, candidates=[0.5, 1.0], weights=weights)


def test_fixed_scales_are_the_same_everywhere():
    assert FixedScales([0, 0.25]).plan(IMAGE, BOXES).scales.tolist() == [[0, 0.25]] * 2


@pytest.mark.parametrize("scales", [[], [0.1, 0.2], [0, 1.5]])
def test_fixed_scales_must_begin_with_the_region(scales):
    with pytest.raises(ValueError, match="beginning with 0"):
        FixedScales(scales)


@pytest.mark.parametrize("name", ["phash", "official"])
def test_image_prior_takes_the_best_scores_in_order(name):
    policy = ImagePrior(3, hash=name)
    boxes = torch.tensor([[60.0, 20.0, 80.0, 40.0]])
    scores = policy.scores(half_and_half(), boxes)[0]

    scales = policy.plan(half_and_half(), boxes).scales[0]

    best = policy.candidates[np.argsort(-scores, kind="stable")[:2]]
    assert scales.tolist() == pytest.approx([0, *best])


def prior_that_sees(bits, candidates, num_views=3):
    """A prior to which the region and its views look as given, and the columns it has hashed."""
    prior = ImagePrior(num_views, candidates=candidates)
    seen = []
    looks = iter([0, *(1 + np.argsort(candidates))])

    def hash_image(image):
        return lambda boxes: np.array([[bit == "1" for bit in bits[look()]]] * len(boxes))

    def look():
        seen.append(next(looks))
        return seen[-1]

    prior.hash_image = hash_image
    return prior, seen


def test_distances_are_weighed_by_scale():
    bits = ["00000000", "11110000", "11110000", "00001110"]  # region, then t = 0.5, 0.9, 1.0
    prior, _ = prior_that_sees(bits, [0.5, 0.9, 1.0])
    # 4 / 0.5, 4 / 0.9, 3 / 1.0
    assert prior.plan(IMAGE, BOXES[:1]).scales[0].tolist() == pytest.approx([0, 0.5, 0.9])


@pytest.mark.parametrize(
    ("ones", "hashed"),  # ones in the hashes of t = 1.0, 0.1, 0.5, 0.2
    [
        ([64, 6, 0, 13], [0, 2, 4, 3, 1]),  # scores 60 and 65; t = 1.0 may reach 64, and does
        ([64, 7, 0, 13], [0, 2, 4, 3]),  # 70 and 65: t = 0.5 may reach 128, t = 1.0 only 64
        ([64, 13, 0, 26], [0, 2, 4]),  # 130 and 130
        ([64, 12, 32, 20], [0, 2, 4, 3]),  # 120 and 100
        ([64, 0, 0, 0], [0, 2, 4, 3, 1]),
    ],
)
def test_views_that_cannot_be_chosen_are_not_hashed(ones, hashed):
    candidates = [1.0, 0.1, 0.5, 0.2]
    bits = ["0" * 64, *("1" * count + "0" * (64 - count) for count in ones)]
    scores = np.array(ones) / candidates
    chosen = np.array(candidates)[np.argsort(-scores, kind="stable")[:2]]
    prior, seen = prior_that_sees(bits, candidates)

    scales = prior.plan(IMAGE, BOXES[:1]).scales[0]

    assert scales.tolist() == pytest.approx([0, *chosen])
    assert seen == hashed


@pytest.mark.parametrize("name", ["phash", "official"])
@pytest.mark.parametrize("num_views", [2, 3, 6])
def test_the_plan_follows_from_all_scores(name, num_views):
    rng = np.random.default_rng(num_views)
    pixels = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)).resize((300, 240))
    starts, sides = rng.uniform(0, 100, (40, 2)), rng.uniform(2, 130, (40, 2))
    boxes = torch.tensor(np.concatenate([starts, starts + sides], axis=1), dtype=torch.float32)
    prior = ImagePrior(num_views, hash=name)
    best = np.argsort(-prior.scores(pixels, boxes), axis=1, kind="stable")[:, : num_views - 1]

    scales = prior.plan(pixels, boxes).scales

    assert scales[:, 1:].numpy() == pytest.approx(prior.candidates[best])


def test_one_view_is_the_region_and_no_region_has_no_views():
    assert ImagePrior(1).plan(IMAGE, BOXES).scales.tolist() == [[0], [0]]
    assert ImagePrior(3).plan(IMAGE, BOXES[:0]).scales.shape == (0, 3)
    assert ImagePrior(3).hashes(IMAGE, BOXES[:0]) == []


def test_where_no_view_differs_the_official_rule_repeats_and_ours_does_not():
    whole = torch.tensor([[0.0, 0.0, 100.0, 80.0]])
    official = ImagePrior(3, hash="official").plan(IMAGE, whole).scales[0]
    ours = ImagePrior(3).plan(IMAGE, whole).scales[0]
    assert official.tolist() == pytest.approx([0, 0.1, 0.1])
    assert ours.tolist() == pytest.approx([0, 0.1, 0.2])


def test_task_prior_encodes_each_scale_once():
    plan = TaskPrior({"caption": [0, 0.5], "attributes": [0, 0.1], "tags": [0, 0.5]}).plan(
        IMAGE, BOXES
    )
    assert plan.scales[0].tolist() == pytest.approx([0, 0.1, 0.5])
    assert plan.routes == {"caption": (0, 2), "attributes": (0, 1), "tags": (0, 2)}


def test_task_prior_needs_equal_numbers_of_views():
    with pytest.raises(ValueError, match="same number of views"):
        TaskPrior({"caption": [0, 0.5], "tags": [0]})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("best", {}, "expected one of"),
        ("fixed", {"scale": [0]}, "unexpected keyword argument 'scale'"),
        ("image", {"num_views": 2, "hash": "md5"}, "hash: expected one of"),
        ("random", {"num_views": 12}, "12 views need 11 candidates"),
    ],
)
def test_invalid_policies_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_policy(name, options)


@pytest.mark.parametrize(
    ("num_views", "caption", "attributes"),
    [(1, (0.0,), (0.0,)), (2, (0.0, 0.4), (0.0, 0.1)), (3, (0.0, 0.4, 0.5), (0.0, 0.1, 0.2))],
)
def test_default_scales_of_a_task_grow_with_the_views(num_views, caption, attributes):
    scales = default_task_scales(num_views)
    assert (scales["caption"], scales["attributes"]) == (caption, attributes)


def test_task_prior_has_no_scales_for_many_views():
    with pytest.raises(ValueError, match="7 views need 6 candidates"):
        TaskPrior(num_views=7)


def test_a_policy_named_by_a_word_has_the_views_of_the_model():
    assert parse_policy("image", num_views=3).plan(IMAGE, BOXES).scales.shape == (2, 3)
