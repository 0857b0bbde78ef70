from __future__ import annotations

import os
import zipfile

import pytest

from lavis_dynrefer.datasets.sources.raw_files import (
    DatasetError,
    ImageFolder,
    RawFile,
    iter_json_list,
    read_json,
)

SOURCE = RawFile("regions", "regions.json", "example.org")
LONG, DEEP = "9" * 5000, "[" * 10**5


def read_list(path, source):
    return list(iter_json_list(path, source))


@pytest.fixture
def write(tmp_path):
    def _write(text, encoding="utf-8"):
        path = tmp_path / "regions.json"
        path.write_bytes(text.encode(encoding))
        return path

    return _write


@pytest.mark.parametrize("text", ["[]", " [ ] \n", '[{"id": 1}]', '\ufeff[{"id": 1},\n {"id": 2}]'])
def test_items_of_a_list_come_one_by_one(write, text):
    items = read_list(write(text), SOURCE)

    assert [item["id"] for item in items] == list(range(1, len(items) + 1))
    assert len(items) == text.count("id")


def test_only_the_first_item_must_be_an_object(write):
    text = '[{"id": 1}, null, 5, "x", []]'

    assert read_list(write(text), SOURCE)[1:] == [None, 5, "x", []]


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_list, "<html>not here</html>", "is not json, it begins with '<html>"),
        (read_list, "", "is not json"),
        (read_list, "version https://git-lfs", "is not json"),
        (read_list, '{"id": 1}', "expected a list"),
        (read_list, "[1, 2]", "list of objects"),
        (read_list, '[{"id": 1}, {"id": ', "damaged from character 12"),
        (read_list, '[{"id": 1}', "cut short"),
        (read_list, '[{"id": 1}, {"id"; 2}, {"id": 3}]', "damaged from character 12"),
        (read_list, '[{"id": 1}, 2 3', "cut short"),
        (
            read_list,
            '[{"id": 1}] [{"id": 2}]',
            r"goes on after the end of its list: '\[\{\"id\": 2\}\]'",
        ),
        (read_list, '[{"id": 1}]]', "goes on after the end"),
        (read_list, f'[{{"id": {LONG}}}]', "damaged from character 1 "),
        (read_list, f'[{{"id": {DEEP}', "damaged from character 1 "),
        (read_json, "[]", "expected an object, got a list"),
        (read_json, '{"a": ', "damaged json"),
        (read_json, "<html>", "not json"),
        (read_json, '{"a": 1} {"b": 2}', "damaged json"),
        (read_json, f'{{"a": {LONG}}}', "damaged json"),
        (read_json, f'{{"a": {DEEP}', "damaged json"),
    ],
)
def test_invalid_files_are_refused(write, read, text, message):
    path = write(text)

    with pytest.raises(DatasetError, match=message) as caught:
        read(path, SOURCE)

    assert "regions.json" in str(caught.value)


@pytest.mark.parametrize("read", [read_list, read_json])
def test_a_file_that_is_not_utf_8_is_named(write, read):
    with pytest.raises(DatasetError, match="cannot be read as text"):
        read(write('[{"id": "caf\u00e9"}]', "latin-1"), SOURCE)


def test_a_missing_file_names_itself_the_setting_and_the_origin(tmp_path):
    with pytest.raises(DatasetError) as caught:
        read_json(tmp_path / "absent.json", SOURCE)

    assert str(tmp_path / "absent.json") in str(caught.value)
    assert "Set `regions`; get the file from example.org" in str(caught.value)


def test_an_archive_asks_to_be_unpacked(tmp_path):
    path = tmp_path / "regions.json"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("regions.json", bytes(range(256)) * 8)

    with pytest.raises(DatasetError, match="unpack it first"):
        read_json(path, SOURCE)


def test_a_folder_instead_of_a_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_json(tmp_path, SOURCE)


def test_images_are_found_by_the_first_name_that_exists(tmp_path):
    (tmp_path / "VG_100K").mkdir()
    (tmp_path / "VG_100K" / "1.jpg").touch()
    (tmp_path / "2.jpg").touch()
    folder = ImageFolder(tmp_path, SOURCE)

    assert folder.find("VG_100K/1.jpg", "1.jpg") == str(tmp_path / "VG_100K" / "1.jpg")
    assert folder.find("VG_100K/2.jpg", "2.jpg") == str(tmp_path / "2.jpg")
    assert folder.find("VG_100K_2/3.jpg", "3.jpg") is None


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("VG_100K\\1.jpg", "VG_100K/1.jpg"),
        ("./vg_100k/1.JPG", "VG_100K/1.jpg"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("a%20b.jpg", "a b.jpg"),
        ("../../label-studio/media/upload/4/0a1b2c3d-2.jpg", "2.jpg"),
        ("/data/local-files/?d=photos/VG_100K/1.jpg", "VG_100K/1.jpg"),
        ("http://images.cocodataset.org/val2017/2.jpg", "2.jpg"),
        ("D:\\me\\photos\\2.jpg", "2.jpg"),
        ("two.jpg", None),  # Two.jpg or TWO.jpg?
        ("train/2.jpg", None),
        ("../..", None),
    ],
)
def test_images_are_found_by_other_spellings(tmp_path, name, file):
    (tmp_path / "VG_100K").mkdir()
    for made in ("VG_100K/1.jpg", "2.jpg", "cafe\u0301.jpg", "a b.jpg", "Two.jpg", "TWO.jpg"):
        (tmp_path / made).touch()
    if len(list(tmp_path.iterdir())) < 6:
        pytest.skip("this file system does not tell case apart")

    found = ImageFolder(tmp_path, SOURCE).find(name)

    assert found == (file and str(tmp_path / file))


def test_two_names_with_the_same_end_are_refused(tmp_path):
    (tmp_path / "1.jpg").touch()
    folder = ImageFolder(tmp_path, SOURCE)

    assert folder.find("/cats/1.jpg") == folder.find("/CATS/1.jpg") == str(tmp_path / "1.jpg")
    with pytest.raises(DatasetError, match=r"'/cats/1\.jpg' and '/dogs/1\.jpg' could both be"):
        folder.find("/dogs/1.jpg")


@pytest.mark.parametrize(
    "name", ["a\0b/1.jpg", "\ud83d/1.jpg", "x" * 5000 + "/1.jpg", "", "/", "2.jpg/1"]
)
def test_impossible_file_names_are_not_found(tmp_path, name):
    (tmp_path / "2.jpg").touch()

    assert ImageFolder(tmp_path, SOURCE).find(name) is None


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="needs a user to whom files can be closed",
)
def test_a_folder_that_may_not_be_listed_is_named(tmp_path):
    (tmp_path / "VG_100K").mkdir(mode=0)

    with pytest.raises(DatasetError, match="VG_100K cannot be listed"):
        ImageFolder(tmp_path, SOURCE).find("VG_100K/1.jpg")


def test_a_missing_image_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match="no folder"):
        ImageFolder(tmp_path / "absent", SOURCE)
