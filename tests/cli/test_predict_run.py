"""Answers, drawings and pages of many images, each opened and answered once."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch

from lavis_dynrefer.cli.predict import predict_run
from lavis_dynrefer.models.answering import Answerer

FEW = ["--tasks", "categories", "--categories", "flower,tree"]


@pytest.fixture
def calls(monkeypatch):
    """Counts opened images, encoded samples and answered samples."""
    counts = Counter()

    def counted(owner, name):
        original = getattr(owner, name)

        def call(*arguments):
            counts[name] += 1
            return original(*arguments)

        monkeypatch.setattr(owner, name, call)

    counted(predict_run, "open_image")
    counted(Answerer, "encode")
    counted(Answerer, "answer")
    return counts


def test_draw_and_explain_open_and_answer_an_image_once(image, predict, tmp_path, calls):
    output = ["--output", tmp_path, "--draw", "--explain"]

    assert predict(image, "--box", "98,50,237,180", *FEW, *output) == 0

    assert calls == {"open_image": 1, "encode": 1, "answer": 1}
    assert (tmp_path / "annotated" / "scene 0.png.jpg").is_file()
    page = (tmp_path / "explain" / "scene 0.png.html").read_text(encoding="utf-8")
    assert page.count('<section class="region"') == 1


def test_batches_span_images(scenes, predict, tmp_path, calls):
    boxes = ["--boxes", scenes[0] / "boxes.json"]

    assert predict(scenes[0], *boxes, *FEW, "--output", tmp_path, "--draw") == 0

    assert calls == {"open_image": 3, "encode": 1, "answer": 1}


def test_missing_drawing_and_page_are_made_from_the_kept_answers(image, predict, tmp_path, calls):
    arguments = [image, "--box", "98,50,237,180", *FEW, "--output", tmp_path]
    predict(*arguments)
    row = json.loads((tmp_path / "results.jsonl").read_text(encoding="utf-8"))
    row["regions"][0]["categories"][0]["probability"] = 0.77  # which the model did not answer
    (tmp_path / "results.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    calls.clear()

    assert predict(*arguments, "--draw", "--explain") == 0

    assert calls == {"open_image": 1, "encode": 1}
    assert (tmp_path / "annotated" / "scene 0.png.jpg").is_file()
    page = (tmp_path / "explain" / "scene 0.png.html").read_text(encoding="utf-8")
    assert '<b class="value">0.77</b>' in page


def test_existing_pages_stay_and_no_model_is_loaded(image, predict, tmp_path):
    arguments = [image, "--whole-image", *FEW, "--output", tmp_path, "--explain"]
    predict(*arguments)
    (tmp_path / "explain" / "scene 0.png.html").write_text("mine", encoding="utf-8")

    assert predict(*arguments, "--device", "nowhere") == 0

    assert (tmp_path / "explain" / "scene 0.png.html").read_text(encoding="utf-8") == "mine"


def test_an_image_that_is_gone_cannot_be_drawn_later(scenes, predict, tmp_path):
    for number in (0, 1):
        copy = tmp_path / "in" / f"{number}.png"
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes((scenes[0] / f"scene {number}.png").read_bytes())
    arguments = ["--whole-image", *FEW, "--output", tmp_path / "out"]
    predict(tmp_path / "in", *arguments)
    (tmp_path / "in" / "0.png").unlink()

    assert predict(tmp_path / "in", *arguments, "--draw") == 3

    failures = json.loads((tmp_path / "out" / "failures.json").read_text(encoding="utf-8"))
    assert failures["0.png"].startswith("cannot be drawn: no image ")
    assert [path.name for path in (tmp_path / "out" / "annotated").iterdir()] == ["1.png.jpg"]


def test_of_many_regions_some_are_explained_and_all_answered(image, predict, tmp_path, monkeypatch):
    monkeypatch.setattr("lavis_dynrefer.explain.explain_page.MAX_REGIONS", 1)
    boxes = ["--box", "98,50,237,180", "--box", "9,9,99,99"]

    assert predict(image, *boxes, *FEW, "--output", tmp_path, "--explain") == 0

    assert len(json.loads((tmp_path / "results.jsonl").read_text(encoding="utf-8"))["regions"]) == 2
    page = (tmp_path / "explain" / "scene 0.png.html").read_text(encoding="utf-8")
    assert page.count('<section class="region"') == 1
    assert "1 more region is not explained here." in page


@pytest.fixture
def fail_on_scene_1(scenes, predict, tmp_path, monkeypatch):
    """Predicts on three scenes while the model fails on the regions of the second."""
    folder, boxes = scenes
    (tmp_path / "boxes.json").write_text(
        json.dumps({**boxes, "scene 1.png": [[77, 7, 90, 90]]}), encoding="utf-8"
    )
    encode = Answerer.encode

    def run(error, option):
        def failing(self, sample):
            if (sample["image_boxes"] == 77).any():
                raise error
            return encode(self, sample)

        monkeypatch.setattr(Answerer, "encode", failing)
        output = ["--output", tmp_path / "out", option]
        return predict(folder, "--boxes", tmp_path / "boxes.json", *FEW, *output)

    return run


def answered(folder):
    return [
        json.loads(row)["image"]
        for row in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    ]


@pytest.mark.parametrize("option", ["--draw", "--explain"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "out of memory with a single region"),
        (ValueError("odd"), "odd"),
    ],
)
def test_model_that_fails_on_one_image_answers_the_others(
    fail_on_scene_1, tmp_path, option, error, reason
):
    assert fail_on_scene_1(error, option) == 3

    assert answered(tmp_path / "out") == ["scene 0.png", "scene 2.png"]
    failures = json.loads((tmp_path / "out" / "failures.json").read_text(encoding="utf-8"))
    assert list(failures) == ["scene 1.png"]
    assert failures["scene 1.png"].startswith(reason)


@pytest.mark.parametrize("option", ["--draw", "--explain"])
def test_a_lost_device_ends_the_run(fail_on_scene_1, tmp_path, option, capsys):
    assert fail_on_scene_1(RuntimeError("CUDA error: device-side assert triggered"), option) == 4

    told = capsys.readouterr().err
    assert "error: the device is lost (CUDA error: device-side assert triggered): " in told
    assert "images are answered; run the same command again to continue" in told
    assert "scene 2.png" not in answered(tmp_path / "out")


def test_other_errors_of_torch_end_the_run(fail_on_scene_1):
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fail_on_scene_1(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "--draw")


def test_views_the_model_cannot_fuse_stop_before_any_image(image, predict, monkeypatch, capsys):
    monkeypatch.setattr(predict_run, "open_image", None)

    assert predict(image, "--whole-image", *FEW, "--views", "fixed:0,0.2,0.5") == 2

    assert "the model fuses 2 views, got 3" in capsys.readouterr().err


def test_answers_with_a_page_are_those_without(image, predict, tmp_path):
    boxes = ["--box", "98,50,237,180", "--box", "9,9,99,99"]
    for folder, options in ((tmp_path / "a", []), (tmp_path / "b", ["--explain"])):
        predict(image, *boxes, *FEW, "--output", folder, *options)

    one, other = (
        json.loads((tmp_path / x / "results.jsonl").read_text(encoding="utf-8")) for x in "ab"
    )
    for pair in zip(one["regions"], other["regions"]):
        logits = [{each["name"]: each["score"] for each in row.pop("categories")} for row in pair]
        assert logits[0] == pytest.approx(logits[1], abs=1e-4)
        assert pair[0] == pair[1]
