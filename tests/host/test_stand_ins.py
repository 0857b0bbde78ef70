"""LAVIS imports without packages that nothing here uses."""

from __future__ import annotations

import importlib

import pytest

from lavis_dynrefer.host.stand_ins import UNUSED_PACKAGES, stand_ins


@pytest.fixture
def absent_package(monkeypatch):
    monkeypatch.setitem(UNUSED_PACKAGES, "nowhere", "nowhere-headless")
    return "nowhere"


def test_absent_package_can_be_imported_from_while_lavis_is(absent_package):
    with stand_ins():
        module = importlib.import_module(f"{absent_package}.deep.module")

    assert str(module.AnyName) == "nowhere.deep.module.AnyName (not installed)"


def test_using_a_stand_in_names_the_package_to_install(absent_package):
    with stand_ins():
        module = importlib.import_module(absent_package)

    with pytest.raises(ImportError, match=r"nowhere\.read is not installed; pip install nowhere-h"):
        module.read("video.mp4")


def test_stand_in_is_gone_once_lavis_is_imported(absent_package):
    with stand_ins():
        importlib.import_module(absent_package)

    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(absent_package)


def test_installed_package_is_never_replaced(monkeypatch):
    monkeypatch.setitem(UNUSED_PACKAGES, "PIL", "pillow")

    with stand_ins():
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


def test_plugin_works_without_the_packages_it_does_not_use(run_python):
    hidden = set(UNUSED_PACKAGES) - {"pycocoevalcap"}  # the caption metrics do use it
    code = f"""hidden = {hidden}
{HIDE}
import lavis_dynrefer
from lavis.common.registry import registry
print(registry.get_model_class("dynrefer").__name__, hidden & sys.modules.keys())
"""

    result = run_python(code)

    assert result.stdout == "DynRefer set()\n", result.stderr
    assert "FutureWarning" not in result.stderr  # what LAVIS's libraries say about themselves
