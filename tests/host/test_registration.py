"""LAVIS knows the plugin, whatever is imported first; its classes are imported on demand."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest
from fresh_interpreter import run_python
from lavis.common.registry import registry
from lavis.models import BaseModel

import lavis_dynrefer
from lavis_dynrefer.datasets.dataset_catalog import SOURCES
from lavis_dynrefer.host.registration import MODULES, PendingNames

PACKAGE = Path(lavis_dynrefer.__file__).parent
NAMES = [(kind, name) for kind, modules in MODULES.items() for name in modules]


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_module_of_a_pending_name_registers_it(kind, name):
    assert registry.mapping[kind][name].__module__ == MODULES[kind][name]


def test_every_registered_class_has_a_pending_name():
    decorated = set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(["lavis_dynrefer", *path.relative_to(PACKAGE).with_suffix("").parts])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                decorated.update((name, module) for name in registered_names(node))

    datasets = {(name, "lavis_dynrefer.datasets.builders") for name in SOURCES}
    assert decorated | datasets == {(name, MODULES[kind][name]) for kind, name in NAMES}


def registered_names(node):
    for call in node.decorator_list:
        function = getattr(getattr(call, "func", None), "attr", "")
        if function.startswith("register_"):
            yield call.args[0].value


@pytest.fixture
def pending(tmp_path, monkeypatch):
    """LAVIS's mapping of models, with a model that is still to be registered."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "late_module.py").write_text(
        "from lavis.common.registry import registry\n"
        "from lavis.models import BaseModel\n"
        "@registry.register_model('late')\n"
        "class Late(BaseModel): pass\n",
        encoding="utf-8",
    )
    mapping = PendingNames({"early": BaseModel}, {"late": "late_module"})
    monkeypatch.setitem(registry.mapping, "model_name_mapping", mapping)
    yield mapping
    sys.modules.pop("late_module", None)


@pytest.mark.usefixtures("pending")
def test_pending_name_is_listed_and_not_imported():
    assert registry.list_models() == ["early", "late"]
    assert "late_module" not in sys.modules


@pytest.mark.usefixtures("pending")
def test_lookup_imports_the_module():
    assert registry.get_model_class("late") is sys.modules["late_module"].Late


@pytest.mark.usefixtures("pending")
def test_module_can_be_imported_by_its_own_name_and_reloaded():
    module = importlib.import_module("late_module")
    assert registry.get_model_class("late") is module.Late

    importlib.reload(module)
    assert registry.get_model_class("late") is module.Late


def test_values_and_items_import_what_they_need(pending):
    assert len(pending) == 2
    assert [model.__name__ for model in pending.values()] == ["BaseModel", "Late"]
    assert dict(pending)["late"].__name__ == "Late"


@pytest.mark.usefixtures("pending")
def test_unknown_name_has_no_class():
    assert registry.get_model_class("nowhere") is None


@pytest.mark.usefixtures("pending")
@pytest.mark.parametrize("name", ["late", "early"])
def test_name_cannot_be_taken_by_another_module(name):
    with pytest.raises(KeyError, match=name):

        @registry.register_model(name)
        class Other(BaseModel):
            pass


LOAD = """
from lavis.models import load_model_and_preprocess, model_zoo
model, processors, _ = load_model_and_preprocess("dynrefer")
print(type(model).__name__, type(processors["eval"]).__name__, dict(model_zoo)["dynrefer"])
"""
LOADED = "DynRefer EvalProcessor ['default', 'tiny', 'flant5xl', 'vicuna7b']"


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(
            "import lavis; import lavis_dynrefer; import lavis_dynrefer", marks=pytest.mark.slow
        ),
        "from lavis_dynrefer.models.dynrefer import DynRefer; import lavis",
    ],
)
def test_model_loads_by_name_in_any_import_order(first):
    result = run_python(first + LOAD)

    assert result.stdout.splitlines()[-1] == LOADED, result.stderr
    assert "Warning: lavis_dynrefer" not in result.stderr


SPAWN = """
import multiprocessing
from lavis_dynrefer import DynReferConfig

def load(config):
    from lavis.models import load_model_and_preprocess
    return type(load_model_and_preprocess("dynrefer")[0]).__name__

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(load, [DynReferConfig()]))
"""


def test_spawned_worker_loads_the_model_by_name(tmp_path):
    (tmp_path / "program.py").write_text(SPAWN, encoding="utf-8")
    code = f"import runpy; runpy.run_path({str(tmp_path / 'program.py')!r}, run_name='__main__')"

    result = run_python(code)

    assert result.stdout == "['DynRefer']\n", result.stderr
