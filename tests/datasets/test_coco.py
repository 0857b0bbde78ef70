from __future__ import annotations

import json

import pytest

from lavis_dynrefer.datasets.sources.coco import read_coco_captions, read_coco_instances
from lavis_dynrefer.datasets.sources.raw_files import DatasetError

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}]


def annotation(number, bbox=(10, 20, 30, 40), **keys):
    return {"id": number, "image_id": 1, "category_id": 18, "bbox": list(bbox), **keys}


@pytest.fixture
def write(tmp_path):
    """Writes a file about picture 1, 100 x 80 pixels, and the picture's place."""
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

    found = read_coco_instances(*write([annotation(9e11, iscrowd=1, segmentation=mask)]))

    (region,) = found.regions
    assert region.iscrowd
    assert region.box == (1, 1, 2, 2)
    assert region.region_id == 900000000000


@pytest.mark.parametrize(
    ("row", "reason", "truths"),
    [
        (annotation(2, bbox=(296.65, 38.33, 1.03, 0.0)), "empty_box", 2),
        (annotation(2, bbox=(300, 20, 10, 10)), "outside_picture", 2),
        (annotation(2, category_id=7), "unreadable_record", 1),
        (annotation(2, bbox=(1, 2, 3)), "unreadable_record", 1),
        (annotation(2, image_id=4), "unreadable_record", 1),
        (annotation(None), "unreadable_record", 1),
        (annotation(1, bbox=(1, 1, 5, 5)), "duplicate_id", 2),
        (
            annotation(2, iscrowd=1, segmentation={"size": [2, 2], "counts": [4]}),
            "unreadable_record",
            1,
        ),
    ],
)
def test_unusable_annotations_are_counted(write, row, reason, truths):
    found = read_coco_instances(*write([annotation(1), row]))

    assert found.rejection_counts() == {reason: 1}
    assert len(found.truth()) == truths


def test_a_missing_picture_is_counted_per_region_and_stays_truth(write):
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 100, "height": 80} for n in (1, 2)]
    rows = [annotation(1), annotation(2, image_id=2), annotation(3, image_id=2)]

    found = read_coco_instances(*write(rows, images=images))

    assert found.rejection_counts() == {"missing_image": 2}
    assert len(found.truth()) == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"categories": None}, "expected 'categories'"),
        ({"images": None}, "no list of objects 'images'"),
        ({"annotations": {}}, "no list of objects 'annotations'"),
    ],
)
def test_another_layout_is_named(write, keys, message):
    with pytest.raises(DatasetError, match=message):
        read_coco_instances(*write([annotation(1)], **keys))


def test_captions_are_taken_as_written(write):
    rows = [annotation(1, caption="A Dog."), annotation(2)]

    found = read_coco_captions(*write(rows), name="vg-reg-5k", split="test")

    assert [item.caption for item in found.regions] == ["A Dog."]
    assert found.rejection_counts() == {"unreadable_record": 1}
    assert (found.name, found.split) == ("vg-reg-5k", "test")


@pytest.mark.parametrize("archive", ["VG_100K", "VG_100K_2"])
def test_pictures_are_found_in_the_folders_of_visual_genome(write, archive):
    path, folder = write([annotation(1, caption="a dog")])
    picture = next(item for item in folder.iterdir() if item.is_file())
    (folder / archive).mkdir()
    picture.rename(folder / archive / picture.name)

    found = read_coco_captions(path, folder, name="vg-reg-5k", split="test")

    assert len(found.regions) == 1


def test_every_real_object_is_read(shared):
    root = shared / "fixtures/coco_ovad_e2e"

    found = read_coco_instances(root / "annotations/instances_val2017.json", root / "val2017")

    assert len(found.regions) == 111
    assert found.rejected == []
    assert sum(item.iscrowd for item in found.regions) == 2
    assert len(found.images) == 14  # 226111 has no object
    assert len(found.category_names) == 80


def test_the_tiny_real_boxes_are_kept_and_the_flat_one_rejected(shared, tmp_path):
    boxes = json.loads((shared / "fixtures/tricky/boxes_real.json").read_text(encoding="utf-8"))
    rows = [*boxes["coco_real"], *boxes["coco_crowd_real"]]
    numbers = sorted({row["image_id"] for row in rows})
    images = [{"id": n, "file_name": "1.jpg", "width": 640, "height": 640} for n in numbers]
    categories = [{"id": n, "name": str(n)} for n in range(91)]
    document = {"images": images, "annotations": rows, "categories": categories}
    (tmp_path / "1.jpg").touch()
    (tmp_path / "a.json").write_text(json.dumps(document), encoding="utf-8")

    found = read_coco_instances(tmp_path / "a.json", tmp_path)

    assert found.rejection_counts() == {"empty_box": 1}
    assert len(found.regions) == len(rows) - 1
    assert 1400933 in [item.region_id for item in found.regions]
    assert max(item.region_id for item in found.regions) > 2**31
