"""What other programs mean by their numbers, and the names of those that are not read."""

from __future__ import annotations

import json

import pytest

from lavis_dynrefer.formats import read_box_file
from lavis_dynrefer.formats.annotation_tools.tool_files import read_layout

VOC = """<annotation><filename>a.jpg</filename><source><database>{}</database></source>
<object><name>mug</name><bndbox><xmin>{}</xmin><ymin>20</ymin><xmax>30</xmax><ymax>40</ymax>
</bndbox></object></annotation>"""
IMAGES = [{"id": 1, "file_name": "a.jpg"}]
ROBOFLOW = {"confidence": 0.9, "class": "mug", "class_id": 0, "detection_id": "0-1"}
RECT = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}
VIA = {"a.jpg9": {"filename": "a.jpg", "size": 9, "regions": [], "file_attributes": {}}}
FOUND = {"x": 110, "y": 180, "width": 100, "height": 180}
ABOUT = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\na,x,/m/0,1,60,160,90,270\n"


@pytest.fixture
def put(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return path

    return write


def boxes(path):
    """The boxes of the first image as corners, in the units of the file, and the notes."""
    file = read_box_file(path)
    rows = next(iter(file.images.values())).boxes
    if file.format == "xywh":
        rows = [(x, y, x + width, y + height) for x, y, width, height in rows]
    return [[round(number, 6) for number in row] for row in rows], file.notes


@pytest.mark.parametrize(
    ("database", "xmin", "box"),
    [
        ("Unknown", 10, [10, 20, 30, 40]),  # LabelImg, CVAT, Datumaro
        ("MyDatabase", 10, [10, 20, 30, 40]),  # Label Studio
        ("The VOC2007 Database", 10, [9, 19, 30, 40]),
        ("roboflow.ai", 10, [9, 19, 30, 40]),
        ("roboflow.ai", 0, [0, 20, 30, 40]),
    ],
)
def test_voc_counts_pixels_from_one_where_its_writer_does(put, database, xmin, box):
    assert boxes(put("a.xml", VOC.format(database, xmin)))[0] == [box]


@pytest.mark.parametrize(
    ("row", "box"),
    [
        ("0 .5 .5 .2 .4 .93", [0.4, 0.3, 0.6, 0.7]),  # with a confidence
        ("0 .5 .5 .2 .4 .93 7", [0.4, 0.3, 0.6, 0.7]),  # and a track
        ("0 .5 .5 .2 .4 .93 1", "a triangle, or a box with a confidence"),
        ("0 .1 .2 .5 .2 .3 .9", [0.1, 0.2, 0.5, 0.9]),
        ("0 .1 .2 .5 .2 .5 .6 .1 .6", [0.1, 0.2, 0.5, 0.6]),  # an oriented box
        ("0 .1 .2 .5 .2 .5 60 .1 .6", "expected fractions of the image"),
        ("0 .1 .2 .5 .2 .5 .6 .93", "got 7 numbers; a polygon has no confidence"),
        ("0 .5 .5 .2 .4 .45 .4 2 0 0 0", [0.4, 0.3, 0.6, 0.7]),  # with two keypoints
        ("0 .5 .5 .2 .4 .9 .9 1 0 0 0", [0, 0, 1, 0.9]),  # outside of that box: a polygon
    ],
)
def test_the_numbers_of_a_yolo_row_tell_what_it_is(put, row, box):
    path = put("labels/a.txt", f"{row}\n0 .5 .5 1 1\n")

    found, notes = boxes(path)

    if isinstance(box, str):
        assert (len(found), len(notes)) == (1, 1)
        assert box in notes[0]
    else:
        assert (found[0], notes) == (box, [])


def test_a_mask_of_labelme_ends_with_its_last_pixel(put):
    shape = {"label": "mug", "points": [[10, 20], [59, 79]], "shape_type": "mask", "mask": "iVBO"}
    path = put("a.json", {"version": "5.5.0", "shapes": [shape], "imagePath": "a.jpg"})

    assert boxes(path)[0] == [[10, 20, 60, 80]]


RLE = {"size": [4, 4], "counts": "52203"}  # of 2 x 2 pixels in the middle
SAM = {"bbox": [1, 1, 2, 2], "segmentation": RLE, "predicted_iou": 0.9, "crop_box": [0, 0, 4, 4]}
SA1B_IMAGE = {"image_id": 7, "file_name": "sa_7.jpg", "width": 4, "height": 4}
TRIANGLE = {"label": "mug", "points": [[1, 2], [30, 4], [5, 60]], "shape_type": "polygon"}


@pytest.mark.parametrize(
    ("content", "mask"),
    [
        ([SAM], {"size": [4, 4], "counts": "52203"}),
        (
            {"image": SA1B_IMAGE, "annotations": [SAM]},
            {"size": [4, 4], "counts": "52203"},
        ),
        (
            {"version": "5.5.0", "shapes": [TRIANGLE], "imagePath": "a.jpg"},
            [[1, 2, 30, 4, 5, 60]],
        ),
        ([{"bbox": [1, 1, 2, 2], "segmentation": []}], None),
    ],
)
def test_masks_are_kept(put, content, mask):
    (entry,) = read_box_file(put("regions.json", content)).images.values()

    assert entry.masks == [mask]


def test_a_damaged_mask_is_named(put):
    with pytest.raises(ValueError, match=r"record 0: .*counts"):
        read_box_file(put("masks.json", [{**SAM, "segmentation": {**RLE, "counts": "5"}}]))


def test_a_damaged_mask_of_coco_is_counted_and_its_box_used(put):
    row = {"id": 1, "image_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3]]}

    found, notes = boxes(put("coco.json", {"images": IMAGES, "annotations": [row]}))

    assert found == [[1, 2, 4, 6]]
    assert "masks that cannot be read, whose boxes are used: 1, first annotations[0]" in notes[0]


@pytest.mark.parametrize(
    ("row", "box"),
    [
        ({"bbox": [10, 20, 30, 40], "bbox_mode": 0}, [10, 20, 30, 40]),
        ({"bbox": [10, 20, 30, 40], "bbox_mode": 1}, [10, 20, 40, 60]),
        ({"bbox": [10, 20, 30, 40], "bbox_mode": 4}, "bbox_mode: expected 0"),
        ({"bbox": [10, 20, 30, 40, 0.5]}, "a rotated box?"),
    ],
)
def test_detectron2_says_what_a_box_is(put, row, box):
    rows = [{"id": 1, "image_id": 1, **row}, {"id": 2, "image_id": 1, "bbox": [1, 2, 3, 4]}]

    found, notes = boxes(put("coco.json", {"images": IMAGES, "annotations": rows}))

    if isinstance(box, str):
        assert box in notes[0]
    else:
        assert found[0] == box


def test_regions_of_label_studio_have_parts_of_many_kinds(put):
    place = {"x": 10, "y": 20, "width": 30, "height": 40}
    parts = [
        {"id": "a", "type": "rectangle", "value": place},
        {"id": "a", "type": "labels", "value": {**place, "labels": ["mug"]}},
        {"id": "a", "type": "textarea", "from_name": "ocr", "value": {**place, "text": ["a mug"]}},
        {"id": "a", "type": "rating", "value": {**place, "rating": 4}},
        {"type": "relation", "from_id": "a", "to_id": "a", "direction": "right"},
        {"id": "b", "type": "brushlabels", "value": {"format": "rle", "brushlabels": ["cup"]}},
    ]
    path = put("tasks.json", [{"data": {"image": "a.jpg"}, "annotations": [{"result": parts}]}])

    layout = read_layout(path)

    (row,) = layout.document["annotations"]
    assert (row["bbox"], row["caption"]) == ([10, 20, 30, 40], "a mug")
    assert layout.document["categories"][row["category_id"] - 1]["name"] == "mug"
    assert [reason for reason, _, _ in layout.faults.items()] == [
        "ratings of Label Studio",
        "relations of Label Studio",
        "regions that cannot be read",
    ]


def test_our_own_coco_json_keeps_ids_that_are_texts(put):
    rows = [{"id": 1, "image_id": 1, "bbox": [1, 2, 3, 4], "region_id": "r7"}]
    file = read_box_file(put("coco.json", {"images": IMAGES, "annotations": rows}))
    assert file.images["a.jpg"].ids == ["r7"]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"image_id": "a"}, "a.*"),
        ({"image_id": "a.jpg"}, "a.jpg"),
        ({"image_id": 7, "file_name": "a.jpg"}, "a.jpg"),
    ],
)
def test_results_in_cocos_form_that_name_their_images_need_no_list(put, row, name):
    result = {**row, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.9}

    file = read_box_file(put("predictions.json", [result]))

    assert (file.format, list(file.images)) == ("xywh", [name])
    record = put("records.json", [{"image_id": "a.jpg", "bbox": [10, 20, 30, 40]}])
    assert read_box_file(record).format == "xyxy"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.json",
            [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}],
            "ids of images and no names",
        ),
        (
            "a.json",
            [
                {"image_id": 7, "category_id": 1, "file_name": name, "bbox": [1, 2, 3, 4]}
                for name in ("a.jpg", "b.jpg")
            ],
            "record 1: image_id 7 means 'a.jpg' and 'b.jpg'",
        ),
        (
            "a.json",
            [{"image": "a", "bbox": [1, 2, 3, 4], "bbox_mode": 4}],
            "bbox_mode: expected xyxy",
        ),
        ("a.json", [{"image": "a", "bbox": [1, 2, 3, 4], "angle": 30}], "rotated by 30"),
        ("a.csv", "image,x,y,w,h,rotation\na,1,2,3,4,30\n", "line 2: a box that is rotated by 30"),
        (
            "a.json",
            {
                "images": IMAGES,
                "annotations": [
                    {"image_id": 1, "bbox": [1, 2, 3, 4], "attributes": {"rotation": 30.0}}
                ],
            },
            "rotated by 30",
        ),
        (
            "a.xml",
            VOC.format("x", 10).replace(
                "<object>",
                "<object><attributes><attribute><name>rotation</name><value>30.0</value>"
                "</attribute></attributes>",
            ),
            "rotated by 30",
        ),
        ("a.csv", 'image,bbox\na,"[1, 2, 3, 4]"\n', "write the numbers of bbox in four columns"),
    ],
)
def test_files_with_a_doubt_say_what_to_do(put, name, content, message):
    with pytest.raises(ValueError, match=message):
        read_box_file(put(name, content))


def test_a_box_of_an_rle_of_another_size_is_not_used(put):
    masks = [{"size": [20, 30], "counts": [22, 3, 575]}, {"size": [10, 15], "counts": [22, 3, 125]}]
    rows = [{"id": n, "image_id": 1, "segmentation": mask} for n, mask in enumerate(masks)]

    file = read_box_file(put("coco.json", {"images": IMAGES, "annotations": rows}))

    assert (len(file.images["a.jpg"].boxes), file.images["a.jpg"].size) == (1, (30, 20))
    assert "two sizes for one image, (30, 20) and (15, 10)" in file.notes[0]


def test_repeated_annotations_are_one_and_shared_ids_none(put):
    rows = [(1, 1, [1, 2, 3, 4]), (1, 1, [1, 2, 3, 4]), (2, 1, [5, 6, 7, 8]), (2, 1, [9, 9, 9, 9])]
    rows += [(1, 2, [1, 2, 3, 4]), (2, 2, [1, 2, 3, 4])]  # other ids, or another image
    annotations = [{"id": n, "image_id": image, "bbox": box} for n, image, box in rows]
    images = [*IMAGES, {"id": 2, "file_name": "b.jpg"}]

    file = read_box_file(put("coco.json", {"images": images, "annotations": annotations}))

    assert [len(entry.boxes) for entry in file.images.values()] == [3, 2]
    assert [entry.ids for entry in file.images.values()] == [[], [1, 2]]
    assert file.notes == [
        "annotations that repeat an earlier one: 1, first annotations[1]: id 1",
        "ids shared by two boxes of an image: 1, first annotations[3]: id 2",
    ]


@pytest.mark.parametrize(
    ("name", "content", "box"),
    [
        ("a.json", {"a.jpg": [{**FOUND, **ROBOFLOW}]}, [60, 90, 160, 270]),
        ("a.json", {"a.jpg": [FOUND]}, [110, 180, 210, 360]),
        (
            "a.json",
            [{"image": "a.jpg", "box": {"cx": 110, "cy": 180, "w": 100, "h": 180}}],
            [60, 90, 160, 270],
        ),
        ("a.csv", "image,x_center,y_center,width,height\na,110,180,100,180\n", [60, 90, 160, 270]),
        ("a.json", [{"image": "a", "bbox": [6, 9, 1, 2], "bbox_format": "coco"}], [6, 9, 7, 11]),
        ("a.json", [{"image": "a", "bbox": [6, 9, 8, 10], "bbox_mode": 0}], [6, 9, 8, 10]),
        ("a.json", {"image": "a", "boxes": [[6, 9, 1, 2]], "format": "xywh"}, [6, 9, 7, 11]),
        ("a.json", [{"image": "a", "x": 6, "y": 9, "w": 1, "h": 2, "angle": 0.0}], [6, 9, 7, 11]),
        (
            "a.json",
            [{"bbox": [6, 9, 1, 2], "predicted_iou": 0.9, "stability_score": 0.9}],
            [6, 9, 7, 11],
        ),
        ("a.csv", ABOUT, [60, 90, 160, 270]),
    ],
)
def test_the_keys_of_a_box_say_where_its_numbers_begin(put, name, content, box):
    assert boxes(put(name, content))[0] == [box]


COCO_CURE = "export its annotations as COCO json"
UNREAD = [
    (VIA, "VIA's json is not read; " + COCO_CURE),
    ({"_via_settings": {}, "_via_img_metadata": VIA}, "VIA's project"),
    ({"project": {}, "file": {"1": {}}, "view": {"1": {}}, "metadata": {}}, "VIA's project"),
    ("filename,region_shape_attributes\na.jpg,{}\n", "VIA's csv is not read; " + COCO_CURE),
    ({"description": "", "tags": [], "size": {}, "objects": []}, "Supervisely's json"),
    ({"version": "2.0", "item": {"name": "a.jpg"}, "annotations": []}, "Darwin's json"),
    ([{"image": {"image_id": 1}, "annotations": []}], "a list of SA-1B's json"),
    ([{"data_row": {"id": "c"}, "projects": {}}], "Labelbox's export"),
    ([{"task_id": "1", "response": {"annotations": []}}], "Scale's export"),
    ({"dm_format_version": "1.0", "items": []}, "Datumaro's json .* as coco_instances"),
    ({"asset": {"name": "a.jpg"}, "regions": []}, "VoTT's json is not read; export csv"),
    ([{"source-ref": "s3://a", "bounding-box": {"annotations": []}}], "SageMaker's manifest"),
    ([{"imageGcsUri": "gs://a", "boundingBoxAnnotations": []}], "Vertex AI's jsonl"),
    ([{"id": "x", "originalImageUri": "u", "regions": []}], "Custom Vision's json"),
    ([{"id": 1, "regions": [{"x": 1}]}], "Visual Genome's json is not read; .dynrefer prepare vg"),
    ([{"filename": "a.jpg", "ann": {"bboxes": []}}], "MMDetection's json"),
    ([{"filename": "a.jpg", "detection": {"instances": []}}], "ODVG's jsonl"),
    ([{"name": "a.jpg", "labels": [{"box2d": {}}]}], "BDD100K's json"),
    ([{"file_name": "a.jpg", "image_id": 0, "annotations": []}], "detectron2's list of records"),
    ({"samples": [{"filepath": "a", "tags": [], "metadata": {}}]}, "FiftyOne's samples"),
    (
        {"classes": ["mug"], "labels": {"1": []}},
        "FiftyOne's labels.json is not read; export a COCO",
    ),
    ({"a.jpg": {"predictions": [], "image": {"width": 9}}}, "a response of Roboflow .* centre"),
    ({"a.jpg": [{"box_2d": [1, 2, 3, 4]}]}, "Gemini's json .* y1, x1, y2, x2 in thousandths"),
    ({"image": {"0": "a.jpg"}, "x1": {"0": 1}}, 'a table of pandas .* orient="records"'),
    ({"columns": ["image"], "index": [0], "data": [["a"]]}, "a table of pandas"),
    ([{"image": "a.jpg", "annotations": [{"coordinates": FOUND}]}], "CreateML's json .* centre"),
    ('image,label\na.jpg,"[{""original_width"": 9}]"\n', "Label Studio's csv .* export its json"),
    ("TRAIN,gs://a.jpg,mug,.1,.2,,,.3,.4,,\n", "AutoML's csv"),
    ("mug,60,90,100,180,a.jpg,640,480\n", "Make Sense's csv .* VOC xml or YOLO"),
]


@pytest.mark.parametrize(("content", "message"), UNREAD)
def test_programs_that_are_not_read_are_named(put, content, message):
    path = put("export", content)
    for read in (read_box_file, read_layout):
        with pytest.raises(ValueError, match=message):
            read(path)


@pytest.mark.parametrize(
    "content",
    [
        [{"image": "a.jpg", "box": [1, 2, 3, 4], "annotations": [{"coordinates": {}}]}],
        [{"name": "mug", "labels": ["red"], "bbox": [1, 2, 3, 4]}],
        [{"file_name": "a.jpg", "annotations": 2, "x1": 1, "y1": 2, "x2": 3, "y2": 4}],
    ],
)
def test_records_with_boxes_are_read_whatever_else_they_have(put, content):
    assert boxes(put("a.json", content))[0] == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ann/a.jpg.json", UNREAD[4][0], "a.jpg.json: Supervisely's json is not read"),
        ("tasks.json", [{"data": {}, "annotations": []}], "name the file instead of its folder"),
        ("results.jsonl", "", r"dynrefer predict; name the file .*results\.jsonl"),
        ("a.txt", "mug 0.0 0 -1.5 60 90 160 270 1 1 1 1 1 1 0\n", r"a.txt is none .* \(KITTI's\?"),
        ("a.txt", "60 90 160 90 160 270 60 270 mug 0\n", r"\(DOTA's\?\)"),
        ("gt.txt", "1,1,60,90,100,180,1,1,1\n", r"\(MOT's\?\)"),
    ],
)
def test_the_files_of_a_folder_are_named_if_they_are_known(put, tmp_path, name, content, message):
    put(name, content)
    with pytest.raises(ValueError, match=message):
        read_box_file(tmp_path)
