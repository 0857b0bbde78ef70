"""The images of a command line and their names."""

from __future__ import annotations

import pytest

from lavis_dynrefer.cli.predict.predict_images import find_images


@pytest.fixture
def found(tmp_path):
    """Names of the images in a folder of such files."""

    def find(files, *folders, **options):
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        paths = [tmp_path / folder for folder in folders or ["."]]
        return list(find_images(paths, **{"recursive": False, **options}))

    return find


def test_images_are_named_relative_to_their_folder(found):
    files = ("b.PNG", "a.jpg", "notes.txt", "deeper/c.webp")
    assert found(files) == ["a.jpg", "b.PNG"]
    assert found(files, recursive=True) == ["a.jpg", "b.PNG", "deeper/c.webp"]


def test_the_output_folder_is_skipped(found, tmp_path):
    files = ("a.jpg", "out/annotated/a.jpg.jpg")
    assert found(files, recursive=True, leave_out=tmp_path / "out") == ["a.jpg"]


def test_equal_names_in_two_folders_include_the_folders(found):
    files = ("x/1.jpg", "y/1.jpg", "y/2.jpg")
    assert found(files, "x", "y") == ["x/1.jpg", "y/1.jpg", "y/2.jpg"]


def test_an_image_given_twice_is_one(found):
    assert found(("1.jpg",), ".", "1.jpg") == ["1.jpg"]
