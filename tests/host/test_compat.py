"""LAVIS imports beside other versions of its libraries, or without those it does not need here."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import transformers.modeling_utils

from lavis_dynrefer.host import compat

ROOT = Path(__file__).parents[1]


def run_python(code, *paths, **variables):
    """Run code in a fresh interpreter that sees `paths` first, then this checkout."""
    path = os.pathsep.join(str(path) for path in (*paths, ROOT))
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def pretended_transformers(tmp_path):
    """A folder whose metadata claims a version of transformers, and that holds an empty LAVIS."""

    def pretend(version):
        info = tmp_path / f"transformers-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n"
        )
        (tmp_path / "lavis").mkdir()
        (tmp_path / "lavis" / "__init__.py").write_text("alive = True\n")
        return tmp_path

    return pretend


@pytest.fixture
def absent_package(monkeypatch):
    monkeypatch.setitem(compat.UNUSED_PACKAGES, "nowhere", "nowhere-headless")
    return "nowhere"


@pytest.mark.parametrize("version", ["5.0.0", "5.23.0", "4.25.1"])
def test_other_transformers_is_refused_in_one_sentence(pretended_transformers, version):
    result = run_python("import lavis_dynrefer", pretended_transformers(version))

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"ImportError: lavis_dynrefer needs transformers >=4.26,<5, found {version}; "
        "pip install 'transformers>=4.26,<5'"
    )


def test_lavis_survives_a_refused_transformers_with_a_warning(pretended_transformers):
    code = (
        "import lavis_dynrefer_autoload as hook; hook.install()\n"
        "import lavis; print(lavis.alive)\n"
        "import lavis_dynrefer"
    )
    hook = ROOT / "lavis_dynrefer" / "_autoload"

    result = run_python(code, pretended_transformers("5.0.0"), hook)

    assert result.stdout == "True\n"
    assert result.stderr.count("RuntimeWarning: lavis_dynrefer is not available in LAVIS") == 1
    assert "ImportError: lavis_dynrefer needs transformers" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("version", ["4.26.1", "4.57.6", "4.58.0.dev0"])
def test_supported_transformers_is_accepted(pretended_transformers, version, monkeypatch):
    monkeypatch.syspath_prepend(str(pretended_transformers(version)))

    assert compat.version("transformers") == version
    compat.check_versions()


def test_old_python_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 8, 18, "final", 0))

    with pytest.raises(ImportError, match=r"needs Python >= 3\.9, found 3\.8\.18"):
        compat.check_versions()


@pytest.mark.parametrize("name", compat.MOVED_NAMES)
def test_names_that_newer_transformers_moved_are_put_back(monkeypatch, name):
    original = getattr(transformers.modeling_utils, name)
    monkeypatch.delattr(transformers.modeling_utils, name)

    with compat.lavis_importable():
        assert getattr(transformers.modeling_utils, name) is original


def test_warning_filters_of_libraries_stay_and_ours_go():
    with warnings.catch_warnings():
        before = list(warnings.filters)
        with compat.lavis_importable():
            warnings.filterwarnings("once", message="as a library does")
            theirs = warnings.filters[0]
            assert len(warnings.filters) > len(before) + 1
        assert list(warnings.filters) == [theirs, *before]


def test_absent_package_can_be_imported_from_while_lavis_is(absent_package):
    with compat.lavis_importable():
        module = importlib.import_module(f"{absent_package}.deep.module")

    assert str(module.AnyName) == "nowhere.deep.module.AnyName (not installed)"


def test_using_a_stand_in_names_the_package_to_install(absent_package):
    with compat.lavis_importable():
        module = importlib.import_module(absent_package)

    with pytest.raises(ImportError, match=r"nowhere\.read is not installed; pip install nowhere-h"):
        module.read("video.mp4")


def test_stand_in_is_gone_once_lavis_is_imported(absent_package):
    with compat.lavis_importable():
        importlib.import_module(absent_package)

    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(absent_package)


def test_installed_package_is_never_replaced(monkeypatch):
    monkeypatch.setitem(compat.UNUSED_PACKAGES, "PIL", "pillow")

    with compat.lavis_importable():
        assert hasattr(importlib.import_module("PIL.Image"), "open")


HIDE = """
import sys
class Hiding:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name): return getattr(self.finder, name)
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""


def test_plugin_registers_without_the_packages_it_does_not_use():
    hidden = set(compat.UNUSED_PACKAGES) - {"pycocoevalcap"}  # the caption metrics do use it
    code = f"""hidden = {hidden}
{HIDE}
import lavis_dynrefer
from lavis.common.registry import registry
print(registry.get_model_class("dynrefer").__name__, hidden & sys.modules.keys())
"""

    result = run_python(code)

    assert result.stdout == "DynRefer set()\n", result.stderr
    assert "FutureWarning" not in result.stderr  # what LAVIS's libraries say about themselves
