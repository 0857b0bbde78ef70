"""Answers of an evaluation: on disk while they are made, and graded later."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from lavis_dynrefer.cli import main
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.structures import RegionPrediction, RegionRecord, RegionSet
from lavis_dynrefer.training.answers.answer_files import (
    UNFINISHED,
    AnswerLog,
    find_answers,
    remove_unfinished,
    write_answers,
    write_result_json,
)
from lavis_dynrefer.training.answers.run_grading import grade_run

INFO = "datasets.custom_region.build_info"
BOX = (0.0, 0.0, 9.0, 9.0)
NAMES = ("dog", "cat")
REGIONS = RegionSet("toy-3", "val", {}, [RegionRecord(n, 7, BOX) for n in (1, 2, 3)])
FAILURE = {"region_id": 3, "reason": "unreadable_image", "detail": "image 7: cut off"}


def answer(region_id, first):
    scores = sorted(((name, 0.9 if name == first else 0.1) for name in NAMES), key=lambda x: -x[1])
    prediction = RegionPrediction(BOX, caption="a 狗", caption_score=0.1 + 0.2, categories=scores)
    return {"region_id": region_id, "prediction": prediction}


def ids(folder):
    return [
        (one.split, one.epoch, [row["region_id"] for row in one.read()])
        for one in find_answers(folder)
    ]


def test_answers_are_on_disk_after_each_batch(tmp_path):
    with AnswerLog(tmp_path, "val", 0, REGIONS) as log, AnswerLog(tmp_path, "val", 1, REGIONS):
        log.add([answer(2, "dog")])
        assert ids(tmp_path) == [("val", UNFINISHED, [2])]
        log.add([FAILURE, answer(1, "cat")])
        assert ids(tmp_path) == [("val", UNFINISHED, [1, 2, 3])]
    log.remove()
    assert ids(tmp_path) == [("val", UNFINISHED, [])]


def test_a_result_is_an_array_as_lavis_writes_it(tmp_path):
    write_result_json(tmp_path / "val_epoch0.json", [answer(2, "cat"), FAILURE], REGIONS)

    (row,) = json.loads((tmp_path / "val_epoch0.json").read_text(encoding="utf-8"))
    assert list(row) == [
        *("image_id", "region_id", "box", "caption", "caption_score", "categories", "scales")
    ]
    assert (row["image_id"], row["region_id"], row["caption"]) == (7, 2, "a 狗")
    assert row["categories"] == [["cat", 0.9], ["dog", 0.1]]
    assert find_answers(tmp_path) == []  # our own files are others


def test_the_line_that_a_kill_cut_off_is_left_out(tmp_path):
    with AnswerLog(tmp_path, "val", 0, REGIONS) as log:
        log.add([answer(1, "dog"), answer(2, "dog")])
    text = log.path.read_bytes()
    log.path.write_bytes(text[:-20])
    assert ids(tmp_path) == [("val", UNFINISHED, [1])]


def test_written_answers_are_read_as_they_were(tmp_path):
    rows = [answer(2, "cat"), FAILURE, answer(1, "dog")]
    write_answers(tmp_path / "a_b_epoch3.jsonl", rows, REGIONS)
    (found,) = find_answers(tmp_path)
    assert (found.split, found.epoch) == ("a_b", "3")
    read = found.read()
    assert [row["region_id"] for row in read] == [1, 2, 3]
    assert read[0]["prediction"].caption == "a 狗"
    assert read[0]["prediction"].caption_score == 0.1 + 0.2  # to the last digit
    assert read[2] == FAILURE


def test_a_damaged_line_of_complete_answers_is_named(tmp_path):
    path = tmp_path / "val_epoch0.jsonl"
    write_answers(path, [answer(1, "dog")], REGIONS)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"region_id": 2, "predict')
    with pytest.raises(InputError, match=r"val_epoch0\.jsonl, line 2: not an answer of a run"):
        find_answers(tmp_path)[0].read()


def test_parts_of_an_earlier_run_are_removed_by_split(tmp_path):
    for split, rank in (("val", 0), ("val", 3), ("val2", 0)):
        with AnswerLog(tmp_path, split, rank, REGIONS):
            pass
    write_answers(tmp_path / "val_epoch0.jsonl", [], REGIONS)

    remove_unfinished(tmp_path, "val")

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "val2_unfinished.rank0.jsonl",
        "val_epoch0.jsonl",
    ]


@pytest.fixture
def broken_run(tmp_path, monkeypatch):
    """The folder of a run killed while it named regions: right, wrong, none, a failed image."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40)).save("a.png")
    regions = [
        {"id": n, "image_id": 7, "bbox": [0, 0, 9 + n, 9], "category_id": 1 + n % 2}
        for n in (1, 2, 3, 4)  # cat, dog, cat, dog
    ]
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 40}],
        "annotations": regions,
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content), encoding="utf-8")
    info = {"root": str(tmp_path), "images": {"storage": "."}, "annotations": {"val": "val.json"}}
    processors = {"eval": {"name": "dynrefer_eval", "num_views": 2}}
    config = {
        "model": {"arch": "dynrefer", "model_type": "tiny"},
        "datasets": {
            "custom_region": {
                "data_type": "images",
                "type": "default",
                "vis_processor": processors,
                "build_info": info,
            }
        },
        "run": {"task": "dynrefer", "valid_splits": ["val"], "protocol_mode": "strict"},
    }
    (tmp_path / "run" / "result").mkdir(parents=True)
    first, second = ({**config, "seed": seed} for seed in (1, 2))  # resumed in place
    log = f'{json.dumps(first, indent=4)}\n{{"train_loss": 1}}\n{json.dumps(second, indent=4)}\n'
    (tmp_path / "run" / "log.txt").write_text(log, encoding="utf-8")
    with AnswerLog(tmp_path / "run" / "result", "val", 0, REGIONS) as log:
        log.add([answer(1, "cat"), answer(2, "cat")])
    with AnswerLog(tmp_path / "run" / "result", "val", 1, REGIONS) as log:
        log.add([FAILURE])
    return tmp_path / "run"


def test_answers_of_a_broken_run_are_graded(broken_run, capsys):
    assert main(["grade", str(broken_run)]) == 0

    assert "2 of 4 regions have no answer" in capsys.readouterr().out
    report = json.loads((broken_run / "report_val_epochunfinished.json").read_text("utf-8"))
    assert report["metrics"]["acc"] == 25.0
    assert report["counts"]["missing"] == 2
    assert report["failed"] == [FAILURE]


def test_only_what_has_no_report_is_graded_unless_a_split_is_named(broken_run):
    assert len(list(grade_run(broken_run))) == 1
    with pytest.raises(InputError, match=r"all answers have a report; name a split of \['val'\]"):
        list(grade_run(broken_run))
    assert len(list(grade_run(broken_run, split="val"))) == 1
    with pytest.raises(InputError, match="split: unknown 'vall'; did you mean val"):
        list(grade_run(broken_run, split="vall"))


def test_settings_that_differ_now_can_be_named(broken_run):
    (graded,) = grade_run(broken_run, options=["run.protocol_mode=official"])
    assert graded.report.mode == "official"
    with pytest.raises(ValueError, match=r"nowhere"):
        list(grade_run(broken_run, split="val", options=[f"{INFO}.root=/nowhere"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["."], "neither the folder of a run, which has a log.txt, nor one of synthetic scenes"),
        (["run", "--images", "3"], r"run is a folder of a run; leave out ['--images']"),
        (["scenes", "--options", "a.b=1"], "is a folder of synthetic scenes; leave out"),
        (["nowhere"], "nowhere is neither"),
    ],
)
def test_other_folders_and_arguments_are_refused(arguments, message, broken_run, capsys):
    (broken_run.parent / "scenes").mkdir()
    (broken_run.parent / "scenes" / "truth.jsonl").touch()
    assert main(["grade", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("{ cut", "the configuration is damaged"),
        ('{"run": {"task": "captioning"}, "datasets": {}}', "not a run of the task dynrefer"),
    ],
)
def test_a_log_of_something_else_is_refused(broken_run, log, message):
    (broken_run / "log.txt").write_text(log, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        list(grade_run(broken_run))
