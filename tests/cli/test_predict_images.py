"""The images of a command line, their names, and what is skipped."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from lavis_dynrefer.cli.predict.predict_images import find_images


@pytest.fixture
def make(tmp_path):
    """Makes empty files."""

    def touch(*files):
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    return touch


@pytest.fixture
def find(tmp_path):
    """Names of the images in some places, and the notes."""

    def names(*places, **options):
        paths = [tmp_path / place for place in places or ["."]]
        images, notes = find_images(paths, **{"recursive": False, **options})
        return list(images), notes

    return names


def test_images_are_named_relative_to_their_folder(make, find):
    make("b.PNG", "a.jpg", "notes.txt", "deeper/c.webp")
    assert find() == (
        ["a.jpg", "b.PNG"],
        ["skipped subfolders (--recursive includes them): 1, first deeper"],
    )
    assert find(recursive=True) == (["a.jpg", "b.PNG", "deeper/c.webp"], [])


def test_equal_names_in_two_folders_include_the_folders(make, find):
    make("x/1.jpg", "y/1.jpg", "y/2.jpg")
    assert find("x", "y")[0] == ["x/1.jpg", "y/1.jpg", "y/2.jpg"]


def test_an_image_given_twice_is_one(make, find):
    make("1.jpg")
    assert find(".", "1.jpg", "*.jpg")[0] == ["1.jpg"]


def test_output_folders_are_no_images(make, find, tmp_path):
    make("a.jpg", "new/annotated/a.jpg.jpg")
    make("old/run.json", "old/results.jsonl", "old/annotated/a.jpg.jpg")
    found = find(recursive=True, leave_out=tmp_path / "new")
    assert found == (["a.jpg"], ["skipped folders with answers of dynrefer: 1, first old"])


@pytest.mark.parametrize(
    ("files", "found", "note"),
    [
        ("a.jpg b.dng c.CR2 d.jxl", "a.jpg", "images of other kinds .*: 3, first b.dng"),
        ("a.jpg ._a.jpg", "a.jpg", r"hidden and system files and folders: 1, first \._a\.jpg"),
        (
            "a.jpg __MACOSX/._a.jpg @eaDir/a.jpg/S_M.jpg",
            "a.jpg",
            "folders: 2, first @eaDir",
        ),
        (".git/x.png a.jpg .ipynb_checkpoints/a-checkpoint.jpg", "a.jpg", r": 2, first \.git"),
        (".hidden.txt a.jpg b.xmp", "a.jpg", None),
    ],
)
def test_what_is_passed_over_is_told(make, find, files, found, note):
    make(*files.split())
    names, notes = find(recursive=True)
    assert names == found.split()
    assert len(notes) == (note is not None)
    if note:
        assert re.search(note, notes[0])


def test_a_folder_of_heic_says_what_to_install(make, find, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    make("IMG_2.HEIC", "IMG_1.heif")
    with pytest.raises(ValueError, match=r"HEIC images \(.*\[heic\]'\): 2, first IMG_1.heif"):
        find()


def test_linked_folders_are_searched_once(make, find, tmp_path):
    make("in/a.jpg", "in/z/real.jpg", "elsewhere/b.jpg", "elsewhere/deep/c.jpg")
    for link, target in {
        "in/b": "elsewhere",  # outside
        "in/c": "in/z",  # inside, and before it in the alphabet
        "in/z/up": "in",  # a loop
        "in/root": ".",  # around the folder
        "elsewhere/back": "in/z",
    }.items():
        os.symlink(tmp_path / target, tmp_path / link, target_is_directory=True)
    assert find("in", recursive=True) == (
        ["a.jpg", "b/b.jpg", "b/deep/c.jpg", "z/real.jpg"],
        ["skipped links to folders that are searched anyway: 4, first c"],
    )


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.jpg", "a.jpg b[1].jpg"),
        ("**/*.jpg", "a.jpg b[1].jpg c.jpg"),
        ("*", "a.jpg b[1].jpg d.png"),
        ("[ac].*", "a.jpg"),
        ("b[1].jpg", "b[1].jpg"),
        ("su?", "c.jpg"),
        ("*.txt", "notes.txt"),
    ],
)
def test_patterns_match_as_in_a_shell(make, find, pattern, found):
    make("a.jpg", "b[1].jpg", "sub/c.jpg", "d.png", "notes.txt")
    assert find(pattern)[0] == found.split()


def test_a_pattern_without_a_match_names_itself(make, find):
    make("a.jpg")
    with pytest.raises(ValueError, match=r"no image or folder .*\*\.gif"):
        find("*.gif")
    assert find("*.gif", "a.jpg")[0] == ["*.gif", "a.jpg"]  # listed as a failure


def test_the_home_folder_may_be_short(make, find, tmp_path, monkeypatch):
    make("a.jpg")
    for variable in ("HOME", "USERPROFILE"):  # of Windows
        monkeypatch.setenv(variable, str(tmp_path))
    assert list(find_images([Path("~/*.jpg")], recursive=False)[0]) == ["a.jpg"]
