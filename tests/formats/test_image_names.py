"""Names in a file and names on the disk."""

from __future__ import annotations

import pytest

from lavis_dynrefer.formats.image_names import match_names, near_name

SAME = [
    # in the file, on the disk
    ("a.jpg", "a.jpg"),
    (".\\val\\a.jpg", "val/a.jpg"),
    ("./val//a.jpg", "val/a.jpg"),
    ("Ame\u0301lie.jpg", "Am\u00e9lie.jpg"),
    ("Am\u00e9lie.jpg", "Ame\u0301lie.jpg"),
    ("a%20b%2B1.jpg", "a b+1.jpg"),
    ("100%.jpg", "100%.jpg"),
    ("IMG_1.JPG", "img_1.jpg"),
    ("/data/local-files/?d=root/a%20b.jpg", "a b.jpg"),
    ("/data/upload/4/0a1b2c3d-a.jpg", "a.jpg"),
    ("../../label-studio/media/upload/4/0a1b2c3d-a.jpg", "a.jpg"),
    ("images\\0a1b2c3d-a.jpg", "images/a.jpg"),
    ("0a1b2c3d-a.jpg", "0a1b2c3d-a.jpg"),
    ("http://images.cocodataset.org/val2017/a.jpg", "a.jpg"),
    ("s3://bucket/folder/a%20b.jpg", "a b.jpg"),
    ("https://host/x/a.jpg?token=d", "a.jpg"),
    ("C:\\Users\\me\\images\\a.jpg", "a.jpg"),
    ("..\\images\\a.jpg", "a.jpg"),
]
OTHER = [("b.jpg", "a.jpg"), ("val/a.jpg", "train/a.jpg"), ("aa.jpg", "a.jpg"), ("", "a.jpg")]
OTHER += [("http://[/a.jpg", "b.jpg"), ("0a1b2c3d-", "a.jpg"), ("a.jpeg", "a.jpg")]


@pytest.mark.parametrize(("entry", "name"), SAME)
def test_other_spellings_are_the_same_name(entry, name):
    assert match_names([entry, "else.jpg"], {name: f"/data/{name}"}) == {name: entry}


@pytest.mark.parametrize(("entry", "name"), OTHER)
def test_other_names_are_not(entry, name):
    assert match_names([entry], {name: f"/data/{name}"}) == {}


@pytest.mark.parametrize("spelled", ["A.jpg", "%61.jpg", "0a1b2c3d-a.jpg"])
def test_a_name_as_written_comes_first(spelled):
    images = {spelled: f"/{spelled}", "a.jpg": "/a.jpg"}

    assert match_names(["a.jpg"], images) == {"a.jpg": "a.jpg"}
    assert match_names(["a.jpg", spelled], images) == {name: name for name in images}


def test_two_names_that_could_both_be_the_image_are_refused():
    with pytest.raises(ValueError, match=r"'A\.jpg' and 'a\.JPG' are two; write .* folders"):
        match_names(["A.jpg", "a.JPG"], {"a.jpg": "/a.jpg"})


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("train/1.jpg", ["2.jpg", "1.jpg"], "1.jpg"),
        ("1.jpeg", ["2.jpg", "1.jpg"], "1.jpg"),
        ("photo_001.jpg", ["photo_01.jpg", "x.jpg"], "photo_01.jpg"),
        ("x", [], None),
        ("sunset.jpg", ["a.jpg"], None),
    ],
)
def test_a_near_name_is_shown(name, known, near):
    assert near_name(name, known) == near
