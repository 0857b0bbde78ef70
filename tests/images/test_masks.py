import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from lavis_dynrefer.images import boxes_of_masks
from lavis_dynrefer.images.mask_encoding import run_lengths
from lavis_dynrefer.images.masks import box_from_polygons, box_from_rle

SIZE = (5, 4)  # width, height
# Rows 1 to 2 of columns 2 to 3 are set; runs go down the columns.
PIXELS = np.zeros((4, 5), dtype=bool)
PIXELS[1:3, 2:4] = True
RUNS = {"size": [4, 5], "counts": [9, 2, 2, 2, 5]}
POLYGON = [2, 1, 4, 1, 4, 3, 2, 3]


def packed(pixels):
    """RLE as pycocotools writes it; counts are bytes."""
    return coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))


@pytest.mark.parametrize(
    "mask",
    [
        PIXELS.astype(np.uint8) * 7,
        PIXELS,
        torch.from_numpy(PIXELS),
        torch.from_numpy(PIXELS * 0.5).requires_grad_(),
        torch.from_numpy(PIXELS).bfloat16(),
        torch.from_numpy(PIXELS).to_sparse(),
        PIXELS[None],  # as SAM returns them
        PIXELS[:, :, None],
        list(PIXELS),
        RUNS,
        [POLYGON],
        [np.array(POLYGON)],
        [torch.tensor(POLYGON, dtype=torch.float32, requires_grad=True)],
    ],
)
def test_masks_of_every_format_have_their_tight_box(mask):
    whole = np.ones((4, 5), dtype=bool)

    assert boxes_of_masks([whole, mask], SIZE).tolist() == [[0, 0, 5, 4], [2, 1, 4, 3]]


def test_no_masks_give_no_boxes():
    assert boxes_of_masks([], SIZE).shape == (0, 4)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 5)), "row 1: the mask is empty"),
        (np.ones((5, 4)), "the mask is 4 x 5 pixels, the image 5 x 4"),
        ({"size": [9, 9], "counts": [0, 81]}, "the mask is 9 x 9 pixels"),
        ({"counts": [0, 81]}, "row 1: RLE mask: expected size and counts"),
        ({"size": [4, 5]}, "row 1: RLE mask: expected size and counts"),
        ({"size": [4, 5], "counts": "5P"}, "row 1: RLE counts end within a number"),
        ([], "needs parts with x and y"),
        ([POLYGON, 7], "a list of polygons"),
        ([[1, 1, 10**400, 2]], "row 1: int too large"),
        (POLYGON, "a list of polygons; one polygon is a list of one"),
        (np.ones((4, 5, 3)), r"RLE, polygons or an array \(height, width\)"),
        ("mask.png", "expected"),
        (PIXELS * 0.9 + 0.05, "one value besides 0 in an array of float64, got values from 0.05"),
        (np.where(PIXELS, 4.0, -7.0), "compare probabilities with 0.5, logits with 0"),
        (np.full((4, 5), np.nan), "one value besides 0"),
        (list(np.ones((4, 6), bool)), "the mask is 6 x 4 pixels, the image 5 x 4"),
        (torch.ones(4, 5, device="meta"), "row 1: "),
    ],
)
def test_invalid_masks_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        boxes_of_masks([RUNS, mask], SIZE)


FINITE, PIXELS = "finite numbers", "expected polygons in pixels, got no number outside of 0 to 1"


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[0, 0, float("nan"), 5, 9, 9, 0, 9]], FINITE),
        ([[0, 0, 9, 0, 9, float("inf")]], FINITE),
        ([[0.2, 0.2, 0.8, 0.2, 0.8, 0.8]], PIXELS),  # YOLO's
        ([[0, 1, 1, 0]] * 3, PIXELS),  # rows of an array
        ([[False, True, True, False]] * 3, PIXELS),
    ],
)
def test_what_only_looks_like_polygons_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        boxes_of_masks([mask], (20, 10))


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


@pytest.mark.parametrize("counts", [[9, 2, 2, 2, 5], [0, 20], [3, 1, 0, 1, 15], [2, 18]])
def test_compressed_counts_are_read_as_pycocotools_writes_them(counts):
    written = coco_mask.frPyObjects({"size": [4, 5], "counts": counts}, 4, 5)["counts"]

    assert run_lengths(written, 20).tolist() == counts
    assert run_lengths(written.decode(), 20).tolist() == counts


def test_long_runs_are_read_as_written():
    pixels = np.zeros((900, 1100), dtype=bool)
    pixels[3:800, 7:1000] = True
    assert box_from_rle(packed(pixels)) == (7, 3, 1000, 800)


def test_run_across_two_columns_touches_top_and_bottom():
    # the last of column 1, the first of column 2
    assert box_from_rle({"size": [4, 5], "counts": [7, 2, 11]}) == (1, 0, 3, 4)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.999])
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (23, 31)])
def test_rle_box_equals_the_box_of_the_pixels(shape, share):
    generator = np.random.default_rng(0)
    pixels = generator.random(shape) < share
    pixels[generator.integers(shape[0]), generator.integers(shape[1])] = True
    columns, rows = pixels.any(axis=0).nonzero()[0], pixels.any(axis=1).nonzero()[0]

    box = box_from_rle(packed(pixels))

    assert box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def test_empty_rle_is_refused():
    with pytest.raises(ValueError, match="is empty"):
        box_from_rle({"size": [4, 5], "counts": [20]})


HUGE = [50_000, 50_000]
DAMAGED = {
    "too short": ([4, 5], [3, 2], "must add up to the 20 pixels of the mask, got 5 in 2 runs"),
    "more runs than pixels": ([4, 5], [0] * 1000, "1,000 are too many for 20 pixels"),
    "a text that is too long": ([4, 5], "0" * 1000, "1,000 are too many for 20 pixels"),
    "nothing": ([4, 5], [], "got 0 in 0 runs"),
    "empty bytes": ([4, 5], b"", "got 0 in 0 runs"),
    "another sum": ([4, 5], "zzz", "damaged at the character 'z'"),
    "not ASCII": ([4, 5], "5é", "damaged at the character 'é'"),
    "a lone surrogate": ([4, 5], "5\ud83d", "damaged at the character"),
    "cut off": ([4, 5], "5P", "end within a number: '5P'"),
    "a number without end": ([4, 5], "o" * 40 + "1", "damaged at the character 'o'"),
    "a negative run": ([4, 5], [-5, 25], "no negative run, got -5"),
    "a negative run, compressed": ([4, 5], "T1O", "no negative run, got -1"),
    "runs that wrap around": ([4, 5], [2**32 + 5, 15 - 2**32], "no negative run"),
    "a run of 71 bits": ([4, 5], [2**70, 1], "must add up"),
    "fractions": ([4, 5], [5.5, 14.5], "expected whole numbers"),
    "words": ([4, 5], ["5", "15"], "expected whole numbers"),
    "no counts": ([4, 5], None, "expected a text or a list, got NoneType"),
    "a number": ([4, 5], 20, "expected a text or a list, got int"),
    "a huge size": (HUGE, "05", "at most 178,000,000 pixels, got 50000 x 50000"),
    "a negative size": ([-4, -5], [20], r"expected \[height, width\]"),
    "a size of nothing": ([0, 5], [0], r"expected \[height, width\]"),
    "three sides": ([4, 5, 1], [20], r"expected \[height, width\]"),
    "one side": (20, [20], r"expected \[height, width\]"),
    "sides that are no numbers": (["4", "5"], [20], "size: expected whole numbers"),
}


@pytest.mark.parametrize("name", list(DAMAGED))
def test_damaged_masks_are_refused(name):
    # pycocotools 2.0.11 ends the process at some of these
    size, counts, message = DAMAGED[name]
    with pytest.raises(ValueError, match=rf"RLE .*{message}"):
        box_from_rle({"size": size, "counts": counts})


def test_numpy_integers_are_valid_counts():
    mask = {"size": np.array([4, 5]).tolist(), "counts": list(np.array(RUNS["counts"]))}
    assert box_from_rle(mask) == (2, 1, 4, 3)


def test_numpy_integers_of_eight_bits_do_not_overflow():
    # 20 x 20 pixels: their number and the sum of the runs, 400, are beyond 255.
    mask = {"size": list(np.uint8([20, 20])), "counts": list(np.uint8([200, 100, 100]))}
    assert box_from_rle(mask) == (10, 0, 15, 20)  # columns 10 to 14, whole


@pytest.mark.parametrize("function", [box_from_polygons, box_from_rle])
def test_unknown_rule_is_refused(function):
    with pytest.raises(ValueError, match="one of"):
        function([[0, 0, 1, 1]], "tight")


@pytest.fixture
def coco_objects(shared):
    path = shared / "fixtures/coco_ovad_e2e/annotations/instances_val2017.json"
    return json.loads(path.read_text(encoding="utf-8"))["annotations"]


def xyxy(rows):
    x, y, width, height = np.array([row["bbox"] for row in rows]).T
    return np.stack([x, y, x + width, y + height], axis=1)


def test_official_rule_gives_the_annotated_boxes_of_real_crowds(coco_objects):
    crowds = [row for row in coco_objects if row["iscrowd"]]

    found = np.array([box_from_rle(row["segmentation"], "official") for row in crowds])

    np.testing.assert_array_equal(found, xyxy(crowds))


def test_real_polygons_agree_with_the_annotated_boxes(coco_objects):
    objects = [row for row in coco_objects if not row["iscrowd"]]

    found = np.array([box_from_polygons(row["segmentation"]) for row in objects])

    np.testing.assert_allclose(found, xyxy(objects), atol=0.011)  # the file rounds to hundredths
