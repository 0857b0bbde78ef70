"""Odd keys, ids, values and images of Visual Genome: taken, or counted for which reason."""

from __future__ import annotations

import logging
from functools import partial

import pytest
from vg_rows import (
    image,
    kept,
    old_image,
    old_region,
    one_each,
    region,
    touch_images,
    write_and_read,
)

from lavis_dynrefer.datasets.sources.raw_files import DatasetError

BOTH = {"val": [1, 2]}


@pytest.fixture
def read(tmp_path):
    touch_images(tmp_path)
    return partial(write_and_read, tmp_path)


# ---- regions ------------------------------------------------------------------------------------


def test_a_region_id_may_occur_once_in_each_split(read):
    entries = [{"id": n, "regions": [region(7)]} for n in (1, 2)]

    found = read(entries=entries, splits=BOTH)
    split_up = read(entries=entries, splits={"train": [2]}, only=("train", "val"))

    assert found.rejection_counts() == {"duplicate_id": 1}
    assert [(item.region_id, item.image_id) for item in found.truth()] == [(7, 1), (-1, 2)]
    assert [(len(part.regions), part.rejected) for part in split_up.values()] == 2 * [(1, [])]


@pytest.mark.parametrize("row", [{**old_region(2), "image": 7}, region(2, image_id=7)])
def test_the_image_that_lists_a_region_counts_not_the_one_inside(read, row):
    found = read([row])

    assert {item.image_id for item in found.regions} == {1}
    assert found.noted["other_image_inside"] == 1


# ---- lists of regions ---------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["id", "image_id"])
def test_a_list_of_regions_may_name_its_image_either_way(read, key):
    assert len(read(entries=[{key: "1", "regions": [region(1)]}]).regions) == 1


@pytest.mark.parametrize("make", [image, old_image])
@pytest.mark.parametrize(("make_region", "version"), [(region, "v1.2"), (old_region, "v1.0")])
def test_regions_and_image_data_may_be_of_different_versions(read, make, make_region, version):
    entries = [{"id": 1, "regions": [make_region(1)]}]

    found = read(entries=entries, images=[make(1)], version=version)

    assert len(found.regions) == 1
    assert (found.rejected, found.noted) == ([], {})


@pytest.mark.parametrize(
    ("make_region", "version", "keys", "other"),
    [
        (old_region, "v1.2", "v1.0_keys", "1.0"),
        (old_region, "vgcoco", "v1.0_keys", "1.0"),
        (region, "v1.0", "v1.2_keys", "1.2"),
    ],
)
def test_keys_of_the_other_version_are_read_counted_and_logged(
    read, caplog, make_region, version, keys, other
):
    entries = [{"id": 1, "regions": [make_region(n) for n in (1, 2)]}]

    with caplog.at_level(logging.WARNING):
        found = read(entries=entries, images=[image(1, coco_id=7)], version=version)

    assert len(found.regions) == 2
    assert found.noted == {keys: 2}
    assert f"2 regions have the keys of version {other}, expected {version}" in caplog.text


@pytest.mark.parametrize("regions", [5, "regions", {"region_id": 2}, True])
def test_regions_that_are_not_a_list_are_counted_once(read, regions):
    found = read(entries=[*one_each(1), {"id": 2, "regions": regions}], splits=BOTH)

    assert found.rejection_counts() == {"unreadable_record": 1}
    assert "image 2: expected a list of regions" in found.rejected[0].detail


@pytest.mark.parametrize(
    "entries", [[{"id": 2}], [{"id": 2, "regions": None}], [{"id": 2, "regions": []}], []]
)
def test_an_image_of_the_split_without_regions_is_counted(read, entries):
    found = read(entries=[*one_each(1), *entries], splits=BOTH)

    assert found.rejection_counts() == {"no_regions": 1}
    assert "image 2 of the split has no region in" in found.rejected[0].detail


def test_an_image_listed_twice_has_the_regions_of_both_lists(read):
    found = read(entries=[*one_each(1), {"id": "1", "regions": [region(1), region(2)]}])

    assert list(kept(found)) == [1, 2]
    assert found.rejection_counts() == {"duplicate_id": 1}
    assert found.noted == {"image_listed_twice": 1}


# ---- whole files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"entries": [{"regions": []}]}, r"no image of region_descriptions has an id.*Set `reg"),
        ({"images": [{"width": 5}, {}]}, r"no image of image_data has an id.*Set `image_data`"),
        ({"entries": [[1], [2]]}, r"region_descriptions\.json: expected a list of obj.*Set `reg"),
        ({"images": [5]}, r"image_data\.json: expected a list of objects.*Set `image_data`"),
        ({"splits": {"test": 5}}, r"splits\.json: expected a list of image ids under 'test'"),
    ],
)
def test_an_invalid_file_is_one_error_with_the_setting(read, files, message):
    with pytest.raises(DatasetError, match=message):
        read(**files)


@pytest.mark.parametrize("value", ["one", 1.5, None])
def test_an_invalid_id_in_the_splits_is_counted_in_its_split(read, value):
    splits = {"train": [2], "val": [1, value]}

    found = read(entries=one_each(1, 2), splits=splits, only=("train", "val"))

    assert found["val"].rejection_counts() == {"unreadable_entry": 1}
    assert found["train"].rejected == []
    assert "splits.json, split 'val': image id" in found["val"].rejected[0].detail


@pytest.mark.parametrize("listed", [["1", 2.0], [1, 1, 2]])
def test_ids_in_the_splits_may_be_strings_and_repeated(read, listed):
    found = read(entries=one_each(1, 2), splits={"val": listed})

    assert list(found.images) == [1, 2]
    assert found.rejected == []


# ---- images -------------------------------------------------------------------------------------


def test_image_data_may_be_in_another_order_with_sizes_as_strings(read):
    images = [image(n, width=100 * n) for n in (3, 1)]
    images.append(image(2, width="200", height="480"))

    found = read(entries=one_each(1, 2, 3), images=images, splits={"val": [2, 3, 1]})

    assert {item.image_id: item.width for item in found.images.values()} == {1: 100, 2: 200, 3: 300}
    assert found.images[2].height == 480


@pytest.mark.parametrize(
    "keys",
    [
        *({"width": "wide"}, {"height": 0}, {"image_id": 3}),
    ],
)
def test_without_a_size_the_regions_of_an_image_are_counted_and_stay_truth(read, keys):
    found = read(entries=one_each(1, 2), images=[image(1), {**image(2), **keys}], splits=BOTH)

    assert found.rejection_counts() == {"no_image_data": 1}
    assert list(found.images) == [1]
    assert [item.region_id for item in found.truth()] == [1, 2]


@pytest.mark.parametrize(
    "url",
    [
        *(None, "", ".", "/", 5, ["x"], "nowhere"),
        "https://example.org/VG_100K/1.jpg",  # the other folder
        "https://example.org/VG_100K_2/2.jpg",  # another image
        f"https://example.org/{'7' * 5000}.jpg",
        "a\0b/1.jpg",
        "\ud83d/1.jpg",
    ],
)
def test_images_with_an_unusable_url_are_found_by_number(read, url):
    found = read(images=[image(1, url=url)])

    assert found.images[1].path.endswith("images/VG_100K_2/1.jpg")


@pytest.mark.parametrize("name", ["harbour.png", "1.png", "000001.jpg"])
def test_a_url_may_name_a_file_with_another_name(read, tmp_path, name):
    (tmp_path / "images/VG_100K_2" / name).touch()

    found = read(images=[image(1, url=f"https://example.org/VG_100K_2/{name}")])

    assert found.images[1].path.endswith(f"images/VG_100K_2/{name}")
