from __future__ import annotations

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from vg_rows import NAMES, image, region, write_raw

from lavis_dynrefer.cli import main
from lavis_dynrefer.datasets import region_source
from lavis_dynrefer.datasets.prepared import (
    RawDataset,
    open_prepared,
    prepare,
    read_manifest,
)
from lavis_dynrefer.datasets.prepared_tags import prepare_tags, tags_path
from lavis_dynrefer.datasets.region_source import tag_list_of
from lavis_dynrefer.datasets.sources.raw_files import DatasetError
from lavis_dynrefer.datasets.sources.visual_genome import read_visual_genome
from lavis_dynrefer.vocab import build_tagger

SPLITS = {"train": [1], "val": [2], "test": [3, 4]}  # image 4 is in no other file


@pytest.fixture
def vg(tmp_path):
    """Raw files of three images, one for each split; the second region of each is degenerate."""
    entries, images = [], []
    (tmp_path / "vg/images").mkdir(parents=True)
    for number in (1, 2, 3):
        (tmp_path / f"vg/images/{number}.jpg").touch()
        rows = [
            region(10 * number + row, phrase, (x, 5, width, 9))
            for row, (phrase, x, width) in enumerate(
                [("A big Dog.", -5, 20), ("a cat", 5, 0), ("two dogs", 5, 9)]
            )
        ]
        entries.append({"id": number, "regions": rows if number < 3 else [*rows, {"id": 39}]})
        images.append(image(number, width=40, height=30))
    write_raw(tmp_path / "vg", entries, images, SPLITS)
    return tmp_path / "vg"


def raw(vg, protocol=None):
    files = {name: vg / f"{name}.json" for name in NAMES}

    def read(splits, stores, opener):
        return read_visual_genome(
            *files.values(), vg / "images", splits=splits, stores=stores, opener=opener
        )

    return RawDataset("vg_region", "v1.2", protocol, files, vg / "images", read)


@pytest.fixture
def prepare_val(vg, tmp_path):
    """Prepares or opens split "val" in the folder `out`."""
    return lambda **options: prepare(raw(vg), ["val"], tmp_path / "out", **options)["val"]


def change_descriptions(vg, change):
    path = vg / "region_descriptions.json"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def content(region_set):
    return list(region_set.regions), dict(region_set.images), list(region_set.rejected)


def test_tables_hold_what_the_raw_files_hold(vg, tmp_path):
    direct = read_visual_genome(*raw(vg).sources.values(), vg / "images")

    tables = prepare(raw(vg), list(SPLITS), tmp_path / "out")

    assert {split: content(part) for split, part in tables.items()} == {
        split: content(part) for split, part in direct.items()
    }


def test_the_manifest_accounts_for_every_region_and_every_source(vg, tmp_path):
    prepare(raw(vg), ["train", "test"], tmp_path / "out")

    manifest = read_manifest(tmp_path / "out")

    train, test = manifest["splits"]["train"], manifest["splits"]["test"]
    assert (train["images"], train["regions_read"], train["regions_kept"]) == (1, 3, 2)
    assert train["dropped"] == {"empty_box": 1}
    assert train["noted"] == {"box_partly_outside": 1}
    assert test["dropped"] == {"empty_box": 1, "unreadable_record": 1, "no_regions": 1}
    assert test["regions_read"] == 4  # an image without regions is not a region
    assert test["name"] == "vg1.2-densecap-gt"
    path = vg / "image_data.json"
    assert manifest["sources"]["image_data"] == {
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def test_preparing_again_reads_nothing(prepare_val):
    opened = []
    first = prepare_val()

    again = prepare_val(opener=opened.append)

    assert content(again) == content(first)
    assert opened == []


def test_a_further_split_is_added(vg, tmp_path, prepare_val):
    prepare_val()
    before = (tmp_path / "out/val/regions.arrow").stat().st_mtime_ns

    prepare(raw(vg), ["train", "val"], tmp_path / "out")

    assert sorted(read_manifest(tmp_path / "out")["splits"]) == ["train", "val"]
    assert (tmp_path / "out/val/regions.arrow").stat().st_mtime_ns == before


def test_changed_raw_files_are_converted_again(vg, prepare_val):
    prepare_val()
    change_descriptions(vg, lambda text: text.replace("A big Dog.", "A tiny dog"))

    assert prepare_val().regions[0].caption == "a tiny dog"


@pytest.mark.parametrize("manifest", ['{"format": 1, "splits": {"val": {}}}', "{"])
def test_a_folder_of_another_version_is_converted_again(tmp_path, prepare_val, manifest):
    (tmp_path / "out/val").mkdir(parents=True)
    (tmp_path / "out/val/regions.arrow").write_bytes(b"of an older version")
    (tmp_path / "out/manifest.json").write_text(manifest, encoding="utf-8")

    assert len(prepare_val().regions) == 2


def test_images_that_arrive_later_are_found(vg, tmp_path, prepare_val):
    (vg / "images/2.jpg").rename(tmp_path / "2.jpg")
    with pytest.raises(DatasetError, match="missing_image"):
        prepare_val()
    (tmp_path / "2.jpg").rename(vg / "images/2.jpg")

    assert len(prepare_val().regions) == 2


def test_raw_files_can_be_deleted_after_preparing(vg, prepare_val):
    first = prepare_val()
    for name in NAMES:
        (vg / f"{name}.json").unlink()

    assert content(prepare_val()) == content(first)


def test_a_failed_conversion_leaves_nothing_behind(vg, tmp_path, prepare_val):
    change_descriptions(vg, lambda text: text[:-30])

    with pytest.raises(DatasetError, match="damaged from character"):
        prepare_val()

    assert not (tmp_path / "out").exists()


def test_leftovers_of_a_killed_run_are_replaced(tmp_path, prepare_val):
    (tmp_path / "out/.unfinished/val").mkdir(parents=True)
    (tmp_path / "out/.unfinished/val/regions.arrow").write_bytes(b"ARROW1 half a ta")

    assert len(prepare_val().regions) == 2
    assert sorted(os.listdir(tmp_path / "out")) == ["manifest.json", "val"]


def test_a_prepared_folder_can_move_with_its_images_elsewhere(vg, tmp_path, prepare_val):
    prepare_val()
    (tmp_path / "out").rename(tmp_path / "moved")
    (vg / "images").rename(tmp_path / "elsewhere")

    found = open_prepared(tmp_path / "moved", ["val"], tmp_path / "elsewhere")["val"]

    assert found.images[2].path == str(tmp_path / "elsewhere/2.jpg")
    assert os.path.exists(found.images[2].path)


@pytest.mark.parametrize("name", ["moved", "other data, \u00e9t\u00e9 \u96ea", "a" * 100])
def test_a_prepared_folder_moves_together_with_its_images(vg, tmp_path, name):
    prepare(raw(vg), ["val"], vg / "tables/val only")
    manifest = (vg / "tables/val only/manifest.json").read_text(encoding="utf-8")
    vg.rename(tmp_path / name)

    found = open_prepared(tmp_path / name / "tables/val only", ["val"])["val"]

    assert '"images_from_here": "../../images"' in manifest
    assert found.images[2].path == str(tmp_path / name / "images/2.jpg")
    assert os.path.exists(found.images[2].path)


def test_names_of_images_have_forward_slashes_in_the_tables(vg, tmp_path):
    (vg / "images/VG_100K").mkdir()
    (vg / "images/2.jpg").rename(vg / "images/VG_100K/2.jpg")

    found = prepare(raw(vg), ["val"], tmp_path / "out")["val"]

    assert found.images.columns["file_name"].to_pylist() == ["VG_100K/2.jpg"]
    assert os.path.exists(found.images[2].path)


def test_images_that_did_not_move_along_are_named(vg, tmp_path, caplog):
    prepare(raw(vg), ["val"], tmp_path / "out")
    (vg / "images").rename(vg / "gone")

    assert len(open_prepared(tmp_path / "out", ["val"])["val"].regions) == 2
    assert f"should be in {vg / 'images'}" in caplog.text


def test_tables_that_cannot_be_replaced_are_named(vg, tmp_path, prepare_val, monkeypatch):
    prepare_val()
    change_descriptions(vg, lambda text: text + " ")

    def in_use(source, target):
        raise PermissionError(13, "The process cannot access the file", str(target))

    monkeypatch.setattr("lavis_dynrefer.datasets.prepared.replace_file", in_use)  # as on Windows
    with pytest.raises(DatasetError, match=r"val cannot be replaced .*is it in use"):
        prepare_val()
    monkeypatch.undo()

    assert len(prepare_val().regions) == 2


@pytest.mark.parametrize(
    ("splits", "manifest", "message"),
    [
        (["train"], None, r"has the splits \['val'\], not \['train'\]"),
        (["val"], '{"format": 0}', "of another version; prepare again"),
        (["val"], "{", "is damaged"),
        (["val"], "[" * 10**5, "is damaged"),
        (["val"], '{"format": 4, "images": 3, "splits": {}}', r"is damaged \(images: "),
        (
            ["val"],
            '{"format": 4, "images": "", "state": {"sources": {}, "images": []}, '
            '"splits": {"val": {}}}',
            r"is damaged \(splits.val.name: ",
        ),
    ],
)
def test_unusable_prepared_folders_are_refused(tmp_path, prepare_val, splits, manifest, message):
    prepare_val()
    if manifest is not None:
        (tmp_path / "out/manifest.json").write_text(manifest, encoding="utf-8")

    with pytest.raises(DatasetError, match=message):
        open_prepared(tmp_path / "out", splits)


def test_a_folder_that_is_not_prepared_names_the_command(tmp_path):
    with pytest.raises(DatasetError, match="run `dynrefer prepare` first"):
        open_prepared(tmp_path, ["val"])


def test_other_choices_are_prepared_elsewhere(vg):
    assert raw(vg).default_folder() == raw(vg).default_folder()
    assert raw(vg).default_folder() != raw(vg, protocol="mine").default_folder()


def test_a_folder_that_cannot_be_written_names_the_cure(vg, tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(DatasetError, match=r"x cannot be written .*; set DYNREFER_CACHE"):
        prepare(raw(vg), ["val"], tmp_path / "file/x")


# ---- tags ---------------------------------------------------------------------------------------


@pytest.fixture
def regions(vg, tmp_path):
    return prepare(raw(vg), ["train"], tmp_path / "out")["train"].regions


@pytest.mark.parametrize("processes", [1, 2])
def test_prepared_tags_are_those_of_the_tagger(regions, processes, monkeypatch):
    monkeypatch.setattr("lavis_dynrefer.datasets.prepared_tags.PART", 1)
    names = ["cat", "dog", "big"]
    tagger = build_tagger("match", names)

    tags = prepare_tags(regions, names, "match", processes=processes)

    assert list(tags) == [[names.index(name) for name in tagger(r.caption)] for r in regions]
    assert list(tags) == [[2, 1], [1]]


def test_tags_account_for_themselves(regions):
    prepare_tags(regions, ["big", "cat"], "match")

    path = tags_path(regions, ["big", "cat"], "match").with_suffix(".json")
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "method": "match",
        "regions": 2,
        "tags_given": 1,
        "regions_without_tags": 1,
        "tags": ["big", "cat"],
    }


def test_interrupted_tags_go_on_where_they_stopped(regions, monkeypatch):
    monkeypatch.setattr("lavis_dynrefer.datasets.prepared_tags.PART", 1)
    names = ["dog", "big"]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_tags(regions, names, "match", progress=stop)
    told = []

    tags = prepare_tags(regions, names, "match", progress=lambda *now: told.append(now))

    assert told == [(2, 2)]  # of two parts the first was there
    assert list(tags) == [[1, 0], [0]]
    assert not [name for name in os.listdir(regions.path.parent) if name.endswith("unfinished")]


def test_tags_of_other_lists_and_methods_lie_beside(regions):
    paths = {
        tags_path(regions, names, method)
        for names, method in ((["dog"], "match"), (["dog"], "scene_graph"), (["cat"], "match"))
    }

    assert len(paths) == 3


# ---- the command --------------------------------------------------------------------------------


def test_the_command_prepares_and_says_what_it_dropped(vg, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "tags.txt").write_text("dog\ncat\n", encoding="utf-8")

    given = ["--output", str(tmp_path / "out"), "--tags", str(tmp_path / "tags.txt")]
    assert main(["prepare", "vg", "--root", str(vg), *given]) == 0

    printed = capsys.readouterr().out
    assert "1 empty_box" in printed
    assert "1 no_regions" in printed
    assert sorted(read_manifest(tmp_path / "out")["splits"]) == ["test", "train", "val"]
    regions = open_prepared(tmp_path / "out", ["train"])["train"].regions
    assert tags_path(regions, ["dog", "cat"], "match").exists()


def test_the_command_writes_a_tag_list(vg, tmp_path):
    path = tmp_path / "tags.txt"

    given = ["--root", str(vg), "--output", str(path), "--min-count", "2"]
    assert main(["prepare", "tags", "vg", *given]) == 0
    # "dog" once and "dogs" once; "big" and "two" once
    assert path.read_text(encoding="utf-8") == "dog\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vg", "coco"], "expected one dataset"),
        (["tags", "vg"], "--output: expected"),
        (["vg", "--set", "prepared=/there"], "--set prepared"),
        (["vgg"], "vgg'; did you mean vg"),
    ],
)
def test_a_wrong_call_is_one_line(arguments, message, capsys):
    assert main(["prepare", *arguments]) == 2

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_prepared_dataset_is_named_by_its_folder_alone(shared, tmp_path, capsys):
    root, out = shared / "fixtures/coco_ovad_e2e", tmp_path / "out"
    assert main(["prepare", "ovad", "--root", str(root), "--output", str(out)]) == 0

    code = main(["inspect", "ovad", "--set", f"prepared={out}", "--output", str(tmp_path / "look")])

    assert code == 0
    assert "104" in capsys.readouterr().out


def test_of_several_processes_that_need_a_tag_list_one_makes_it(vg, tmp_path, monkeypatch):
    train = prepare(raw(vg), ["train"], tmp_path / "out")["train"]
    made = []

    def count(*args, **options):
        made.append(args)
        time.sleep(0.1)  # long enough for the others to come
        return tag_list_of(*args, **options)

    monkeypatch.setattr(region_source, "tag_list_of", count)
    with ThreadPoolExecutor(4) as pool:
        lists = list(pool.map(region_source.frequent_tags, [train] * 4))

    assert (lists, len(made)) == ([["dog", "big"]] * 4, 1)
