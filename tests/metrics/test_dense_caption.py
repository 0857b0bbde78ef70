import numpy as np
import pytest

from lavis_dynrefer.metrics.dense_caption import average_precision, evaluate_dense_caption
from lavis_dynrefer.structures import RegionPrediction, RegionRecord, RegionSet, Rejection

LEFT, RIGHT = (0.0, 0.0, 10.0, 10.0), (50.0, 0.0, 60.0, 10.0)


def same_text(pairs):
    """Similarity 1 for a caption that is one of its references, else 0."""
    return [float(caption in references) for caption, references in pairs]


def region(region_id, image_id, box, caption="a dog", score=None):
    return RegionRecord(region_id, image_id, box, caption=caption, score=score)


def answer(box, caption="a dog", score=0.5):
    return RegionPrediction(box, caption=caption, caption_score=score)


def evaluate(regions, predictions, mode="strict", rejected=()):
    given = RegionSet("vg", "test", {}, regions, rejected)
    return evaluate_dense_caption(given, predictions, mode=mode, similarity=same_text)


@pytest.mark.parametrize(
    ("hits", "num_truth", "expected"),
    [
        ([True], 1, 1.0),
        ([False], 1, 0.0),
        ([], 3, 0.0),
        ([True, False], 2, 0.51),  # precision 1 at recall 0.00 ... 0.50
        ([False, True], 1, 0.5),  # the best precision at a recall or above it counts
        ([True, False, True], 2, (51 * 1 + 49 * 2 / 3) / 100),
        ([True] * 35, 100, 0.36),  # recall 0.35 is reached; 35 * 0.01 rounds to more
    ],
)
def test_average_precision_by_hand(hits, num_truth, expected):
    assert average_precision(np.array(hits, dtype=bool), num_truth) == pytest.approx(expected)


def test_rejects_average_precision_without_truth():
    with pytest.raises(ValueError, match="at least one truth box"):
        average_precision(np.array([True]), 0)


def test_right_captions_on_the_right_boxes_score_100():
    report = evaluate(
        [region(1, 1, LEFT), region(2, 1, RIGHT, "a cat")],
        {1: answer(LEFT), 2: answer(RIGHT, "a cat")},
    )

    assert set(report.metrics.values()) == {100.0}
    assert len(report.metrics) == 2 + 5 * 6 + 5


def test_similarity_must_exceed_even_a_threshold_of_zero():
    report = evaluate([region(1, 1, LEFT)], {1: answer(LEFT, "a cat")})

    assert report.metrics["iou_0.3_meteor_0"] == 0.0
    assert report.metrics["detmap"] == 100.0


def test_an_overlap_equal_to_the_threshold_counts():
    half = (0.0, 0.0, 10.0, 5.0)  # overlap 0.5

    metrics = evaluate([region(1, 1, LEFT)], {1: answer(half)}).metrics

    assert [metrics[f"iou_{iou}"] for iou in (0.3, 0.4, 0.5, 0.6, 0.7)] == [100, 100, 100, 0, 0]
    assert metrics["map"] == pytest.approx(60.0)


def test_thresholds_are_rounded_as_overlaps_are():
    most = (0.0, 0.0, 10.0, 7.0)  # overlap 0.7, in 32 bits 0.69999999: below 0.7 in 64 bits

    metrics = evaluate([region(1, 1, LEFT)], {1: answer(most)}).metrics

    assert metrics["iou_0.7"] == 100.0


@pytest.mark.parametrize(("mode", "percent"), [("strict", 51.0), ("official", 100.0)])
def test_only_the_strict_mode_counts_images_without_predictions(mode, percent):
    regions = [region(1, 1, LEFT), region(2, 2, LEFT)]

    report = evaluate(regions, {1: answer(LEFT)}, mode)

    assert report.metrics["map"] == pytest.approx(percent)


@pytest.mark.parametrize(("mode", "percent"), [("strict", 51.0), ("official", 100.0)])
def test_only_the_strict_mode_counts_rejected_truth(mode, percent):
    rejected = [Rejection("empty_box", "no area", 1, region(2, 1, (5.0, 5.0, 5.0, 5.0)))]

    report = evaluate([region(1, 1, LEFT)], {1: answer(LEFT)}, mode, rejected)

    assert report.metrics["map"] == pytest.approx(percent)


@pytest.mark.parametrize("mode", ["strict", "official"])
def test_both_modes_count_a_missing_prediction_beside_others(mode):
    report = evaluate([region(1, 1, LEFT), region(2, 1, RIGHT)], {1: answer(LEFT)}, mode)

    assert report.metrics["map"] == pytest.approx(51.0)
    assert report.counts["missing"] == 1


def test_strict_mode_without_any_prediction_is_zero():
    report = evaluate([region(1, 1, LEFT)], {})

    assert set(report.metrics.values()) == {0.0}
    assert report.counts["images_without_prediction"] == 1


def test_official_mode_rejects_a_set_without_predictions():
    with pytest.raises(ValueError, match="no image with captions has a prediction"):
        evaluate([region(1, 1, LEFT)], {}, "official")


def test_proposals_are_detections_and_captioned_regions_truth():
    regions = [
        region(1, 1, LEFT),
        region(2, 1, LEFT, None, score=0.1),
        region(3, 1, RIGHT, None, score=0.9),
    ]
    predictions = {2: answer(LEFT, score=0.9), 3: answer(RIGHT, score=0.1)}

    report = evaluate(regions, predictions)

    assert report.metrics["map"] == pytest.approx(50.0)  # the detector ranks the wrong one first
    assert report.counts["regions"] == 1
    assert report.counts["ranked_by_detector_score"] == 2


def test_captions_are_ranked_by_their_own_score_without_a_detector():
    report = evaluate([region(1, 1, LEFT)], {1: answer(LEFT)})

    assert report.counts["ranked_by_caption_score"] == 1
    assert report.counts["ranked_by_detector_score"] == 0


@pytest.mark.parametrize("score", [None, float("nan")])
def test_rejects_a_detection_without_a_score(score):
    with pytest.raises(ValueError, match="region 1: expected a finite detector score"):
        evaluate([region(1, 1, LEFT)], {1: answer(LEFT, score=score)})


def test_similarity_is_computed_once_and_only_where_it_matters():
    asked = []

    def similarity(pairs):
        asked.append(list(pairs))
        return [1.0] * len(pairs)

    regions = [region(1, 1, LEFT), region(2, 1, LEFT), region(3, 1, RIGHT)]
    far = (80.0, 80.0, 90.0, 90.0)
    given = {1: answer(LEFT, "one", 0.9), 2: answer(LEFT, "two", 0.8), 3: answer(far, "three")}
    evaluate_dense_caption(RegionSet("vg", "test", {}, regions), given, similarity=similarity)

    assert asked == [[("one", ["a dog", "a dog"])]]
