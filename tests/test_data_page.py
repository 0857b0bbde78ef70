"""docs/data.md as its reader does it, in a folder with a small Visual Genome."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

import lavis_dynrefer  # noqa: F401  registers with LAVIS
from lavis_dynrefer.cli import main

PAGE = (Path(__file__).parents[1] / "docs/data.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"<!-- run -->\n```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the page's commands are given, after them; with their exit codes."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "vg/images").mkdir(parents=True)
    for number in (1, 2, 3):
        Image.new("RGB", (40, 30), (80 * number, 0, 0)).save(folder / f"vg/images/{number}.jpg")
    box = {"x": 5, "y": 5, "width": 20, "height": 20}
    regions = [
        {
            "id": number,
            "regions": [
                {"region_id": 10 * number, "phrase": "a red dog", **box},
                {"region_id": 10 * number + 1, "phrase": "flat", **box, "height": 0},
            ],
        }
        for number in (1, 2, 3)
    ]
    images = [
        {"image_id": number, "width": 40, "height": 30, "url": f"{number}.jpg"}
        for number in (1, 2, 3)
    ]
    files = {
        "region_descriptions": regions,
        "image_data": images,
        "densecap_splits": {"train": [1], "val": [2], "test": [3]},
    }
    for name, content in files.items():
        (folder / f"vg/{name}.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        codes = [main(command[1:]) for command in COMMANDS]
    return folder, codes


def test_every_command_of_the_page_succeeds(folder):
    assert [command[:2] for command in COMMANDS] == [
        ["dynrefer", "prepare"],
        ["dynrefer", "prepare"],
        ["dynrefer", "prepare"],
        ["dynrefer", "inspect"],
    ]
    assert folder[1] == [0, 0, 0, 0]


def test_the_tag_list_holds_what_the_captions_name(folder):
    assert sorted((folder[0] / "tags.txt").read_text().split()) == ["dog", "red"]


def test_the_page_to_look_at_is_there(folder):
    assert "a red dog" in (folder[0] / "look/inspect.html").read_text(encoding="utf-8")
