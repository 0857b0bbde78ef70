from __future__ import annotations

import json

import pytest

from lavis_dynrefer.datasets.sources.coco_layout import read_coco_captions, read_coco_instances
from lavis_dynrefer.datasets.sources.raw_files import DatasetError

NAN, INFINITY = float("nan"), float("inf")
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}]


def annotation(number, bbox=(10, 20, 30, 40), **keys):
    return {"id": number, "image_id": 1, "category_id": 18, "bbox": list(bbox), **keys}


@pytest.fixture
def write(tmp_path):
    """Writes a file about image 1, 100 x 80 pixels, and the image's place."""
    (tmp_path / "1.jpg").touch()

    def _write(rows, **keys):
        images = [{"id": 1, "file_name": "1.jpg", "width": 100, "height": 80}]
        document = {"images": images, "annotations": rows, "categories": CATEGORIES, **keys}
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


def test_a_crowd_is_marked_and_has_the_inclusive_extent_of_its_mask(write):
    # 4 x 5 pixels, columns first: rows 1-2 of columns 1-2 are set
    mask = {"size": [4, 5], "counts": [5, 2, 2, 2, 9]}
    images = [{"id": 1, "file_name": "1.jpg", "width": 5, "height": 4}]

    found = read_coco_instances(
        *write([annotation(9e11, iscrowd=1, segmentation=mask)], images=images)
    )

    (region,) = found.regions
    assert region.iscrowd
    assert region.box == (1, 1, 2, 2)
    assert region.region_id == 900000000000
    assert found.noted == {"crowd": 1, "box_below_2_px": 1, "id_beyond_32_bits": 1}


@pytest.mark.parametrize(
    ("row", "reason", "truths"),
    [
        (annotation(2, bbox=(296.65, 38.33, 1.03, 0.0)), "empty_box", 2),
        (annotation(2, bbox=(300, 20, 10, 10)), "outside_image", 2),
        (annotation(2, category_id=7), "unreadable_record", 1),
        (annotation(2, bbox=(1, 2, 3)), "unreadable_record", 1),
        (annotation(2, bbox=(1, 2, 3, 4, 5)), "unreadable_record", 1),
        ({**annotation(2), "bbox": "1234"}, "unreadable_record", 1),
        ({**annotation(2), "bbox": None}, "unreadable_record", 1),
        (annotation(2, bbox=(1, 2, NAN, 4)), "unreadable_record", 1),
        (annotation(2, bbox=(INFINITY, 2, 3, 4)), "unreadable_record", 1),
        (annotation(2, bbox=(1, 2, 10**400, 4)), "unreadable_record", 1),
        (annotation(2, bbox=(1, 2, 3, None)), "unreadable_record", 1),
        (annotation(2, bbox=(1, 2, 1e308, 1e308)), None, 2),
        (annotation(2, bbox=(1e308, 2, 1e308, 5)), "invalid_box", 2),
        (annotation(2, category_id=None), "unreadable_record", 1),
        (annotation(2, category_id=[18]), "unreadable_record", 1),
        (annotation(2, category_id=True), "unreadable_record", 1),
        (annotation(2, category_id="18"), None, 2),
        (annotation(2, iscrowd="0"), None, 2),
        (annotation(2, iscrowd="no"), "unreadable_record", 1),
        (annotation(2, iscrowd=1), "unreadable_record", 1),  # a crowd without a mask
        (annotation(2, iscrowd=1, image_id=4), "no_image_data", 2),
        (annotation(2, image_id=None), "unreadable_record", 1),
        (annotation(2, image_id=[1]), "unreadable_record", 1),
        (annotation(2, image_id=True), "unreadable_record", 1),
        (annotation(2, image_id=NAN), "unreadable_record", 1),
        (annotation(2, image_id="1"), None, 2),
        (annotation("2"), None, 2),
        (annotation(2.5), "unreadable_record", 1),
        (annotation(True), "unreadable_record", 1),
        (annotation([2]), "unreadable_record", 1),
        (annotation(INFINITY), "unreadable_record", 1),
        (annotation(2**63), "unreadable_record", 1),
        (None, "unreadable_record", 1),
        (5, "unreadable_record", 1),
        ([], "unreadable_record", 1),
        ({}, "unreadable_record", 1),
        (annotation(2, image_id=4), "no_image_data", 2),
        (annotation(None), "unreadable_record", 1),
        (annotation(1, bbox=(1, 1, 5, 5)), "duplicate_id", 2),
        (
            annotation(2, iscrowd=1, segmentation={"size": [2, 2], "counts": [4]}),
            "unreadable_record",
            1,
        ),
    ],
)
def test_annotations_are_kept_or_counted(write, row, reason, truths):
    found = read_coco_instances(*write([annotation(1), row]))

    assert found.rejection_counts() == ({reason: 1} if reason else {})
    assert len(found.truth()) == truths


@pytest.mark.parametrize(
    "image",
    [
        {"id": 2, "width": 100, "height": 80},
        {"id": 2, "file_name": None, "width": 100, "height": 80},
        {"id": 2, "file_name": "\ud83d.jpg", "width": 100, "height": 80},
        {"id": 2, "file_name": "1.jpg"},
        {"id": 2, "file_name": "1.jpg", "width": "wide", "height": 80},
        {"id": 2, "file_name": "1.jpg", "width": 100, "height": 0},
        {"id": 2, "file_name": "1.jpg", "width": 100, "height": NAN},
        {"id": 2, "file_name": "1.jpg", "width": 2**31, "height": 80},
    ],
)
def test_regions_of_an_unusable_entry_of_images_are_counted_and_stay_truth(write, image):
    images = [{"id": 1, "file_name": "1.jpg", "width": 100, "height": 80}, image]

    found = read_coco_instances(*write([annotation(1), annotation(2, image_id=2)], images=images))

    assert found.rejection_counts() == {"no_image_data": 1}
    assert [item.region_id for item in found.truth()] == [1, 2]
    assert "image 2 has no usable entry in 'images'" in found.rejected[0].detail


@pytest.mark.parametrize("image", [None, 5, {}, {"id": None}, {"id": [1]}, {"file_name": "1.jpg"}])
def test_an_entry_of_images_without_an_id_is_counted(write, image):
    images = [image, {"id": "1", "file_name": "1.jpg", "width": "100", "height": 80.0}]

    found = read_coco_instances(*write([annotation(1)], images=images))

    assert found.rejection_counts() == {"unreadable_entry": 1}
    assert found.images[1].width == 100


def test_an_image_listed_twice_is_the_first_one_and_counted(write):
    images = [{"id": 1, "file_name": "1.jpg", "width": 100 * n, "height": 80} for n in (1, 2, 3)]

    found = read_coco_instances(*write([annotation(1)], images=images))

    assert found.images[1].width == 100
    assert found.rejection_counts() == {"duplicate_entry": 2}


def test_a_missing_image_is_counted_per_region_and_stays_truth(write):
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 100, "height": 80} for n in (1, 2)]
    rows = [annotation(1), annotation(2, image_id=2), annotation(3, image_id=2)]

    found = read_coco_instances(*write(rows, images=images))

    assert found.rejection_counts() == {"missing_image": 2}
    assert len(found.truth()) == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"categories": None}, "expected 'categories' with a list"),
        ({"categories": [{"id": 18}]}, "expected 'categories' with id and name"),
        ({"categories": [18]}, "expected 'categories' with id and name"),
        ({"categories": [{"id": "a", "name": "dog"}]}, "expected 'categories' with id and name"),
        ({"categories": [{"id": 18, "name": 5}]}, "expected 'categories' with id and name"),
        ({"categories": [CATEGORIES[0], {"id": 18, "name": "cat"}]}, "two 'categories' have the"),
        ({"categories": [CATEGORIES[0], {"id": 5, "name": "dog"}]}, "two 'categories' have the"),
        ({"categories": []}, r"no usable region.*category 18 is not listed"),
        ({"images": [{"file_name": "1.jpg"}]}, "no entry of 'images' has an id"),
        ({"images": []}, r"no usable region.*'no_image_data': 1"),
        ({"images": None}, "expected 'images' with a list"),
        ({"annotations": {}}, "expected 'annotations' with a list"),
    ],
)
def test_another_layout_is_named(write, keys, message):
    with pytest.raises(DatasetError, match=message):
        read_coco_instances(*write([annotation(1)], **keys))


def test_captions_are_taken_as_written(write):
    captions = ["A Dog.", "!!!", " two\tdogs ", "caf\u00e9", "a " * 30]
    rows = [annotation(n, caption=caption) for n, caption in enumerate(captions)]

    found = read_coco_captions(*write(rows), name="vg-reg-5k", split="test")

    assert [item.caption for item in found.regions] == captions
    assert found.noted == {"non_ascii_caption": 1}
    assert (found.name, found.split) == ("vg-reg-5k", "test")


@pytest.mark.parametrize(
    ("keys", "reason", "truths"),
    [
        ({}, "unreadable_record", 1),
        ({"caption": None}, "unreadable_record", 1),
        ({"caption": 5}, "unreadable_record", 1),
        ({"caption": ["a dog"]}, "unreadable_record", 1),
        ({"caption": "half a dog \ud83d"}, "unreadable_record", 1),
        ({"caption": ""}, "empty_caption", 2),
        ({"caption": " \n"}, "empty_caption", 2),
    ],
)
def test_regions_without_a_caption_are_counted(write, keys, reason, truths):
    rows = [annotation(1, caption="a dog"), annotation(2, **keys)]

    found = read_coco_captions(*write(rows), name="vg-reg-5k", split="test")

    assert found.rejection_counts() == {reason: 1}
    assert len(found.truth()) == truths


@pytest.mark.parametrize("archive", ["VG_100K", "VG_100K_2"])
def test_images_are_found_in_the_folders_of_visual_genome(write, archive):
    path, folder = write([annotation(1, caption="a dog")])
    image = next(item for item in folder.iterdir() if item.is_file())
    (folder / archive).mkdir()
    image.rename(folder / archive / image.name)

    found = read_coco_captions(path, folder, name="vg-reg-5k", split="test")

    assert len(found.regions) == 1


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


def test_the_tiny_real_boxes_are_kept_and_the_flat_one_rejected(shared, tmp_path):
    boxes = json.loads((shared / "fixtures/tricky/boxes_real.json").read_text(encoding="utf-8"))
    rows = [*boxes["coco_real"], *boxes["coco_crowd_real"]]
    numbers = sorted({row["image_id"] for row in rows})
    sizes = {row["image_id"]: row["segmentation"]["size"] for row in boxes["coco_crowd_real"]}
    images = [
        {"id": n, "file_name": "1.jpg", "width": width, "height": height}
        for n in numbers
        for height, width in [sizes.get(n, (480, 640))]
    ]
    categories = [{"id": n, "name": str(n)} for n in range(91)]
    document = {"images": images, "annotations": rows, "categories": categories}
    (tmp_path / "1.jpg").touch()
    (tmp_path / "a.json").write_text(json.dumps(document), encoding="utf-8")

    found = read_coco_instances(tmp_path / "a.json", tmp_path)

    assert found.rejection_counts() == {"empty_box": 1}
    assert len(found.regions) == len(rows) - 1
    assert 1400933 in [item.region_id for item in found.regions]
    assert max(item.region_id for item in found.regions) > 2**31
