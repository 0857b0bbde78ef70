"""Batches in every form have exactly the answers of single calls; a bad row has an error."""

from __future__ import annotations

import io
import json
import pickle
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
from noise_rows import QUESTIONS, SIZE
from PIL import Image

from lavis_dynrefer.bulk import ANSWER_SCHEMA, BulkPredictor, answer_schema, read_regions
from lavis_dynrefer.errors import InputError

BOXES = pa.list_(pa.list_(pa.float64()))


@pytest.fixture
def table(files, boxes):
    return pa.table({"id": ["a", "b", "c"], "image": files, "boxes": pa.array(boxes, BOXES)})


def regions_of(column):
    return [read_regions(value) for value in column]


def test_arrow_in_arrow_out_with_the_fixed_schema(bulk, table, expected):
    answered = bulk(table)

    assert regions_of(answered.column("regions").to_pylist()) == expected
    assert answered.schema == answer_schema(table.schema, without=["image"])
    assert answered.column("id").to_pylist() == ["a", "b", "c"]
    assert answered.column("image_width").to_pylist() == [SIZE[0]] * 3
    assert answered.column("image_height").to_pylist() == [SIZE[1]] * 3
    assert answered.column("error").null_count == 3


def test_pandas_in_pandas_out(bulk, table, expected):
    pd = pytest.importorskip("pandas", reason="needs pandas")
    frame = table.to_pandas()
    frame.index = [7, 8, 9]

    answered = bulk(frame)

    assert isinstance(answered, pd.DataFrame)
    assert list(answered.index) == [7, 8, 9]
    assert list(answered.columns) == ["id", "boxes", *ANSWER_SCHEMA.names]
    assert regions_of(answered["regions"]) == expected


def test_arrays_in_arrays_out(bulk, files, boxes, expected):
    images = np.array(files, dtype=object)

    answered = bulk({"image": images, "boxes": np.array([*boxes, None], dtype=object)[:3]})

    assert isinstance(answered["regions"], np.ndarray)
    assert regions_of(answered["regions"]) == expected


def test_lists_in_lists_out_with_opened_images(bulk, files, boxes, expected):
    images = [Image.open(io.BytesIO(data)) for data in files]

    answered = bulk({"image": images, "boxes": boxes})

    assert isinstance(answered["regions"], list)
    assert regions_of(answered["regions"]) == expected


def test_structs_paths_and_addresses_of_files_are_images_too(
    bulk, files, boxes, expected, tmp_path
):
    (tmp_path / "c d.png").write_bytes(files[2])
    (tmp_path / "b.png").write_bytes(files[1])
    cells = [
        {"bytes": files[0], "path": None},
        {"bytes": None, "path": str(tmp_path / "b.png")},
        {"bytes": None, "path": (tmp_path / "c d.png").as_uri()},
    ]

    answered = bulk({"image": cells, "boxes": boxes})

    assert answered["error"] == [None] * 3
    assert regions_of(answered["regions"]) == expected


def test_relative_paths_begin_at_the_root_and_pass_through(files, boxes, expected, tmp_path):
    (tmp_path / "a.png").write_bytes(files[0])
    rooted = BulkPredictor(QUESTIONS, device="cpu", root=str(tmp_path))

    answered = rooted({"path": ["a.png"], "boxes": boxes[:1]})

    assert regions_of(answered["regions"]) == expected[:1]
    assert answered["path"] == ["a.png"]
    lost = BulkPredictor(QUESTIONS, device="cpu")({"path": ["a.png"], "boxes": boxes[:1]})
    assert "a relative path" in lost["error"][0]


BAD = [  # image, boxes, size that they were drawn on -> kind, and what the error says
    (None, [[0, 0, 9, 9]], None, "image", "null"),
    (b"no image", [[0, 0, 9, 9]], None, "image", "8 bytes that are no known image file"),
    (b"", [[0, 0, 9, 9]], None, "image", "cannot read image: 0 bytes"),
    ("", [[0, 0, 9, 9]], None, "image", "the path is empty"),
    ("/nowhere/a.png", [[0, 0, 9, 9]], None, "image", "no image /nowhere/a.png"),
    ("nope://a/b.png", [[0, 0, 9, 9]], None, "image", "nope://a/b.png"),
    (..., None, None, "boxes", "an image without regions has an empty list"),
    (..., [[0, 0, 9]], None, "boxes", "expected shape"),
    (..., [[50, 50, 60, 60]], None, "boxes", "no part inside the 40 x 30 image"),
    (..., [[0.1, 0.1, 0.5, 0.5]], None, "boxes", "normalised=True"),
    (..., "[[0, 0, 9, 9]]", None, "boxes", "expected rows of 4 numbers"),
    (..., 7, None, "boxes", "expected shape"),
    (..., [[[0, 0, 9, 9]]], None, "boxes", "expected shape"),
    (..., [[None, 0, 9, 9]], None, "boxes", "not finite"),
    (..., [[0, 0, 9, 9]], [80, 60], "boxes", "80 x 60"),
    (..., [[0, 0, 9, 9]], "80x60", "boxes", "image_size: expected width and height"),
    (..., [[0, 0, 9, 9]], [None, None], "boxes", "image_size: expected width and height"),
]


def test_bad_rows_have_errors_and_the_others_their_answers(bulk, files, boxes, expected):
    rows = [(files[0], boxes[0], [40, 30], None, None)]
    for image, of_image, size, kind, text in BAD:
        rows.append((files[1] if image is ... else image, of_image, size, kind, text))
    rows.append((files[2], boxes[2], None, None, None))
    images, all_boxes, sizes, kinds, texts = zip(*rows)

    answered = bulk({"image": images, "boxes": all_boxes, "image_size": sizes})

    assert answered["error_kind"] == list(kinds)
    for error, text in zip(answered["error"], texts):
        assert (error is None) == (text is None)
        assert text is None or text in error
    assert regions_of(answered["regions"])[0] == expected[0]
    assert regions_of(answered["regions"])[-1] == expected[2]
    assert all(regions == [] for regions in answered["regions"][1:-1])


def test_a_failure_of_the_model_is_the_error_of_its_row(bulk, files, boxes, expected, monkeypatch):
    predictor = bulk.predictor()
    whole = predictor.answerer.answer_in_parts

    def too_large(sample, *arguments):
        if len(sample["views"]) == 2:  # the regions of the last row
            raise MemoryError("out of memory")
        return whole(sample, *arguments)

    monkeypatch.setattr(predictor.answerer, "answer_in_parts", too_large)

    answered = bulk({"image": [*files, files[0]], "boxes": [*boxes, boxes[0]]})

    assert answered["error_kind"] == [None, None, "answer", None]
    assert regions_of(answered["regions"]) == [*expected[:2], [], expected[0]]


def test_a_lost_gpu_ends_the_batch(bulk, files, boxes, monkeypatch):
    def lost(*arguments):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(bulk.predictor().answerer, "answer_in_parts", lost)

    with pytest.raises(RuntimeError, match="device-side assert"):
        bulk({"image": files, "boxes": boxes})


def test_scores_that_are_not_finite_are_an_error(bulk, files, boxes, monkeypatch):
    predictor = bulk.predictor()
    whole = predictor.answerer.decode

    def broken(queries, questions):
        answers = whole(queries, questions)
        return {**answers, "categories": [(("circle", float("nan")),)] * len(answers["tags"])}

    monkeypatch.setattr(predictor.answerer, "decode", broken)

    answered = bulk({"image": files[:1], "boxes": boxes[:1]})

    assert answered["error_kind"] == ["answer"]
    assert "not finite" in answered["error"][0]


def test_chunks_of_several_images_answer_alike(files, boxes, expected):
    together = BulkPredictor(QUESTIONS, device="cpu", across_images=True)

    answered = together({"image": files, "boxes": boxes})

    found = regions_of(answered["regions"])
    assert [len(regions) for regions in found] == [1, 0, 2]
    for one, other in zip(chain(*found), chain(*expected)):
        assert dict(one.categories) == pytest.approx(dict(other.categories), abs=1e-4)


def test_whole_image_needs_no_boxes(files, expected):
    whole = BulkPredictor(QUESTIONS, device="cpu", whole_image=True)

    (regions,) = regions_of(whole({"image": files[:1]})["regions"])

    assert [region.box for region in regions] == [(0, 0, *SIZE)]


def test_boxes_in_other_formats(files, expected):
    other = BulkPredictor(QUESTIONS, device="cpu", format="xywh", normalised=True)
    box = [1 / 40, 2 / 30, 29 / 40, 18 / 30]

    (regions,) = regions_of(other({"image": files[:1], "boxes": [[box]]})["regions"])

    assert regions[0].box == pytest.approx((1, 2, 30, 20))


def test_calls_that_cannot_work_are_refused(bulk, table):
    with pytest.raises(InputError, match="expected a column of images image or bytes"):
        bulk(table.drop_columns("image"))
    with pytest.raises(InputError, match="expected a column 'boxes'"):
        bulk(table.drop_columns("boxes"))
    with pytest.raises(InputError, match=r"\['error'\], the names of answers"):
        bulk(table.append_column("error", [["x", "y", "z"]]))
    with pytest.raises(InputError, match="several columns are called 'id'"):
        bulk(table.append_column("id", table.column("id")))
    with pytest.raises(InputError, match="got 2 images, 1 lists of boxes"):
        bulk({"image": [b"", b""], "boxes": [[]]})
    with pytest.raises(InputError, match="expected a pyarrow table"):
        bulk([1, 2])
    with pytest.raises(InputError, match="random views differ"):
        BulkPredictor({"views": "random"})
    with pytest.raises(InputError, match="unknown question 'task'"):
        BulkPredictor({"task": ["caption"]})


def test_it_is_pickled_as_its_settings_and_processes_load_one_model(bulk):
    bulk.predictor()

    copy = pickle.loads(pickle.dumps(bulk))

    assert copy == bulk
    assert copy.predictor() is bulk.predictor()
    assert len(pickle.dumps(bulk)) < 5000


def test_all_tasks_survive_the_schema(files, boxes):
    asking = BulkPredictor({"attributes": ["red", "wet"]}, device="cpu")
    predictor = asking.predictor()

    (regions,) = regions_of(asking({"image": files[:1], "boxes": boxes[:1]})["regions"])

    (whole,) = predictor.predict(
        Image.open(io.BytesIO(files[0])), boxes[0], questions=asking.questions
    )
    assert regions == [whole]
    assert whole.caption is not None
    stored = pa.array([[{"box": whole.box, "scales": {}}]], ANSWER_SCHEMA.field("regions").type)
    assert stored[0][0]["box"].as_py() == list(whole.box)


POLYGON = [[5.0, 5.0, 20.0, 5.0, 5.0, 30.0]]


@pytest.mark.parametrize("form", ["lists", "json"])
def test_a_column_of_masks_goes_with_the_boxes_or_instead_of_them(files, form):
    bulk = BulkPredictor(QUESTIONS, device="cpu", masks="outlines")
    masks = [[None, POLYGON], [POLYGON], None]
    if form == "json":
        masks = [of_row and [mask and json.dumps(mask) for mask in of_row] for of_row in masks]
    boxes = [[[0, 0, 9, 9], [5, 5, 40, 30]], None, [[1, 2, 30, 20]]]

    answered = bulk({"image": files, "boxes": boxes, "outlines": masks})

    images = [Image.open(io.BytesIO(data)) for data in files]
    predictor = bulk.predictor()
    assert answered["error"] == [None] * 3
    assert regions_of(answered["regions"]) == [
        predictor.predict(images[0], boxes[0], masks=[None, POLYGON], questions=QUESTIONS),
        predictor.predict(images[1], masks=[POLYGON], questions=QUESTIONS),
        predictor.predict(images[2], boxes[2], questions=QUESTIONS),
    ]


def test_a_mask_may_be_an_array_of_pixels(files):
    bulk = BulkPredictor(QUESTIONS, device="cpu", masks="outlines")
    pixels = np.zeros(SIZE[::-1], dtype=np.uint8)
    pixels[10:20, 20:30] = 1

    answered = bulk({"image": files[:1], "boxes": [None], "outlines": [[pixels]]})

    ((region,),) = regions_of(answered["regions"])
    assert (answered["error"], region.box) == ([None], (20, 10, 30, 20))


def test_masks_that_cannot_be_used_are_errors_of_their_row(files):
    bulk = BulkPredictor(QUESTIONS, device="cpu", masks="outlines")
    boxes = [[[30, 20, 40, 30]], [[1, 2, 30, 20]], [[1, 2, 30, 20]]]
    masks = [[[[0, 0, 9, 0, 9, 9]]], ["[[1,"], [POLYGON, POLYGON]]

    answered = bulk({"image": files, "boxes": boxes, "outlines": masks})

    messages = ["no part of the mask", "polygons as json, got '[[1,'", "of 1 boxes, got 2"]
    assert all(part in found for part, found in zip(messages, answered["error"]))
    assert answered["error_kind"] == ["boxes"] * 3
    with pytest.raises(InputError, match="expected a column 'outlines' of masks"):
        bulk({"image": files, "boxes": boxes})
