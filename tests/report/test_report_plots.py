"""The numbers behind the plots, and the page."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from page_elements import EVIL, Page
from PIL import Image
from test_run_folder import CONFIG, LINES, write_run

from lavis_dynrefer.cli import main
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_result import Category, ImageResult
from lavis_dynrefer.formats.jsonl import write_jsonl
from lavis_dynrefer.report import (
    AnsweredSplit,
    attribute_plot,
    calibration_plot,
    caption_plot,
    comparison_plot,
    confusion_plot,
    metric_plot,
    read_predicted,
    read_runs,
    report_page,
    training_plots,
    validation_plots,
)
from lavis_dynrefer.report.report_parts import _attributes, _with_differences
from lavis_dynrefer.report.training_curves import smoothed
from lavis_dynrefer.structures import (
    AttributeInfo,
    ImageRecord,
    RegionPrediction,
    RegionRecord,
    RegionSet,
)

BOX = (2.0, 2.0, 8.0, 8.0)
WET = AttributeInfo("state:wet/damp", "state", "state", "is", "head")
RED = AttributeInfo("color:red", "color", "color", "is", "tail")
SAW = AttributeInfo("tool:$saw$", "tool", "tool", "is", "tail")  # never annotated


def region(number, **labels):
    return RegionRecord(number, 1, BOX, **labels)


def region_set(regions, **options):
    return RegionSet("toy", "val", {1: ImageRecord(1, "/no/such.png", 9, 9)}, regions, **options)


def categories_answered(*pairs):
    """The split in which each annotated category got that answer; None: no answer."""
    names = sorted({name for pair in pairs for name in pair if name})
    regions = [region(number, category=truth) for number, (truth, _) in enumerate(pairs)]
    answers = {
        number: RegionPrediction(BOX, categories=tuple((one, float(one == name)) for one in names))
        for number, (_, name) in enumerate(pairs)
        if name
    }
    return AnsweredSplit(region_set(regions, category_names=tuple(names)), answers)


@pytest.fixture
def attributes():
    labels = [(1, 0, -1), (0, 1, 0), (1, -1, 0)]
    scores = [(0.9, 0.2, 0.5), (0.1, 0.8, 0.5), (0.05, 0.6, 0.5)]
    infos = (WET, RED, SAW)
    answers = {
        number: RegionPrediction(
            BOX, attributes=tuple((info.name, one) for info, one in zip(infos, row))
        )
        for number, row in enumerate(scores)
    }
    regions = [region(number, attributes=row) for number, row in enumerate(labels)]
    return AnsweredSplit(region_set(regions, attributes=infos), answers).attributes


def test_attributes_have_their_average_precision(attributes):
    # Wet regions rank first and third: (1 + 2 / 3) / 2.
    assert attributes.precisions.tolist()[:2] == pytest.approx([250 / 3, 100.0])
    assert math.isnan(attributes.precisions[2])
    assert attributes.positives.tolist() == [2, 1, 0]
    assert attributes.frequency == ["head", "tail", "tail"]


def test_attributes_are_drawn_best_first_and_without_those_that_have_none(attributes):
    plot = attribute_plot({"one": attributes})

    assert [row[:3] for row in plot.rows] == [
        ("color:red", "tail", 1),
        ("state:wet/damp", "head", 2),
    ]
    assert "1 attributes have no region" in plot.note


def test_calibration_leaves_unknown_labels_out(attributes):
    assert attributes.calibration(2) == [
        (pytest.approx((0.2 + 0.1 + 0.05) / 3), pytest.approx(1 / 3), 3),
        (pytest.approx((0.9 + 0.8 + 0.5 + 0.5) / 4), 0.5, 4),
    ]


def test_attributes_that_no_region_has_are_not_drawn():
    answer = RegionPrediction(BOX, attributes=(("state:wet/damp", 0.5),))
    regions = [region(0, attributes=(0,))]
    split = AnsweredSplit(region_set(regions, attributes=(WET,)), {0: answer})

    assert _attributes({"one": split}) == []


def test_no_plot_has_a_formula_in_its_text(attributes):
    svg = calibration_plot({"one": attributes}).svg()

    assert "share that have the attribute" in svg
    assert "mathdefault" not in svg


def test_confusions_count_missing_answers_apart():
    split = categories_answered(("cat", "cat"), ("cat", "dog"), ("cat", None), ("dog", "dog"))

    confusions = split.confusions

    assert confusions.names == ["cat", "dog"]
    assert confusions.counts.tolist() == [[1, 1, 1], [0, 1, 0]]
    assert confusions.top(5) == [("cat", "dog", 1, pytest.approx(1 / 3))]
    assert [one.region_id for one in confusions.examples["cat", "dog"]] == [1]


def test_a_confusion_matrix_of_many_categories_shows_the_confused_ones():
    right = [(f"c{number}", f"c{number}") for number in range(30)]
    plot = confusion_plot(categories_answered(*right, ("c29", "c28"), ("c28", "c29")).confusions)

    assert {"c28", "c29"} <= {row[0] for row in plot.rows}
    assert len(plot.rows) == 20
    assert "10 categories that are confused less are left out" in plot.note
    assert plot.heads[-1].startswith("c")  # no empty column for others or for no answer


def test_answers_to_other_regions_are_refused():
    with pytest.raises(InputError, match="1 of 1 answers are for regions that"):
        AnsweredSplit(region_set([region(1)]), {2: RegionPrediction(BOX)})


def test_captions_are_counted_by_length():
    regions = [region(0, caption="a red mug"), region(1, caption="a mug")]
    answers = {
        0: RegionPrediction(BOX, caption="a mug", caption_score=0.5),
        1: RegionPrediction(BOX, caption="a very red mug", caption_score=0.1),
    }
    captions = AnsweredSplit(region_set(regions), answers).captions

    plot = caption_plot({"one": captions}, {})

    assert plot.rows == [
        ("one", "words of the caption", 2, "50.0 %", 1),
        ("one", "words of the caption", 4, "50.0 %", 1),
        ("annotations", "words", 2, "50.0 %", 1),
        ("annotations", "words", 3, "50.0 %", 1),
    ]


def test_the_last_bin_of_lengths_counts_all_longer_captions():
    regions = [region(number) for number in range(2)]
    answers = {
        number: RegionPrediction(BOX, caption="so " * words, caption_score=0.5)
        for number, words in enumerate((30, 44))
    }
    plot = caption_plot({"one": AnsweredSplit(region_set(regions), answers).captions}, {})

    assert plot.rows == [("one", "words of the caption", 30, "100.0 %", 2)]
    assert plot.note == "30 words stand for 30 or more."


def test_metrics_that_a_policy_lacks_are_left_out():
    plot = metric_plot({"image": {"acc": 50.0, "map": math.nan}, "task": {"acc": 40.0}})

    assert plot.rows == [("acc", "50.00", "40.00"), ("map", "nan", "")]


def test_a_curve_is_smoothed_without_a_bias_at_its_start():
    points = [(float(step), 5.0) for step in range(300)]

    assert [value for _, value in smoothed(points)] == pytest.approx([5.0] * 300)


def test_differences_are_to_the_first_run():
    assert _with_differences([30.0, 32.5, None]) == ["30.00", "32.50 (+2.50)", ""]
    assert _with_differences([None, 32.5]) == ["", "32.50"]


def test_skipped_steps_add_up(tmp_path):
    (run,) = read_runs([write_run(tmp_path / "job")])
    plots = {plot.title: plot for plot in training_plots([run])}

    steps = [row for row in plots["Learning rate and steps"].rows if "skipped" in row[1]]
    assert [row[3:] for row in steps] == [("1", "1"), ("9", "3")]


def test_runs_with_and_without_numbers_by_step_share_an_axis_of_epochs(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", steps=())

    losses = training_plots(read_runs([tmp_path / "a", tmp_path / "b"]))[0]

    assert losses.heads[3] == "epochs trained"
    assert [row[2:] for row in losses.rows if row[0] == "a"] == [
        ("batches", "0.2", "4"),
        ("batches", "1.8", "2"),
        ("epoch", "1", "3.5"),
        ("epoch", "2", "2.5"),
    ]
    assert [row[2:] for row in losses.rows if row[0] == "b"] == [
        ("epoch", "1", "3.5"),
        ("epoch", "2", "2.5"),
    ]


def test_the_best_epoch_is_named(tmp_path):
    (run,) = read_runs([write_run(tmp_path / "job")])

    (plot,) = validation_plots([run])

    assert "job is best in epoch 0 with 40.00" in plot.alt


def test_runs_of_different_evaluators_have_their_own_best_epochs(tmp_path):
    write_run(tmp_path / "a")
    other = write_run(tmp_path / "b")
    for path in (other / "log.txt", other / "report_val_epoch1.json"):
        text = path.read_text(encoding="utf-8").replace("val_acc", "val_map")
        text = text.replace('"acc"', '"map"').replace('"categories"', '"attributes"')
        path.write_text(text, encoding="utf-8")

    (plot,) = validation_plots(read_runs([tmp_path / "a", tmp_path / "b"]))

    assert plot.heads == ("run", "epoch", "acc", "map")
    assert plot.rows[0] == ("a", 0, "40", "")
    assert plot.rows[2] == ("b", 0, "", "40")
    assert "b is best in epoch 0 with 40.00" in plot.alt


def test_runs_that_differ_in_their_views_alone_compare_policies(tmp_path):
    for name in ("random", "image_prior"):
        views = {"preprocess": {"vis_processor": {"eval": {"policy": name}}}}
        write_run(tmp_path / name, config={**CONFIG, **views})

    runs = read_runs([tmp_path / "random", tmp_path / "image_prior"])
    assert comparison_plot(runs).title == "View policies compared"
    assert comparison_plot(runs[:1]).title == "Main metrics"


# ---- the page


def test_the_page_of_a_run_is_self_contained_and_its_plots_say_what_they_show(tmp_path):
    page = Page(report_page(read_runs([write_run(tmp_path / "job")])))

    drawings = page.find("svg")
    assert len(drawings) == len(page.find("figure")) == 4
    assert all(one["role"] == "img" and len(one["aria-label"]) > 20 for one in drawings)
    assert all(page.find("table", within=figure) for figure in page.find("figure"))
    links = [one for one in page.elements if {"src", "href", "xlink:href"} & set(one)]
    assert all(
        str(one.get(key, "#")).startswith(("#", "data:"))
        for one in links
        for key in ("src", "href", "xlink:href")
    )
    assert page.policy.startswith("default-src 'none'")


def test_colours_follow_the_theme_of_the_page(tmp_path):
    html = report_page(read_runs([write_run(tmp_path / "job")]))

    drawing = html[html.index("<svg") : html.index("</svg>")]
    assert "var(--series0)" in drawing
    assert "#0072b2" not in drawing
    assert "#1b1f27" not in drawing


def test_names_from_outside_are_escaped(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", lines=LINES[:2])

    page = Page(report_page(read_runs([tmp_path / "a", tmp_path / "b"], [EVIL, "$x_1$ & y"])))

    assert [one for one in page.find("script") if "alert" in one["text"]] == []
    assert page.find("img", src="x") == []
    assert "$x_1$ & y" in page.text


def test_two_runs_are_compared(tmp_path):
    write_run(tmp_path / "a", acc=30.0)
    write_run(tmp_path / "b", acc=35.0)

    text = Page(report_page(read_runs([tmp_path / "a", tmp_path / "b"]))).text

    assert "35.00 (+5.00)" in text
    assert "Main metrics of the runs" in text


def test_the_command_writes_the_page_and_tells_what_is_missing(tmp_path, capsys):
    folder = write_run(tmp_path / "job", lines=LINES[:2])
    output = tmp_path / "new" / "report.html"

    assert main(["report", str(folder), "--output", str(output)]) == 0

    assert output.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "job: 1 of 2 epochs are finished" in capsys.readouterr().out


def test_a_folder_of_predict_is_drawn_with_its_own_categories_as_annotations(tmp_path):
    regions = tuple(
        RegionPrediction(BOX, caption="a cat", caption_score=0.1 * number, categories=categories)
        for number, categories in enumerate([(("cat", 2.0), ("dog", 1.0))] * 3)
    )
    own = (Category(1, "cat"), Category(2, "dog"), None)
    result = ImageResult("a.png", str(tmp_path / "a.png"), 9, 9, regions, categories=own)
    with (tmp_path / "results.jsonl").open("w", encoding="utf-8") as file:
        write_jsonl([result], file)

    split = read_predicted(tmp_path)
    assert split.confusions.counts.tolist() == [[1, 0, 0], [1, 0, 0]]
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "report.html")]) == 0
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "Categories named" in text
    assert "Least probable captions" in text


def test_a_page_that_has_no_place_is_refused_before_anything_is_drawn(tmp_path, capsys):
    (tmp_path / "file").touch()

    assert main(["report", str(tmp_path), "--output", str(tmp_path / "file" / "report.html")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_the_command_refuses_another_folder(tmp_path, capsys):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")

    assert main(["report", str(tmp_path), "--output", str(tmp_path / "report.html")]) == 2
    assert "expected the folder of a run" in capsys.readouterr().err
