"""Odd records of Visual Genome and what becomes of each: kept, or left out for which reason."""

from __future__ import annotations

import json
import logging

import pytest

from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.datasets.sources.visual_genome import read_visual_genome

NAN, INFINITY = float("nan"), float("inf")
WIDTH, HEIGHT = 800, 600


def region(region_id, phrase="a dog", box=(10, 10, 20, 20), **keys):
    x, y, width, height = box
    sides = {"x": x, "y": y, "width": width, "height": height}
    return {"region_id": region_id, "image_id": 1, "phrase": phrase, **sides, **keys}


def picture(image_id, **keys):
    row = {"image_id": image_id, "width": WIDTH, "height": HEIGHT, "coco_id": None}
    return {**row, "url": f"https://example.org/VG_100K_2/{image_id}.jpg", **keys}


def old_region(region_id):
    return {"id": region_id, "image": 1, "phrase": "a dog", "x": 1, "y": 1, "width": 9, "height": 9}


def old_picture(image_id):
    row = picture(image_id)
    row["id"] = row.pop("image_id")
    return row


@pytest.fixture
def read(tmp_path):
    """Writes raw files and reads split "val" of picture 1, where its region 1 is a good one."""
    for number in (1, 2, 3):
        path = tmp_path / f"images/VG_100K_2/{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def _read(rows=(), *, entries=None, pictures=None, splits=None, asked=("val",), **options):
        files = {
            "regions": entries or [{"id": 1, "regions": [region(1), *rows]}],
            "pictures": pictures or [picture(n) for n in (1, 2, 3)],
            "splits": {"train": [], "val": [1], "test": [], **(splits or {})},
        }
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        paths = [tmp_path / f"{name}.json" for name in files]
        found = read_visual_genome(*paths, tmp_path / "images", splits=asked, **options)
        return found if len(asked) > 1 else found[asked[0]]

    return _read


def kept(region_set):
    return {item.region_id: item.box for item in region_set.regions}


# ---- boxes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "expected", "noted"),
    [
        ((0, 0, WIDTH, HEIGHT), (1, 1, 800, 600), {}),  # the whole picture
        ((700, 10, 100, 50), (700, 10, 800, 60), {}),  # ends at the edge
        ((480, -2, 10, 35), (480, 1, 490, 33), {"box_partly_outside": 1}),
        ((795, 10, 50, 50), (795, 10, 800, 60), {"box_partly_outside": 1}),
        ((799, 10, 1, 50), (799, 10, 800, 60), {"box_below_2_px": 1}),
        ((10, 10, 0.5, 50), (10, 10, 10.5, 60), {"box_below_2_px": 1}),
        ((-3, 10, 5, 50), (1, 10, 2, 60), {"box_partly_outside": 1, "box_below_2_px": 1}),
        # Right of the picture or below it, dense captioning keeps a strip of one pixel.
        ((800, 10, 20, 20), (799, 10, 800, 30), {"box_outside": 1, "box_below_2_px": 1}),
        ((10, 700, 20, 20), (10, 599, 30, 600), {"box_outside": 1, "box_below_2_px": 1}),
        (("10", "10", "20", "20"), (10, 10, 30, 30), {}),
    ],
)
def test_a_box_is_kept(read, box, expected, noted):
    found = read([region(2, box=box)])

    assert kept(found)[2] == expected
    assert found.noted == noted
    assert found.rejected == []


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((296, 388, 10, 0), "empty_box"),
        ((296, 388, -5, 10), "empty_box"),
        ((0, 10, 1, 10), "empty_box"),  # nothing is left right of x = 1
        ((179, -904, 55, 25), "outside_picture"),
        ((-50, 10, 50, 20), "outside_picture"),
    ],
)
def test_a_box_without_a_pixel_is_rejected_and_stays_truth(read, box, reason):
    found = read([region(2, box=box)])

    assert found.rejection_counts() == {reason: 1}
    assert [item.region_id for item in found.truth()] == [1, 2]


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY, None, True, "wide", [5], {}, 10**400])
@pytest.mark.parametrize("key", ["x", "y", "width", "height"])
def test_a_box_that_is_no_box_is_no_record(read, key, value):
    found = read([region(2, **{key: value})])

    assert found.rejection_counts() == {"unreadable_record": 1}
    assert "of picture 1: ValueError" in found.rejected[0].detail


def test_a_picture_one_pixel_wide_has_one_box(read):
    rows = [region(1, box=(0, 5, 1, 10)), region(2, box=(0, 5, 0, 10)), region(3, box=(9, 5, 3, 9))]

    found = read(entries=[{"id": 1, "regions": rows}], pictures=[picture(1, width=1)])

    assert kept(found) == {1: (0, 5, 1, 15), 3: (0, 5, 1, 14)}
    assert found.rejection_counts() == {"empty_box": 1}
    assert found.noted == {"box_below_2_px": 2, "box_outside": 1}


@pytest.mark.parametrize(
    ("region_id", "fate"),
    [
        (5851305, "outside_picture"),  # y = -904
        (5455943, "outside_picture"),
        (5456063, "outside_picture"),
        (5503839, None),  # y = -2
    ],
)
def test_real_boxes_above_their_pictures(shared, read, region_id, fate):
    path = shared / "fixtures/tricky/boxes_real.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["vg_regions_real"]
    (row,) = (row for row in rows if row["region_id"] == region_id)

    found = read([{**row, "image_id": 1}])

    assert found.rejection_counts() == ({fate: 1} if fate else {})
    assert found.noted == ({} if fate else {"box_partly_outside": 1})


# ---- captions -----------------------------------------------------------------------------------

TRICKY_CAPTIONS = {  # index in tricky/captions.json -> caption, or the reason it is left out for
    0: "empty_caption",
    1: "empty_caption",
    2: "empty_caption",
    3: "empty_caption",
    4: "half eaten cafe cr\u00eape",
    5: "90 degree angle \u201cstop\u201d sign",
    6: "a mans tshirt",
    7: "5cent u e c e",
    8: "walkdont walk",
    9: "\u65e5\u672c\u8a9e",
    10: "\U0001f436 dog",
    11: "na\u00efve co\u00f6peration",
    12: "long_caption",
    13: "the word stop is on a sign",
    14: "two men",
    15: "\ufb01re hydrant",  # a ligature
    16: "wooden table",  # the blank between was a no-break space
    17: "e\u0301clair",  # an accent of its own
    18: "\ufeffdog",  # a byte order mark
    19: "x" * 300,
}
NON_ASCII = [4, 5, 9, 10, 11, 15, 17, 18]


@pytest.fixture(scope="module")
def tricky_captions(shared):
    path = shared / "fixtures/tricky/captions.json"
    return json.loads(path.read_text(encoding="utf-8"))["captions"]


def test_every_tricky_caption_has_its_fate(tricky_captions):
    assert list(TRICKY_CAPTIONS) == list(range(len(tricky_captions)))


@pytest.mark.parametrize("index", TRICKY_CAPTIONS)
def test_a_tricky_caption(tricky_captions, read, index):
    found = read([region(2, tricky_captions[index])])

    fates = [item.caption for item in found.regions[1:]] or list(found.rejection_counts())
    assert fates == [TRICKY_CAPTIONS[index]]
    assert found.noted == ({"non_ascii_caption": 1} if index in NON_ASCII else {})


@pytest.mark.parametrize("index", range(4))
def test_an_empty_caption_stays_truth(tricky_captions, read, index):
    found = read([region(2, tricky_captions[index])])

    assert [(item.region_id, item.caption) for item in found.truth()] == [(1, "a dog"), (2, "")]


@pytest.mark.parametrize("typo", ["the bckground", "a whitre shirt"])
def test_typing_errors_are_kept(read, typo):
    assert read([region(2, typo)]).regions[1].caption == typo


@pytest.mark.parametrize("phrase", [None, 5, ["a dog"], {}, True, "half a dog \ud83d"])
def test_a_caption_that_is_no_text_is_no_record(read, phrase):
    assert read([region(2, phrase)]).rejection_counts() == {"unreadable_record": 1}


# ---- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["id", "image_id"])
def test_a_list_of_regions_may_name_its_picture_either_way(read, key):
    assert len(read(entries=[{key: 1, "regions": [region(1)]}]).regions) == 1


@pytest.mark.parametrize("make", [picture, old_picture])
@pytest.mark.parametrize(("make_region", "version"), [(region, "v1.2"), (old_region, "v1.0")])
def test_regions_and_image_data_may_be_of_different_versions(read, make, make_region, version):
    entries = [{"id": 1, "regions": [make_region(1)]}]

    found = read(entries=entries, pictures=[make(1)], version=version)

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
        found = read(entries=entries, pictures=[picture(1, coco_id=7)], version=asked)

    assert found.noted == {keys: 2}
    assert f"2 regions have the keys of version {other}, asked for {asked}" in caplog.text


def test_single_regions_with_the_keys_of_the_other_version_are_counted(read):
    assert read([old_region(2), region(3)]).noted == {"v1.0_keys": 1}


@pytest.mark.parametrize("row", [{**old_region(2), "image": 7}, region(2, image_id=7)])
def test_the_picture_that_lists_a_region_counts_not_the_one_inside(read, row):
    found = read([row])

    assert {item.image_id for item in found.regions} == {1}
    assert found.noted["other_picture_inside"] == 1


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
    assert "picture 2: expected a list of regions" in found.rejected[0].detail


@pytest.mark.parametrize("entry", [{"id": 2}, {"id": 2, "regions": None}, {"id": 2, "regions": []}])
def test_a_picture_without_regions_is_counted(read, entry):
    found = read(entries=[{"id": 1, "regions": [region(1)]}, entry], splits={"val": [1, 2]})

    assert found.rejection_counts() == {"no_regions": 1}


def test_image_data_may_be_in_another_order(read):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2, 3)]
    pictures = [picture(n, width=100 * n) for n in (3, 1, 2)]

    found = read(entries=entries, pictures=pictures, splits={"val": [2, 3, 1]})

    assert {item.image_id: item.width for item in found.images.values()} == {1: 100, 2: 200, 3: 300}


@pytest.mark.parametrize("coco_id", [None, NAN, "", "null", True])
def test_without_a_coco_id_a_picture_is_none_of_vgcoco(read, coco_id):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2)]
    pictures = [picture(1, coco_id=61512), picture(2, coco_id=coco_id)]

    found = read(entries=entries, pictures=pictures, splits={"val": [1, 2]}, version="vgcoco")

    assert list(found.images) == [1]
    assert found.rejected == []


def test_vgcoco_needs_image_data_with_coco_ids(read):
    row = picture(1)
    del row["coco_id"]

    with pytest.raises(
        DatasetError, match=r"pictures\.json: no picture has a 'coco_id'.*Set `image"
    ):
        read(pictures=[row], version="vgcoco")


def test_vgcoco_counts_regions_of_pictures_it_knows_nothing_about(read):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2)]

    found = read(
        entries=entries,
        pictures=[picture(1, coco_id=7)],
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


def test_the_same_region_id_in_two_pictures_is_a_repeated_one(read):
    entries = [{"id": n, "regions": [region(7)]} for n in (1, 2)]

    found = read(entries=entries, splits={"val": [1, 2]})

    assert found.rejection_counts() == {"duplicate_id": 1}
    assert [(item.region_id, item.image_id) for item in found.truth()] == [(7, 1), (-1, 2)]


def test_a_region_id_may_occur_once_in_each_split(read):
    entries = [{"id": n, "regions": [region(7)]} for n in (1, 2)]

    found = read(entries=entries, splits={"train": [2]}, asked=("train", "val"))

    assert [len(part.regions) for part in found.values()] == [1, 1]
    assert [part.rejected for part in found.values()] == [[], []]


def test_a_picture_listed_twice_has_the_regions_of_both_lists(read):
    entries = [{"id": 1, "regions": [region(1)]}, {"id": "1", "regions": [region(1), region(2)]}]

    found = read(entries=entries)

    assert list(kept(found)) == [1, 2]
    assert found.rejection_counts() == {"duplicate_id": 1}
    assert found.noted == {"picture_listed_twice": 1}


def test_a_picture_twice_in_image_data_has_the_first_size(read):
    found = read(pictures=[picture(1, width=50), picture(1, width=500)])

    assert found.images[1].width == 50
    assert found.rejection_counts() == {"duplicate_entry": 1}


@pytest.mark.parametrize("row", [None, 5, {}, {"image_id": None}, {"image_id": "x"}, {"id": [1]}])
def test_a_row_of_no_picture_is_counted_in_every_split(read, row):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2)]

    found = read(
        entries=[*entries, row],
        pictures=[picture(1), picture(2), row],
        splits={"train": [2]},
        asked=("train", "val"),
    )

    assert [part.rejection_counts() for part in found.values()] == 2 * [{"unreadable_entry": 2}]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"entries": [{"regions": []}]},
            r"no picture of region_descriptions has an id.*Set `region_d",
        ),
        ({"pictures": [{"width": 5}, {}]}, r"no picture of image_data has an id.*Set `image_data`"),
        ({"entries": [[1], [2]]}, r"regions\.json: expected a list of objects.*Set `region_desc"),
        ({"pictures": [5]}, r"pictures\.json: expected a list of objects.*Set `image_data`"),
        ({"splits": {"test": 5}}, r"splits\.json: expected a list of picture ids under 'test'"),
        ({"splits": {"val": ["1.jpg"]}}, r"no usable region.*'unreadable_entry': 1.*'1\.jpg'"),
        (
            {"pictures": [{"image_id": 1}]},
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
    assert "splits.json, split 'val': picture id" in found["val"].rejected[0].detail


@pytest.mark.parametrize("listed", [["1", 2.0], [1, 1, 2]])
def test_ids_in_the_splits_may_be_texts_and_repeated(read, listed):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2)]

    found = read(entries=entries, splits={"val": listed})

    assert list(found.images) == [1, 2]
    assert found.rejected == []


def test_a_picture_of_a_split_and_of_no_file_is_counted(read):
    found = read(splits={"val": [1, 77]})

    assert found.rejection_counts() == {"no_regions": 1}
    assert "picture 77 of the split has no region in" in found.rejected[0].detail


def test_a_picture_in_two_splits_is_counted_where_it_is_not_used(read):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2)]

    found = read(entries=entries, splits={"train": [1, 2]}, asked=("train", "val"))

    assert [list(part.images) for part in found.values()] == [[2], [1]]
    assert [part.rejection_counts() for part in found.values()] == [{"in_two_splits": 1}, {}]


# ---- pictures -----------------------------------------------------------------------------------


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
def test_without_a_size_the_regions_of_a_picture_are_counted_and_stay_truth(read, keys):
    entries = [{"id": n, "regions": [region(n)]} for n in (1, 2)]

    found = read(entries=entries, pictures=[picture(1), picture(2, **keys)], splits={"val": [1, 2]})

    assert found.rejection_counts() == {"no_image_data": 1}
    assert [item.region_id for item in found.truth()] == [1, 2]


def test_a_size_may_be_a_text(read):
    found = read(pictures=[picture(1, width="640", height="480")])

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
        "https://example.org/VG_100K_2/2.jpg",  # another picture
        f"https://example.org/{'7' * 5000}.jpg",
        "a\0b/1.jpg",
        "\ud83d/1.jpg",
    ],
)
def test_whatever_the_url_the_picture_is_the_one_of_its_number(read, url):
    found = read(pictures=[picture(1, url=url)])

    assert found.images[1].path.endswith("images/VG_100K_2/1.jpg")


@pytest.mark.parametrize("name", ["harbour.png", "1.png", "000001.jpg"])
def test_a_url_may_name_a_file_that_is_called_otherwise(read, tmp_path, name):
    (tmp_path / "images/VG_100K_2" / name).touch()

    found = read(pictures=[picture(1, url=f"https://example.org/VG_100K_2/{name}")])

    assert found.images[1].path.endswith(f"images/VG_100K_2/{name}")


def test_a_file_missing_in_the_second_folder_is_counted_per_region(read, tmp_path):
    entries = [{"id": n, "regions": [region(n), region(10 + n)]} for n in (1, 2)]
    (tmp_path / "images/VG_100K_2/2.jpg").unlink()

    found = read(entries=entries, splits={"val": [1, 2]})

    assert found.rejection_counts() == {"missing_image": 2}
    assert len(found.truth()) == 4
