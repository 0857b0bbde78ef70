"""The numbers of a split, the same from lists and from a table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from lavis_dynrefer.cli.inspect.region_statistics import (
    SHARES,
    Names,
    describe_split,
    frequent_words,
)
from lavis_dynrefer.datasets.table_store import TableStore
from lavis_dynrefer.structures import AttributeInfo, ImageRecord, RegionRecord, RegionSet, Rejection

ATTRIBUTES = tuple(
    AttributeInfo(f"color:{name}", "color", "color", "is", "head") for name in ("red", "blue")
)
IMAGES = [ImageRecord(number, f"/images/{number}.jpg", 100, 50) for number in (9, 4, 6)]
REGIONS = [
    RegionRecord(1, 9, (0.0, 0.0, 100.0, 50.0), "The dog, a dog!", ("dog",), (1, 0), "dog"),
    RegionRecord(2, 4, (10.0, 10.0, 60.0, 20.0), "caf\u00e9", ("cafe", "dog"), (1, -1), "house"),
    RegionRecord(3, 9, (90.0, 40.0, 97.0, 49.0), "  ", (), None, "dog", iscrowd=True),
    RegionRecord(4, 9, (80.0, 40.0, 120.0, 50.0), None, score=0.5),
]
REJECTED = [
    Rejection("empty_box", "box of region 8", 9, RegionRecord(8, 9, (3.0, 3.0, 3.0, 9.0), "tree")),
    Rejection("no_regions", "image 5 has none", 5),
    Rejection("empty_box", "box of region 9", 9),
]


@pytest.fixture
def memory():
    return RegionSet(
        "demo",
        "val",
        {image.image_id: image for image in IMAGES},
        REGIONS,
        REJECTED,
        ATTRIBUTES,
        ("dog", "house", "tree"),
    )


def as_table(region_set, folder):
    """The same split in Arrow tables."""
    store = TableStore(folder, "/images")
    for region in region_set.regions:
        store.regions.append(region)
    tables = store.finish(region_set.images, name="demo", split="val")
    return replace(region_set, images=tables.images, regions=tables.regions)


@pytest.fixture
def numbers(memory):
    return describe_split(memory)


def test_a_table_and_lists_give_the_same_numbers(memory, tmp_path):
    assert describe_split(as_table(memory, tmp_path)) == describe_split(memory)


def test_regions_are_counted(numbers):
    assert (numbers.images, numbers.bare_images, numbers.graded_on) == (3, 1, 0)
    assert (numbers.regions_read, numbers.regions_kept, numbers.captions) == (6, 4, 3)
    assert numbers.counts == {
        "crowds": (1, 4),
        "a side under 8 pixels": (1, 4),
        "the whole image": (1, 4),
        "beyond the image's edge": (1, 4),
        "empty captions": (1, 3),
        "non-ASCII captions": (1, 3),
        "attributes present": (2, 4),
        "attributes absent": (1, 4),
        "attributes unknown": (1, 4),
    }


def test_drops_are_counted_with_their_first_example(numbers):
    found = [(drop.reason, drop.count, drop.example, drop.is_region) for drop in numbers.drops]
    assert found == [
        ("empty_box", 2, "box of region 8", True),
        ("no_regions", 1, "image 5 has none", False),
    ]


def test_quantiles(numbers):
    found = numbers.quantiles
    assert found["width, px"] == pytest.approx((7, 11.95, 31.75, 45, 62.5, 92.5, 100))
    assert found["height, px"][0] == 9
    assert found["width / height"][SHARES.index(0.5)] == pytest.approx(3)  # of 2, 5, 7/9, 4
    assert found["regions per image"][-1] == 3
    assert (found["words per caption"][0], found["words per caption"][-1]) == (0, 4)
    # Only the part inside counts: 1, 500 / 5000, 63 / 5000, and 200 of the last box's 400 / 5000.
    shares = [1, 0.1, 0.0126, 0.04]
    assert found["share of image"] == pytest.approx(np.quantile(shares, SHARES))


def test_rounding_is_not_beyond_the_edge(memory):
    region = replace(REGIONS[0], box=(-0.5, 0.0, 100.4, 50.0))
    found = describe_split(replace(memory, regions=[region]))
    assert found.counts["beyond the image's edge"] == (0, 1)


def test_names_are_ranked_and_unseen_ones_listed(numbers):
    assert numbers.longest_caption == "The dog, a dog!"
    assert numbers.names == {
        "words": Names(3, 2, (("dog", 2), ("cafe", 1))),  # without stop words
        "categories": Names(3, 2, (("dog", 2), ("house", 1)), unseen=("tree",)),
        "tags": Names(3, 2, (("dog", 2), ("cafe", 1))),
        "attributes": Names(2, 1, (("color:red", 2),), unseen=("color:blue",)),
    }


def test_histograms(numbers):
    found = {
        name: {round(edge, 2): n for edge, n in zip(histogram.edges, histogram.counts) if n}
        for name, histogram in numbers.histograms.items()
    }
    assert found == {
        "pixel_size": {6: 1, 16: 2, 64: 1},  # square roots of 5000, 500, 63, 400
        "relative_size": {0.1: 1, 0.2: 1, 0.3: 1, 0.95: 1},  # of 1, 0.1, 0.0126, 0.04
        "words": {0: 1, 1: 1, 4: 1},
    }
    assert numbers.histograms["words"].median == 1


def test_long_captions_share_bins(memory):
    regions = [replace(REGIONS[0], caption="word " * length) for length in range(1, 101)]
    histogram = describe_split(replace(memory, regions=regions)).histograms["words"]
    assert histogram.edges[1] == 5
    assert sum(histogram.counts) == 100


def test_oddities_of_the_source_are_passed_on_unless_counted_here(memory):
    noted = {"box_partly_outside": 3, "crowd": 1, "non_ascii_caption": 2}
    found = describe_split(replace(memory, noted=noted)).counts
    assert [name for name in found if name.startswith("in the source")] == [
        "in the source: box partly outside"
    ]


def test_a_split_without_captions_or_categories_has_no_such_numbers(memory):
    regions = [replace(REGIONS[3], score=None)]
    found = describe_split(replace(memory, regions=regions, category_names=()))
    assert not {"words per caption", "score"} & found.quantiles.keys()
    assert set(found.histograms) == {"relative_size", "pixel_size"}
    assert (found.captions, found.longest_caption) == (0, "")
    assert not any(names.top for names in found.names.values())


@pytest.mark.parametrize("images", [0, 1])
@pytest.mark.parametrize("is_table", [False, True])
def test_a_split_without_regions_is_described(tmp_path, is_table, images):
    empty = RegionSet("demo", "val", {image.image_id: image for image in IMAGES[:images]}, [])
    if is_table:
        empty = as_table(empty, tmp_path)

    found = describe_split(empty)

    assert (found.images, found.regions_kept, found.histograms) == (images, 0, {})
    assert found.quantiles == ({"regions per image": (0.0,) * len(SHARES)} if images else {})


def test_words_of_several_chunks_are_added():
    captions = pa.chunked_array([["red red dogs"], [None, "Red"]], pa.string())
    assert frequent_words(captions) == {"red": 3, "dogs": 1}
