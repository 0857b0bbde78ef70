import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from lavis_dynrefer.geometry.masks import box_from_polygons, box_from_rle, decode_rle

# 4 rows, 5 columns; rows 1 to 2 of columns 2 to 3 are set; runs go down the columns
PIXELS = np.zeros((4, 5), dtype=bool)
PIXELS[1:3, 2:4] = True
RUNS = {"size": [4, 5], "counts": [9, 2, 2, 2, 5]}


def packed(pixels, kind):
    rle = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return {**rle, "counts": rle["counts"].decode() if kind is str else rle["counts"]}


def test_polygon_box_spans_all_parts():
    assert box_from_polygons([[3, 4, 9, 4, 9, 8], [1, 5, 2, 5, 2, 20]]) == (1.0, 4.0, 9.0, 20.0)


@pytest.mark.parametrize(
    ("polygon", "box"),
    [
        ([5, 2, 5.5, 2, 5.5, 8], (4.5, 2.0, 5.5, 8.0)),  # the left edge gives way
        ([2, 5, 8, 5, 8, 6], (2.0, 5.0, 8.0, 6.0)),  # a side of one pixel stays as it is
        ([0, 2, 0, 8, 0, 5], (0.0, 2.0, 1.0, 8.0)),  # at the border the right edge does
        ([-3, 2, -3, 8, -3, 5], (-3.0, 2.0, -2.0, 8.0)),
    ],
)
def test_official_polygon_box_has_sides_of_a_pixel(polygon, box):
    assert box_from_polygons([polygon], "official") == box


def test_exact_polygon_box_may_be_flat():
    assert box_from_polygons([[5, 2, 5, 8, 5, 4]]) == (5.0, 2.0, 5.0, 8.0)


@pytest.mark.parametrize("polygons", [[], [[]], [[1, 2, 3]]])
def test_polygon_without_whole_vertices_is_refused(polygons):
    with pytest.raises(ValueError, match="x and y for every vertex"):
        box_from_polygons(polygons)


@pytest.mark.parametrize(("rule", "box"), [("exact", (2, 1, 4, 3)), ("official", (2, 1, 3, 2))])
def test_rle_box_by_both_rules(rule, box):
    assert box_from_rle(RUNS, rule) == box


@pytest.mark.parametrize("kind", [str, bytes])
def test_compressed_counts_equal_run_lengths(kind):
    assert decode_rle(packed(PIXELS, kind)).tolist() == decode_rle(RUNS).tolist() == PIXELS.tolist()


def test_decoding_leaves_its_argument_alone():
    rle = packed(PIXELS, str)

    decode_rle(rle)

    assert isinstance(rle["counts"], str)


def test_mask_of_nothing_has_no_box():
    with pytest.raises(ValueError, match="no pixel set"):
        box_from_rle({"size": [4, 5], "counts": [20]})


@pytest.mark.parametrize("counts", [[3, 2], "", b"", "zzz"])
def test_damaged_counts_are_refused(counts):
    with pytest.raises(ValueError, match=r"RLE"):
        decode_rle({"size": [4, 5], "counts": counts})


@pytest.mark.parametrize("function", [box_from_polygons, box_from_rle])
def test_unknown_rule_is_refused(function):
    with pytest.raises(ValueError, match="one of"):
        function([[0, 0, 1, 1]], "tight")


def test_official_rule_gives_the_annotated_boxes_of_real_crowds(shared):
    path = shared / "fixtures/coco_ovad_e2e/annotations/instances_val2017.json"
    rows = json.loads(path.read_text())["annotations"]
    crowds = [row for row in rows if row["iscrowd"]]

    found = np.array([box_from_rle(row["segmentation"], "official") for row in crowds])
    x, y, width, height = np.array([row["bbox"] for row in crowds]).T

    np.testing.assert_array_equal(found, np.stack([x, y, x + width, y + height], axis=1))


def test_real_polygons_agree_with_the_annotated_boxes(shared):
    path = shared / "fixtures/coco_ovad_e2e/annotations/instances_val2017.json"
    rows = json.loads(path.read_text())["annotations"]
    objects = [row for row in rows if not row["iscrowd"]]

    found = np.array([box_from_polygons(row["segmentation"]) for row in objects])
    x, y, width, height = np.array([row["bbox"] for row in objects]).T

    # the file rounds to hundredths
    np.testing.assert_allclose(found, np.stack([x, y, x + width, y + height], axis=1), atol=0.011)
