"""The files of annotation tools, as files of boxes and in COCO's layout."""

from __future__ import annotations

import json

import pytest

from lavis_dynrefer.formats import ImageResult, read_box_file, write_results
from lavis_dynrefer.formats.annotation_tools.tool_files import files_of, read_layout
from lavis_dynrefer.structures import RegionPrediction

# The box 60, 90, 160, 270 of an image of 480 x 360 pixels.
LABELME = {
    "version": "5.0.1",
    "shapes": [
        {"label": "mug", "description": "a red mug", "points": [["160", 270], [60, 90]]},
        {"label": "mug", "points": [[60, 90], [160, 90], [110, 270]], "shape_type": "polygon"},
        {"label": "mug", "points": [[110, 180], [110, 230]], "shape_type": "circle"},
        {"label": "mug", "points": [[110, 180]], "shape_type": "point"},
        {"label": "mug", "points": [[110, 180]], "shape_type": "circle"},
    ],
    "imagePath": "..\\images\\a.jpg",
    "imageHeight": 360,
    "imageWidth": 480,
}
VOC = """<annotation><folder>x</folder><filename>a.jpg</filename>
<size><width>480</width><height>360</height><depth>3</depth></size>
<object><name>mug</name><bndbox><xmin> 60.0</xmin><ymin>90</ymin><xmax>160</xmax><ymax>270</ymax>
</bndbox></object><object><name>mug</name></object></annotation>"""
YOLO = "1 0.22916667 0.5 0.20833333 0.5\n0 .125 .25 .33333333 .25 .33333333 .75\n\n1 60 90 5 5\n"
METADATA = [
    {
        "file_name": "a.jpg",
        "objects": {"bbox": [[60, 90, 100, 180], [1]], "category": ["mug", "cup"]},
    },
    {"file_name": "b.jpg", "objects": []},
    {"objects": {}},
]


def shape(own_id, percent, **value):
    x, y, width, height = percent
    return {
        **{"id": own_id, "type": "rectanglelabels", "from_name": "label"},
        **{"original_width": 480, "original_height": 360},
        "value": {"x": x, "y": y, "width": width, "height": height, **value},
    }


PERCENT = (12.5, 25, 20.8333333333, 50)
TASKS = [
    {
        "id": 1,
        "data": {"photo": "/data/upload/1/0a1b2c3d-a.jpg"},
        "annotations": [
            {"was_cancelled": True, "result": [shape("x", (0, 0, 1, 1))]},
            {
                "result": [
                    shape("z7", PERCENT, rectanglelabels=["mug"], rotation=0),
                    {"id": "z7", "from_name": "caption", "value": {"text": ["a red", "mug"]}},
                    shape("turned", PERCENT, rotation=15),
                    {**shape("sideways", PERCENT), "image_rotation": 90},
                    {**shape(None, PERCENT), "value": {"x": 1}},
                ]
            },
            {"result": []},
        ],
    },
    {"data": {}, "annotations": []},
]
SHORT_TASKS = [
    {
        "image": "/data/upload/1/0a1b2c3d-a.jpg",
        "label": [{**shape(None, PERCENT)["value"], "original_width": 480, "original_height": 360}],
    }
]


def first(path):
    """Boxes of the first image as corners in pixels, its size, and the notes."""
    file = read_box_file(path)
    boxes = next(iter(file.images.values()))
    full = {"fraction": 1, "percent": 100}.get(file.units)
    across, down = (1, 1) if full is None else (480 / full, 360 / full)
    found = [[x * across, y * down, (x + w) * across, (y + h) * down] for x, y, w, h in boxes.boxes]
    return [[round(value, 2) for value in box] for box in found], boxes.size, file.notes


@pytest.fixture
def put(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, (str, bytes)) else json.dumps(content)
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
        return path

    return write


BOX, SIZE = [60, 90, 160, 270], (480, 360)


@pytest.mark.parametrize(
    ("name", "content", "boxes", "size", "notes"),
    [
        ("a.json", LABELME, [BOX, BOX, [60, 130, 160, 230]], SIZE, [r"shapes\[3\]: a point"]),
        ("a.xml", VOC, [BOX], SIZE, ["object 2: no bndbox"]),
        ("a.xml", VOC.encode("utf-16"), [BOX], SIZE, ["object 2: no bndbox"]),
        ("a.txt", YOLO, [BOX, BOX], None, ["line 4: expected fractions"]),
        ("a.json", METADATA, [BOX], None, [r"row 3: no file_name", r"row 1: object 1: expected"]),
        (
            "tasks.json",
            TASKS,
            [BOX],
            SIZE,
            ["further annotations", "no image", "cannot be read: 3"],
        ),
        ("tasks.json", SHORT_TASKS, [BOX], SIZE, []),
    ],
)
def test_a_file_of_a_tool_is_a_file_of_boxes(put, name, content, boxes, size, notes):
    if name == "a.json" and isinstance(content, list):
        content = "\n".join(map(json.dumps, content))
    path = put(name, content)

    found, found_size, found_notes = first(path)

    assert (found, found_size) == (boxes, size)
    assert len(found_notes) == len(notes)
    for text in notes:
        assert [note for note in found_notes if text.replace("\\", "") in note]
    assert read_box_file(path).match({"a.jpg": "/data/images/a.jpg"})


def test_labels_become_categories_and_captions(put):
    rows = {
        "labelme": read_layout(put("a.json", LABELME)),
        "voc": read_layout(put("a.xml", VOC)),
        "tasks": read_layout(put("tasks.json", TASKS)),
        "metadata": read_layout(put("m.jsonl", "\n".join(map(json.dumps, METADATA)))),
    }

    for layout in rows.values():
        row, document = layout.document["annotations"][0], layout.document
        assert document["categories"][row["category_id"] - 1]["name"] == "mug"
    assert rows["labelme"].document["annotations"][0]["caption"] == "a red mug"
    assert rows["tasks"].document["annotations"][0]["caption"] == "a red mug"


def test_our_own_tasks_are_read_back(tmp_path):
    region = RegionPrediction(
        box=(60.0, 90.0, 160.0, 270.0),
        caption="a red mug",
        caption_score=0.5,
        tags=(("mug", 0.75),),
        categories=(("mug", 2.0), ("cup", 1.0)),
    )
    result = ImageResult("a b.jpg", str(tmp_path / "in/a b.jpg"), 480, 360, (region,), (7,))
    tasks, _ = write_results([result], tmp_path, ["label-studio"])

    (row,) = read_layout(tasks).document["annotations"]

    assert first(tasks) == ([BOX], SIZE, [])
    assert (row["id"], row["caption"], row["tags"]) == (7, "a red mug", ["mug"])
    assert read_box_file(tasks).match({"a b.jpg": str(tmp_path / "in/a b.jpg")})["a b.jpg"].ids == [
        7
    ]


def test_a_folder_of_yolo_has_names_from_its_yaml(put, tmp_path):
    put("labels/train/a.txt", YOLO)
    put("labels/val/b.txt", "")
    put("classes.txt", "wrong\n")
    put("README.txt", "about these labels\n")
    yaml = put("data.yaml", "train: images/train\nnames: {0: cup, 1: mug}\n")

    by_folder, by_yaml = read_layout(tmp_path), read_layout(yaml)

    assert by_folder.document == by_yaml.document
    assert [row["file_name"] for row in by_folder.document["images"]] == ["a.*", "b.*"]
    assert "files that are not of YOLO: 1, first README.txt" in by_folder.faults.sentences()
    assert [row["name"] for row in by_folder.document["categories"]] == ["mug", "cup"]
    file = read_box_file(tmp_path)
    assert len(file.match({"a.png": "/x/a.png"})["a.png"].boxes) == 2
    assert set(files_of(yaml)) == {yaml, *tmp_path.rglob("*.txt")}


def test_equal_names_in_a_folder_keep_their_folders(put, tmp_path):
    for folder in ("train", "val"):
        put(f"{folder}/labels/a.txt", "0 .5 .5 .5 .5\n" if folder == "val" else "")

    found = read_box_file(tmp_path).match({"a.jpg": str(tmp_path / "val/images/a.jpg")})

    assert len(found["a.jpg"].boxes) == 1


def test_names_that_files_of_a_folder_share_are_not_used(put, tmp_path):
    put("1.xml", VOC)
    put("2.xml", VOC)
    put("3.xml", "<html/>")
    put("__MACOSX/1.xml", VOC)
    put("._1.xml", VOC)

    layout = read_layout(tmp_path)

    assert [row["file_name"] for row in layout.document["images"]] == ["1.*", "2.*"]
    assert "3.xml: expected VOC xml with <annotation>, got <html>" in layout.faults.sentences()[0]


BOMB = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", BOMB, "declares a document type, which is not read"),
        ("a.xml", BOMB.encode("utf-16"), "declares a document type"),
        ("a.xml", "<annotation>", "damaged xml"),
        ("a.xml", '<?xml version="1.0" encoding="no-such"?><annotation/>', "damaged xml"),
        ("a.xml", "<annotations/>", "CVAT's xml is not read; export the task as COCO"),
        ("a.json", {**LABELME, "shapes": 3}, "shapes: expected a list"),
        ("a.json", {**LABELME, "imagePath": ""}, "imagePath is empty"),
        ("a.json", {**LABELME, "imageWidth": "wide"}, "width and height: expected an integer"),
        ("a.json", [{"data": {}, "annotations": []}], "nothing in it can be used.*no image in"),
        ("via.json", {"a.jpg9": {"filename": "a.jpg", "regions": {}}}, "labelme's json, VOC's xml"),
    ],
)
def test_damaged_files_of_tools_are_named(put, name, content, message):
    with pytest.raises(ValueError, match=message):
        read_box_file(put(name, content))


def test_a_folder_of_two_tools_or_none_is_refused(put, tmp_path):
    with pytest.raises(ValueError, match="no annotations in the folder; expected COCO"):
        read_box_file(tmp_path)
    whole = put("_annotations.coco.json", {"images": [], "annotations": []})
    with pytest.raises(ValueError, match=rf"name the file {whole}".replace("\\", "\\\\")):
        read_box_file(tmp_path)
    put("a.xml", VOC)
    put("a.txt", YOLO)
    with pytest.raises(ValueError, match="files of YOLO and VOC; name a folder or a file of one"):
        read_box_file(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": "pixels"}, "files of YOLO are in fraction, not in pixels"),
        ({"units": "inch"}, "units: unknown 'inch'; expected one of"),
    ],
)
def test_options_against_the_tool_are_refused(put, options, message):
    with pytest.raises(ValueError, match=message):
        read_box_file(put("a.txt", YOLO), **options)
