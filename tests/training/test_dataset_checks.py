"""Datasets whose files are elsewhere or were prepared before."""

from __future__ import annotations

import json
from pathlib import Path

import lavis_dynrefer  # noqa: F401  registers with LAVIS
from lavis_dynrefer.datasets.prepared import FORMAT
from lavis_dynrefer.training.checks.dataset_checks import check_dataset, evaluators_by_split


def vg_region(**info):
    return list(check_dataset("vg_region", {"type": "v1.2", "build_info": info}))


def prepared(folder, *splits):
    folder.mkdir()
    (folder / "images").mkdir()
    counts = {"images": 1, "regions_read": 1, "regions_kept": 1, "dropped": {}}
    described = {"name": "vg", **counts, "attributes": [], "category_names": []}
    manifest = {
        "format": FORMAT,
        "images": str(folder / "images"),
        "images_from_here": "images",
        "state": {"sources": {}, "images": []},
        "splits": dict.fromkeys(splits, described),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return str(folder)


def test_a_prepared_folder_needs_no_raw_files(tmp_path):
    folder = prepared(tmp_path / "vg", "train", "test")

    assert vg_region(prepared=folder, splits=["test"]) == []


def test_a_prepared_folder_that_moved_without_its_images_stops_the_run(tmp_path):
    folder = Path(prepared(tmp_path / "vg", "train"))
    folder.rename(tmp_path / "moved")

    assert vg_region(prepared=str(tmp_path / "moved")) == []  # images moved along
    (tmp_path / "moved/images").rmdir()
    (found,) = vg_region(prepared=str(tmp_path / "moved"))

    assert f"should be in {folder / 'images'}" in found.text
    assert "images.storage" in found.text
    assert (found.fatal, found.stops) == (False, True)


def test_a_prepared_folder_without_the_split_stops_the_run(tmp_path):
    (found,) = vg_region(prepared=prepared(tmp_path / "vg", "train"), splits=["test"])

    assert "has no split 'test', only ['train']" in found.text
    assert (found.fatal, found.stops) == (False, True)


def test_a_folder_that_is_not_prepared_stops_the_run(tmp_path):
    (found,) = vg_region(prepared=str(tmp_path))

    assert "build_info.prepared: no " in found.text
    assert found.stops


def test_missing_raw_files_are_named_but_may_have_been_prepared_before(tmp_path):
    found = vg_region(root=str(tmp_path), boxes="grit.json")

    names = ["region_descriptions", "image_data", "densecap_splits", "boxes", "images.storage"]
    assert [item.text.split(": no ")[0].split("build_info.")[1] for item in found] == names
    assert not any(finding.stops for finding in found)


def test_settings_that_exclude_each_other_are_named():
    (found,) = vg_region(root="/data", boxes="grit.json", max_regions=3)

    assert found.text.startswith("datasets.vg_region.build_info: max_regions would drop boxes")
    assert found.fatal


def test_evaluators_are_those_of_the_splits_in_the_run():
    section = {"build_info": {"splits": ["test", "attributes"], "split_names": {"test": "exam"}}}

    assert evaluators_by_split("synthetic_region", section) == {
        "exam": "dense_caption",
        "attributes": "attributes",
    }
