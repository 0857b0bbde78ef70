"""Damaged files of boxes of every format: each gives boxes or an error for the user, no other."""

from __future__ import annotations

import argparse
import copy
import json
import math
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lavis_dynrefer.cli.predict.predict_regions import region_finder
from lavis_dynrefer.datasets.sources.custom_json import read_custom
from lavis_dynrefer.errors import DynReferError

SIZE = (480, 360)
BOXES = [[60, 90, 100, 180], [250.5, 100, 150, 150]]
SIDES = {"width": 480, "height": 360}
COCO = {
    "images": [{"id": n, "file_name": f"{n}.png", **SIDES} for n in (1, 2)],
    "annotations": [
        {"id": 7, "image_id": 1, "bbox": BOXES[0], "caption": "a dog", "category_id": 3},
        {"id": 8, "image_id": 1, "bbox": BOXES[1], "caption": "a cat", "attributes": ["wet"]},
        {"id": 9, "image_id": 2, "segmentation": [[10, 20, 30, 20, 30, 45]], "caption": "it"},
        {"image_id": 2, "segmentation": {"size": [4, 5], "counts": [5, 2, 2, 2, 9]}},
    ],
    "categories": [{"id": 3, "name": "dog"}],
}
PART = {"id": "a", "original_width": 480, "original_height": 360, "from_name": "label"}
PERCENT = {"x": 12.5, "y": 25, "width": 20, "height": 50, "rotation": 0}
TASKS = [
    {
        "data": {"image": "/data/upload/1/0a1b2c3d-1.png"},
        "annotations": [
            {
                "result": [
                    {**PART, "value": {**PERCENT, "rectanglelabels": ["dog"]}},
                    {**PART, "from_name": "caption", "value": {"text": ["a dog"]}},
                    {**PART, "id": "b", "value": {"points": [[1, 2], [30, 40], [5, 50]]}},
                    {**PART, "id": "c", "value": {"x": 5, "y": 5, "radiusX": 2, "radiusY": 3}},
                ]
            }
        ],
    }
]
SHAPE = {"label": "dog", "description": "a dog", "points": [[60, 90], [160, 270]]}
LABELME = {
    "shapes": [SHAPE, {**SHAPE, "shape_type": "circle"}],
    "imagePath": "1.png",
    "imageWidth": 480,
    "imageHeight": 360,
}
OBJECTS = {"bbox": BOXES, "categories": [0, 1], "captions": ["a", "b"]}
METADATA = [{"file_name": f"{n}.png", "objects": OBJECTS} for n in (1, 2)]
RECORDS = [
    {"image": "1.png", "bbox": [60, 90, 160, 270], **SIDES, "id": 5},
    {"file_name": "2.png", "bbox_2d": [60, 90, 160, 270]},
    {"img": "2.png", "x1": 60, "y1": 90, "x2": 160, "y2": 270},
]
OWN = [
    {"image": "1.png", "path": "/1.png", **SIDES, "image_id": 4, "regions": [{"id": 1, "box": box}]}
    for box in ([60, 90, 160, 270], [250.5, 100, 400, 250])
]
DOCUMENTS = {
    "coco": COCO,
    "tasks": TASKS,
    "labelme": LABELME,
    "metadata": METADATA,
    "records": RECORDS,
    "own": OWN,
    "object": {"1.png": [[60, 90, 160, 270]], "2.png": [{"id": 1, "box": [60, 90, 160, 270]}]},
    "list": [[60, 90, 160, 270], [250, 100, 400, 250]],
}
VOC = (
    "<annotation><filename>1.png</filename><size><width>480</width><height>360</height></size>"
    "<object><name>dog</name><bndbox><xmin>60</xmin><ymin>90</ymin><xmax>160</xmax>"
    "<ymax>270</ymax></bndbox></object></annotation>"
)
TEXTS = {
    "csv": "image,x1,y1,x2,y2,width,height,id\n1.png,60,90,160,270,480,360,5\n2.png,,,,,,,\n",
    "semicolons.csv": "sep=;\nfile_name;x;y;w;h\n1.png;60.5;90;100;180\n",
    "1.txt": "1 0.23 0.5 0.2 0.5\n0 .1 .2 .3 .2 .3 .7\n",
    "1.xml": VOC,
    "jsonl": "\n".join(map(json.dumps, METADATA)),
}
ODD = [
    *(None, True, 0, -1, 1, 2.5, 10**6, 2**31, 2**63, 10**400, 1e308, -1e308, 5e-324),
    *(math.nan, math.inf, -math.inf),
    *("", " ", "1", "2.5", "nan", "a dog", "caf\u00e9", "e\u0301", "\ud83d", "a\0b", "x" * 5000),
    *("../../1.png", "C:\\1.png", "1.*", ".*", "http://[x/1.png", "%", "%ff.png", "?d=1.png"),
    *([], [1], [[]], [[1, 2], [3]], {}, {"id": 1}, {"path": None}),
]
DEEP = 2_000
ODD_TEXTS = [
    *("", " ", "\n", "\r", "\0", "\ufeff", ",", ";", "\t", '"', "'", "&a;", "<", "<!DOCTYPE a>"),
    *("nan", "inf", "1e308", "1e999", "-5", "9" * 400, "\u0661", "\ud83d", "1,5", "[" * DEEP),
]


def places(value, path=()):
    """The paths of all values in a document."""
    yield path
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


@st.composite
def damaged_documents(draw, name):
    """A json document after one to three changes, as text."""
    document = [copy.deepcopy(DOCUMENTS[name])]  # in a list, so that all of it can change
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in places(document) if path]))
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        key, change = path[-1], draw(st.sampled_from(["odd", "odd", "remove", "repeat", "deep"]))
        if change == "odd":
            parent[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
        elif change == "remove" and path != (0,):
            del parent[key]
        elif change == "repeat" and isinstance(parent, list) and path != (0,):
            parent.append(copy.deepcopy(parent[key]))
        elif change == "deep":
            parent[key] = "DEEP"
    return json.dumps(document[0]).replace('"DEEP"', "[" * DEEP + "]" * DEEP)


@st.composite
def damaged_texts(draw, name):
    """A text file after one to three changes."""
    text = TEXTS[name]
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 20)))
        text = text[:start] + draw(st.sampled_from(ODD_TEXTS)) + text[end:]
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzzed")
    for number in (1, 2):
        Image.new("RGB", SIZE).save(path / f"{number}.png")
    return path


def read(path, folder):
    """Read a file through both doors; returns how many boxes and regions it gave."""
    found = []
    given = argparse.Namespace(
        boxes=path, images_json=None, box_format=None, box_units=None, normalised=None
    )
    images = {f"{number}.png": folder / f"{number}.png" for number in (1, 2)}
    for asked in (images, dict([*images.items()][:1])):  # lists without names are of one image
        finder = region_set = None
        with suppress(DynReferError):
            finder, with_boxes, _ = region_finder(given, asked)
        if finder is None:
            continue
        for name in with_boxes:
            with suppress(DynReferError):
                boxes = finder.given(name, SIZE).boxes
                assert boxes.isfinite().all()
                found.append(len(boxes))
        break
    with suppress(DynReferError):
        region_set = read_custom(path, folder, name="fuzzed", split="val")
    for region in region_set.regions if region_set else ():
        x1, y1, x2, y2 = region.box
        assert -math.inf < x1 < x2 < math.inf
        assert -math.inf < y1 < y2 < math.inf
        found.append(1)
    return sum(found)


KINDS = [*DOCUMENTS, *TEXTS]


def check(kind, folder, examples, derandomize):
    """Read damaged files of one kind; returns how many gave boxes or regions."""
    damaged = damaged_documents(kind) if kind in DOCUMENTS else damaged_texts(kind)
    path = folder / (kind if "." in kind else f"boxes.{kind}")
    usable = []

    @settings(
        max_examples=examples,
        derandomize=derandomize,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged)
    def run(text):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        usable.append(read(path, folder) > 0)

    run()
    return sum(usable), len(usable)


@pytest.mark.parametrize("kind", KINDS)
def test_undamaged_files_are_read(kind, folder):
    path = folder / (kind if "." in kind else f"boxes.{kind}")
    text = json.dumps(DOCUMENTS[kind]) if kind in DOCUMENTS else TEXTS[kind]
    path.write_text(text, encoding="utf-8")

    assert read(path, folder) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(kind, folder):
    usable, total = check(kind, folder, 25, True)
    assert 0 <= usable < total  # which files are made depends on the version of hypothesis


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_damaged_files_are_read_or_refused(kind, folder):
    usable, total = check(kind, folder, 2_000, False)
    print(f"{kind}: {total} files, of {usable} some boxes were usable")
    assert 0 < usable < total
