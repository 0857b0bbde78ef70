"""Dense-captioning mAP of the official evaluation, and METEOR of every detection."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from golden_folder import read_json

from lavis_dynrefer.images.masks import box_from_polygons
from lavis_dynrefer.metrics.box_matching import merge_truth
from lavis_dynrefer.metrics.dense_caption import evaluate_dense_caption
from lavis_dynrefer.structures import RegionPrediction, RegionRecord, RegionSet


@pytest.fixture(scope="module")
def official(golden_dir):
    """A region set with proposals, its predictions, and the official results."""
    given = read_json(golden_dir / "densecap_input.json")
    regions = [
        RegionRecord(row["id"], row["image_id"], box_of(row), caption=row["caption"])
        for row in given["gt"]["annotations"]
    ]
    predictions = {}
    first_id = 1 + max(region.region_id for region in regions)
    for region_id, row in enumerate(given["pred"]["annotations"], start=first_id):
        extra, box = row["extra_info"], box_of(row)
        answered = extra.get("pred_result", {"caption": None, "score": 0.0})
        # of several generated captions the official code keeps the first
        caption, score = (first(answered[key]) for key in ("caption", "score"))
        ranked = extra.get("grit_result", {"score": score})["score"]
        regions.append(RegionRecord(region_id, row["image_id"], box, score=ranked))
        if caption is not None:
            predictions[region_id] = RegionPrediction(box, caption=caption, caption_score=score)
    expected = read_json(golden_dir / "densecap_output.json")
    return RegionSet("vg1.2", "test", {}, regions), predictions, expected


def box_of(row):
    return box_from_polygons(row["segmentation"], "official")


def first(value):
    return value[0] if isinstance(value, list) else value


def test_every_number_equals_the_official_one(official, meteor):
    region_set, predictions, expected = official

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


def test_strict_mode_adds_the_images_without_a_prediction(official, meteor):
    region_set, predictions, expected = official
    answered = {region.image_id for region in region_set.regions if region.region_id in predictions}
    left_out = defaultdict(list)  # by the official code: image -> boxes
    for region in region_set.truth():
        if region.caption is not None and region.image_id not in answered:
            left_out[region.image_id].append(region.box)
    merged = sum(len(merge_truth(torch.tensor(boxes))) for boxes in left_out.values())

    report = evaluate_dense_caption(region_set, predictions, similarity=meteor.score)

    assert report.counts["images_without_prediction"] == len(left_out)
    assert report.counts["merged_regions"] == expected["npos"] + merged
    official_map = 100 * expected["metrics"]["map"]
    if left_out:
        assert report.metrics["map"] < official_map
    else:
        assert report.metrics["map"] == pytest.approx(official_map, abs=1e-4)


def test_meteor_of_every_detection_equals_the_official_one(official, meteor):
    records = [row for row in official[2]["records"] if row["references"]]

    scores = meteor.score([(row["candidate"], row["references"]) for row in records])

    assert scores == pytest.approx([row["meteor"] for row in records], abs=1e-9)


def test_the_order_of_images_does_not_matter(official):
    region_set, predictions, _ = official
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


def same_text(pairs):
    """Similarity 1 for a caption that is one of its references, else 0."""
    return [float(caption in references) for caption, references in pairs]
