"""`dynrefer inspect` as it is called."""

from __future__ import annotations

import html
import json
import re

import pytest
from PIL import Image

from lavis_dynrefer.cli import main


@pytest.fixture
def coco(tmp_path):
    """COCO files of two images, the category of one box named to mislead a terminal or page."""
    (tmp_path / "val2017").mkdir()
    for number in (1, 2):
        Image.new("RGB", (40, 30), "green").save(tmp_path / f"val2017/{number}.jpg")
    document = {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "width": 40, "height": 30}
            for number in (1, 2)
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "bbox": [2, 2, 20, 20], "category_id": 1, "iscrowd": 0},
            {"id": 2, "image_id": 2, "bbox": [4, 4, 20, 10], "category_id": 2, "iscrowd": 0},
            {"id": 3, "image_id": 2, "bbox": [4, 4, 0, 10], "category_id": 2, "iscrowd": 0},
        ],
        "categories": [{"id": 1, "name": "[red]<script>\x1b[31m"}, {"id": 2, "name": "dog"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    return tmp_path


def text_of(page):
    """What a page says, without its scripts and styles."""
    bare = re.sub(
        r"<(script|style)\b.*?</\1>|<[^>]+>", " ", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    return " ".join(html.unescape(bare).split())


def inspect(folder, *options):
    output = str(folder / "out")
    named = ["--set", "annotations=instances.json", "--output", output]
    return main(["inspect", "coco", "--root", str(folder), *named, *options])


def test_the_command_writes_a_page_and_a_sheet(coco):
    assert inspect(coco) == 0

    text = text_of(coco / "out/inspect.html")
    assert "2 regions kept of 3 read" in text
    assert str(coco / "instances.json") in text
    with Image.open(coco / "out/regions.png") as sheet:
        assert sheet.height > 60


def test_names_cannot_control_the_terminal(coco, capsys):
    inspect(coco, "--check-images", "decode", "--set", "protocol=a[/b]:dog:c")
    shown = capsys.readouterr().out
    assert "a[/b]:dog:c" in shown
    assert "empty box" in shown
    assert "[red]<script> [31m 1" in shown
    assert "\x1b" not in shown
    assert "2 images, nothing unusual" in shown


@pytest.mark.parametrize(("options", "told"), [((), True), (("--check-images", "header"), False)])
def test_turned_images_are_named_without_a_check_of_all(coco, capsys, options, told):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(coco / "val2017/2.jpg", exif=exif)

    inspect(coco, *options)

    warning = "warning: split 'val': 1 of 2 images looked at have an EXIF rotation"
    shown = capsys.readouterr().out
    assert (warning in shown) == told
    assert ("exif rotated" in shown) != told  # in the table of the check


def test_annotations_are_reported_without_the_image_folder(coco, capsys):
    inspect(coco)
    (coco / "val2017").rename(coco / "elsewhere")
    capsys.readouterr()

    assert inspect(coco) == 0

    shown = capsys.readouterr().out
    assert f"There is no folder {coco / 'val2017'}" in shown
    text = text_of(coco / "out/inspect.html")
    assert f"There is no folder {coco / 'val2017'}" in text
    assert "2 regions kept of 3 read" in text


def test_the_sheet_of_an_earlier_run_is_deleted(coco):
    inspect(coco)
    inspect(coco, "--samples", "0")
    assert not (coco / "out/regions.png").exists()
    assert "chosen at random" not in (coco / "out/inspect.html").read_text(encoding="utf-8")


def test_max_images_limits_what_is_inspected(coco):
    inspect(coco, "--set", "max_images=1")
    text = text_of(coco / "out/inspect.html")
    assert "1 regions kept of 1 read" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["coco", "--root", "nowhere"], "nowhere"),
        (["synthetic", "--root", "{full}"], "choose another folder"),
    ],
)
def test_a_dataset_that_cannot_be_read_leaves_no_folder(tmp_path, capsys, arguments, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    words = [word.format(full=tmp_path / "full") for word in arguments]

    assert main(["inspect", *words, "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
