import numpy as np
import pytest
import torch

from lavis_dynrefer.metrics.box_matching import (
    ImageCaptions,
    match_image,
    match_images,
    merge_truth,
)


def image(truth, found, scores):
    """An image whose boxes are intervals on the x axis, ten pixels high."""
    return ImageCaptions(
        truth_boxes=intervals(truth),
        truth_captions=[f"truth {row}" for row in range(len(truth))],
        boxes=intervals(found),
        captions=[f"found {row}" for row in range(len(found))],
        scores=torch.tensor(scores, dtype=torch.float32),
    )


def intervals(pairs):
    return torch.tensor([[x1, 0.0, x2, 10.0] for x1, x2 in pairs]).reshape(-1, 4)


@pytest.mark.parametrize(
    ("pairs", "groups"),
    [
        ([], []),
        ([(0, 10)], [[0]]),
        ([(0, 10), (20, 30)], [[0], [1]]),
        ([(0, 10), (0, 7)], [[0, 1]]),  # overlap of exactly 0.7 merges
        ([(0, 10), (0, 6.9)], [[0], [1]]),
        ([(0, 8), (0, 10), (2, 10)], [[0, 1, 2]]),  # the outer two meet only in the middle one
    ],
)
def test_overlapping_boxes_are_merged(pairs, groups):
    assert merge_truth(intervals(pairs)) == groups


def test_the_box_with_most_neighbours_is_merged_first():
    # each overlaps only the next; starting at the end would give groups of two
    chain = intervals([(0, 14), (2, 16), (4, 18), (6, 20)])

    assert merge_truth(chain) == [[0, 1, 2], [3]]


def test_a_box_without_area_is_a_group_of_its_own():
    assert merge_truth(intervals([(5, 5), (0, 10), (5, 5)])) == [[0], [1], [2]]


@pytest.mark.parametrize("threshold", [0.3, 0.7, 1.0])
def test_every_box_is_in_exactly_one_group(threshold):
    corners = torch.rand(60, 2, generator=torch.Generator().manual_seed(0)) * 30
    groups = merge_truth(torch.cat([corners, corners + 20], dim=1), threshold)

    assert sorted(row for group in groups for row in group) == list(range(60))


def test_merged_box_is_the_mean_and_carries_all_captions():
    matches = match_image(image([(0, 10), (0, 8)], [(0, 9)], [0.5]))

    assert matches.ious.tolist() == [1.0]
    assert matches.pairs == [("found 0", ["truth 0", "truth 1"])]
    assert matches.num_truth == 1


def test_the_best_score_claims_the_truth_even_with_less_overlap():
    matches = match_image(image([(0, 10)], [(0, 10), (0, 4)], [0.2, 0.9]))

    assert matches.scores.tolist() == pytest.approx([0.9, 0.2])
    assert matches.ious.tolist() == pytest.approx([0.4, 1.0])
    assert matches.first.tolist() == [True, False]


def test_a_detection_does_not_fall_back_to_unclaimed_truth():
    # both overlap the first truth most; the second truth, overlapped by both, stays unclaimed
    matches = match_image(image([(0, 10), (8, 20)], [(0, 11), (1, 11)], [0.9, 0.8]))

    assert matches.first.tolist() == [True, False]


def test_a_detection_without_overlap_claims_nothing():
    matches = match_image(image([(0, 10)], [(50, 60), (0, 10)], [0.9, 0.8]))

    assert matches.first.tolist() == [False, True]
    assert matches.pairs[0] == ("found 0", [])


@pytest.mark.parametrize(("truth", "found"), [([], [(0, 10)]), ([(0, 10)], []), ([], [])])
def test_an_image_may_lack_truth_or_detections(truth, found):
    matches = match_image(image(truth, found, [0.5] * len(found)))

    assert matches.num_truth == len(truth)
    assert matches.first.tolist() == [False] * len(found)


def test_images_do_not_claim_from_each_other():
    one = image([(0, 10)], [(0, 10)], [0.5])

    both = match_images([one, one])

    assert both.first.tolist() == [True, True]
    assert both.num_truth == 2


def test_equal_scores_keep_the_order_of_the_regions():
    matches = match_image(image([(0, 10)], [(0, 9), (0, 10)], [0.5, 0.5]))

    np.testing.assert_allclose(matches.ious, [0.9, 1.0], rtol=1e-6)
