"""LAVIS's modules find the names that transformers has moved; what is gone says so when called."""

from __future__ import annotations

import builtins

import pytest
import transformers.modeling_utils
import transformers.pytorch_utils

from lavis_dynrefer.errors import MissingPackageError
from lavis_dynrefer.host.deferred_imports import deferred_imports


@pytest.fixture
def moved(monkeypatch):
    """A function that transformers has moved, one that is gone, and one that is where it was."""
    found = object()
    for name in ("moved", "gone"):
        monkeypatch.delattr(transformers.modeling_utils, name, raising=False)
    monkeypatch.setattr(transformers.pytorch_utils, "moved", found, raising=False)
    monkeypatch.setattr(transformers.pytorch_utils, "PreTrainedModel", None, raising=False)
    return found


def run(code, importer):
    namespace = {"__name__": importer}
    with deferred_imports():
        exec(code, namespace)
    return namespace


def test_a_moved_name_is_the_original_object(moved):
    found = run("from transformers.modeling_utils import moved, PreTrainedModel", "lavis.toy")

    assert found["moved"] is moved
    assert found["PreTrainedModel"] is transformers.modeling_utils.PreTrainedModel


@pytest.mark.parametrize(
    "module", ["transformers.modeling_utils", "transformers.utils.model_parallel_utils"]
)
def test_a_name_that_is_gone_says_so_when_it_is_called(moved, module):
    found = run(f"from {module} import gone", "lavis.toy")

    with pytest.raises(MissingPackageError, match=rf"{module}\.gone, .*'transformers<5'"):
        found["gone"]()


def test_only_lavis_finds_them(moved):
    with pytest.raises(ImportError, match="moved"):
        run("from transformers.modeling_utils import moved", "other.toy")
    assert not hasattr(transformers.modeling_utils, "moved")
    assert builtins.__import__.__module__ == "builtins"


def test_another_missing_module_stays_missing():
    with pytest.raises(ModuleNotFoundError, match="no_such_part"):
        run("import transformers.no_such_part", "lavis.toy")
