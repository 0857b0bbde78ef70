"""Results as Label Studio's tasks, read with its own library if it is installed."""

from __future__ import annotations

import json

import pytest

from lavis_dynrefer.formats import ImageResult, write_results
from lavis_dynrefer.structures import RegionPrediction


@pytest.fixture
def written(tmp_path):
    """Write results; returns the tasks and the labeling setup."""

    def write(results):
        tasks, setup = write_results(results, tmp_path, ["label-studio"])
        return json.loads(tasks.read_text(encoding="utf-8")), setup.read_text(encoding="utf-8")

    return write


def parts(task, kind):
    return [part for part in task["predictions"][0]["result"] if part["type"] == kind]


def test_boxes_are_in_percent_and_clipped_to_the_image(results, written):
    tasks, _ = written(results)
    values = [part["value"] for part in parts(tasks[0], "rectanglelabels")]
    assert values[0]["rectanglelabels"] == ["flower"]
    boxes = [[value[key] for key in ("x", "y", "width", "height")] for value in values]
    assert boxes == [pytest.approx([10, 25, 40, 75]), [0, 0, 100, 50]]


def test_words_carry_the_id_of_their_box(results, written):
    tasks, _ = written(results)
    caption, tags = (part for part in parts(tasks[0], "textarea") if part["id"] == "region-7")
    assert caption["value"]["text"] == ['a "red", wet flower']
    assert tags["value"]["text"] == ["flower", "a;b"]
    assert parts(tasks[0], "choices")[0]["value"]["choices"] == ["color:red"]


def test_images_lie_in_a_folder_below_the_document_root(results, written):
    """Label Studio does not serve images from the root itself."""
    addresses = [task["data"]["image"] for task in written(results)[0]]
    assert addresses[0] == "/data/local-files/?d=data/a%20b/%C3%BC.jpg"
    assert addresses[2] == "/data/local-files/?d=data/c.png"
    (alone,) = written(results[:1])[0]
    assert alone["data"]["image"].endswith("?d=a%20b/%C3%BC.jpg")


def test_bytes_of_a_path_that_are_not_utf8_are_quoted(written):
    (task,) = written([ImageResult("a.jpg", "/data/\udc80.jpg", 9, 9, ())])[0]
    assert task["data"]["image"].endswith("?d=data/%80.jpg")


def test_a_single_attribute_is_chosen_from_a_half_on(written):
    regions = [
        RegionPrediction(box=(0.0, 0.0, 5.0, 5.0), attributes=(("wet", score),))
        for score in (0.5, 0.4)
    ]
    (task,), _ = written([ImageResult("a.jpg", "/a.jpg", 9, 9, tuple(regions))])
    assert [part["id"] for part in parts(task, "choices")] == ["region-1"]


def test_without_categories_there_is_one_label(written):
    region = RegionPrediction(box=(0.0, 0.0, 5.0, 5.0), caption="a <b> & 'c'", caption_score=1.0)
    (task,), setup = written([ImageResult("a.jpg", "/a.jpg", 9, 9, (region,))])
    (rectangle,) = parts(task, "rectanglelabels")
    assert rectangle["value"]["rectanglelabels"] == ["region"]
    assert '<Label value="region" />' in setup
    assert "Choices" not in setup


def test_label_studio_accepts_tasks_and_setup(results, tmp_path):
    interface = pytest.importorskip(
        "label_studio_sdk.label_interface", reason="Label Studio's library is not installed"
    )
    tasks_path, config_path = write_results(results, tmp_path, ["label-studio"])
    checker = interface.LabelInterface(config_path.read_text(encoding="utf-8"))
    checker.validate()
    predictions = [
        prediction
        for task in json.loads(tasks_path.read_text(encoding="utf-8"))
        for prediction in task["predictions"]
    ]
    problems = [checker.validate_prediction(row, return_errors=True) for row in predictions]
    assert problems == [[], [], []]


def test_label_studio_exports_the_same_boxes_as_coco(results, tmp_path):
    sdk = pytest.importorskip(
        "label_studio_sdk.converter", reason="Label Studio's library is not installed"
    )
    tasks_path, config_path = write_results([results[0]], tmp_path, ["label-studio"])
    tasks = json.loads(tasks_path.read_text(encoding="utf-8"))
    for number, task in enumerate(tasks, start=1):  # as when a person submits the prediction
        task.update(id=number, annotations=task.pop("predictions"))
        task["annotations"][0].update(id=number, completed_by={"id": 1})
    (tmp_path / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    config = config_path.read_text(encoding="utf-8")
    sdk.Converter(config, str(tmp_path), download_resources=False).convert_to_coco(
        str(tmp_path / "export.json"), str(tmp_path / "out"), is_dir=False
    )
    exported = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    boxes = [row["bbox"] for row in exported["annotations"]]
    assert boxes == [pytest.approx([10, 20, 40, 60]), pytest.approx([0, 0, 100, 40])]
