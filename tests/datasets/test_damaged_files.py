"""Whatever a file contains, a reader counts it or names it: no other error, no region lost."""

from __future__ import annotations

import copy
import json
import math
import pickle
import random
from dataclasses import dataclass
from typing import Any, Callable

import pytest
import vg_rows

from lavis_dynrefer.datasets.prepared import IMAGE_REASONS
from lavis_dynrefer.datasets.sources.coco_layout import read_coco_captions, read_coco_instances
from lavis_dynrefer.datasets.sources.grit import read_grit
from lavis_dynrefer.datasets.sources.ovad import read_ovad
from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.datasets.sources.refcocog import read_refcocog
from lavis_dynrefer.datasets.sources.visual_genome import read_visual_genome
from lavis_dynrefer.datasets.table_store import TableStore
from lavis_dynrefer.structures import ImageRecord, RegionRecord, RegionSet

SEEDS = range(25)
WIDTH, HEIGHT = 100, 80
NUMBERS = range(1, 5)  # of images
REGIONS = 5  # of each image
ODD = [
    *(None, True, 0, -1, 1, 2.5, 10**6, 2**31, 2**63, 10**400, 1e308),
    *(float("nan"), float("inf"), -float("inf")),
    *("", " ", "1", "2.5", "nan", "a dog", "caf\u00e9", "\ud83d", "a\0b", "x" * 5000),
    *([], [1], [[]], {}, {"id": 1}),
]


def annotations(**keys):
    return [
        {
            **{"id": 10 * n + k, "image_id": n, "category_id": 1, "bbox": [9, 9, 9 + k, 9]},
            **copy.deepcopy(keys),
        }
        for n in NUMBERS
        for k in range(REGIONS)
    ]


def coco(**keys):
    return {
        "images": [
            {"id": n, "file_name": f"{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in NUMBERS
        ],
        "annotations": annotations(**keys),
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }


def crowds():
    runs = [0, WIDTH * HEIGHT]
    return coco(iscrowd=1, segmentation={"size": [HEIGHT, WIDTH], "counts": runs})


def ovad():
    names = ("name", "type", "parent_type", "freq_set")
    attributes = [dict.fromkeys(names, f"a:{n}") | {"is_has_att": "is"} for n in range(3)]
    return {**coco(att_vec=[1, 0, -1]), "attributes": attributes}


def visual_genome():
    """region_descriptions, image_data, densecap_splits."""
    entries = [
        {"id": n, "regions": [vg_rows.region(10 * n + k, image_id=n) for k in range(REGIONS)]}
        for n in NUMBERS
    ]
    images = [vg_rows.image(n, width=WIDTH, height=HEIGHT, coco_id=n) for n in NUMBERS]
    return [entries, images, {"train": [], "val": list(NUMBERS), "test": []}]


def references():
    """refs(umd).p, instances.json."""
    rows = [
        {
            "split": "val",
            "ref_id": n,
            "ann_id": 10 * n,
            "image_id": n,
            "sentences": [{"sent_id": 10 * n + k, "sent": "a dog"} for k in range(REGIONS)],
        }
        for n in NUMBERS
    ]
    return [rows, coco()]


def detections():
    """Ten times as many, as a few boxes outside of their images are no reason to refuse a file."""
    rows = [row for _ in range(10) for row in annotations()]
    return [{"image_id": row["image_id"], "bbox": row["bbox"], "score": 0.5} for row in rows]


TRUTH = RegionSet(
    "truth",
    "val",
    {n: ImageRecord(n, f"/x/{n}.jpg", WIDTH, HEIGHT) for n in NUMBERS},
    [RegionRecord(1, 1, (1.0, 1.0, 9.0, 9.0), "a dog")],
)


def write(folder, document):
    path = folder / f"{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def read_as_visual_genome(folder, content, stores):
    paths = [write(folder, document) for document in content]
    options = {"version": "vgcoco", "splits": ["val"], "stores": stores}
    return read_visual_genome(*paths, folder, **options)["val"]


def read_as_refcocog(folder, content, stores):
    (folder / "refs.p").write_bytes(pickle.dumps(content[0], protocol=2))
    instances = write(folder, content[1])
    return read_refcocog(folder / "refs.p", instances, folder, splits=["val"], stores=stores)["val"]


def one_json(reader, **options):
    """Reads a json and a folder of images."""
    return lambda folder, content, stores: reader(
        write(folder, content), folder, stores=stores, **options
    )


@dataclass
class Source:
    """Valid files of a source and how they are read."""

    make: Callable[[], Any]
    read: Callable[..., RegionSet]
    # Where the rows of regions are.
    lists_in: Callable[[Any], list[Any]] = lambda file: [file["annotations"]]


SOURCES = {
    "visual_genome": Source(
        visual_genome, read_as_visual_genome, lambda files: [row["regions"] for row in files[0]]
    ),
    "coco": Source(coco, one_json(read_coco_instances)),
    "crowds": Source(crowds, one_json(read_coco_instances)),
    "captions": Source(
        lambda: coco(caption="a dog"), one_json(read_coco_captions, name="demo", split="val")
    ),
    "ovad": Source(ovad, one_json(read_ovad)),
    "refcocog": Source(
        references, read_as_refcocog, lambda files: [row["sentences"] for row in files[0]]
    ),
    "grit": Source(
        detections,
        lambda folder, content, stores: read_grit(
            write(folder, content), TRUTH, name="demo", stores=stores
        ),
        lambda file: [file],
    ),
}


def places(value, path=()):
    """Paths of all values inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items if isinstance(value, (dict, list)) else ():
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


def damage(value, rng):
    """Put something odd in one place inside, or take a key away there."""
    *path, last = rng.choice(list(places(value)))
    for key in path:
        value = value[key]
    if isinstance(value, dict) and rng.random() < 0.2:
        del value[last]
    else:
        value[last] = copy.deepcopy(rng.choice(ODD))


@pytest.fixture
def read(tmp_path):
    """Reads the files of a source into tables."""
    folder, tables = tmp_path / "images", tmp_path / "tables"
    for made in (folder, tables):
        made.mkdir()
    for n in NUMBERS:
        (folder / f"{n}.jpg").touch()
    return lambda source, content: source.read(
        folder, content, lambda _: TableStore(tables, folder)
    )


def is_usable(region, image):
    x1, y1, x2, y2 = region.box
    inside = x1 < x2 and y1 < y2 and x2 > 0 and y2 > 0 and x1 < image.width and y1 < image.height
    return inside and all(map(math.isfinite, region.box))


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_undamaged_files_are_kept_whole(read, source):
    found = read(source, source.make())

    assert len(found.regions) == sum(map(len, source.lists_in(source.make())))
    assert found.rejection_counts() == {}


FIELDS = [  # that a row of a source needs
    *(("visual_genome", key) for key in ("region_id", "phrase", "x", "y", "width", "height")),
    *(("coco", key) for key in ("id", "image_id", "category_id", "bbox")),
    ("crowds", "segmentation"),
    *(("captions", key) for key in ("id", "image_id", "bbox", "caption")),
    *(("ovad", key) for key in ("att_vec", "category_id")),
    *(("refcocog", key) for key in ("sent_id", "sent")),
    *(("grit", key) for key in ("image_id", "bbox", "score")),
]


@pytest.mark.parametrize("value", [None, True, math.nan, "half a \ud83d", [], [1], {}])
@pytest.mark.parametrize(("name", "key"), FIELDS)
def test_a_row_with_an_invalid_field_is_counted(read, name, key, value):
    content = SOURCES[name].make()
    rows = SOURCES[name].lists_in(content)
    rows[0][0][key] = value

    found = read(SOURCES[name], content)

    assert found.rejection_counts() == {"unreadable_record": 1}
    assert len(found.regions) == sum(map(len, rows)) - 1


@pytest.mark.parametrize("row", [None, 5, "a dog", [], [["id", 2]], {}])
@pytest.mark.parametrize("name", SOURCES)
def test_an_invalid_row_is_counted(read, name, row):
    content = SOURCES[name].make()
    SOURCES[name].lists_in(content)[0][1] = row

    assert read(SOURCES[name], content).rejection_counts() == {"unreadable_record": 1}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_damaged_region_is_kept_or_counted(read, source, seed):
    rng = random.Random(seed)
    content = source.make()
    lists = source.lists_in(content)
    for _ in range(rng.randint(1, 6)):
        damage(rng.choice(lists), rng)

    found = read(source, content)

    counts = found.rejection_counts()
    dropped = sum(count for reason, count in counts.items() if reason not in IMAGE_REASONS)
    elsewhere = found.noted.get("on_other_images", 0)
    assert len(found.regions) + dropped + elsewhere == sum(map(len, lists))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_damaged_file_gives_usable_regions_or_an_error_that_names_it(read, source, seed):
    rng = random.Random(1000 + seed)
    content = source.make()
    for _ in range(rng.randint(1, 6)):
        damage(content, rng)

    try:
        found = read(source, content)
    except DatasetError:
        return  # any other error is a failure

    ids = [region.region_id for region in found.regions]
    assert len(set(ids)) == len(ids)
    assert all(is_usable(region, found.images[region.image_id]) for region in found.regions)
