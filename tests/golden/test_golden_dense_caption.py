"""Dense-captioning mAP of the released evaluation, down to every detection."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest

from lavis_dynrefer.images.masks import box_from_polygons
from lavis_dynrefer.metrics.dense_caption import evaluate_dense_caption
from lavis_dynrefer.structures import RegionPrediction, RegionRecord, RegionSet


def same_text(pairs):
    """Similarity 1 for a caption that is one of its references, else 0."""
    return [float(caption in references) for caption, references in pairs]


def region(region_id, image_id, box, caption="a dog", score=None):
    return RegionRecord(region_id, image_id, box, caption=caption, score=score)


def answer(box, caption="a dog", score=0.5):
    return RegionPrediction(box, caption=caption, caption_score=score)


@pytest.fixture(scope="module")
def released(golden_dir):
    """A region set with proposals, its predictions, and the results of the released evaluation."""
    given = json.loads((golden_dir / "densecap_input.json").read_text())
    regions = [
        region(row["id"], row["image_id"], official_box(row), row["caption"])
        for row in given["gt"]["annotations"]
    ]
    predictions = {}
    for region_id, row in enumerate(given["pred"]["annotations"], start=len(regions) + 1):
        extra, box = row["extra_info"], official_box(row)
        answered = extra.get("pred_result", {"caption": None, "score": 0.0})
        # where several captions were generated the released code keeps the first
        caption, score = (first(answered[key]) for key in ("caption", "score"))
        ranked = extra.get("grit_result", {"score": score})["score"]
        regions.append(region(region_id, row["image_id"], box, None, ranked))
        if caption is not None:
            predictions[region_id] = answer(box, caption, score)
    expected = json.loads((golden_dir / "densecap_output.json").read_text())
    return RegionSet("vg1.2", "test", {}, regions), predictions, expected


def official_box(row):
    return box_from_polygons(row["segmentation"], "official")


def first(value):
    return value[0] if isinstance(value, list) else value


def test_every_number_equals_the_released_code(released, meteor):
    region_set, predictions, expected = released

    report = evaluate_dense_caption(
        region_set, predictions, mode="official", similarity=meteor.score
    )

    wanted = expected["metrics"]
    fractions = {
        **wanted["ap_breakdown"],
        **wanted["det_breakdown"],
        "map": wanted["map"],
        "detmap": wanted["detmap"],
    }
    assert {name: value / 100 for name, value in report.metrics.items()} == pytest.approx(
        fractions, abs=1e-6
    )
    assert report.counts["merged_regions"] == expected["npos"]


def test_strict_mode_adds_the_image_the_released_code_left_out(released, meteor):
    region_set, predictions, expected = released

    report = evaluate_dense_caption(region_set, predictions, similarity=meteor.score)

    assert report.counts["images_without_prediction"] == 1
    assert report.counts["merged_regions"] == expected["npos"] + 8
    assert report.metrics["map"] == pytest.approx(32.7084, abs=1e-3)  # 34.14 without that image


def test_meteor_of_every_detection_equals_the_released_code(released, meteor):
    records = [row for row in released[2]["records"] if row["references"]]

    scores = meteor.score([(row["candidate"], row["references"]) for row in records])

    assert scores == pytest.approx([row["meteor"] for row in records], abs=1e-9)


def test_regions_of_images_in_any_order_give_the_same_numbers(released):
    region_set, predictions, _ = released
    by_image = defaultdict(list)
    for item in region_set.regions:
        by_image[item.image_id].append(item)
    turned = [item for image_id in reversed(by_image) for item in by_image[image_id]]

    one, other = (
        evaluate_dense_caption(
            RegionSet("vg1.2", "test", {}, regions), predictions, similarity=same_text
        )
        for regions in (region_set.regions, turned)
    )

    assert other.metrics == pytest.approx(one.metrics)
