"""`dynrefer predict` as a user runs it, with the embedded model on drawn scenes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.formats import read_results

FEW = ["--tasks", "caption,categories", "--categories", "flower,tree,boat"]


@pytest.fixture(scope="module")
def finished(scenes, predict, tmp_path_factory):
    """An output folder with every format, made once; tests that write copy it."""
    output = tmp_path_factory.mktemp("finished") / "answers"
    formats = "json,jsonl,coco,csv,label-studio,fiftyone"
    boxes = ["--boxes", scenes[0] / "boxes.json"]
    assert predict(scenes[0], *boxes, "--output", output, "--format", formats, "--draw") == 0
    return output


def rows_of(output):
    return {result.image: result for result in read_results(output / "results.jsonl")}


def test_answers_are_those_of_the_api(finished, scenes):
    folder, boxes = scenes
    predictor = RegionPredictor("tiny")
    rows = rows_of(finished)

    assert {name: [list(r.box) for r in row.regions] for name, row in rows.items()} == boxes
    for name, row in rows.items():
        expected = predictor.predict(folder / name, boxes[name])
        assert [region.caption for region in row.regions] == [one.caption for one in expected]
        assert dict(row.regions[0].categories) == pytest.approx(
            dict(expected[0].categories), abs=1e-4
        )
        assert row.regions[0].scales == expected[0].scales


def test_all_formats_hold_the_same_answers(finished):
    rows = list(rows_of(finished).values())
    captions = [region.caption for row in rows for region in row.regions]

    assert read_results(finished / "results.json") == rows
    with (finished / "results.csv").open(encoding="utf-8", newline="") as file:
        assert [line["caption"] for line in csv.DictReader(file)] == captions
    coco = COCO(str(finished / "coco.json"))
    assert [row["caption"] for row in coco.loadAnns(coco.getAnnIds())] == captions
    assert len(
        json.loads((finished / "label_studio" / "tasks.json").read_text(encoding="utf-8"))
    ) == len(rows)
    assert len(list((finished / "annotated").glob("scene ?.png.jpg"))) == len(rows)
    paths = json.loads((finished / "fiftyone" / "data.json").read_text(encoding="utf-8"))
    assert list(paths.values()) == [row.path for row in rows]


def test_without_output_a_table_is_printed(image, predict, capsys):
    assert predict(image, "--box", "98,50,237,180", *FEW) == 0
    out = capsys.readouterr().out
    assert "98 50" in out
    assert "flower" in out


@pytest.mark.parametrize(
    ("format", "box"),
    [
        ("jsonl", lambda text: json.loads(text)["regions"][0]["box"]),
        ("json", lambda text: json.loads(text)[0]["regions"][0]["box"]),
        ("coco", lambda text: json.loads(text)["annotations"][0]["bbox"]),
        ("csv", lambda text: [float(text.splitlines()[1].split(",")[n]) for n in (6, 7, 8, 9)]),
    ],
)
def test_one_format_goes_to_standard_output(image, predict, capsys, format, box):
    assert predict(image, "--whole-image", *FEW, "--format", format) == 0
    assert box(capsys.readouterr().out) == [0, 0, 480, 360]


@pytest.mark.parametrize(
    "arguments",
    [["96,36,96,144", "--box-format", "xywh"], [".2,.1,.4,.5", "--normalised"]],
)
def test_boxes_in_other_formats_are_the_same_regions(image, predict, capsys, arguments):
    predict(image, "--box", "96,36,192,180", *FEW, "--format", "jsonl")
    expected = capsys.readouterr().out

    predict(image, "--box", *arguments, *FEW, "--format", "jsonl")

    assert capsys.readouterr().out == expected


def test_tiny_boxes_must_be_declared_pixels(image, predict, capsys):
    arguments = [image, "--box", "0,0,1,1", "--tasks", "tags"]
    assert predict(*arguments) == 3
    assert "--box-units pixels if they are pixels" in capsys.readouterr().err
    assert predict(*arguments, "--no-normalised") == 0


def test_output_of_libraries_is_kept_out_of_the_results(image, predict, capsys, monkeypatch):
    whole = RegionPredictor.answer_samples

    def talk(self, *arguments):
        print("loading ...")
        return whole(self, *arguments)

    monkeypatch.setattr(RegionPredictor, "answer_samples", talk)
    predict(image, "--whole-image", *FEW, "--format", "json")

    out, err = capsys.readouterr()
    assert json.loads(out)
    assert "loading ..." in err


def test_words_and_views_are_options(image, predict, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("wet\nnasse Straße\n", encoding="utf-8")
    code = predict(
        *(image, "--box", "98,50,237,180", "--format", "jsonl"),
        *("--tasks", "attributes,categories,tags", "--attributes", f"@{tmp_path / 'words.txt'}"),
        *("--categories", "花, rüschen ", "--tags", "flower,boat", "--views", "fixed:0,0.5"),
    )
    assert code == 0
    (region,) = json.loads(capsys.readouterr().out)["regions"]
    assert {each["name"] for each in region["attributes"]} == {"wet", "nasse Straße"}
    assert {each["name"] for each in region["categories"]} == {"花", "rüschen"}
    assert {each["name"] for each in region["tags"]} <= {"flower", "boat"}
    assert region["scales"]["attributes"] == [0.0, 0.5]
    assert region["caption"] is None


def test_ids_of_a_coco_file_are_kept(scenes, predict, tmp_path):
    folder, boxes = scenes
    x1, y1, x2, y2 = boxes["scene 1.png"][0]
    document = {
        "images": [{"id": 77, "file_name": "val/scene 1.png"}],
        "annotations": [{"id": 55, "image_id": 77, "bbox": [x1, y1, x2 - x1, y2 - y1]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(document), encoding="utf-8")
    code = predict(
        *(folder / "scene 1.png", "--boxes", tmp_path / "coco.json", *FEW),
        *("--output", tmp_path / "out", "--format", "coco"),
    )
    assert code == 0
    coco = COCO(str(tmp_path / "out" / "coco.json"))
    assert (coco.getImgIds(), coco.getAnnIds()) == ([77], [55])
    assert coco.loadAnns(55)[0]["bbox"] == [x1, y1, x2 - x1, y2 - y1]


def test_a_finished_run_does_not_load_the_model(finished, scenes, predict, tmp_path, capsys):
    output = shutil.copytree(finished, tmp_path / "answers")
    before = (output / "results.jsonl").read_bytes()
    arguments = [scenes[0], "--boxes", scenes[0] / "boxes.json", "--output", output]

    assert predict(*arguments, "--device", "nowhere") == 0  # which cannot be loaded

    assert (output / "results.jsonl").read_bytes() == before
    assert "images: 3, regions: 6" in capsys.readouterr().out


def test_a_run_interrupted_while_writing_a_row_continues(finished, scenes, predict, tmp_path):
    output = shutil.copytree(finished, tmp_path / "answers")
    whole = (output / "results.jsonl").read_bytes()
    (output / "results.jsonl").write_bytes(whole[: len(whole) // 2])

    assert predict(scenes[0], "--boxes", scenes[0] / "boxes.json", "--output", output) == 0

    assert rows_of(output).keys() == scenes[1].keys()
    assert (output / "results.jsonl").read_bytes().startswith(whole[: whole.index(b"\n")])


@pytest.mark.parametrize(
    ("number", "code", "output"),
    [(signal.SIGINT, 130, "out"), (signal.SIGTERM, 143, "out.jsonl")],
    ids=["ctrl-c", "term"],
)
def test_a_signal_keeps_the_answers(
    scenes, predict, tmp_path, monkeypatch, capsys, number, code, output
):
    folder, boxes = scenes
    output = tmp_path / output
    arguments = [folder, "--boxes", folder / "boxes.json", *FEW, "--output", output]
    whole, handler = RegionPredictor.answer_iter, signal.getsignal(number)

    def cut_off(self, *arguments, **options):
        for place, answers in enumerate(whole(self, *arguments, **options)):
            if place == 1:
                signal.raise_signal(number)
            yield answers

    with monkeypatch.context() as patch:
        patch.setattr(RegionPredictor, "answer_iter", cut_off)
        assert predict(*arguments) == code

    assert signal.getsignal(number) is handler
    assert "stopped: 1 images are answered; run the same command" in capsys.readouterr().err
    kept = output if output.suffix == "" else tmp_path / "out.jsonl.unfinished"
    assert list(rows_of(kept)) == ["scene 0.png"]
    assert not output.is_file()
    assert predict(*arguments) == 0
    rows = output if output.is_file() else output / "results.jsonl"
    assert [row.image for row in read_results(rows)] == list(boxes)


def test_only_changed_boxes_are_answered_again(finished, scenes, predict, tmp_path):
    output = shutil.copytree(finished, tmp_path / "answers")
    named = [{"id": 9 - row, "box": box} for row, box in enumerate(scenes[1]["scene 2.png"])]
    boxes = {**scenes[1], "scene 1.png": [scenes[1]["scene 1.png"][0], [0, 0, 99, 99]]}
    boxes["scene 2.png"] = named
    (tmp_path / "boxes.json").write_text(json.dumps(boxes), encoding="utf-8")
    before = rows_of(output)

    assert predict(scenes[0], "--boxes", tmp_path / "boxes.json", "--output", output) == 0

    after = rows_of(output)
    assert after["scene 1.png"].regions[1].box == (0, 0, 99, 99)
    assert after["scene 2.png"].ids == (9, 8)
    assert after["scene 0.png"] == before["scene 0.png"]
    assert (output / "results.jsonl").read_bytes().count(b"\n") == 3
    # A drawing of earlier answers does not stay.
    assert [path.name for path in (output / "annotated").iterdir()] == ["scene 0.png.jpg"]


def test_other_questions_need_another_folder(finished, scenes, predict, tmp_path, capsys):
    output = shutil.copytree(finished, tmp_path / "answers")
    arguments = [scenes[0], "--boxes", scenes[0] / "boxes.json", "--output", output, *FEW]

    assert predict(*arguments) == 2
    assert "categories was None, is ['flower', 'tree', 'boat']" in capsys.readouterr().err

    assert predict(*arguments, "--no-resume") == 0
    region = rows_of(output)["scene 0.png"].regions[0]
    assert {name for name, _ in region.categories} == {"flower", "tree", "boat"}
    assert not (output / "coco.json").exists()  # of the earlier answers


def test_a_folder_without_answers_takes_other_questions(image, predict, tmp_path):
    output = ["--output", tmp_path / "out"]
    assert predict(image, "--whole-image", *FEW, *output, "--device", "nowhere") == 2
    assert predict(image, "--whole-image", "--tasks", "tags", *output) == 0


def test_another_image_of_the_same_name_is_refused(
    finished, scenes, image, predict, tmp_path, capsys
):
    output = shutil.copytree(finished, tmp_path / "answers")
    (tmp_path / "other").mkdir()
    shutil.copy(image, tmp_path / "other")
    arguments = [tmp_path / "other", "--boxes", scenes[0] / "boxes.json", "--output", output]
    assert predict(*arguments) == 2
    assert "is called 'scene 0.png' like" in capsys.readouterr().err


def test_bad_images_are_listed_and_the_others_answered(scenes, predict, tmp_path, capsys):
    folder = shutil.copytree(scenes[0], tmp_path / "images")
    (folder / "a page.jpg").write_text("<html>404</html>", encoding="utf-8")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    Image.new("RGB", (20, 20)).save(folder / "small.png")
    output = tmp_path / "out"
    arguments = [folder, "--box", "30,30,90,90", *FEW, "--output", output]

    assert predict(*arguments) == 3

    assert rows_of(output).keys() == scenes[1].keys()
    failures = json.loads((output / "failures.json").read_text(encoding="utf-8"))
    assert failures.keys() == {"a page.jpg", "gone.png", "small.png"}
    assert "no part inside the 20 x 20 image" in failures["small.png"]
    assert "pass --box-format xywh for x, y, width" in failures["small.png"]
    err = capsys.readouterr().err
    assert "without an answer, drawing or page: 3" in err
    assert "a page.jpg: cannot read image" in err

    for name in failures:
        (folder / name).unlink()
    assert predict(*arguments) == 0
    assert not (output / "failures.json").exists()


def test_scores_that_are_not_finite_are_a_failure(image, predict, tmp_path):
    state = RegionPredictor("tiny").model.state_dict()
    state["qformer.query_tokens"].fill_(3e38)  # finite, but its sums are not
    torch.save(state, tmp_path / "broken.pth")
    arguments = ["--whole-image", "--tasks", "categories", "--output", tmp_path / "out"]

    assert predict(image, *arguments, "--checkpoint", tmp_path / "broken.pth") == 3

    failures = json.loads((tmp_path / "out" / "failures.json").read_text(encoding="utf-8"))
    assert "not finite" in failures["scene 0.png"]


def test_nothing_is_written_beside_the_output_folder(image, predict, tmp_path):
    (tmp_path / "in" / "x..").mkdir(parents=True)
    names = ["-rf .png", "ü 花 %2e%2e%2f.png", "[red]\x1b[31m\n.png", "x../y..png"]
    for name in [*names, "n" * 251 + ".png", b"\xff\xfe.png"]:
        shutil.copy(image, os.path.join(os.fsencode(tmp_path / "in"), os.fsencode(name)))
    everything = "json,coco,csv,label-studio,fiftyone"
    arguments = ["--box", "9,9,99,99", *FEW, "--draw", "--format", everything, "--recursive"]

    assert predict(tmp_path / "in", *arguments, "--output", tmp_path / "out") == 0

    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert len(rows_of(tmp_path / "out")) == 6
    assert len(list((tmp_path / "out" / "annotated").iterdir())) == 6


def test_a_box_file_may_cover_other_images(scenes, predict, tmp_path, capsys):
    folder, boxes = scenes
    some = {"scene 1.png": boxes["scene 1.png"][:1], "other.png": [[1, 2, 3, 4]]}
    (tmp_path / "boxes.json").write_text(json.dumps(some), encoding="utf-8")

    assert predict(folder, "--boxes", tmp_path / "boxes.json", *FEW) == 0

    err = capsys.readouterr().err
    assert "images without an entry in" in err
    assert "for other images: 1" in err


@pytest.mark.parametrize("format", ["csv", "coco"])
def test_new_numbers_of_categories_are_told_where_they_are_written(
    image, predict, tmp_path, capsys, format
):
    listed = [{"id": 1, "file_name": image.name}]
    rows = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [98, 50, 139, 130]}]
    boxes = {"images": listed, "annotations": rows, "categories": [{"id": 1, "name": "wolf"}]}
    (tmp_path / "coco.json").write_text(json.dumps(boxes), encoding="utf-8")

    assert predict(image, "--boxes", tmp_path / "coco.json", *FEW, "--format", format) == 0

    assert ("not categories of your file" in capsys.readouterr().err) == (format == "coco")
