from __future__ import annotations

import json
import logging

import pytest

from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.datasets.sources.visual_genome import (
    clamp_box,
    clean_caption,
    read_visual_genome,
)


def region(region_id, phrase="a dog", box=(10, 10, 20, 20), **keys):
    x, y, width, height = box
    sides = {"x": x, "y": y, "width": width, "height": height}
    return {"region_id": region_id, "image_id": 1, "phrase": phrase, **sides, **keys}


@pytest.fixture
def dataset(tmp_path):
    """Writes raw files: images 1 (train), 2 (val), 3 (test) of 100 x 80 pixels."""

    def _write(regions, splits=None, image_data=None):
        images = tmp_path / "images"
        (images / "VG_100K").mkdir(parents=True, exist_ok=True)
        for number in (1, 2, 3):
            (images / "VG_100K" / f"{number}.jpg").touch()
        rows = [
            {
                "image_id": n,
                "width": 100,
                "height": 80,
                "coco_id": None,
                "url": f"http://x/VG_100K/{n}.jpg",
            }
            for n in (3, 1, 2)
        ]
        files = {
            "regions.json": [{"id": key, "regions": value} for key, value in regions.items()],
            "image_data.json": image_data or rows,
            "splits.json": splits or {"train": [1], "val": [2], "test": [3]},
        }
        for name, content in files.items():
            (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
        return [*(tmp_path / name for name in files), images]

    return _write


@pytest.mark.parametrize(
    ("phrase", "caption"),
    [
        ("the clock is green in colour", "the clock is green in colour"),
        (" A cloud in the sky.\n", "a cloud in the sky"),
        ("\u00bd eaten caf\u00e9 cr\u00eape", "half eaten cafe cr\u00eape"),
        (
            "90\u00b0 angle \u2014 \u201cstop\u201d\u2122 sign\u2026",
            "90 degree angle \u201cstop\u201d sign",
        ),
        ("A man's t-shirt\n", "a mans tshirt"),
        ("5\u00a2 \u00fb \u00e8 x \u00e7 \u00e9", "5cent u e x c e"),
        ("two\tmen", "two men"),
        ("a\u00a0dog", "a dog"),
        ("\u65e5\u672c\u8a9e", "\u65e5\u672c\u8a9e"),
        ("", ""),
        ("   ", ""),
        ("!!!", ""),
    ],
)
def test_captions_are_cleaned_as_dense_captioning_does(phrase, caption):
    assert clean_caption(phrase) == caption


@pytest.mark.parametrize(
    ("xywh", "xyxy"),
    [
        ((421, 57, 82, 30), (421, 57, 503, 87)),
        ((0, 0, 800, 600), (1, 1, 800, 600)),
        ((480, -2, 10, 35), (480, 1, 490, 33)),
        ((179, -904, 55, 25), (179, 1, 234, -879)),
        ((900, 10, 5, 5), (799, 10, 800, 15)),
        ((790, 10, 500, 5), (790, 10, 800, 15)),
    ],
)
def test_boxes_are_clamped_as_dense_captioning_does(xywh, xyxy):
    assert clamp_box(*xywh, 800, 600) == xyxy


def test_an_image_one_pixel_wide_has_a_box():
    assert clamp_box(0, 0, 1, 10, 1, 10) == (0, 1, 1, 10)


def test_each_image_goes_to_its_split(dataset):
    found = read_visual_genome(*dataset({n: [region(n)] for n in (2, 3, 1)}))

    assert {split: list(part.images) for split, part in found.items()} == {
        "train": [1],
        "val": [2],
        "test": [3],
    }
    assert found["val"].name == "vg1.2-densecap-gt"
    assert found["val"].images[2].path.endswith("images/VG_100K/2.jpg")


def test_only_the_splits_asked_for_are_read(dataset):
    found = read_visual_genome(*dataset({n: [region(n)] for n in (1, 2)}), splits=["val"])

    assert list(found) == ["val"]


def test_training_drops_what_cannot_be_learned_from(dataset):
    rows = [
        region(1),
        region(2, phrase="..."),
        region(3, box=(179, -904, 5, 25)),
        region(4, phrase="a " * 16),
        region(5, box=(-5, 10, 6, 10)),
    ]

    (found,) = read_visual_genome(*dataset({1: rows}), splits=["train"]).values()

    assert [item.region_id for item in found.regions] == [1]
    assert found.truth() == list(found.regions)
    assert found.rejection_counts() == {
        "empty_caption": 1,
        "outside_image": 1,
        "long_caption": 1,
        "empty_box": 1,
    }


def test_evaluation_keeps_empty_captions_and_boxes_as_truth_but_no_long_caption(dataset):
    rows = [
        region(1),
        region(2, phrase="..."),
        region(3, box=(179, -904, 5, 25)),
        region(4, phrase="a " * 16),
    ]

    (found,) = read_visual_genome(*dataset({2: rows}), splits=["val"]).values()

    assert [item.region_id for item in found.regions] == [1]
    assert sorted(item.region_id for item in found.truth()) == [1, 2, 3]


def test_a_caption_of_fifteen_words_is_kept(dataset):
    (found,) = read_visual_genome(
        *dataset({1: [region(1, phrase="a " * 15)]}), splits=["train"]
    ).values()

    assert len(found.regions) == 1


@pytest.mark.parametrize(
    "row",
    [
        {"region_id": 2, "phrase": "a dog", "x": 1, "y": 1, "width": 5},
        {"region_id": 2, "phrase": None, "x": 1, "y": 1, "width": 5, "height": 5},
        {"phrase": "a dog", "x": 1, "y": 1, "width": 5, "height": 5},
        {"region_id": "two", "phrase": "a dog", "x": 1, "y": 1, "width": 5, "height": 5},
        {"region_id": 2, "phrase": "a dog", "x": "left", "y": 1, "width": 5, "height": 5},
    ],
)
def test_a_record_without_sense_is_counted(dataset, row):
    (found,) = read_visual_genome(*dataset({1: [region(1), row]}), splits=["train"]).values()

    assert found.rejection_counts() == {"unreadable_record": 1}


def test_ids_may_be_texts(dataset):
    files = dataset({"1": [region("12")]}, splits={"train": ["1"], "val": [], "test": []})

    (found,) = read_visual_genome(*files, splits=["train"]).values()

    assert found.regions[0].region_id == 12


def test_an_image_in_two_splits_is_tested_on_only(dataset):
    files = dataset(
        {n: [region(n)] for n in (1, 2, 3)}, splits={"train": [1, 3], "val": [2], "test": [3]}
    )

    found = read_visual_genome(*files)

    assert list(found["train"].images) == [1]
    assert list(found["test"].images) == [3]
    assert found["train"].rejection_counts() == {"in_two_splits": 1}


def test_an_image_of_the_split_without_regions_is_counted(dataset):
    files = dataset({1: [region(1)], 2: []}, splits={"train": [1, 2, 3], "val": [], "test": []})

    (found,) = read_visual_genome(*files, splits=["train"]).values()

    assert found.rejection_counts() == {"no_regions": 2}


def test_an_image_without_a_file_is_counted_per_region(dataset):
    files = dataset(
        {1: [region(1)], 2: [region(2), region(3)], 3: [region(4)]},
        splits={"train": [], "val": [2, 3], "test": []},
    )
    (files[-1] / "VG_100K" / "2.jpg").unlink()

    (found,) = read_visual_genome(*files, splits=["val"]).values()

    assert found.rejection_counts() == {"missing_image": 2}
    assert len(found.truth()) == 3


def test_an_image_without_image_data_is_counted_per_region(dataset):
    files = dataset(
        {1: [region(1)], 2: [region(2)]},
        splits={"train": [1, 2], "val": [], "test": []},
        image_data=[{"id": 1, "width": 100, "height": 80, "url": None}],
    )

    (found,) = read_visual_genome(*files, splits=["train"]).values()

    assert found.rejection_counts() == {"no_image_data": 1}
    assert list(found.images) == [1]


def test_vgcoco_takes_coco_images_only(dataset):
    rows = [
        {"image_id": n, "width": 100, "height": 80, "url": f"VG_100K/{n}.jpg", "coco_id": coco}
        for n, coco in ((1, None), (2, 99))
    ]
    files = dataset(
        {1: [region(1)], 2: [region(2)]},
        splits={"train": [1, 2], "val": [], "test": []},
        image_data=rows,
    )

    (found,) = read_visual_genome(*files, version="vgcoco", splits=["train"]).values()

    assert list(found.images) == [2]
    assert found.name == "vgcoco-densecap-gt"
    assert found.rejected == []


def test_version_1_0_keys_are_read_and_the_mixture_is_said(dataset, caplog):
    old = {"id": 5, "image": 1, "phrase": "a dog", "x": 1, "y": 2, "width": 3, "height": 4}
    files = dataset({1: [old]})

    with caplog.at_level(logging.WARNING):
        (found,) = read_visual_genome(*files, splits=["train"]).values()

    assert found.regions[0].box == (1, 2, 4, 6)
    assert found.noted == {"v1.0_keys": 1}
    assert "1 regions have the keys of version 1.0, asked for v1.2" in caplog.text


def test_a_split_without_regions_is_an_error(dataset):
    with pytest.raises(DatasetError, match=r"split 'test': no usable region.*no_regions"):
        read_visual_genome(*dataset({1: [region(1)]}), splits=["test"])


def test_a_splits_file_without_a_split_is_an_error(dataset):
    files = dataset({1: [region(1)]}, splits={"train": [1], "val": [2]})

    with pytest.raises(DatasetError, match="image ids under 'test'"):
        read_visual_genome(*files)


def golden(shared, name):
    path = shared / f"fixtures/golden/{name}_dynrefer.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["annotations"]
    return [(row["image_id"], row["caption"], tuple(row["bbox"])) for row in rows]


def found_rows(region_sets):
    rows = [item for part in region_sets.values() for item in part.regions]
    return [(item.image_id, item.caption, item.box) for item in rows]


def test_the_real_regions_of_five_images_convert_as_officially(shared, tmp_path):
    raw = shared / "fixtures/vg_raw_5images/vg1.2"
    for number in range(1, 6):
        (tmp_path / f"{number}.jpg").touch()
    splits = tmp_path / "splits.json"
    splits.write_text('{"train": [1, 2, 3, 4, 5], "val": [], "test": []}', encoding="utf-8")

    found = read_visual_genome(
        raw / "region_descriptions.json",
        raw / "image_data.json",
        splits,
        tmp_path,
        splits=["train"],
    )

    assert found_rows(found) == golden(shared, "vg1.2_5images")
    assert found["train"].rejected == []


@pytest.mark.parametrize("version", ["v1.0", "v1.2"])
def test_a_whole_dataset_converts_as_officially(shared, version):
    root = shared / "fixtures/vg_format_e2e"
    folder = root / f"vg{version[1:]}"

    found = read_visual_genome(
        folder / "region_descriptions.json",
        folder / "image_data.json",
        root / "densecap_splits.json",
        root / "images",
        version=version,
    )

    assert sorted(found_rows(found)) == sorted(golden(shared, "vg_format_e2e"))
    assert [len(part.images) for part in found.values()] == [5, 1, 3]


def test_the_real_split_file_is_read(shared, dataset):
    files = dataset({1: [region(1)]})
    files[2] = shared / "fixtures/densecap/densecap_splits.json"

    with pytest.raises(DatasetError, match="'no_regions': 5000"):
        read_visual_genome(*files, splits=["test"])
