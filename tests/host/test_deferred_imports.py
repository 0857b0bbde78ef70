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
import lavis_dynrefer, lavis, torch
print(sorted({"pandas", "spacy", "fairscale", "torch._dynamo"} & sys.modules.keys()))

from torchvision.ops import roi_align
scripted = torch.jit.script(roi_align)
image, boxes = torch.rand(1, 2, 8, 8, requires_grad=True), torch.tensor([[0, 1.0, 1.0, 6.0, 7.0]])
expected = roi_align(image, boxes, 3)
print(torch.equal(scripted(image, boxes, (3, 3)), expected))
compiled = torch.compile(lambda x: 2 * roi_align(x, boxes, 3), backend="eager", fullgraph=True)
print(torch.equal(compiled(image), 2 * expected))
compiled(image).sum().backward()
torch.optim.SGD([image], 1.0).step()

module = sys.modules["torchvision.ops.roi_align"]
print(module.is_compile_supported("cpu") == torch._dynamo.utils.is_compile_supported("cpu"))
module._has_ops = lambda: False  # as where torchvision has no kernel: its own code is compiled
compiled = torch.compile(lambda x: 2 * roi_align(x, boxes, 3), backend="eager")
print(torch.allclose(compiled(image), 2 * torch.ops.torchvision.roi_align(
    image, boxes, 1.0, 3, 3, -1, False)))

import lavis.common.utils, lavis.models.vit, pandas
print(lavis.common.utils.pd.DataFrame is pandas.DataFrame)
print(lavis.models.vit.checkpoint_wrapper(torch.nn.Linear(2, 2)))
"""


@pytest.mark.slow
def test_torch_torchvision_and_lavis_still_work():
    result = run_python(AFTER_LAVIS)

    first, *others, wrapped = result.stdout.splitlines()
    assert first == "[]"
    assert others == ["True"] * 5, result.stderr
    assert wrapped.startswith("Linear(")
