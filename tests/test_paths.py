"""Files of the package are found from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lavis_dynrefer import paths


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("elsewhere")
def test_config_path_is_absolute_and_exists():
    path = Path(paths.config_path("models/dynrefer_tiny.yaml"))

    assert path.is_absolute()
    assert path.is_file()


@pytest.mark.usefixtures("elsewhere")
def test_project_path_finds_a_shipped_run_file():
    assert Path(paths.project_path("dynrefer/synthetic.yaml")).is_file()


@pytest.mark.usefixtures("elsewhere")
def test_resource_is_found_in_the_package():
    assert paths.find_resource("vocab/data/coco_categories.txt").is_file()


def test_resource_in_the_current_folder_wins(elsewhere):
    own = elsewhere / "vocab" / "data" / "coco_categories.txt"
    own.parent.mkdir(parents=True)
    own.write_text("person\n", encoding="utf-8")

    assert paths.find_resource("vocab/data/coco_categories.txt") == own.resolve()


def test_missing_resource_is_none():
    assert paths.find_resource("assets/no_such_file.json") is None


def test_missing_resource_names_file_and_config_key():
    with pytest.raises(FileNotFoundError, match=r"text\.tokenizer.*no_such_file\.json"):
        paths.resource_path("no_such_file.json", key="text.tokenizer")


def test_cache_variable_moves_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path / "deep" / "cache"))

    assert paths.cache_dir() == tmp_path / "deep" / "cache"
    assert paths.cache_dir().is_dir()


def test_cache_lies_in_the_home_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DYNREFER_CACHE", raising=False)

    assert paths.cache_dir() == tmp_path / ".cache" / "lavis_dynrefer"
