"""The arguments that name a dataset on the command line."""

from __future__ import annotations

import argparse

import pytest

from lavis_dynrefer.cli.dataset_arguments import (
    DATASETS,
    add_dataset_arguments,
    read_splits,
    source_from,
)
from lavis_dynrefer.datasets.dataset_catalog import SOURCES


def source(*words):
    parser = argparse.ArgumentParser()
    add_dataset_arguments(parser)
    return source_from(parser.parse_args(words))


@pytest.mark.parametrize(("name", "registered"), DATASETS.items())
def test_datasets_have_short_and_registered_names(name, registered):
    assert source(name).dataset_name == source(registered).dataset_name == registered


def test_every_dataset_has_a_short_name():
    assert set(DATASETS.values()) == set(SOURCES)


def test_a_users_dataset_has_a_short_name(monkeypatch):
    monkeypatch.setitem(SOURCES, "table_region", SOURCES["ovad"])
    assert source("table").dataset_name == "ovad"


def test_arguments_override_the_default_yaml():
    info = source("vg", "--root", "/data/vg", "--split", "val", "test").info()
    assert (info.root, info.splits, info.on_error) == ("/data/vg", ("val", "test"), "raise")


def test_the_type_is_set():
    assert source("vg", "--type", "v1.0").config.type == "v1.0"
    assert source("vg").config.type == "v1.2"


def test_further_settings_are_read_as_in_a_yaml():
    info = source("vg", "--set", "max_images=5", "--set", "tags=null").info()
    assert (info.max_images, info.tags) == (5, None)


def test_a_path_with_brackets_is_a_path():
    assert source("vg", "--root", "[1]").info().root == "[1]"


def test_an_image_folder_may_be_relative_to_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert source("coco", "--images", "photos").info().images.storage == str(tmp_path / "photos")


def test_other_image_folders_are_relative_to_the_root():
    assert source("coco", "--images", "photos").info().images.storage == "photos"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vgg"], "dataset: unknown 'vgg'; did you mean vg"),
        (["coco_caption"], "dataset: unknown 'coco_caption'; expected one of"),
        (["vg", "--type", "v3"], "v3"),
        (["vg", "--split", "tets"], "--split: unknown 'tets'; did you mean test"),
        (["vg", "--set", "max_images"], "--set max_images: expected KEY=VALUE"),
        (["vg", "--set", "max_image=5"], "max_image"),
        (["vg", "--set", "max_images=five"], "max_images: expected an integer"),
        (["vg", "--set", "splits=["], r"--set splits=\[: while parsing"),
    ],
)
def test_invalid_arguments_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        source(*words)


def test_a_synthetic_dataset_is_generated_and_read(tmp_path):
    options = ["--root", str(tmp_path / "scenes"), "--set", "scenes=3", "--split", "val"]
    made = source("synthetic", *options)
    found = read_splits(made)
    assert list(found) == ["val"]
    assert len(found["val"].regions) > 0
