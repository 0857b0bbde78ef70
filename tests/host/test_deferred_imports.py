"""Packages that LAVIS imports and hardly uses are imported on first use instead."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from lavis_dynrefer.host import deferred_imports
from lavis_dynrefer.host.deferred_imports import deferred_imports as deferring


@pytest.fixture
def slow_package(tmp_path, monkeypatch):
    """A package that LAVIS's `modules` import: as a whole, and a function of it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "slow_package.py").write_text("def double(x): return 2 * x\n")
    listed = {"whole": ("slow_package", ()), "part": ("slow_package", ("double",))}
    monkeypatch.setattr(deferred_imports, "DEFERRED", listed)
    yield SimpleNamespace(folder=tmp_path, name="slow_package")
    for name in ("slow_package", "whole", "part", "other"):
        sys.modules.pop(name, None)


def imported(package, module, code):
    """The module of that name and code, imported while imports are deferred."""
    (package.folder / f"{module}.py").write_text(code)
    with deferring():
        return __import__(module)


def test_package_is_imported_when_something_in_it_is_used(slow_package):
    module = imported(slow_package, "whole", "import slow_package as package")
    assert slow_package.name not in sys.modules

    assert module.package.double(3) == 6
    assert module.package.double is sys.modules[slow_package.name].double


def test_function_imports_its_module_when_called(slow_package):
    module = imported(slow_package, "part", "from slow_package import double")
    assert slow_package.name not in sys.modules

    assert module.double(3) == 6
    assert slow_package.name in sys.modules


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("other", "import slow_package"),  # not listed
        ("whole", "from slow_package import double"),  # listed with another statement
        ("part", "import slow_package"),
        ("part", "from slow_package import double, __name__"),
    ],
)
def test_any_other_import_is_left_alone(slow_package, module, code):
    imported(slow_package, module, code)

    assert slow_package.name in sys.modules


def test_imports_are_not_deferred_afterwards(slow_package):
    with deferring():
        pass
    (slow_package.folder / "whole.py").write_text("import slow_package")
    __import__("whole")

    assert slow_package.name in sys.modules


AFTER_LAVIS = """
import sys
import lavis_dynrefer, lavis, torch
slow = {"pandas", "spacy", "torch._dynamo"}
print(sorted(slow & sys.modules.keys()))

from torchvision.ops import roi_align
scripted = torch.jit.script(roi_align)
image, boxes = torch.rand(1, 2, 8, 8, requires_grad=True), torch.tensor([[0, 1.0, 1.0, 6.0, 7.0]])
expected = roi_align(image, boxes, 3)
print(torch.equal(scripted(image, boxes, (3, 3)), expected))
compiled = torch.compile(lambda x: 2 * roi_align(x, boxes, 3), backend="eager", fullgraph=True)
print(torch.equal(compiled(image), 2 * expected))
compiled(image).sum().backward()
torch.optim.SGD([image], 1.0).step()
print("torch._dynamo" in sys.modules)

roi_align = sys.modules["torchvision.ops.roi_align"]
print(roi_align.is_compile_supported("cpu") == torch._dynamo.utils.is_compile_supported("cpu"))

import lavis.common.utils, lavis.models.img2prompt_models.img2prompt_vqa as img2prompt, pandas
print(lavis.common.utils.pd.DataFrame is pandas.DataFrame, img2prompt.spacy.__name__)
"""


def test_torch_and_torchvision_work_after_lavis_was_imported(run_python):
    result = run_python(AFTER_LAVIS)

    assert result.stdout.splitlines() == ["[]", "True", "True", "True", "True", "True spacy"], (
        result.stderr
    )
