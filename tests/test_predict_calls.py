"""Calls of `dynrefer predict` that are wrong, its names of files, and regions from a detector."""

from __future__ import annotations

import json
import os

import pytest
import torch
from PIL import Image, ImageColor
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from lavis_dynrefer.cli import main
from lavis_dynrefer.cli.predict_output import annotated, file_stem, printable
from lavis_dynrefer.cli.predict_pictures import find_pictures
from lavis_dynrefer.drawing import COLOURS, draw_regions
from lavis_dynrefer.results import PictureResult
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic import make_scene, render


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    render(make_scene(0, 2_000_001)).save(folder / "scene.png")
    return folder / "scene.png"


def predict(*arguments) -> int:
    return main(["predict", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png", "--whole-image"], "no picture or folder nowhere.png"),
        (["{empty}", "--whole-image"], "no file that ends in .avif"),
        (["{picture}", "--boxes", "nowhere.json"], "no file of boxes nowhere.json"),
        (
            ["{picture}", "--boxes", "{others}"],
            "names none of the pictures: it begins with 'x.jpg'",
        ),
        (["{picture}", "--whole-image", "--format", "yolo"], "--format: expected some of jsonl"),
        (["{picture}", "--whole-image", "--format", "json,csv"], "without --output expected one"),
        (["{picture}", "--whole-image", "--format", "fiftyone"], "without --output expected one"),
        (["{picture}", "--whole-image", "--draw"], "--draw needs --output"),
        (["{picture}", "--whole-image", "--tasks", "ocr"], "--tasks: expected some of caption"),
        (["{picture}", "--whole-image", "--categories", ","], "--categories: expected words"),
        (["{picture}", "--whole-image", "--attributes", "a/"], "attribute 'a/': expected a word"),
        (["{picture}", "--whole-image", "--controls", "@no.txt"], "no vocabulary no.txt"),
        (
            ["{picture}", "--whole-image", "--tasks", "tags", "--categories", "a"],
            "--categories is a question that --tasks leaves out",
        ),
        (["{picture}", "--whole-image", "--views", "best"], "view policy: expected one of"),
        (["{picture}", "--whole-image", "--model", "huge"], "huge"),
        (["{picture}", "--whole-image", "--checkpoint", "no.pth"], "no.pth"),
        (["{picture}", "--whole-image", "--device", "nowhere"], "device: "),
        (["{picture}", "--whole-image", "--box-format", "xywh"], "go with --box or --boxes"),
        (["{picture}", "--point", "3,4"], "--point needs --sam, a folder of SAM's weights"),
        (["{picture}", "--whole-image", "--sam", "sam"], "and --sam needs --point"),
        (["{picture}", "--whole-image", "--tags", ","], "--tags: expected words"),
        (
            ["{picture}", "--whole-image", "--tasks", "categories", "--tags", "a"],
            "--tags are for tags and captions, which --tasks leaves out",
        ),
        (
            ["{picture}", "--whole-image", "--output", "{picture}"],
            "expected a folder, it is a file",
        ),
        (["{picture}", "--whole-image", "--output", "{folder}"], "holds other files; name a new"),
        (["{picture}", "--proposals", "rpn"], "needs --proposal-weights"),
        (["{picture}", "--whole-image", "--proposal-weights", "x"], "goes with --proposals"),
        (
            ["{picture}", "--proposals", "rpn", "--proposal-weights", "no.pth"],
            "no.pth does not exist",
        ),
    ],
)
def test_a_wrong_call_ends_with_one_line(picture, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "others.json").write_text('{"x.jpg": [[1, 2, 3, 4]]}')
    places = {
        "picture": picture,
        "folder": picture.parent,
        "empty": tmp_path / "empty",
        "others": tmp_path / "others.json",
    }
    assert predict(*(text.format(**places) for text in arguments)) == 2
    error = capsys.readouterr().err.rstrip("\n").rsplit("\n", 1)[-1]
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize(
    "arguments",
    [[], ["--box", "1,2,3"], ["--box", "1,2,3,x"], ["--whole-image", "--box", "1,2,3,4"]],
)
def test_regions_are_named_in_one_way(picture, arguments):
    with pytest.raises(SystemExit) as stop:
        predict(picture, *arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("my house.png", "my house.png"),
        ("花.png", "花.png"),
    ],
)
def test_ordinary_names_stay(name, stem):
    assert file_stem(name) == stem


def test_names_that_are_changed_stay_different():
    names = ["a/b.png", "a_b.png", "a\\b.png", "../a_b.png", "x" * 300 + "1", "x" * 300 + "2", ".."]
    stems = [file_stem(name) for name in names]
    assert len(set(stems)) == len(names)
    assert not any(set("/\\") & set(stem) for stem in stems)
    assert all(len(os.fsencode(file_stem("花" * 300))) < 250 for stem in stems)


def test_a_name_does_nothing_to_a_terminal():
    assert printable("[b]\x1b[31m\n\udcff花") == "[b]\\x1b[31m\\n\\udcff花"


def test_pictures_in_folders_are_named_from_there(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", "deeper/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    flat = find_pictures([tmp_path], recursive=False)
    assert [picture.name for picture in flat] == ["a.jpg", "b.PNG"]
    deep = find_pictures([tmp_path], recursive=True)
    assert [picture.name for picture in deep] == ["a.jpg", "b.PNG", "deeper/c.webp"]


def test_the_output_folder_is_not_looked_into(tmp_path):
    for name in ("a.jpg", "out/annotated/a.jpg.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_pictures([tmp_path], recursive=True, leave_out=tmp_path / "out")
    assert [picture.name for picture in found] == ["a.jpg"]


def test_equal_names_in_two_folders_get_their_folders(tmp_path):
    for name in ("x/1.jpg", "y/1.jpg", "y/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_pictures([tmp_path / "x", tmp_path / "y"], recursive=False)
    assert [picture.name for picture in found] == ["x/1.jpg", "y/1.jpg", "y/2.jpg"]


def test_a_picture_named_twice_is_one(tmp_path):
    (tmp_path / "1.jpg").touch()
    found = find_pictures([tmp_path, tmp_path / "1.jpg"], recursive=False)
    assert [picture.name for picture in found] == ["1.jpg"]


def test_a_detector_proposes_regions(picture, tmp_path):
    detector = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    torch.save(detector.state_dict(), tmp_path / "detector.pth")
    arguments = ["--proposals", "rpn", "--proposal-weights", tmp_path / "detector.pth"]
    few = ["--proposal-count", "3", "--tasks", "tags", "--output", tmp_path / "out"]
    assert predict(picture, *arguments, *few) == 0
    before = (tmp_path / "out" / "results.jsonl").read_text()
    assert len(json.loads(before)["regions"]) == 3
    assert predict(picture, *arguments, *few) == 0
    assert (tmp_path / "out" / "results.jsonl").read_text() == before


def test_a_drawing_of_thousands_of_regions_shows_some(picture):
    region = RegionPrediction(box=(5.0, 5.0, 50.0, 50.0), caption="a dot")
    result = PictureResult("a.png", "/a.png", 480, 360, (region,) * 5000)
    assert annotated(render(make_scene(0, 2_000_001)), result).height < 5000


def test_numbers_of_boxes_at_one_place_stay_apart():
    white = Image.new("RGB", (200, 200), "white")
    sheet = draw_regions(white, [(60, 60, 120, 120)] * 4, [""] * 4).crop((0, 0, 200, 200))
    pixels = list(sheet.getdata())
    shown = [pixels.count(ImageColor.getrgb(colour)) for colour in COLOURS[:4]]
    assert min(shown) > 100  # a number each, though the last outline covers the others
