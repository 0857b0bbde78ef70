from __future__ import annotations

import json

import pytest

from lavis_dynrefer.datasets.sources.coco_layout import (
    crowd_box,
    is_crowd,
    read_coco_captions,
    read_coco_instances,
)
from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.structures import ImageRecord

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}]


def annotation(number, bbox=(10, 20, 30, 40), **keys):
    return {"id": number, "image_id": 1, "category_id": 18, "bbox": list(bbox), **keys}


def image(number, **keys):
    return {"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 80, **keys}


@pytest.fixture
def write(tmp_path):
    """Writes a file about image 1, 100 x 80 pixels, and the image's place."""
    (tmp_path / "1.jpg").touch()

    def _write(rows, **keys):
        document = {"images": [image(1)], "annotations": rows, "categories": CATEGORIES, **keys}
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path, tmp_path

    return _write


def test_boxes_become_corners_and_categories_names(write):
    found = read_coco_instances(*write([annotation(5, category_id=90)]))

    (region,) = found.regions
    assert region.box == (10, 20, 40, 60)
    assert region.category == "toothbrush"
    assert not region.iscrowd
    assert found.category_names == ("dog", "toothbrush")


GOOD = [
    annotation(2, category_id="18"),
    annotation(2, iscrowd="0"),
    annotation(2, image_id="1"),
    annotation("2"),
    annotation(2, (1, 2, 1e308, 1e308)),
]
REJECTED = [  # and remain truth
    (annotation(2, (296.65, 38.33, 1.03, 0.0)), "empty_box"),
    (annotation(2, (300, 20, 10, 10)), "outside_image"),
    (annotation(2, (1e308, 2, 1e308, 5)), "invalid_box"),
    (annotation(2, image_id=4), "no_image_data"),
    (annotation(2, iscrowd=1, image_id=4), "no_image_data"),
    (annotation(1, (1, 1, 5, 5)), "duplicate_id"),
]


@pytest.mark.parametrize(
    ("row", "counts", "truths"),
    [
        *((row, {}, 2) for row in GOOD),
        *((row, {reason: 1}, 2) for row, reason in REJECTED),
    ],
    ids=lambda value: f"{value!r:.60}",
)
def test_annotations_are_kept_or_counted(write, row, counts, truths):
    found = read_coco_instances(*write([annotation(1), row]))

    assert found.rejection_counts() == counts
    assert len(found.truth()) == truths


@pytest.mark.parametrize(
    "row",
    [
        {"id": 2, "width": 100, "height": 80},
        {"id": 2, "file_name": "1.jpg"},
        image(2, file_name="\ud83d.jpg"),
        image(2, width="wide"),
    ],
)
def test_regions_of_an_unusable_entry_of_images_are_counted_and_stay_truth(write, row):
    rows = [annotation(1), annotation(2, image_id=2)]

    found = read_coco_instances(*write(rows, images=[image(1), row]))

    assert found.rejection_counts() == {"no_image_data": 1}
    assert [item.region_id for item in found.truth()] == [1, 2]
    assert "image 2 has no usable entry" in found.rejected[0].detail


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"categories": None}, "expected 'categories' with a list"),
        ({"categories": [{"id": 18}]}, "expected 'categories' with id and name"),
        ({"categories": [CATEGORIES[0], {"id": 18, "name": "cat"}]}, "two 'categories' have the"),
        ({"categories": [CATEGORIES[0], {"id": 5, "name": "dog"}]}, "two 'categories' have the"),
        ({"categories": []}, r"no usable region.*category 18 is not listed"),
        ({"images": [{"file_name": "1.jpg"}]}, "no entry of 'images' has an id"),
        ({"images": None}, "expected 'images' with a list"),
        ({"annotations": {}}, "expected 'annotations' with a list"),
    ],
)
def test_other_layouts_are_refused(write, keys, message):
    with pytest.raises(DatasetError, match=message):
        read_coco_instances(*write([annotation(1)], **keys))


# ---- crowds -------------------------------------------------------------------------------------

SMALL = ImageRecord(1, "1.jpg", width=5, height=4)
RUNS = [5, 2, 2, 2, 9]  # columns first: rows 1-2 of columns 1-2 are set


def crowd(counts, size=(4, 5)):
    return {"iscrowd": 1, "segmentation": {"size": list(size), "counts": counts}}


@pytest.mark.parametrize(
    ("value", "answer"),
    [*((value, False) for value in (None, 0, "0", False)), (1, True), ("1", True), (True, True)],
)
def test_iscrowd_in_any_notation_is_read(value, answer):
    assert is_crowd({"iscrowd": value}) is answer
    assert not is_crowd({})


@pytest.mark.parametrize("value", [2, "yes", [1], 0.5])
def test_other_values_of_iscrowd_are_refused(value):
    with pytest.raises(ValueError, match=r"expected (0 or 1|an integer)"):
        is_crowd({"iscrowd": value})


def test_a_crowd_is_marked_and_ends_at_the_index_of_its_last_pixel(write):
    images = [image(1, width=5, height=4)]

    found = read_coco_instances(*write([annotation(9e11, **crowd(RUNS))], images=images))

    (region,) = found.regions
    assert region.iscrowd
    assert region.box == (1, 1, 2, 2)
    assert region.region_id == 900000000000
    assert found.noted == {"crowd": 1, "box_below_2_px": 1, "id_beyond_32_bits": 1}


@pytest.mark.parametrize(
    "segmentation",
    [
        *({"size": [4, 5]}, {"counts": RUNS}, [[1, 1, 3, 1, 3, 3]], None),
        {"size": [5, 4], "counts": RUNS},  # width and height swapped
        {"size": [10**9, 10**9], "counts": "05"},  # pycocotools itself crashes
        {"size": 20, "counts": RUNS},
        *({"size": [4, 5], "counts": counts} for counts in ([5, 200], [5.5, 14.5], None, "no")),
    ],
)
def test_an_invalid_mask_is_an_error_before_it_is_decoded(segmentation):
    with pytest.raises((KeyError, TypeError, ValueError)):
        crowd_box({"iscrowd": 1, "segmentation": segmentation}, SMALL)


# ---- captions -----------------------------------------------------------------------------------


def test_captions_are_taken_as_written(write):
    captions = ["A Dog.", "!!!", " two\tdogs ", "caf\u00e9", "a " * 30]
    rows = [annotation(n, caption=caption) for n, caption in enumerate(captions)]

    found = read_coco_captions(*write(rows), name="vg-reg-5k", split="test")

    assert [item.caption for item in found.regions] == captions
    assert found.noted == {"non_ascii_caption": 1}
    assert (found.name, found.split) == ("vg-reg-5k", "test")


@pytest.mark.parametrize("archive", ["VG_100K", "VG_100K_2"])
def test_images_are_found_in_the_folders_of_visual_genome(write, archive):
    path, folder = write([annotation(1, caption="a dog")])
    (folder / archive).mkdir()
    (folder / "1.jpg").rename(folder / archive / "1.jpg")

    found = read_coco_captions(path, folder, name="vg-reg-5k", split="test")

    assert len(found.regions) == 1


# ---- real files ---------------------------------------------------------------------------------


def test_every_real_object_is_read(shared):
    root = shared / "fixtures/coco_ovad_e2e"

    found = read_coco_instances(root / "annotations/instances_val2017.json", root / "val2017")

    assert len(found.regions) == 111
    assert found.rejected == []
    assert sum(item.iscrowd for item in found.regions) == 2
    assert len(found.images) == 14  # 226111 has no object
    assert found.noted == {"crowd": 2, "id_beyond_32_bits": 2}
    assert {(item.region_id, item.box) for item in found.regions if item.iscrowd} == {
        (908400553664, (97, 0, 639, 292)),
        (908400255165, (122, 270, 639, 479)),
    }
    assert len(found.category_names) == 80


def test_tiny_real_boxes_are_kept_and_the_flat_one_is_rejected(shared, write):
    boxes = json.loads((shared / "fixtures/tricky/boxes_real.json").read_text(encoding="utf-8"))
    rows = [*boxes["coco_real"], *boxes["coco_crowd_real"]]
    sizes = {row["image_id"]: (480, 640) for row in rows}
    sizes.update((row["image_id"], row["segmentation"]["size"]) for row in boxes["coco_crowd_real"])
    images = [
        image(n, file_name="1.jpg", width=width, height=height)
        for n, (height, width) in sizes.items()
    ]
    categories = [{"id": n, "name": str(n)} for n in range(91)]

    found = read_coco_instances(*write(rows, images=images, categories=categories))

    assert found.rejection_counts() == {"empty_box": 1}
    assert len(found.regions) == len(rows) - 1
    assert 1400933 in [item.region_id for item in found.regions]
    assert max(item.region_id for item in found.regions) > 2**31
