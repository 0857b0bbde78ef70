from __future__ import annotations

import json
import logging

import pytest
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_dynrefer.datasets.sources.grit import read_grit, undo_scaling
from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.metrics import EVALUATORS
from lavis_dynrefer.metrics.dense_caption import evaluate_dense_caption
from lavis_dynrefer.structures import (
    ImageRecord,
    RegionPrediction,
    RegionRecord,
    RegionSet,
    Rejection,
)

LEFT = (0.0, 0.0, 100.0, 100.0)
LARGE = ImageRecord(1, "1.jpg", 1440, 1080)  # stored at half its size
SMALL = ImageRecord(2, "2.jpg", 240, 360)  # stored at twice its size
IMAGES = {1: LARGE, 2: SMALL}
REGIONS = [RegionRecord(7, 1, LEFT, "a dog"), RegionRecord(30, 2, LEFT, "a cat")]
LOST = Rejection("missing_image", "no file", 3, RegionRecord(9, 3, LEFT, "a bird"))


def truth_of(*regions, rejected=(), images=IMAGES):
    return RegionSet("vg1.2-densecap-gt", "test", images, regions or REGIONS, rejected)


def row(image_id=1, bbox=(18, 9, 90, 45), score=0.5, **more):
    text = {"object_descriptions": "something", "logit": -1.0}
    return {"image_id": image_id, "category_id": 0, "bbox": bbox, "score": score, **text, **more}


@pytest.fixture
def read(tmp_path):
    """Writes rows and reads them as detections."""

    def _read(rows, truth=None):
        path = tmp_path / "vg_instances_results.json"
        path.write_text(json.dumps(rows), encoding="utf-8")
        return read_grit(path, truth or truth_of(), name="grit")

    return _read


@pytest.mark.parametrize(
    ("box", "image", "expected"),
    [
        ((18.0, 9.0, 108.0, 54.0), LARGE, (36.0, 18.0, 216.0, 108.0)),
        ((20.0, 40.0, 480.0, 720.0), SMALL, (10.0, 20.0, 240.0, 360.0)),
        ((1.0, 2.0, 3.0, 4.0), ImageRecord(3, "", 720, 500), (1.0, 2.0, 3.0, 4.0)),
        ((0.0, 0.0, 0.0, 0.0), LARGE, (0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_scaling_is_undone_by_the_longer_side(box, image, expected):
    assert undo_scaling(box, image) == expected


def test_a_detection_is_a_scored_region_without_a_caption(read):
    rows = [row(score=0.8), row(2, [20, 40, 200, 100], 0.3), row("1", ["18", 9, 90, 45], "0.3")]

    found = read(rows)

    assert found.regions == [  # numbered after the truth, in file order also when scores are tied
        RegionRecord(31, 1, (36.0, 18.0, 216.0, 108.0), score=0.8),
        RegionRecord(32, 2, (10.0, 20.0, 110.0, 70.0), score=0.3),
        RegionRecord(33, 1, (36.0, 18.0, 216.0, 108.0), score=0.3),
    ]
    assert (found.name, found.split) == ("grit", "test")


def test_truth_is_what_is_annotated_with_rejected_regions_and_images_without_a_detection(read):
    annotated = truth_of(rejected=[LOST])

    found = read([row()], annotated)

    assert found.truth() == annotated.truth()
    assert [item.region_id for item in found.truth()] == [7, 30, 9]
    assert found.rejection_counts() == {"missing_image": 1}
    assert found.images == IMAGES


def test_detections_on_images_of_other_splits_are_skipped_and_noted(read):
    found = read([row(99), row(), row("98")])

    assert [region.region_id for region in found.regions] == [32]  # numbered by row
    assert not found.rejected
    assert found.noted == {"on_other_images": 2}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        *((rows, r"expected a list of objects.*Set `boxes`") for rows in ([5], [[1, 2]], [None])),
        ([{"box": [1, 2, 3, 4]}], r"no usable region.*detection 0 of .*KeyError"),
        ([row(99)], r"none of 1 detections is on an image of split 'test'"),
    ],
)
def test_files_without_detections_are_refused(read, rows, message):
    with pytest.raises(DatasetError, match=message):
        read(rows)


def test_a_box_a_little_past_the_edge_is_taken_as_it_is(read):
    (region,) = read([row(1, [-2, 0, 726, 540])]).regions

    assert region.box == (-4.0, 0.0, 1448.0, 1080.0)


def boxes_to_the_edge(width, height):
    """Boxes of all sizes that end at the right or the bottom edge of an image."""
    return [row(1, [step * 5, 0, width - step * 5, height - step]) for step in range(20)]


def image_of(width, height):
    return truth_of(REGIONS[0], images={1: ImageRecord(1, "1.jpg", width, height)})


@pytest.mark.parametrize("size", [(800, 600), (1024, 768), (768, 1024)])
def test_boxes_in_pixels_already_are_refused_with_the_rule(read, size):
    with pytest.raises(DatasetError, match=r"leave their images.*times 720 / the longer side"):
        read(boxes_to_the_edge(*size), image_of(*size))


def test_corners_instead_of_corner_and_size_are_refused(read):
    corners = [row(1, [400 + step, 300, 700, 530]) for step in range(20)]

    with pytest.raises(DatasetError, match="x1, y1, x2, y2"):
        read(corners)


def test_a_single_box_outside_is_accepted(read):
    rows = [row(1, [0, 0, 360 - step, 270]) for step in range(30)]

    assert len(read([*rows, row(1, [0, 0, 900, 900])]).regions) == 31


@pytest.mark.parametrize(("size", "is_warned"), [((500, 375), True), ((720, 540), False)])
def test_unscaled_boxes_of_small_images_give_a_warning(read, caplog, size, is_warned):
    with caplog.at_level(logging.WARNING):
        read(5 * boxes_to_the_edge(*size), image_of(500, 375))

    assert ("would fit as they are" in caplog.text and "720" in caplog.text) is is_warned


# ---- graded -------------------------------------------------------------------------------------


def same_text(pairs):
    return [float(caption in references) for caption, references in pairs]


def answers(region_set, captions):
    """Predictions of detections, in file order."""
    return {
        region.region_id: RegionPrediction(region.box, caption, caption_score=0.5)
        for region, caption in zip(region_set.regions, captions)
    }


# Both images hold a truth; GRiT found the first one, and before it something that is not there.
HALF = [row(1, [0, 0, 50, 50], 0.6), row(1, [200, 200, 50, 50], 0.9)]


@pytest.mark.parametrize(
    ("mode", "percent"),
    [
        ("strict", 25.5),  # two truths: precision 1/2 at recall 0.00 ... 0.50
        ("official", 50.0),  # the image without a detection does not count
    ],
)
def test_both_modes_grade_detections_on_annotated_truth(read, mode, percent):
    found = read(HALF)
    predictions = answers(found, ["a dog", "a dog"])

    report = evaluate_dense_caption(found, predictions, mode=mode, similarity=same_text)

    assert report.metrics["map"] == pytest.approx(percent)
    assert report.counts["ranked_by_detector_score"] == 2


# ---- through the builder, on real images ------------------------------------------------------


def build(shared, kind="v1.2", **info):
    root = shared / "fixtures/vg_format_e2e"
    files = {
        "region_descriptions": "vg1.2/region_descriptions.json",
        "image_data": "vg1.2/image_data.json",
        "boxes": "grit/vg_instances_results.json",
    }
    builder = registry.get_builder_class("vg_region")
    own = {"type": kind, "build_info": {"root": str(root), "splits": ["test"], **files, **info}}
    config = OmegaConf.merge(
        OmegaConf.load(builder.default_config_path("v1.2")), {"datasets": {"vg_region": own}}
    )
    return builder(config.datasets.vg_region).build_datasets()


def test_detections_are_captioned_and_graded_on_annotated_regions(shared):
    dataset = build(shared)["test"]

    assert dataset.name == "vg1.2-densecap-grit"
    assert (len(dataset), len(dataset.region_set.regions)) == (3, 19)
    assert len(dataset.region_set.truth()) == 16
    assert dataset[0]["views"].shape == (5, 3, 3, 224, 224)


@pytest.mark.slow  # starts Java
def test_perfect_captions_score_what_the_detected_boxes_allow(shared):
    region_set = build(shared)["test"].region_set
    path = shared / "fixtures/vg_format_e2e/grit/vg_instances_results.json"
    words = [item["object_descriptions"] for item in json.loads(path.read_text(encoding="utf-8"))]

    report = EVALUATORS["dense_caption"](region_set, answers(region_set, words))

    # 16 truths. Correct are the ten best detections, not the eleventh (its truth is claimed), the
    # next four, and up to an overlap of 0.475 the sixteenth; 63 recall points have precision 1.
    loose, tight = 63 + 31 * 15 / 16, 63 + 25 * 14 / 15
    assert report.metrics["iou_0.4"] == pytest.approx(loose)
    assert report.metrics["iou_0.5"] == pytest.approx(tight)
    assert report.metrics["map"] == pytest.approx((2 * loose + 3 * tight) / 5)
    assert report.counts["regions"] == 16


def test_training_keeps_the_annotated_boxes(shared):
    datasets = build(shared, splits=["train", "test"])

    assert datasets["train"].name == "vg1.2-densecap-gt"
    assert all(region.score is None for region in datasets["train"].region_set.regions)


def test_a_trial_is_graded_on_its_own_images(shared):
    dataset = build(shared, max_images=1)["test"]

    assert dataset.name == "vg1.2-densecap-grit-trial"
    assert {region.image_id for region in dataset.region_set.truth()} == {990007}
    assert len(dataset.region_set.regions) == 5


@pytest.mark.parametrize(
    ("kind", "info", "message"),
    [
        ("v1.2", {"boxes": "absent.json"}, r"boxes: no file or folder .*absent\.json.*Set `boxes`"),
        ("v1.2", {"max_regions": 3}, "max_images"),
        ("v1.2", {"splits": ["val"]}, "none of 19 detections is on an image of split 'val'"),
        ("reg", {}, "type reg has its own"),
    ],
)
def test_a_wrong_setting_is_named(shared, kind, info, message):
    with pytest.raises(DatasetError, match=message):
        build(shared, kind, **info)
