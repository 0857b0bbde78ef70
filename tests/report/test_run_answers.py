"""Answers beside the annotations, which are read again by the configuration of the run."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf
from PIL import Image

from lavis_dynrefer.datasets.dataset_catalog import SOURCES
from lavis_dynrefer.errors import DynReferError
from lavis_dynrefer.report.run_answers import read_answers
from lavis_dynrefer.report.run_folder import read_run
from lavis_dynrefer.structures import RegionPrediction, RegionRecord, RegionSet
from lavis_dynrefer.training.answers.answer_files import AnswerLog, write_answers

BOX = (0.0, 0.0, 9.0, 9.0)
REGIONS = RegionSet("toy", "val", {}, [RegionRecord(number, 7, BOX) for number in (1, 2, 3)])


def answer(region_id, first):
    scores = tuple((name, 0.9 if name == first else 0.1) for name in sorted(("cat", "dog")))
    return {"region_id": region_id, "prediction": RegionPrediction(BOX, categories=scores)}


@pytest.fixture
def run_folder(tmp_path):
    """A run that named three regions: a dog, then cats; the third has no answer."""
    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (40, 40)).save(data / "a.png")
    content = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "annotations": [
            {"id": number, "image_id": 7, "bbox": [0, 0, 9, 9], "category_id": category}
            for number, category in ((1, 1), (2, 1), (3, 2))
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    (data / "val.json").write_text(json.dumps(content), encoding="utf-8")
    info = {"root": str(data), "images": {"storage": "."}, "annotations": {"val": "val.json"}}
    section = {"data_type": "images", "type": "default", "build_info": info}
    SOURCES["custom_region"](OmegaConf.create(section)).read_splits()  # as the run did
    config = {
        "run": {"task": "dynrefer", "evaluate": True, "valid_splits": ["val"]},
        "datasets": {"custom_region": section},
    }
    result = tmp_path / "run" / "result"
    result.mkdir(parents=True)
    (tmp_path / "run" / "log.txt").write_text(f"{json.dumps(config, indent=4)}\n", encoding="utf-8")
    write_answers(result / "val_epochevaluate.jsonl", [answer(1, "dog"), answer(2, "cat")], REGIONS)
    return tmp_path / "run"


def test_the_annotations_of_a_run_are_found_by_its_configuration(run_folder):
    confusions = read_answers(read_run(run_folder), "val").confusions

    assert confusions.names == ["dog", "cat"]
    assert confusions.counts.tolist() == [[1, 1, 0], [0, 0, 1]]
    assert confusions.examples["dog", "cat"][0].image.endswith("a.png")


def test_finished_answers_are_preferred_to_those_under_way(run_folder):
    with AnswerLog(run_folder / "result", "val", 0, REGIONS) as log:
        log.add([answer(1, "cat")])

    assert read_run(run_folder).answers["val"].epoch == "evaluate"


def test_answers_without_a_report_say_how_to_grade_them(run_folder):
    (missing,) = read_run(run_folder).missing

    assert missing == f"Split val has answers but no report; dynrefer grade {run_folder} writes it."


def test_annotations_that_have_moved_are_named_by_an_option(run_folder):
    moved = run_folder.with_name("moved")
    run_folder.with_name("data").rename(moved)
    root = "datasets.custom_region.build_info.root="
    run = read_run(run_folder)

    found = read_answers(run, "val", [f"{root}{moved}"])
    assert found.confusions.counts.tolist() == [[1, 1, 0], [0, 0, 1]]
    with pytest.raises(DynReferError, match=r"val\.json"):
        read_answers(run, "val", [f"{root}{run_folder}"])
