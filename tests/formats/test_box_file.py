"""Files of boxes in every supported format, matched with images."""

from __future__ import annotations

import json

import pytest

from lavis_dynrefer.formats import ImageResult, read_box_file, write_results
from lavis_dynrefer.structures import RegionPrediction

IMAGES = [
    {"id": 5, "file_name": "a.jpg", "width": 100, "height": 80},
    {"id": 6, "file_name": "b.jpg", "width": 100, "height": 80},
]

CSV = "image;x1;y1;x2;y2\ncaf\u00e9.jpg;1;2;3;4"


@pytest.fixture
def write(tmp_path):
    def put(content, name="boxes.json"):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return put


def boxes_of(file, name):
    return [list(box) for box in file.images[name].boxes]


@pytest.mark.parametrize("boxes", [[], [[1, 2, 3, 4], [5, 6, 7, 8]]])
def test_list_has_an_unnamed_image(write, boxes):
    file = read_box_file(write(boxes))
    assert boxes_of(file, "") == boxes
    assert (file.format, file.units) == ("xyxy", None)


def test_object_maps_images_to_lists(write):
    content = {"a.jpg": [[1, 2, 3, 4]], "b.jpg": [], "c.jpg": [{"id": 7, "box": [5, 6, 7, 8]}]}
    file = read_box_file(write(content), format="xywh")
    assert [boxes_of(file, name) for name in content] == [[[1, 2, 3, 4]], [], [[5, 6, 7, 8]]]
    assert file.images["c.jpg"].ids == [7]
    assert file.format == "xywh"


def test_ids_are_kept_only_if_every_box_has_one(write):
    rows = [{"id": 7, "box": [1, 2, 3, 4]}, {"box": [5, 6, 7, 8]}, {"id": 8, "bbox": [1, 2, 3, 4]}]
    assert read_box_file(write({"a.jpg": rows})).images["a.jpg"].ids == []


def test_coco_boxes_have_ids(write):
    annotations = [
        {"id": 31, "image_id": 6, "bbox": [1, 2, 3, 4]},
        {"id": 32, "image_id": 6, "bbox": [5.5, 6, 7, 8]},
    ]
    file = read_box_file(write({"images": IMAGES, "annotations": annotations}))
    assert boxes_of(file, "b.jpg") == [[1, 2, 3, 4], [5.5, 6, 7, 8]]
    assert boxes_of(file, "a.jpg") == []
    assert (file.images["b.jpg"].ids, file.images["b.jpg"].image_id) == ([31, 32], 6)
    assert file.format == "xywh"


@pytest.mark.parametrize(
    ("format", "expected"), [(None, [10, 20, 20, 25]), ("xyxy", [10, 20, 30, 45])]
)
def test_a_segmentation_gives_its_tight_box(write, format, expected):
    annotation = {"id": 1, "image_id": 5, "segmentation": [[10, 20, 30, 20, 30, 45]]}
    document = {"images": IMAGES, "annotations": [annotation]}
    assert boxes_of(read_box_file(write(document), format=format), "a.jpg") == [expected]


def test_a_run_length_mask_gives_its_tight_box(write):
    mask = {"size": [4, 5], "counts": [5, 2, 2, 2, 9]}  # rows 1-2 of columns 1-2
    images = [{"id": 5, "file_name": "a.jpg"}]
    document = {"images": images, "annotations": [{"image_id": 5, "segmentation": mask}]}
    assert boxes_of(read_box_file(write(document)), "a.jpg") == [[1, 1, 2, 2]]


def test_coco_results_need_the_images(write):
    path = write([{"image_id": 6, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}])
    with pytest.raises(ValueError, match=r"has ids of images and no names; .*--images-json"):
        read_box_file(path)
    file = read_box_file(path, images=write({"images": IMAGES, "annotations": []}, "images.json"))
    assert boxes_of(file, "b.jpg") == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("image,x1,y1,x2,y2\na.jpg,1,2,3,4\n", "xyxy"),
        ("file_name;xmin;ymin;xmax;ymax\na.jpg;1;2;3;4", "xyxy"),
        ("\ufeffImage,X,Y,W,H\r\na.jpg,1,2,3,4\r\n", "xywh"),
        ("label\timage\tx\ty\twidth\theight\ncat\ta.jpg\t1\t2\t3\t4\n", "xywh"),
        ("picture,path,x1,y1,x2,y2\na.jpg,/data/a.jpg,1,2,3,4\n", "xyxy"),
        ("filename,x,y,w,h\na.jpg,1,2,3,4\n", "xywh"),
        ("image_path,x,y,w,h\na.jpg,1,2,3,4\n", "xywh"),
        ("path,x,y,w,h\na.jpg,1,2,3,4\n", "xywh"),
    ],
)
def test_csv_columns_determine_the_format(write, text, format):
    file = read_box_file(write(text, "boxes.csv"))
    assert boxes_of(file, "a.jpg") == [[1.0, 2.0, 3.0, 4.0]]
    assert file.format == format


TWO = [[1, 2, 3, 5], [1, 2, 9, 9]]  # whose own width and height are in the table


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("sep=;\r\nimage;x1;y1;x2;y2\r\na.jpg;1;2;3;4\r\n", [[1, 2, 3, 4]]),
        ("image,x1,y1,x2,y2\n,,,,\na.jpg,1,2,3,4\n,,,,\n\n", [[1, 2, 3, 4]]),
        ("image,x1,y1,x2,y2,label\na.jpg,,,,,\n", []),
        ("image,x1,y1,x2,y2\na.jpg\n", []),
        ("image,x1,y1,x2,y2\na.jpg,1,2,3,4,,\n./a.jpg,5,6,7,8\n", [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ("image_id,x1,y1,x2,y2\na,1,2,3,4\n", [[1, 2, 3, 4]]),
        ("image,x1,y1,x2,y2,width,height\na.jpg,1,2,3,5,2,3\na.jpg,1,2,9,9,8,7\n", TWO),
    ],
)
def test_habits_of_spreadsheets_are_known(write, text, boxes):
    file = read_box_file(write(text, "boxes.csv"))
    found = file.match({"a.jpg": "/a.jpg"})["a.jpg"]
    assert (found.boxes, found.size) == (boxes, None)


KEYS = ["image", "file_name", "Filename", "img_filename", "img", "image_path", "path", "image_id"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("is_jsonl", [False, True])
def test_records_are_grouped_by_the_image_that_they_name(write, key, is_jsonl):
    rows = [
        {key: "a.jpg", "bbox": [1, 2, 3, 4], "caption": "a dog"},
        {key: "b.jpg", "bbox_2d": ["1", "2", "3.5", "4"]},
        {key: "a.jpg", "boxes": [[5, 6, 7, 8]], "width": 9, "height": 8},
        {key: "c.jpg", "bbox": None},
        {key: "d.jpg", "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4},
    ]
    file = read_box_file(write("\n".join(map(json.dumps, rows)) if is_jsonl else rows))
    assert {name: entry.boxes for name, entry in file.images.items()} == {
        "a.jpg": [[1, 2, 3, 4], [5, 6, 7, 8]],
        "b.jpg": [[1, 2, 3.5, 4]],
        "c.jpg": [],
        "d.jpg": [[1, 2, 3, 4]],
    }
    assert file.images["a.jpg"].size == (9, 8)


def test_records_without_names_are_of_the_only_image(write):
    file = read_box_file(write([{"bbox_2d": [1, 2, 3, 4], "label": "a"}, [5, 6, 7, 8]]))
    assert boxes_of(file, "") == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_keys_may_say_the_format(write):
    file = read_box_file(write([{"image": "a.jpg", "x": 1, "y": 2, "width": 3, "height": 4}]))
    assert (file.format, boxes_of(file, "a.jpg")) == ("xywh", [[1, 2, 3, 4]])


def test_entries_of_one_file_are_one_image(write):
    images = [{"id": 0, "file_name": "a.jpg"}, {"id": "x", "file_name": "./a.jpg", "width": 9}]
    annotations = [
        {"id": 1, "image_id": 0, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": "x", "bbox": ["5", "6", "7", "8"]},
    ]
    entry = read_box_file(write({"images": images, "annotations": annotations})).images["a.jpg"]
    assert (entry.boxes, entry.ids, entry.image_id) == ([(1, 2, 3, 4), (5, 6, 7, 8)], [1, 2], None)


def test_single_faults_of_coco_are_counted_and_told(write):
    bad = [
        {"image_id": 5, "bbox": [1, 2, 3, 4, 15.0]},
        {"image_id": 5, "bbox": [1, 2, 3, "x"]},
        {"image_id": 5, "bbox": [1, 2, 3, float("nan")]},
        {"image_id": 5, "segmentation": []},
        {"image_id": 5, "segmentation": [[1, 2, 3]]},
        {"image_id": [5], "bbox": [1, 2, 3, 4]},
        *(3, None),
    ]
    unknown = {"image_id": 99, "bbox": [1, 2, 3, 4]}
    good = {"id": "7", "image_id": "5", "bbox": [1, 2, 3, 4]}
    images = [*IMAGES, {"id": 7}, 3]
    path = write({"images": images, "annotations": [good, *bad, unknown]})

    file = read_box_file(path)

    assert boxes_of(file, "a.jpg") == [[1, 2, 3, 4]]
    assert file.images["a.jpg"].ids == [7]
    for note, text in zip(
        file.notes,
        [
            "images that cannot be read: 2, first images[2]: no file_name",
            "annotations that cannot be read: 8, first annotations[1]: expected a box of x, y, ",
            "annotations of unknown images: 1, first annotations[9]: image_id 99 is not listed",
        ],
    ):
        assert note.startswith(text)
    with pytest.raises(ValueError, match=r"nothing in it can be used: .*8, .*\(a rotated box\?\)"):
        read_box_file(write({"images": IMAGES, "annotations": bad}))


def test_lvis_has_addresses_for_names(write):
    images = [{"id": 5, "coco_url": "http://images.cocodataset.org/val2017/a.jpg"}]
    path = write({"images": images, "annotations": [{"image_id": 5, "bbox": [1, 2, 3, 4]}]})
    found = read_box_file(path).match({"a.jpg": "/data/val2017/a.jpg"})
    assert found["a.jpg"].boxes == [(1, 2, 3, 4)]


@pytest.mark.parametrize("format", ["jsonl", "json", "coco", "csv"])
def test_our_own_results_are_read_as_boxes(tmp_path, format):
    region = RegionPrediction(box=(1.0, 2.0, 30.5, 4.0), caption="a, b", caption_score=0.5)
    results = [
        ImageResult("ü/a b.jpg", "/ü/a b.jpg", 90, 70, (region,), (41,)),
        ImageResult("c.jpg", "/c.jpg", 90, 70, (region, region), (42, 43)),
    ]
    (path,) = write_results(results, tmp_path, [format])
    file = read_box_file(path)
    expected = [[1, 2, 29.5, 2]] if file.format == "xywh" else [[1, 2, 30.5, 4]]
    assert boxes_of(file, "ü/a b.jpg") == expected
    assert file.images["c.jpg"].ids == [42, 43]


def test_a_single_row_of_our_own_is_not_an_object_of_images(tmp_path):
    (path,) = write_results([ImageResult("a.jpg", "/a.jpg", 9, 9, ())], tmp_path, ["jsonl"])
    assert read_box_file(path).images["a.jpg"].boxes == []


def test_old_key_picture_is_read(write):
    row = {"picture": "a.jpg", "image_id": 3, "regions": [{"id": 1, "box": [1, 2, 3, 4]}]}
    file = read_box_file(write([row]))
    assert boxes_of(file, "a.jpg") == [[1, 2, 3, 4]]
    assert file.images["a.jpg"].image_id == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"boxes\.json: it is empty; expected json"),
        ("[[1, 2, 3", r"boxes\.json: damaged json: .*line 1"),
        ("[" * 100_000, r"boxes\.json: damaged json"),
        ('{"image": "a", "regions": []}\n{"pic', r"boxes\.json: line 2: damaged json"),
        ([1, 2, 3, 4], r"record 0: expected four numbers, got 1; one box is a list of one row"),
        ({"a.jpg": [[1, 2, 3, 4], [1, 2, "x", 4]]}, r"a\.jpg\[1\]: expected four numbers, got \["),
        ({"a.jpg": [[1, 2, 3, True]]}, r"a\.jpg\[0\]: expected four numbers"),
        ({"a.jpg": "1,2,3,4"}, r"a\.jpg: expected a list of boxes, got 1,2,3,4"),
        ([{"image": "a.jpg", "regions": 3}], "row 1: expected a row .* with image and regions"),
        ({"images": IMAGES, "annotations": 5}, "annotations: expected a list, got 5"),
        (
            [{"image": "a.jpg", "bbox": [1, 2, 3, 4]}, {"bbox": [1, 2, 3, 4]}],
            "record 0 names its image, record 1 names none",
        ),
        (
            {"a.jpg": [{"image": "b.jpg", "bbox": [1, 2, 3, 4]}]},
            r"a\.jpg\[0\]: it names another",
        ),
        ([{"image": 5, "bbox": [1, 2, 3, 4]}], "record 0: image: expected the name of an image"),
        ([{"image": "a.jpg", "caption": "x"}], "record 0: expected four numbers"),
        (
            '{"a.jpg": [[1, 2, 3, 4]], "a.jpg": [[5, 6, 7, 8]]}',
            r"key 'a\.jpg' has two values.*merge",
        ),
        (
            {"images": [*IMAGES, {"id": 5, "file_name": "c.jpg"}], "annotations": []},
            r"image id 5 means 'a\.jpg' and 'c\.jpg'",
        ),
        (
            [
                {"image": "a.jpg", "x1": 1, "y1": 2, "x2": 3, "y2": 4},
                {"image": "a.jpg", "x": 1, "y": 2, "w": 3, "h": 4},
            ],
            "keys of record 1 say xywh, those of record 0 xyxy",
        ),
        ([{"x": 1, "y": 2, "w": 3, "h": 4}, [1, 2, 3, 4]], "say xywh, those of record 1 nothing"),
        (
            [{"image": "a.jpg", "regions": [{"x": 1, "y": 2, "width": 3, "height": 4}]}],
            "a.jpg: expected boxes of two corners, the keys say xywh",
        ),
        (
            "image,width,height,x1,y1,x2,y2\na.jpg,9,9,1,2,3,4\na.jpg,9,8,1,2,3,4\n",
            r"line 3: the file gives two sizes for one image, \(9, 9\) and \(9, 8\)",
        ),
        ("image,x1,y1,x2,y2,x1\na.jpg,1,2,3,4,5\n", "two columns are called x1"),
        ("image,x1,y1,x2,y2\na.jpg,1,2,3,nan\n", "line 2: expected numbers in x1"),
        ("image;x1;y1;x2;y2\na.jpg;1,5;2;3;4\n", r"line 2: .*got \['1,5'.*with a point"),
        (
            "image,x1,y1,x2,y2\na.jpg,1,5,2,0,3,0,4,0\n",
            r"line 2: expected 5 cells, got 9; .* point",
        ),
        ("a.jpg,1,2,3,4\n", r"csv with a header line such as image,x1"),
        ("sep=\r;\nimage;x1;y1;x2;y2\na.jpg;1;2;3;4\n", r"csv with a header line such as image"),
        ("image,x1,y1,x2,y2\na.jpg,1,2,3,4\nb.jpg,1,2,,4\n", r"line 3: expected numbers in x1, y1"),
        ("image,x1,y1,x2,y2\na.jpg,1,2\n", r"line 2: expected numbers in x1, y1, x2, y2"),
        ("image,x1,y1,x2,y2\n,1,2,3,4\n", r"line 2: no image"),
        ('image,x1,y1,x2,y2\n"a.jpg,1,2,3,4\n', r"line 2: unexpected end of data"),
    ],
)
def test_error_names_the_invalid_record(write, content, message):
    with pytest.raises(ValueError, match=message):
        read_box_file(write(content))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
@pytest.mark.parametrize(
    "text", ['{"caf\u00e9.jpg": [[1, 2, 3, 4]]}', "image;x1;y1;x2;y2\ncaf\u00e9.jpg;1;2;3;4"]
)
def test_encodings_that_a_file_names_are_read(tmp_path, text, encoding):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "boxes").write_bytes((mark + text).encode(encoding))
    assert boxes_of(read_box_file(tmp_path / "boxes"), "caf\u00e9.jpg") == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("cp1252", r"in UTF-8, line 2 has the byte 0xe9 .* Windows-1252; save it as UTF-8"),
        ("utf-16-le", r"not text|zero bytes; if it is UTF-16, save it as UTF-8"),
    ],
)
def test_other_encodings_are_named_with_a_cure(tmp_path, encoding, message):
    (tmp_path / "boxes.csv").write_bytes(CSV.encode(encoding))
    with pytest.raises(ValueError, match=message):
        read_box_file(tmp_path / "boxes.csv")


def test_a_binary_file_is_refused(tmp_path):
    (tmp_path / "boxes.xlsx").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ValueError, match="got an archive or a spreadsheet"):
        read_box_file(tmp_path / "boxes.xlsx")


def test_missing_file_error_names_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.json"):
        read_box_file(tmp_path / "nowhere.json")


def test_a_format_other_than_the_columns_say_is_refused(write):
    path = write("image,x1,y1,x2,y2\na.jpg,1,2,3,4\n", "boxes.csv")
    with pytest.raises(ValueError, match="its columns say xyxy, not xywh"):
        read_box_file(path, format="xywh")


def test_boxes_of_our_own_results_are_in_pixels(tmp_path):
    (path,) = write_results([ImageResult("a.jpg", "/a.jpg", 9, 9, ())], tmp_path, ["json"])
    assert read_box_file(path).units == "pixels"
    with pytest.raises(ValueError, match="the boxes of dynrefer predict are xyxy in pixels"):
        read_box_file(path, units="fraction")


@pytest.mark.parametrize(
    ("entry", "name", "path"),
    [
        ("a.jpg", "a.jpg", "/data/a.jpg"),
        ("a.jpg", "val/a.jpg", "/data/val/a.jpg"),
        ("val/a.jpg", "a.jpg", "/data/val/a.jpg"),
        ("train2017/a.jpg", "a.jpg", "/data/a.jpg"),
        ("/data/a.jpg", "a.jpg", "/data/a.jpg"),
        (".\\val\\a.jpg", "a.jpg", "/data/val/a.jpg"),
        ("Ame\u0301lie.jpg", "Am\u00e9lie.jpg", "/data/Am\u00e9lie.jpg"),
    ],
)
def test_a_name_with_more_or_fewer_folders_is_the_same_image(write, entry, name, path):
    file = read_box_file(write({entry: [[1, 2, 3, 4]]}))
    assert file.match({name: path})[name].boxes == [[1, 2, 3, 4]]


def test_entry_with_the_most_common_folders_wins(write):
    file = read_box_file(write({"val/a.jpg": [[1, 1, 2, 2]], "train/a.jpg": [[3, 3, 4, 4]]}))
    found = file.match({"a.jpg": "/data/train/a.jpg"})
    assert found["a.jpg"].boxes == [[3, 3, 4, 4]]


@pytest.mark.parametrize("entry", ["b.jpg", "val/a.jpg", "aa.jpg"])
def test_other_names_are_other_images(write, entry):
    file = read_box_file(write({entry: [[1, 2, 3, 4]]}))
    assert file.match({"train/a.jpg": "/data/train/a.jpg"}) == {}


def test_one_entry_for_two_images_is_refused(write):
    file = read_box_file(write({"a.jpg": [[1, 2, 3, 4]]}))
    with pytest.raises(ValueError, match=r"'y/a\.jpg' and 'x/a\.jpg' are two; write .* folders"):
        file.match({"x/a.jpg": "/data/x/a.jpg", "y/a.jpg": "/data/y/a.jpg"})


def test_two_entries_for_one_image_are_refused(write):
    file = read_box_file(write({"x/a.jpg": [], "y/a.jpg": []}))
    with pytest.raises(ValueError, match=r"'x/a\.jpg' and 'y/a\.jpg' are two"):
        file.match({"a.jpg": "/data/a.jpg"})


def test_boxes_without_a_name_belong_to_the_only_image(write):
    file = read_box_file(write([[1, 2, 3, 4]]))
    assert file.match({"a.jpg": "/a.jpg"})["a.jpg"].boxes == [[1, 2, 3, 4]]
    with pytest.raises(ValueError, match=r"names no image, .* of one image only, got 2"):
        file.match({"a.jpg": "/a.jpg", "b.jpg": "/b.jpg"})
