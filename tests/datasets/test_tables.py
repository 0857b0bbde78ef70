from __future__ import annotations

import pickle
from dataclasses import replace

import pyarrow as pa
import pytest

from lavis_dynrefer.datasets.region_sets import (
    captions_of,
    first_regions,
    rows_by_image,
    tags_of,
)
from lavis_dynrefer.datasets.sources.region_collector import MemoryStore
from lavis_dynrefer.datasets.table_store import TableStore
from lavis_dynrefer.datasets.tables import TAGS_SCHEMA, TagTable, columns_of
from lavis_dynrefer.structures import AttributeInfo, ImageRecord, RegionRecord, Rejection

IMAGES = [ImageRecord(number, f"/images/a/{number}.jpg", 40, 30) for number in (9, 4, 908)]
EVERYTHING = RegionRecord(
    region_id=908400553664,
    image_id=9,
    box=(0.1, 2.25, 33.333333333333336, 30.0),
    caption="ein Fräulein mit \u00bd Hut",
    tags=("woman", "hat"),
    attributes=(1, 0, -1),
    category="person",
    score=0.1,
    iscrowd=True,
    mask={"size": [30, 40], "counts": "52203"},
)
NOTHING = RegionRecord(2, 4, (1.0, 2.0, 3.0, 4.0))
POLYGONS = [[5.0, 5.0, 9.0, 5.0, 9.0, 9.25], [6.0, 6.0, 7.0, 6.0, 7.0, 7.0]]
REGIONS = [
    EVERYTHING,
    NOTHING,
    RegionRecord(3, 9, (5.0, 5.0, 9.0, 9.0), "a dog", mask=POLYGONS),
]
TRUTH = [RegionRecord(70, 4, (0.0, 0.0, 1.0, 1.0), "a cat")]
REJECTED = [
    Rejection("no_regions", "image 5 has none", 5),
    Rejection(
        "empty_box", "box of region 8", 9, RegionRecord(8, 9, (3.0, 3.0, 3.0, 9.0), "a tree")
    ),
    Rejection("unreadable_file", "a file", None),
]
ABOUT = {
    "name": "demo",
    "split": "val",
    "attributes": (AttributeInfo("color:red", "color", "color", "is", "head"),),
    "category_names": ("person",),
    "noted": {"crowd": 1},
}


def finish(store, regions, images=IMAGES, truth=(), rejected=()):
    for records, kept in (
        (regions, store.regions),
        (truth, store.truth),
        (rejected, store.rejected),
    ):
        for record in records:
            kept.append(record)
    return store.finish({image.image_id: image for image in images}, **ABOUT)


@pytest.fixture
def table(tmp_path):
    return finish(TableStore(tmp_path, "/images"), REGIONS, truth=TRUTH, rejected=REJECTED)


@pytest.fixture
def memory():
    return finish(MemoryStore(), REGIONS, truth=TRUTH, rejected=REJECTED)


def test_every_field_comes_back_in_the_order_of_writing(table):
    assert list(table.regions) == REGIONS


def test_images_keep_order_path_and_size_even_without_regions(table, memory):
    assert list(table.images.items()) == list(memory.images.items())
    assert table.images[908] == IMAGES[2]


def test_an_unknown_image_is_a_key_error(table):
    with pytest.raises(KeyError):
        table.images[5]
    assert 10**15 not in table.images


def test_rejections_and_truth_come_back(table, memory):
    assert list(table.rejected) == REJECTED
    assert list(table.truth_regions) == TRUTH
    assert table.truth() == memory.truth()
    assert table.truth()[-1] is table.rejected[1].region  # the same object each time


def test_a_split_keeps_its_name_and_vocabularies(table, memory):
    for found in (table, memory):
        assert {key: getattr(found, key) for key in ABOUT} == ABOUT


def test_rows_and_slices_count_as_in_a_list(table):
    regions = list(table.regions)

    assert [table.regions[row] for row in (0, 2, -1, -3)] == [
        regions[row] for row in (0, 2, -1, -3)
    ]
    assert table.regions[1:] == regions[1:]


@pytest.mark.parametrize("row", [3, -4])
def test_a_row_beyond_the_end_is_an_index_error(table, row):
    with pytest.raises(IndexError, match=f"row {row} of 3 regions"):
        table.regions[row]


def test_a_copy_in_another_process_reads_the_same_files(table):
    sent = pickle.dumps(table)
    copy = pickle.loads(sent)

    assert len(sent) < 2000  # paths, not records
    assert list(copy.regions) == list(table.regions)
    assert dict(copy.images) == dict(table.images)
    assert list(copy.rejected) == REJECTED


def test_tags_of_every_region_are_indices(tmp_path):
    with pa.ipc.new_file(str(tmp_path / "tags.arrow"), TAGS_SCHEMA) as writer:
        for part in ([[1], []], [[2, 0]]):
            writer.write_table(pa.table({"tags": part}, TAGS_SCHEMA))

    tags = pickle.loads(pickle.dumps(TagTable(tmp_path / "tags.arrow")))

    assert list(tags) == [[1], [], [2, 0]]


def test_rows_are_grouped_by_image_without_empty_groups(table, memory):
    for found in (table, memory):
        assert list(rows_by_image(found)) == [[0, 2], [1]]


@pytest.mark.parametrize("max_rows", [1, 2, 3, 5, 100])
def test_groups_cover_every_row_once_within_one_image(memory, max_rows):
    owners = [9, 4, 9, 9, 4, 9, 9, 4]
    regions = [replace(NOTHING, image_id=owner) for owner in owners]

    groups = list(rows_by_image(replace(memory, regions=regions), max_rows=max_rows))

    rows = {9: [0, 2, 3, 5, 6], 4: [1, 4, 7]}
    assert groups == [
        rows[image_id][first : first + max_rows]
        for image_id in (9, 4)
        for first in range(0, len(rows[image_id]), max_rows)
    ]


def test_columns_captions_and_tags_are_those_of_the_regions(table, memory):
    for found in (table, memory):
        assert list(captions_of(found)) == [EVERYTHING.caption, "a dog"]
        assert tags_of(found) == {"woman", "hat"}
    assert (
        columns_of(table.regions)
        .drop_columns(["tags"])
        .equals(
            columns_of(memory.regions).drop_columns(["tags"])  # no tags are null in a table
        )
    )


@pytest.mark.parametrize(
    ("images", "regions", "kept", "listed"),
    [
        (1, None, [0, 2], [9]),
        (None, 2, [0, 1], [9, 4]),
        (2, 1, [0], [9]),
        (3, 9, [0, 1, 2], [9, 4]),
    ],
)
def test_a_trial_takes_the_first_images_and_regions(table, memory, images, regions, kept, listed):
    for found in (table, memory):
        trial = first_regions(found, images, regions)

        assert trial.name == "demo-trial"
        assert trial.regions == [REGIONS[row] for row in kept]
        assert list(trial.images) == listed
        assert [item.image_id for item in trial.truth_regions] == [4] * (4 in listed)
        assert [item.image_id for item in trial.rejected] == [9]


def test_more_regions_than_one_batch_come_back_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("lavis_dynrefer.datasets.table_store.ROWS", 7)
    regions = [
        RegionRecord(number, number % 10, (0.0, 0.0, 1.0 + number, 1.0), f"caption {number}")
        for number in range(100)
    ]
    images = [ImageRecord(number, f"/images/{number}.jpg", 9, 9) for number in range(10)]

    table = finish(TableStore(tmp_path, "/images"), regions, images)

    assert list(table.regions) == regions
    assert [table.regions[row] for row in (6, 7, 99)] == [regions[row] for row in (6, 7, 99)]
    assert list(table.images.values()) == images
    assert list(captions_of(table)) == [region.caption for region in regions]


def test_a_damaged_table_says_to_prepare_again(table, tmp_path):
    content = (tmp_path / "regions.arrow").read_bytes()
    (tmp_path / "regions.arrow").write_bytes(content[: len(content) // 2])

    with pytest.raises(ValueError, match=r"regions\.arrow is not an Arrow table.*prepare"):
        pickle.loads(pickle.dumps(table.regions))


def test_a_table_with_another_schema_says_to_prepare_again(table, tmp_path):
    (tmp_path / "rejected.arrow").replace(tmp_path / "regions.arrow")

    with pytest.raises(ValueError, match="of another version; prepare"):
        pickle.loads(pickle.dumps(table.regions))
