"""Packages that LAVIS imports and that nothing here uses are imported on first use instead."""

from __future__ import annotations

import importlib
import sys

import pytest
from fresh_interpreter import run_python

from lavis_dynrefer.host.deferred_imports import UNUSED_PACKAGES, deferred_imports


@pytest.fixture
def lavis_module(tmp_path, monkeypatch):
    """Imports code as a module of LAVIS, beside a slow package and without a missing one."""
    package = tmp_path / "slow"
    package.mkdir()
    (package / "__init__.py").write_text("import slow.part\n", encoding="utf-8")
    (package / "part.py").write_text("def double(x): return 2 * x\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(UNUSED_PACKAGES, "slow", "slow")
    monkeypatch.setitem(UNUSED_PACKAGES, "missing", "missing-headless")

    def import_as(code, name="lavis.toy"):
        with deferred_imports():
            namespace = {"__name__": name}
            exec(code, namespace)
        return namespace

    yield import_as
    for name in ("slow", "slow.part"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("code", "use"),
    [
        ("import slow", "slow.part.double(3)"),
        ("import slow.part", "slow.part.double(3)"),
        ("from slow import part", "part.double(3)"),
        ("from slow.part import double as twice", "twice(3)"),
    ],
)
def test_package_is_imported_when_something_in_it_is_used(lavis_module, code, use):
    names = lavis_module(code)
    assert "slow" not in sys.modules

    assert eval(use, names) == 6
    assert "slow" in sys.modules


def test_other_modules_import_at_once(lavis_module):
    lavis_module("import slow", name="other")

    assert "slow" in sys.modules


def test_imports_are_normal_again_afterwards(lavis_module):
    lavis_module("pass")
    exec("import slow", {"__name__": "lavis.toy"})

    assert "slow" in sys.modules


@pytest.mark.parametrize(
    ("code", "use", "named"),
    [
        ("import missing", "missing.deep.read('a')", "missing.deep.read"),
        ("from missing.deep import manager", "manager.open('a')", "missing.deep.manager.open"),
    ],
)
def test_error_says_which_package_to_install(lavis_module, code, use, named):
    names = lavis_module(code)

    with pytest.raises(ImportError, match=f"^{named} is not installed; pip install missing-headl"):
        eval(use, names)


def test_missing_package_stays_missing_for_others(lavis_module):
    lavis_module("import missing")

    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("missing")


HIDE = """
import sys
class Hiding:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name): return getattr(self.finder, name)
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""


def test_plugin_works_without_the_packages_it_does_not_use():
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


AFTER_LAVIS = """
import sys
import lavis_dynrefer, lavis
print({"pandas", "spacy", "fairscale"} & sys.modules.keys())

import lavis.common.utils, pandas
print(lavis.common.utils.pd.DataFrame is pandas.DataFrame)
"""


@pytest.mark.slow
def test_packages_are_loaded_and_used_after_lavis():
    pytest.importorskip("pandas")
    result = run_python(AFTER_LAVIS)
    assert result.stdout.splitlines() == ["set()", "True"], result.stderr
