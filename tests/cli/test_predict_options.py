"""Invalid calls of `dynrefer predict`."""

from __future__ import annotations

import pytest

IMAGE = ["{image}", "--whole-image"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png", "--whole-image"], "no image or folder nowhere.png"),
        (["{empty}", "--whole-image"], "no images in this folder, which end in .avif"),
        (["{image}", "--boxes", "nowhere.json"], "no file nowhere.json"),
        (
            ["{image}", "--boxes", "{others}"],
            "is 'scene 0.png', the file names 'x.jpg'",
        ),
        ([*IMAGE, "--format", "yolo"], "--format: unknown 'yolo'; expected one of"),
        ([*IMAGE, "--format", "coko"], "--format: unknown 'coko'; did you mean coco?"),
        ([*IMAGE, "--format", "json,csv"], "without --output expected one format"),
        ([*IMAGE, "--format", "fiftyone"], "without --output expected one format"),
        ([*IMAGE, "--draw"], "--draw needs --output"),
        ([*IMAGE, "--explain"], "--explain needs --output"),
        ([*IMAGE, "--tasks", "ocr"], "tasks: "),
        ([*IMAGE, "--tasks", ","], "--tasks: expected words"),
        ([*IMAGE, "--categories", ","], "--categories: expected words"),
        ([*IMAGE, "--categories", "dog,\udcff"], "categories: "),  # of another encoding
        ([*IMAGE, "--attributes", "a/"], "attribute 'a/': expected a word"),
        ([*IMAGE, "--controls", "@no.txt"], "no vocabulary no.txt"),
        (
            [*IMAGE, "--tasks", "tags", "--categories", "a"],
            "--categories needs categories in --tasks",
        ),
        (
            [*IMAGE, "--tasks", "categories", "--tags", "a"],
            "--tags needs tags or caption in --tasks",
        ),
        ([*IMAGE, "--views", "best"], "views: expected one of"),
        ([*IMAGE, "--model", "huge"], "huge"),
        ([*IMAGE, "--checkpoint", "no.pth"], "no.pth"),
        ([*IMAGE, "--device", "nowhere"], "device: "),
        ([*IMAGE, "--box-format", "xywh"], "go with --box or --boxes"),
        ([*IMAGE, "--images-json", "a.json"], "--images-json goes with --boxes"),
        ([*IMAGE, "--sam", "sam"], "and --sam needs --point"),
        (["{image}", "--point", "3,4"], "--point needs --sam"),
        (
            [*IMAGE, "--output", "{image}"],
            "expected a folder, or a file that ends in .json,",
        ),
        ([*IMAGE, "--output", "x.xlsx"], "expected a folder, or a file that ends in .json,"),
        ([*IMAGE, "--output", "{others}"], "others.json exists; name another file, or replace it"),
        (["{image}", "--boxes", "{others}", "--output", "{others}"], "is the file of boxes"),
        ([*IMAGE, "--output", "x.json", "--format", "csv"], "this file can hold json or coco"),
        ([*IMAGE, "--output", "x.json", "--format", "json,coco"], "name a folder for other"),
        ([*IMAGE, "--output", "x.jsonl", "--draw"], "--draw needs --output with a folder"),
        ([*IMAGE, "--output", "{folder}"], "holds other files; name a new"),
        (["{image}", "--proposals", "rpn"], "needs --proposal-weights"),
        ([*IMAGE, "--proposal-weights", "x"], "goes with --proposals"),
        (["{image}", "--proposals", "rpn", "--proposal-weights", "no.pth"], "no.pth"),
    ],
)
def test_an_invalid_call_ends_with_one_line(image, predict, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "others.json").write_text('{"x.jpg": [[1, 2, 3, 4]]}', encoding="utf-8")
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
    [
        *([], ["--box", "1,2,3"], ["--box", "1,2,3,x"], ["--whole-image", "--box", "1,2,3,4"]),
        ["--whole-image", "--proposal-count", "0"],
    ],
)
def test_regions_come_from_one_source(image, predict, arguments):
    with pytest.raises(SystemExit, match="2"):
        predict(image, *arguments)


@pytest.mark.parametrize("arguments", [["--checkpoint", "{damaged}"], ["--device", "nowhere"]])
def test_a_model_that_cannot_be_loaded_leaves_no_output(image, predict, tmp_path, arguments):
    (tmp_path / "damaged.pth").write_bytes(b"<!doctype html>")
    arguments = [text.format(damaged=tmp_path / "damaged.pth") for text in arguments]
    for output in (tmp_path / "new", tmp_path / "new.json"):
        assert predict(image, "--whole-image", "--output", output, *arguments) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.pth"]
