"""The arguments that name a dataset on the command line."""

from __future__ import annotations

import argparse
from operator import attrgetter

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


@pytest.mark.parametrize(
    ("words", "setting", "value"),
    [
        (["--root", "/data/vg"], "root", "/data/vg"),
        (["--root", "[1]"], "root", "[1]"),  # not a list of yaml
        (["--split", "val", "test"], "splits", ("val", "test")),
        (["--images", "photos"], "images.storage", "photos"),  # below the root
        (["--set", "tags=null", "--set", "max_images=5"], "max_images", 5),
        ([], "on_error", "raise"),  # of the default yaml
    ],
)
def test_arguments_override_the_default_yaml(words, setting, value):
    assert attrgetter(setting)(source("vg", *words).info()) == value


def test_the_type_is_set():
    assert source("vg", "--type", "v1.0").config.type == "v1.0"
    assert source("vg").config.type == "v1.2"


def test_an_image_folder_may_be_relative_to_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert source("coco", "--images", "photos").info().images.storage == str(tmp_path / "photos")


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
