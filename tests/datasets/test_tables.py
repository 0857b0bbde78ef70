from __future__ import annotations

import pickle

import pytest

from lavis_dynrefer.datasets.sources.collector import MemoryStore
from lavis_dynrefer.datasets.table_store import TableStore
from lavis_dynrefer.datasets.tables import captions_of, rows_by_image
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
)
NOTHING = RegionRecord(2, 4, (1.0, 2.0, 3.0, 4.0))
REGIONS = [EVERYTHING, NOTHING, RegionRecord(3, 9, (5.0, 5.0, 9.0, 9.0), "a dog")]
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
}


def filled(store):
    for image in IMAGES:
        store.add_image(image)
    for region in REGIONS:
        store.add_region(region)
    for region in TRUTH:
        store.add_truth(region)
    for rejection in REJECTED:
        store.add_rejection(rejection)
    return store.finish(*ABOUT.values())


@pytest.fixture
def table(tmp_path):
    return filled(TableStore(tmp_path, "/images"))


@pytest.fixture
def memory():
    return filled(MemoryStore())


def test_every_field_comes_back_as_it_was(table):
    by_id = {region.region_id: region for region in table.regions}

    assert by_id == {region.region_id: region for region in REGIONS}


def test_regions_of_an_image_are_brought_together_in_their_order(table):
    assert [region.region_id for region in table.regions] == [908400553664, 3, 2]


def test_images_keep_order_place_and_size_even_without_regions(table, memory):
    assert list(table.images.items()) == list(memory.images.items())
    assert table.images[908] == IMAGES[2]


def test_an_unknown_image_is_a_key_error(table):
    with pytest.raises(KeyError):
        table.images[5]
    assert 10**15 not in table.images


def test_what_was_rejected_and_what_is_graded_come_back(table, memory):
    assert list(table.rejected) == REJECTED
    assert list(table.truth_regions) == TRUTH
    assert table.truth() == memory.truth()
    assert table.rejection_counts() == memory.rejection_counts()


def test_a_rejected_region_is_the_same_object_wherever_it_is_asked_for(table):
    assert table.truth()[-1] is table.rejected[1].region


def test_the_split_is_described_as_in_memory(table, memory):
    assert (table.name, table.split, table.attributes, table.category_names) == tuple(
        ABOUT.values()
    )
    assert memory.name == table.name


@pytest.mark.parametrize("row", [0, 2, -1, -3])
def test_rows_count_as_in_a_list(table, row):
    assert table.regions[row] == list(table.regions)[row]


@pytest.mark.parametrize("row", [3, -4])
def test_a_row_beyond_the_end_is_an_index_error(table, row):
    with pytest.raises(IndexError, match=f"row {row} of 3 regions"):
        table.regions[row]


def test_a_slice_is_a_list(table):
    assert table.regions[1:] == list(table.regions)[1:]


def test_a_copy_in_another_process_reads_the_same_file(table):
    copy = pickle.loads(pickle.dumps(table))

    assert list(copy.regions) == list(table.regions)
    assert dict(copy.images) == dict(table.images)
    assert list(copy.rejected) == REJECTED


def test_a_copy_costs_no_more_than_its_paths(table):
    assert len(pickle.dumps((table.regions, table.images, table.rejected))) < 2000


def test_rows_are_grouped_by_image_without_empty_groups(table, memory):
    assert [list(rows) for rows in rows_by_image(table)] == [[0, 1], [2]]
    assert [list(rows) for rows in rows_by_image(memory)] == [[0, 2], [1]]


@pytest.mark.parametrize("most", [1, 2, 3, 5, 100])
def test_groups_cover_every_row_once_within_one_image(tmp_path, most):
    store = TableStore(tmp_path, "/images")
    for image in IMAGES:
        store.add_image(image)
    sizes = {9: 5, 4: 0, 908: 3}
    for image_id, size in sizes.items():
        for number in range(size):
            store.add_region(RegionRecord(10 * image_id + number, image_id, (0.0, 0.0, 1.0, 1.0)))
    region_set = store.finish("demo", "train", (), ())

    groups = rows_by_image(region_set, most=most)

    assert [row for group in groups for row in group] == list(range(8))
    assert all(1 <= len(group) <= most for group in groups)
    assert len(groups) == -(-5 // most) + -(-3 // most)
    assert all(len({region_set.regions[row].image_id for row in group}) == 1 for group in groups)


def test_captions_leave_out_regions_without_one(table, memory):
    assert list(captions_of(table)) == [EVERYTHING.caption, "a dog"]
    assert list(captions_of(memory)) == [EVERYTHING.caption, "a dog"]


def test_more_regions_than_one_batch_come_back_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("lavis_dynrefer.datasets.table_store.ROWS", 7)
    monkeypatch.setattr("lavis_dynrefer.datasets.table_store.IMAGES", 3)
    store = TableStore(tmp_path, "/images")
    regions = [
        RegionRecord(number, number % 10, (0.0, 0.0, 1.0 + number, 1.0), f"caption {number}")
        for number in range(100)
    ]
    for region in regions:
        store.add_image(ImageRecord(region.image_id, f"/images/{region.image_id}.jpg", 9, 9))
        store.add_region(region)

    table = store.finish("demo", "train", (), ())

    assert list(table.regions) == sorted(regions, key=lambda region: region.image_id)


def test_a_damaged_table_says_to_prepare_again(table, tmp_path):
    content = (tmp_path / "regions.arrow").read_bytes()
    (tmp_path / "regions.arrow").write_bytes(content[: len(content) // 2])

    with pytest.raises(ValueError, match=r"regions\.arrow is no Arrow table.*prepare the dataset"):
        pickle.loads(pickle.dumps(table.regions))


def test_a_table_of_another_kind_says_to_prepare_again(table, tmp_path):
    (tmp_path / "rejected.arrow").replace(tmp_path / "regions.arrow")

    with pytest.raises(ValueError, match="of another version; prepare"):
        pickle.loads(pickle.dumps(table.regions))
