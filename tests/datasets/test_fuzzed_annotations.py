"""Damaged annotation files of every reader: regions or an error for the user, and nothing lost."""

from __future__ import annotations

import copy
import json
import math
import pickle
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vg_rows import image, region

from lavis_dynrefer.datasets.prepared import IMAGE_REASONS, RawDataset, open_prepared, prepare
from lavis_dynrefer.datasets.sources.coco_layout import read_coco_captions, read_coco_instances
from lavis_dynrefer.datasets.sources.grit import read_grit
from lavis_dynrefer.datasets.sources.ovad import read_ovad
from lavis_dynrefer.datasets.sources.refcocog import read_refcocog
from lavis_dynrefer.datasets.sources.visual_genome import read_visual_genome
from lavis_dynrefer.datasets.table_store import TableStore
from lavis_dynrefer.errors import DynReferError

SIDES = {"width": 800, "height": 600}
IMAGES = [{"id": n, "file_name": f"{n}.jpg", **SIDES} for n in (1, 2)]
RLE = {"size": [600, 800], "counts": [5, 30_000, 449_995]}
CATEGORIES = [{"id": 3, "name": "dog", "supercategory": "animal"}, {"id": 4, "name": "cat"}]
ATTRIBUTE = {"id": 0, "name": "state:wet/damp", "type": "state", "parent_type": "state"}
ROWS = [
    {"id": 7, "image_id": 1, "bbox": [60, 90, 100, 180], "category_id": 3, "iscrowd": 0},
    {"id": 8, "image_id": 1, "bbox": [5.5, 5, 9, 9], "category_id": 4, "iscrowd": 0},
    {"id": 9, "image_id": 2, "bbox": [0, 0, 800, 600], "category_id": 4, "iscrowd": 1},
]
COCO = {"images": IMAGES, "categories": CATEGORIES, "annotations": ROWS}
COCO["annotations"][2]["segmentation"] = RLE
OVAD = {
    **{"images": IMAGES, "categories": CATEGORIES},
    "attributes": [{**ATTRIBUTE, "is_has_att": "is", "freq_set": "head"}],
    "annotations": [{**row, "att_vec": [label]} for row, label in zip(ROWS, (1, 0, -1))],
}
CAPTIONS = {"images": IMAGES, "annotations": [{**row, "caption": "a dog"} for row in ROWS]}
VG = {
    "entries": [{"id": n, "regions": [region(10 * n + k) for k in (0, 1)]} for n in (1, 2)],
    "images": [image(n) for n in (1, 2)],
    "splits": {"train": [], "val": [1, 2], "test": []},
}
SENTENCES = [{"sent_id": n, "sent": "a dog", "raw": "?"} for n in (0, 1)]
REFERENCE = {"ref_id": 1, "ann_id": 7, "image_id": 1, "split": "val"}
REFCOCOG = {
    "refs": [
        {**REFERENCE, "sentences": SENTENCES},
        {**REFERENCE, "ann_id": 9, "image_id": 2, "sentences": [{"sent_id": 5, "sent": "it"}]},
    ],
    "instances": {"images": IMAGES, "annotations": ROWS},
}
GRIT = [{"image_id": n, "bbox": [18, 9, 90, 45], "score": 0.5, "category_id": 0} for n in (1, 2, 1)]

DEEP = "@deep@"  # stands for many brackets, which json.dumps cannot write
VALUES = (
    *(None, True, 0, 1, -1, 0.5, 1e308, -1e308, math.nan, math.inf, 2**31, 2**63, 2**64, 10**400),
    *("", "1", "x", "nan", "1e308", "\ud800", "\u96ea\u0000", "a" * 5000, DEEP),
    *([], {}, [[]], [None] * 4, [1e308] * 4, [-5, -5, 1, 1], [1] * 5000, {"a": 1}, [{}], RLE),
)
MISSING = "@missing@"


def places(tree, path=()):
    """Paths of all nodes."""
    yield path
    if isinstance(tree, (dict, list)):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield from places(tree[key], (*path, key))


def changed(tree, path, value):
    """A copy with another value in one place, or without it."""
    tree = copy.deepcopy(tree)
    if not path:
        return value
    node = tree
    for key in path[:-1]:
        node = node[key]
    if value is MISSING:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return tree


def written(path, content):
    text = json.dumps(content).replace(json.dumps(DEEP), "[" * 60_000 + "]" * 60_000)
    path.write_text(text, encoding="utf-8")
    return path


def read_vg(folder, content, stores):
    paths = [written(folder / f"{key}.json", content.get(key)) for key in VG]
    return read_visual_genome(*paths, folder / "images", splits=["val"], stores=stores)["val"]


def read_refs(folder, content, stores):
    (folder / "refs.p").write_bytes(pickle.dumps(content.get("refs"), protocol=2))
    instances = written(folder / "instances.json", content.get("instances"))
    return read_refcocog(
        folder / "refs.p", instances, folder / "images", splits=["val"], stores=stores
    )["val"]


def read_detections(folder, content, stores):
    truth = read_vg(folder, VG, lambda split: TableStore(new(folder / "truth"), folder / "images"))
    return read_grit(written(folder / "grit.json", content), truth, name="grit", stores=stores)


def of_one_file(read, **options):
    def _read(folder, content, stores):
        path = written(folder / "annotations.json", content)
        return read(path, folder / "images", stores=stores, **options)

    return _read


# reader -> valid content, how it is read, where its rows are (one level of keys for each part)
READERS = {
    "coco": (COCO, of_one_file(read_coco_instances), ("annotations",)),
    "captions": (
        CAPTIONS,
        of_one_file(read_coco_captions, name="c", split="val"),
        ("annotations",),
    ),
    "ovad": (OVAD, of_one_file(read_ovad), ("annotations",)),
    "visual_genome": (VG, read_vg, ("entries", "regions")),
    "refcocog": (REFCOCOG, read_refs, ("refs", "sentences")),
    "grit": (GRIT, read_detections, ()),
}


SEVERAL_FILES = ("visual_genome", "refcocog")


def rows_in(content, keys):
    """The rows that each give a region or are counted."""
    rows = content[keys[0]] if keys else content
    return sum(len(row[keys[1]]) for row in rows) if len(keys) == 2 else len(rows)


def is_in_row(path, keys):
    """Whether a path leads into a row, so that all other rows stay readable."""
    if not keys:
        return len(path) > 1
    return len(path) > 2 * len(keys) and tuple(path[: 2 * len(keys) : 2]) == keys


def new(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Empty files for images 1 and 2, in each reader's layout."""
    folder = tmp_path_factory.mktemp("fuzz")
    for place in ("images", "images/VG_100K_2"):
        (folder / place).mkdir()
        for number in (1, 2):
            (folder / place / f"{number}.jpg").touch()
    return folder


def check(folder, name, path, value):
    """Read a damaged file into tables; returns whether there was an error for the user."""
    valid, read, keys = READERS[name]
    content = changed(valid, path, value)
    found, message = None, ""
    try:
        found = read(folder, content, lambda split: TableStore(new(folder / "out"), folder))
    except DynReferError as error:
        message = str(error)
    if found is None:
        assert 20 < len(message.encode("utf-8")) < 3000
        return True
    regions = list(found.regions)
    assert all(math.isfinite(corner) for item in regions for corner in item.box)
    assert all(item.image_id in found.images for item in regions)
    dropped = sum(
        count for why, count in found.rejection_counts().items() if why not in IMAGE_REASONS
    )
    elsewhere = found.noted.get("on_other_images", 0)
    if is_in_row(path, keys):
        assert len(regions) + dropped + elsewhere == rows_in(content, keys)
    return False


CASES = [
    (name, path)
    for name, (content, *_) in READERS.items()
    for path in places(content)
    if path or name not in SEVERAL_FILES
]
FUZZ = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read_whole(folder, name):
    valid, read, keys = READERS[name]

    found = read(folder, valid, lambda split: TableStore(new(folder / "out"), folder))

    assert len(found.regions) == rows_in(valid, keys)
    assert found.rejection_counts() == {}


@settings(**FUZZ, max_examples=150)
@given(case=st.sampled_from(CASES), value=st.sampled_from((*VALUES, MISSING)))
def test_damaged_files_give_regions_or_an_error_for_the_user(folder, case, value):
    check(folder, *case, value)


@pytest.mark.slow
def test_every_value_in_every_place(folder):
    errors = sum(check(folder, *case, value) for case in CASES for value in (*VALUES, MISSING))
    print(f"{len(CASES) * (len(VALUES) + 1)} damaged files, {errors} errors for the user")


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    """A prepared folder of the valid COCO file."""
    path = written(folder / "valid.json", COCO)

    def read(splits, stores, opener):
        return {"val": read_coco_instances(path, folder / "images", stores=stores)}

    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare(
        RawDataset("coco", "x", None, {"annotations": path}, folder / "images", read), ["val"], out
    )
    return out


def opens(folder):
    """Whether a prepared folder opens; its regions are then read."""
    try:
        found = open_prepared(folder, ["val"])["val"]
    except DynReferError:
        return False
    assert len(list(found.regions)) == len(found.regions)
    assert len(list(found.images.values())) == len(found.images)
    assert len(found.rejected) == len(list(found.rejected))
    return True


@settings(**FUZZ, max_examples=60)
@given(data=st.data())
def test_a_damaged_manifest_gives_regions_or_an_error_for_the_user(prepared, data):
    manifest = prepared / "manifest.json"
    before = manifest.read_text(encoding="utf-8")
    content = json.loads(before)
    path = data.draw(st.sampled_from(list(places(content))))
    try:
        written(manifest, changed(content, path, data.draw(st.sampled_from((*VALUES, MISSING)))))
        opens(prepared)
    finally:
        manifest.write_text(before, encoding="utf-8")
    assert opens(prepared)


@pytest.mark.parametrize("name", ["regions", "images", "rejected", "truth"])
@pytest.mark.parametrize("part", [0, 0.3, 0.9, None])
def test_tables_that_are_cut_short_or_gone_are_refused(prepared, tmp_path, name, part):
    shutil.copytree(prepared, tmp_path / "out")
    table = tmp_path / f"out/val/{name}.arrow"
    content = table.read_bytes()
    table.unlink()
    if part is not None:
        table.write_bytes(content[: int(part * len(content))])

    assert not opens(tmp_path / "out")


class _Runs:
    """Would write a file when it is unpickled."""

    def __reduce__(self):
        return open, ("ran", "w")


@pytest.mark.parametrize("content", [_Runs(), [_Runs()], [{**REFERENCE, "sentences": _Runs()}]])
def test_references_that_run_code_are_refused_and_not_run(folder, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(DynReferError, match=r"needs no class"):
        read_refs(
            folder,
            {**REFCOCOG, "refs": content},
            lambda split: TableStore(new(folder / "out"), folder),
        )

    assert list(tmp_path.iterdir()) == []
