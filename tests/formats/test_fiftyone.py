"""Results as FiftyOne's folder of detections, read with its own importer if it is installed."""

from __future__ import annotations

import json

import pytest

from lavis_dynrefer.formats import write_results


@pytest.fixture
def files(results, tmp_path):
    """File name -> content."""
    paths = write_results(results, tmp_path, ["fiftyone"])
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def test_boxes_are_fractions_of_the_image(files):
    flower, tree = files["labels.json"]["labels"]["000000001"]
    assert flower["bounding_box"] == pytest.approx([0.1, 0.25, 0.4, 0.75])
    assert tree["bounding_box"] == [0.0, 0.0, 1.0, 0.5]
    assert flower["label"] == "flower"
    assert flower["confidence"] == pytest.approx(0.99330715)


def test_answers_are_attributes_of_a_detection(files):
    flower, _ = files["labels.json"]["labels"]["000000001"]
    assert flower["attributes"] == {
        "region_id": "7",
        "caption": 'a "red", wet flower',
        "caption_score": 0.25,
        "region_tags": ["flower", "a;b"],
        "region_attributes": ["color:red"],
    }


def test_every_image_has_its_own_key_and_path(files):
    assert list(files["labels.json"]["labels"]) == list(files["data.json"])
    assert files["data.json"]["000000003"] == "/data/c.png"


def test_fiftyones_importer_reads_the_folder(results, tmp_path):
    fiftyone = pytest.importorskip("fiftyone", reason="FiftyOne is not installed")
    from fiftyone.utils.data.importers import FiftyOneImageDetectionDatasetImporter

    write_results(results, tmp_path, ["fiftyone"])
    importer = FiftyOneImageDetectionDatasetImporter(
        dataset_dir=str(tmp_path / "fiftyone"), data_path="data.json"
    )
    importer.setup()
    samples = {path: label for path, _, label in importer}
    assert set(samples) == {result.path for result in results}
    assert all(isinstance(label, fiftyone.Detections) for label in samples.values())
    tree = samples["/data/c.png"].detections[0]
    assert (tree.label, tree.caption, tree.region_id) == ("tree", "a tree", "9")
    assert tree.bounding_box == [0.0, 0.0, 0.5, 0.4]
    assert samples["/data/empty.png"].detections == []
