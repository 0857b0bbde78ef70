"""Rows of results: columns of one type, old rows, and damaged ones."""

from __future__ import annotations

import copy
import io
import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats import ImageResult, ResultLog, read_box_file, read_results
from lavis_dynrefer.formats.image_result import Category
from lavis_dynrefer.formats.result_parts.result_rows import from_row, to_row
from lavis_dynrefer.structures import RegionPrediction, ScoredName

REGION = {
    "id": 1,
    "box": [1.0, 2.0, 3.0, 4.0],
    "caption": "a dog",
    "caption_score": 0.5,
    "tags": [{"name": "dog", "score": 0.9}],
    "attributes": [],
    "categories": [{"name": "dog", "score": -1.5}, {"name": "cat", "score": -2.0}],
    "scales": {"caption": [0.0, 1.0]},
    "category": {"id": 3, "name": "dog"},
    "polygons": [[1.0, 2.0, 3.0, 2.0, 3.0, 4.0]],
    "rle": None,
}
ROW = {
    "image": "a.jpg",
    "path": "/data/a.jpg",
    "width": 30,
    "height": 20,
    "image_id": 8,
    "regions": [REGION, {**REGION, "id": 2, "polygons": None, "category": None}],
}


@pytest.fixture
def marked(results):
    """The results, with categories and masks of both kinds."""
    first, *others = results
    polygons, rle = [[1.0, 2.0, 3.0, 2.0, 3.0, 4.0]], {"size": [80, 100], "counts": "12mi7"}
    own = ImageResult(
        "d.png",
        "/d.png",
        100,
        80,
        first.regions,
        ("x", "y"),
        categories=(Category(0, "ü"), None),
        masks=(polygons, rle),
    )
    return [first, *others, own]


def test_rows_come_back(marked):
    assert [from_row(json.loads(json.dumps(to_row(result)))) for result in marked] == marked


def test_scores_have_names(results):
    region = to_row(results[0])["regions"][0]
    assert region["categories"][0] == {"name": "flower", "probability": None, "score": 2.0}
    assert RegionPrediction.from_dict(region) == results[0].regions[0]


def test_probabilities_and_familiarity_come_back():
    dog = ScoredName("dog", 2.0, 0.75)
    region = RegionPrediction((0.0, 0.0, 9.0, 9.0), categories=(dog,), familiarity=0.5)
    row = json.loads(json.dumps(to_row(ImageResult("a.png", "/a.png", 9, 9, (region,)))))
    (back,) = from_row(row).regions

    assert row["regions"][0]["categories"] == [{"name": "dog", "probability": 0.75, "score": 2.0}]
    assert row["regions"][0]["none_of_these"] == 0.25
    assert (back.categories[0].probability, back.familiarity) == (0.75, 0.5)
    assert RegionPrediction.from_dict(row["regions"][0]).categories[0].probability == 0.75


def test_rows_of_earlier_versions_have_neither(results):
    row = to_row(results[0])
    for region in row["regions"]:
        del region["familiarity"], region["none_of_these"]
        for key in ("tags", "attributes", "categories"):
            for pair in region[key]:
                del pair["probability"]

    assert from_row(json.loads(json.dumps(row))) == results[0]


def test_a_probability_that_is_no_number_is_refused(results):
    row = to_row(results[0])
    row["regions"][0]["categories"][0]["probability"] = "high"

    with pytest.raises(InputError, match="categories"):
        from_row(row)


def test_old_rows_hold_lists_of_name_and_score(results):
    row = to_row(results[0])
    for region in row["regions"]:
        for key in ("tags", "attributes", "categories"):
            region[key] = [[pair["name"], pair["score"]] for pair in region[key]]
    row["picture"] = row.pop("image")
    assert from_row(row) == results[0]


def test_arrow_reads_the_rows(marked):
    arrow = pytest.importorskip("pyarrow.json")
    whole = [result for result in marked if "\udc80" not in result.image]  # no other tool takes it
    numbered = [ImageResult(**{**vars(result), "ids": ()}) for result in whole]
    lines = "".join(json.dumps(to_row(result)) + "\n" for result in numbered)

    table = arrow.read_json(io.BytesIO(lines.encode()))

    assert table.num_rows == len(whole)
    assert [from_row(_without_nulls(row)) for row in table.to_pylist()] == numbered


def _without_nulls(row):
    """Arrow gives every row the keys of all."""
    for region in row["regions"]:
        region["scales"] = {task: scales for task, scales in region["scales"].items() if scales}
    return row


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image", None, "expected a row of dynrefer predict with image and regions"),
        ("path", 3, "path: unexpected value 3"),
        ("width", 0, "width: unexpected value 0"),
        ("height", True, "height: unexpected value true"),
        ("image_id", "8", 'image_id: unexpected value "8"'),
        ("regions", [3], r"regions\[0\]: expected an object, got 3"),
        ("box", [1, 2, 3], r"regions\[0\]\.box: unexpected value \[1"),
        ("box", [1, 2, 3, float("nan")], r"regions\[0\]\.box: unexpected value NaN"),
        ("caption_score", float("inf"), r"regions\[0\]\.caption_score: unexpected value Infinity"),
        ("tags", [["dog", "0.5"]], r'regions\[0\]\.tags: unexpected value "0\.5"'),
        ("scales", {"caption": None}, r"regions\[0\]\.scales: unexpected value null"),
        ("id", 1.5, r"regions\[0\]\.id: unexpected value 1\.5"),
        ("category", {"id": 3}, r"regions\[0\]\.category\.name is missing"),
        ("polygons", [[1, 2, 3]], r"regions\[0\]\.segmentation: expected x and y"),
    ],
)
def test_an_error_names_the_field(key, value, message):
    row = copy.deepcopy(ROW)
    (row if key in row else row["regions"][0])[key] = value
    with pytest.raises(InputError, match=message):
        from_row(row)


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([1e308, -1, 0, "\udcff"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def places(value, path=()):
    """Paths of all values inside a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in inside:
        yield (*path, key)
        if isinstance(child, (dict, list)):
            yield from places(child, (*path, key))


@settings(max_examples=60, deadline=None)
@given(place=st.sampled_from(list(places(ROW))), junk=JUNK, remove=st.booleans())
def test_a_damaged_field_is_read_or_refused(place, junk, remove):
    row = copy.deepcopy(ROW)
    parent = row
    for key in place[:-1]:
        parent = parent[key]
    if remove:
        del parent[place[-1]]
    else:
        parent[place[-1]] = junk
    with suppress(InputError):
        result = from_row(row)
        assert from_row(json.loads(json.dumps(to_row(result), allow_nan=False))) == result


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_cut_or_damaged_log_loses_no_good_row(tmp_path_factory, data):
    rows = [json.dumps({**ROW, "image": f"{number}.jpg"}).encode() for number in range(4)]
    whole = b"\n".join(rows) + b"\n"
    path = tmp_path_factory.getbasetemp() / "damaged.jsonl"
    cut = data.draw(st.integers(0, len(whole)))
    junk = data.draw(st.binary(max_size=20))
    damaged = whole[:cut] + (junk if data.draw(st.booleans()) else b"")
    path.write_bytes(damaged)
    good = [f"{number}.jpg" for number in range(whole[:cut].count(b"\n"))]
    try:
        log = ResultLog(path)
    except InputError:
        assert path.read_bytes() == damaged  # the user can remove the line that it names
        return
    names = [result.image for result in log]
    assert names[: len(good)] == good
    assert path.read_bytes().endswith(b"\n") or not names
    assert [result.image for result in read_results(path)] == names
    if names:
        assert list(read_box_file(path).images) == names
