"""Results as Label Studio's tasks, read with its own library where that is installed."""

from __future__ import annotations

import json

import pytest

from lavis_dynrefer.formats import ImageResult, label_config, to_label_studio, write_results
from lavis_dynrefer.structures import RegionPrediction


def parts(task, kind):
    return [part for part in task["predictions"][0]["result"] if part["type"] == kind]


def test_boxes_are_percentages_of_the_image(results):
    task = to_label_studio(results)[0]
    value = parts(task, "rectanglelabels")[0]["value"]
    assert value["rectanglelabels"] == ["flower"]
    shares = [value[key] for key in ("x", "y", "width", "height")]
    assert shares == pytest.approx([10, 25, 40, 75])


def test_a_box_ends_at_the_edge_of_the_image(results):
    value = parts(to_label_studio(results)[0], "rectanglelabels")[1]["value"]
    assert [value[key] for key in ("x", "y", "width", "height")] == [0, 0, 100, 50]


def test_words_belong_to_the_box_with_their_id(results):
    task = to_label_studio(results)[0]
    caption, tags = (part for part in parts(task, "textarea") if part["id"] == "region-7")
    assert caption["value"]["text"] == ['a "red", wet flower']
    assert tags["value"]["text"] == ["flower", "a;b"]
    assert parts(task, "choices")[0]["value"]["choices"] == ["color:red"]


def test_the_address_of_an_image_is_quoted(results):
    addresses = [task["data"]["image"] for task in to_label_studio(results, prefix="http://x/")]
    assert addresses[0] == "http://x/a%20b/%C3%BC%E2%80%A8%80.jpg"
    assert addresses[2] == "http://x/c.png"


def test_local_images_lie_in_a_folder_below_the_document_root(results):
    """Label Studio serves none that lies in the root itself."""
    addresses = [task["data"]["image"] for task in to_label_studio(results)]
    assert addresses[0] == "/data/local-files/?d=data/a%20b/%C3%BC.jpg"
    assert addresses[2] == "/data/local-files/?d=data/c.png"
    assert to_label_studio(results[:1])[0]["data"]["image"].endswith("?d=a%20b/%C3%BC.jpg")


def test_one_attribute_alone_is_chosen_from_a_half_on():
    regions = [
        RegionPrediction(box=(0.0, 0.0, 5.0, 5.0), attributes=(("wet", score),))
        for score in (0.5, 0.4)
    ]
    (task,) = to_label_studio([ImageResult("a.jpg", "/a.jpg", 9, 9, tuple(regions))])
    assert [part["id"] for part in parts(task, "choices")] == ["region-1"]


def test_without_categories_there_is_one_label():
    region = RegionPrediction(box=(0.0, 0.0, 5.0, 5.0), caption="a <b> & 'c'", caption_score=1.0)
    results = [ImageResult("a.jpg", "/a.jpg", 9, 9, (region,))]
    (rectangle,) = parts(to_label_studio(results)[0], "rectanglelabels")
    assert rectangle["value"]["rectanglelabels"] == ["region"]
    assert '<Label value="region" />' in label_config(results)
    assert "Choices" not in label_config(results)


def test_label_studio_accepts_tasks_and_set_up(results, tmp_path):
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
