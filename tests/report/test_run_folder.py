"""What is read from the folder of a run, whole, broken and foreign."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.report.run_comparison import differing_settings, metric_table
from lavis_dynrefer.report.run_folder import differing_parts, read_run, read_runs
from lavis_dynrefer.training.answers.run_log import logged_epochs

CONFIG = {
    "run": {"task": "dynrefer", "evaluate": False, "max_epoch": 2, "valid_splits": ["val"]},
    "model": {"arch": "dynrefer", "model_type": "tiny"},
    "datasets": {"x": {"build_info": {}}},
}
LINES = (
    {"train_epoch": 0, "train_lr": "0.1", "train_loss": "3.5"},
    {"val_epoch": 0, "val_agg_metrics": 40.0, "val_acc": 40.0, "val_best_epoch": 0},
    {"train_epoch": 1, "train_lr": "0.1", "train_loss": "2.5"},
    {"val_epoch": 1, "val_agg_metrics": 30.0, "val_acc": 30.0, "val_best_epoch": 0},
)
STEPS = (
    {"step": 1, "epoch": 0, "scalars": {"loss": 4.0, "lr": 0.1, "skipped_steps": 1}},
    {"step": 5, "epoch": 0, "scalars": {"train_loss": 3.5}},
    {"step": 9, "epoch": 1, "scalars": {"loss": 2.0, "lr": 0.1, "skipped_steps": 2}},
    {"step": 10, "epoch": 1, "scalars": {"train_loss": 2.5}},
)


def write_run(folder, *, config=CONFIG, lines=LINES, steps=STEPS, acc=30.0):
    (folder / "result").mkdir(parents=True)
    log = [json.dumps(config, indent=4), *map(json.dumps, lines)]
    (folder / "log.txt").write_text("\n".join([*log, ""]), encoding="utf-8")
    if steps:
        text = "".join(f"{json.dumps(row)}\n" for row in steps)
        (folder / "scalars.jsonl").write_text(text, encoding="utf-8")
    report = {
        **{"split": "val", "epoch": 1, "dataset": "x", "evaluator": "categories"},
        **{"protocol": "x-9", "mode": "strict", "primary": "acc"},
        **{"metrics": {"acc": acc, "acc_official": 29.0}, "counts": {"regions": 9}},
    }
    (folder / "report_val_epoch1.json").write_text(json.dumps(report), encoding="utf-8")
    return folder


def with_run(**changes):
    return {**CONFIG, "run": {**CONFIG["run"], **changes}}


def test_a_whole_run_lacks_nothing(tmp_path):
    run = read_run(write_run(tmp_path / "job"))

    assert run.missing == []
    assert [row["loss"] for row in run.epochs["train"]] == [3.5, 2.5]
    assert [row["acc"] for row in run.evaluations("val")] == [40.0, 30.0]
    assert run.reports["val"][-1]["metrics"]["acc"] == 30.0


def test_a_run_that_is_still_going_says_how_far_it_has_come(tmp_path):
    run = read_run(write_run(tmp_path / "job", lines=LINES[:1], steps=()))

    assert run.missing[0].startswith("1 of 2 epochs are finished: the run is still going, or broke")
    assert run.missing[1].startswith("No scalars.jsonl")


def test_damaged_files_are_named_and_the_rest_is_read(tmp_path):
    folder = write_run(tmp_path / "job")
    (folder / "report_val_epoch1.json").write_text('{"split": "val"', encoding="utf-8")
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        log.write('{"val_epoch": 2, "val_a')

    run = read_run(folder)

    assert len(run.epochs["train"]) == 2
    assert run.missing[0].startswith("report_val_epoch1.json is damaged; dynrefer grade")
    assert run.missing[1] == "Split val has no answers yet."


def test_the_folder_of_another_tool_is_refused_in_a_line(tmp_path):
    with pytest.raises(InputError) as refused:
        read_run(tmp_path)

    assert "\n" not in str(refused.value)
    assert "expected the folder of a run of the task dynrefer, with a log.txt" in str(refused.value)


def test_a_run_of_another_task_is_refused(tmp_path):
    folder = write_run(tmp_path / "job", config=with_run(task="captioning"))
    with pytest.raises(InputError, match="not a run of the task dynrefer"):
        read_run(folder)


def test_the_folder_above_runs_says_which_there_are(tmp_path):
    write_run(tmp_path / "20260101")
    with pytest.raises(InputError, match=r"it holds 1, such as .*20260101"):
        read_run(tmp_path)


def test_a_folder_that_does_not_exist_is_missing(tmp_path):
    with pytest.raises(MissingFileError, match="no such folder"):
        read_run(tmp_path / "x")


def test_a_repeated_epoch_counts_once():
    text = '{"train_epoch": 0, "train_loss": "3"}\n{"train_epoch": 0, "train_loss": "2"}\n'

    assert logged_epochs(text) == {"train": [{"epoch": 0, "loss": 2.0}]}


def test_a_split_whose_name_ends_like_the_key_of_the_epoch():
    assert list(logged_epochs('{"best_epoch_epoch": 1, "best_epoch_acc": 2.0}')) == ["best_epoch"]


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["out/base/1", "out/low/2"], ["base", "low"]),
        (["out/1", "out/2"], ["1", "2"]),
        (["a/x/1", "a/x/2", "a/y/1"], ["x/1", "x/2", "y/1"]),
        (["out/1"], ["1"]),
    ],
)
def test_labels_are_the_parts_in_which_paths_differ(paths, labels):
    assert differing_parts([Path(path) for path in paths]) == labels


def test_a_run_named_twice_is_refused(tmp_path):
    folder = write_run(tmp_path / "job")
    with pytest.raises(InputError, match="twice"):
        read_runs([folder, folder])


def test_names_must_fit_the_runs(tmp_path):
    folders = [write_run(tmp_path / name) for name in "ab"]
    with pytest.raises(InputError, match="expected 2 different names"):
        read_runs(folders, ["x", "x"])


# ---- several runs


def test_only_settings_that_differ_are_listed(tmp_path):
    write_run(tmp_path / "a", config=with_run(seed=1, init_lr=0.1))
    write_run(tmp_path / "b", config=with_run(seed=1, output_dir="elsewhere"))

    runs = read_runs([tmp_path / "a", tmp_path / "b"])

    assert differing_settings(runs) == [("run.init_lr", ["0.1", "not set"])]


def test_metrics_of_the_same_protocol_stand_in_one_row(tmp_path):
    write_run(tmp_path / "a", acc=30.0)
    write_run(tmp_path / "b", acc=35.0)

    rows = metric_table(read_runs([tmp_path / "a", tmp_path / "b"]))

    assert rows == [
        ("val: x-9, strict", "acc", [30.0, 35.0]),
        ("val: x-9, strict", "acc_official", [29.0, 29.0]),
    ]


# ---- order and damage


def test_the_newest_report_is_that_of_the_last_epoch_also_after_older_ones_were_graded_again(
    tmp_path,
):
    folder = write_run(tmp_path / "job", acc=30.0)
    report = json.loads((folder / "report_val_epoch1.json").read_text(encoding="utf-8"))
    older = {**report, "epoch": 0, "metrics": {"acc": 10.0}}
    (folder / "report_val_epoch0.json").write_text(json.dumps(older), encoding="utf-8")
    os.utime(folder / "report_val_epoch1.json", (1, 1))

    assert [one["epoch"] for one in read_run(folder).reports["val"]] == [0, 1]


@pytest.mark.parametrize(
    "change", [{"metrics": {"acc": None}}, {"metrics": [1]}, {"primary": "map"}, {"counts": None}]
)
def test_reports_without_usable_numbers_are_damaged(tmp_path, change):
    folder = write_run(tmp_path / "job")
    path = folder / "report_val_epoch1.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**report, **change}), encoding="utf-8")

    assert "report_val_epoch1.json is damaged" in read_run(folder).missing[0]


def test_empty_settings_are_as_good_as_none(tmp_path):
    folder = write_run(tmp_path / "job", config=with_run(valid_splits=None, max_epoch=None))

    assert read_run(folder).missing == []
