"""Odd keys, ids and images of Visual Genome: taken, or left out for which reason."""

from __future__ import annotations

import logging
from functools import partial

import pytest
from vg_rows import (
    image,
    kept,
    old_image,
    old_region,
    region,
    touch_images,
    write_and_read,
)

from lavis_dynrefer.datasets.sources.raw_files import DatasetError

NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def read(tmp_path):
    touch_images(tmp_path)
    return partial(write_and_read, tmp_path)


# ---- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["id", "image_id"])
def test_a_list_of_regions_may_name_its_image_either_way(read, key):
    assert len(read(entries=[{key: 1, "regions": [region(1)]}]).regions) == 1


@pytest.mark.parametrize("make", [image, old_image])
@pytest.mark.parametrize(("make_region", "version"), [(region, "v1.2"), (old_region, "v1.0")])
def test_regions_and_image_data_may_be_of_different_versions(read, make, make_region, version):
    entries = [{"id": 1, "regions": [make_region(1)]}]

    found = read(entries=entries, images=[make(1)], version=version)

    assert len(found.regions) == 1
    assert (found.rejected, found.noted) == ([], {})


@pytest.mark.parametrize(
    ("make_region", "asked", "keys", "other"),
    [
        (old_region, "v1.2", "v1.0_keys", "1.0"),
        (old_region, "vgcoco", "v1.0_keys", "1.0"),
        (region, "v1.0", "v1.2_keys", "1.2"),
    ],
)
def test_keys_of_the_other_version_are_read_counted_and_said(
    read, caplog, make_region, asked, keys, other
):
    entries = [{"id": 1, "regions": [make_region(n) for n in (1, 2)]}]

    with caplog.at_level(logging.WARNING):
        found = read(entries=entries, images=[image(1, coco_id=7)], version=asked)

    assert found.noted == {keys: 2}
    assert f"2 regions have the keys of version {other}, asked for {asked}" in caplog.text


def test_single_regions_with_the_keys_of_the_other_version_are_counted(read):
    assert read([old_region(2), region(3)]).noted == {"v1.0_keys": 1}


@pytest.mark.parametrize("row", [{**old_region(2), "image": 7}, region(2, image_id=7)])
def test_the_image_that_lists_a_region_counts_not_the_one_inside(read, row):
    found = read([row])

    assert {item.image_id for item in found.regions} == {1}
    assert found.noted["other_image_inside"] == 1


@pytest.mark.parametrize("row", [None, 5, "a dog", [], {}, {"phrase": "a dog"}, [["region_id", 2]]])
def test_a_region_that_is_none_is_counted(read, row):
    found = read([row])

    assert found.rejection_counts() == {"unreadable_record": 1}
    assert found.rejected[0].image_id == 1


@pytest.mark.parametrize("regions", [5, "regions", {"region_id": 2}, True])
def test_regions_that_are_no_list_are_counted_once(read, regions):
    entries = [{"id": 1, "regions": [region(1)]}, {"id": 2, "regions": regions}]

    found = read(entries=entries, splits={"val": [1, 2]})

    assert found.rejection_counts() == {"unreadable_record": 1}
    assert "image 2: expected a list of regions" in found.rejected[0].detail


@pytest.mark.parametrize("entry", [{"id": 2}, {"id": 2, "regions": None}, {"id": 2, "regions": []}])
def test_an_image_without_regions_is_counted(read, entry):
    found = read(entries=[{"id": 1, "regions": [region(1)]}, entry], splits={"val": [1, 2]})

    assert found.rejection_counts() == {"no_regions": 1}


def test_image_data_may_be_in_another_order(read):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2, 3)]
    images = [image(n, width=100 * n) for n in (3, 1, 2)]

    found = read(entries=entries, images=images, splits={"val": [2, 3, 1]})

    assert {item.image_id: item.width for item in found.images.values()} == {1: 100, 2: 200, 3: 300}


@pytest.mark.parametrize("coco_id", [None, NAN, "", "null", True])
def test_without_a_coco_id_an_image_is_none_of_vgcoco(read, coco_id):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2)]
    images = [image(1, coco_id=61512), image(2, coco_id=coco_id)]

    found = read(entries=entries, images=images, splits={"val": [1, 2]}, version="vgcoco")

    assert list(found.images) == [1]
    assert found.rejected == []


def test_vgcoco_needs_image_data_with_coco_ids(read):
    row = image(1)
    del row["coco_id"]

    with pytest.raises(DatasetError, match=r"images\.json: no image has a 'coco_id'.*Set `image"):
        read(images=[row], version="vgcoco")


def test_vgcoco_counts_regions_of_images_it_knows_nothing_about(read):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2)]

    found = read(
        entries=entries,
        images=[image(1, coco_id=7)],
        splits={"val": [1, 2]},
        version="vgcoco",
    )

    assert found.rejection_counts() == {"no_image_data": 1}


# ---- ids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("region_id", [2, "2", 2.0])
def test_a_region_id_is_a_whole_number_however_written(read, region_id):
    assert list(kept(read([region(region_id)]))) == [1, 2]


@pytest.mark.parametrize("region_id", [None, True, 2.5, "two", "", NAN, INFINITY, [2], {}, 2**63])
def test_a_region_without_such_an_id_is_counted(read, region_id):
    assert read([region(region_id)]).rejection_counts() == {"unreadable_record": 1}


def test_region_ids_beyond_32_bits_are_kept_and_noted(read):
    found = read([region(900100184613)])

    assert 900100184613 in kept(found)
    assert found.noted == {"id_beyond_32_bits": 1}


def test_a_repeated_region_id_is_counted_once(read):
    found = read([region(1, "a cat")])

    assert [item.caption for item in found.regions] == ["a dog"]
    assert found.rejection_counts() == {"duplicate_id": 1}


def test_the_same_region_id_in_two_images_is_a_repeated_one(read):
    entries = [{"id": n, "regions": [region(7)]} for n in (1, 2)]

    found = read(entries=entries, splits={"val": [1, 2]})

    assert found.rejection_counts() == {"duplicate_id": 1}
    assert [(item.region_id, item.image_id) for item in found.truth()] == [(7, 1), (-1, 2)]


def test_a_region_id_may_occur_once_in_each_split(read):
    entries = [{"id": n, "regions": [region(7)]} for n in (1, 2)]

    found = read(entries=entries, splits={"train": [2]}, asked=("train", "val"))

    assert [len(part.regions) for part in found.values()] == [1, 1]
    assert [part.rejected for part in found.values()] == [[], []]


def test_an_image_listed_twice_has_the_regions_of_both_lists(read):
    entries = [{"id": 1, "regions": [region(1)]}, {"id": "1", "regions": [region(1), region(2)]}]

    found = read(entries=entries)

    assert list(kept(found)) == [1, 2]
    assert found.rejection_counts() == {"duplicate_id": 1}
    assert found.noted == {"image_listed_twice": 1}


def test_an_image_twice_in_image_data_has_the_first_size(read):
    found = read(images=[image(1, width=50), image(1, width=500)])

    assert found.images[1].width == 50
    assert found.rejection_counts() == {"duplicate_entry": 1}


@pytest.mark.parametrize("row", [None, 5, {}, {"image_id": None}, {"image_id": "x"}, {"id": [1]}])
def test_a_row_of_no_image_is_counted_in_every_split(read, row):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2)]

    found = read(
        entries=[*entries, row],
        images=[image(1), image(2), row],
        splits={"train": [2]},
        asked=("train", "val"),
    )

    assert [part.rejection_counts() for part in found.values()] == 2 * [{"unreadable_entry": 2}]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"entries": [{"regions": []}]},
            r"no image of region_descriptions has an id.*Set `region_d",
        ),
        ({"images": [{"width": 5}, {}]}, r"no image of image_data has an id.*Set `image_data`"),
        ({"entries": [[1], [2]]}, r"regions\.json: expected a list of objects.*Set `region_desc"),
        ({"images": [5]}, r"images\.json: expected a list of objects.*Set `image_data`"),
        ({"splits": {"test": 5}}, r"splits\.json: expected a list of image ids under 'test'"),
        ({"splits": {"val": ["1.jpg"]}}, r"no usable region.*'unreadable_entry': 1.*'1\.jpg'"),
        (
            {"images": [{"image_id": 1}]},
            r"no usable region.*'no_image_data': 1.*no size in image",
        ),
    ],
)
def test_a_file_of_another_kind_is_one_error_with_the_setting(read, files, message):
    with pytest.raises(DatasetError, match=message):
        read(**files)


@pytest.mark.parametrize("value", ["one", 1.5, None, [1], True, NAN, {}])
def test_an_id_in_the_splits_that_is_none_is_counted_in_its_split(read, value):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2)]

    found = read(entries=entries, splits={"train": [2], "val": [1, value]}, asked=("train", "val"))

    assert found["val"].rejection_counts() == {"unreadable_entry": 1}
    assert found["train"].rejected == []
    assert "splits.json, split 'val': image id" in found["val"].rejected[0].detail


@pytest.mark.parametrize("listed", [["1", 2.0], [1, 1, 2]])
def test_ids_in_the_splits_may_be_texts_and_repeated(read, listed):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2)]

    found = read(entries=entries, splits={"val": listed})

    assert list(found.images) == [1, 2]
    assert found.rejected == []


def test_an_image_of_a_split_and_of_no_file_is_counted(read):
    found = read(splits={"val": [1, 77]})

    assert found.rejection_counts() == {"no_regions": 1}
    assert "image 77 of the split has no region in" in found.rejected[0].detail


def test_an_image_in_two_splits_is_counted_where_it_is_not_used(read):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2)]

    found = read(entries=entries, splits={"train": [1, 2]}, asked=("train", "val"))

    assert [list(part.images) for part in found.values()] == [[2], [1]]
    assert [part.rejection_counts() for part in found.values()] == [{"in_two_splits": 1}, {}]


# ---- images -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        {"width": 0},
        {"width": None},
        {"width": "wide"},
        {"width": NAN},
        {"width": [800]},
        {"height": -5},
        {"height": 2**31},
        {"height": True},
    ],
)
def test_without_a_size_the_regions_of_an_image_are_counted_and_stay_truth(read, keys):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2)]

    found = read(entries=entries, images=[image(1), image(2, **keys)], splits={"val": [1, 2]})

    assert found.rejection_counts() == {"no_image_data": 1}
    assert [item.region_id for item in found.truth()] == [1, 2]


def test_a_size_may_be_a_text(read):
    found = read(images=[image(1, width="640", height="480")])

    assert (found.images[1].width, found.images[1].height) == (640, 480)


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        ".",
        "/",
        5,
        ["x"],
        "nowhere",
        "https://example.org/VG_100K/1.jpg",  # the other folder
        "https://example.org/VG_100K_2/2.jpg",  # another image
        f"https://example.org/{'7' * 5000}.jpg",
        "a\0b/1.jpg",
        "\ud83d/1.jpg",
    ],
)
def test_whatever_the_url_the_image_is_the_one_of_its_number(read, url):
    found = read(images=[image(1, url=url)])

    assert found.images[1].path.endswith("images/VG_100K_2/1.jpg")


@pytest.mark.parametrize("name", ["harbour.png", "1.png", "000001.jpg"])
def test_a_url_may_name_a_file_that_is_called_otherwise(read, tmp_path, name):
    (tmp_path / "images/VG_100K_2" / name).touch()

    found = read(images=[image(1, url=f"https://example.org/VG_100K_2/{name}")])

    assert found.images[1].path.endswith(f"images/VG_100K_2/{name}")


def test_a_file_missing_in_the_second_folder_is_counted_per_region(read, tmp_path):
    entries = [{"id": n, "regions": [region(n), region(10 + n)]} for n in (1, 2)]
    (tmp_path / "images/VG_100K_2/2.jpg").unlink()

    found = read(entries=entries, splits={"val": [1, 2]})

    assert found.rejection_counts() == {"missing_image": 2}
    assert len(found.truth()) == 4
