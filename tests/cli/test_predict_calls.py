"""Calls of `dynrefer predict` that are wrong, its names of files, and regions from a detector."""

from __future__ import annotations

import json
import os

import pytest
import torch
from PIL import Image, ImageColor
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from lavis_dynrefer.cli import main
from lavis_dynrefer.cli.predict.predict_images import find_images
from lavis_dynrefer.cli.predict.predict_output import annotated, file_stem, printable
from lavis_dynrefer.formats import ImageResult
from lavis_dynrefer.pages.region_drawing import COLOURS, draw_regions
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.synthetic import make_scene, render


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    render(make_scene(0, 2_000_001)).save(folder / "scene.png")
    return folder / "scene.png"


def predict(*arguments) -> int:
    return main(["predict", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png", "--whole-image"], "no image or folder nowhere.png"),
        (["{empty}", "--whole-image"], "no file that ends in .avif"),
        (["{image}", "--boxes", "nowhere.json"], "no file of boxes nowhere.json"),
        (
            ["{image}", "--boxes", "{others}"],
            "names none of the images: it begins with 'x.jpg'",
        ),
        (["{image}", "--whole-image", "--format", "yolo"], "--format: expected some of jsonl"),
        (["{image}", "--whole-image", "--format", "json,csv"], "without --output expected one"),
        (["{image}", "--whole-image", "--format", "fiftyone"], "without --output expected one"),
        (["{image}", "--whole-image", "--draw"], "--draw needs --output"),
        (["{image}", "--whole-image", "--tasks", "ocr"], "--tasks: expected some of caption"),
        (["{image}", "--whole-image", "--categories", ","], "--categories: expected words"),
        (["{image}", "--whole-image", "--attributes", "a/"], "attribute 'a/': expected a word"),
        (["{image}", "--whole-image", "--controls", "@no.txt"], "no vocabulary no.txt"),
        (
            ["{image}", "--whole-image", "--tasks", "tags", "--categories", "a"],
            "--categories is a question that --tasks leaves out",
        ),
        (["{image}", "--whole-image", "--views", "best"], "view policy: expected one of"),
        (["{image}", "--whole-image", "--model", "huge"], "huge"),
        (["{image}", "--whole-image", "--checkpoint", "no.pth"], "no.pth"),
        (["{image}", "--whole-image", "--device", "nowhere"], "device: "),
        (["{image}", "--whole-image", "--box-format", "xywh"], "go with --box or --boxes"),
        (["{image}", "--point", "3,4"], "--point needs --sam, a folder of SAM's weights"),
        (["{image}", "--whole-image", "--sam", "sam"], "and --sam needs --point"),
        (["{image}", "--whole-image", "--tags", ","], "--tags: expected words"),
        (
            ["{image}", "--whole-image", "--tasks", "categories", "--tags", "a"],
            "--tags are for tags and captions, which --tasks leaves out",
        ),
        (
            ["{image}", "--whole-image", "--output", "{image}"],
            "expected a folder, it is a file",
        ),
        (["{image}", "--whole-image", "--output", "{folder}"], "holds other files; name a new"),
        (["{image}", "--proposals", "rpn"], "needs --proposal-weights"),
        (["{image}", "--whole-image", "--proposal-weights", "x"], "goes with --proposals"),
        (
            ["{image}", "--proposals", "rpn", "--proposal-weights", "no.pth"],
            "no.pth does not exist",
        ),
    ],
)
def test_a_wrong_call_ends_with_one_line(image, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "others.json").write_text('{"x.jpg": [[1, 2, 3, 4]]}')
    places = {
        "image": image,
        "folder": image.parent,
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
def test_regions_are_named_in_one_way(image, arguments):
    with pytest.raises(SystemExit) as stop:
        predict(image, *arguments)
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


def test_images_in_folders_are_named_from_there(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", "deeper/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    flat = find_images([tmp_path], recursive=False)
    assert [image.name for image in flat] == ["a.jpg", "b.PNG"]
    deep = find_images([tmp_path], recursive=True)
    assert [image.name for image in deep] == ["a.jpg", "b.PNG", "deeper/c.webp"]


def test_the_output_folder_is_not_looked_into(tmp_path):
    for name in ("a.jpg", "out/annotated/a.jpg.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([tmp_path], recursive=True, leave_out=tmp_path / "out")
    assert [image.name for image in found] == ["a.jpg"]


def test_equal_names_in_two_folders_get_their_folders(tmp_path):
    for name in ("x/1.jpg", "y/1.jpg", "y/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([tmp_path / "x", tmp_path / "y"], recursive=False)
    assert [image.name for image in found] == ["x/1.jpg", "y/1.jpg", "y/2.jpg"]


def test_an_image_named_twice_is_one(tmp_path):
    (tmp_path / "1.jpg").touch()
    found = find_images([tmp_path, tmp_path / "1.jpg"], recursive=False)
    assert [image.name for image in found] == ["1.jpg"]


def test_a_detector_proposes_regions(image, tmp_path):
    detector = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    torch.save(detector.state_dict(), tmp_path / "detector.pth")
    arguments = ["--proposals", "rpn", "--proposal-weights", tmp_path / "detector.pth"]
    few = ["--proposal-count", "3", "--tasks", "tags", "--output", tmp_path / "out"]
    assert predict(image, *arguments, *few) == 0
    before = (tmp_path / "out" / "results.jsonl").read_text()
    assert len(json.loads(before)["regions"]) == 3
    assert predict(image, *arguments, *few) == 0
    assert (tmp_path / "out" / "results.jsonl").read_text() == before


def test_a_drawing_of_thousands_of_regions_shows_some(image):
    region = RegionPrediction(box=(5.0, 5.0, 50.0, 50.0), caption="a dot")
    result = ImageResult("a.png", "/a.png", 480, 360, (region,) * 5000)
    assert annotated(render(make_scene(0, 2_000_001)), result).height < 5000


def test_numbers_of_boxes_at_one_place_stay_apart():
    white = Image.new("RGB", (200, 200), "white")
    sheet = draw_regions(white, [(60, 60, 120, 120)] * 4, [""] * 4).crop((0, 0, 200, 200))
    pixels = list(sheet.getdata())
    shown = [pixels.count(ImageColor.getrgb(colour)) for colour in COLOURS[:4]]
    assert min(shown) > 100  # a number each, though the last outline covers the others
