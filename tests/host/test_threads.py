"""Modules that several threads import at the same moment.

Python locks a module before its package. Two threads wait for each other if one imports a module
whose package imports that same module in the other; Python then raises `_DeadlockError`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from fresh_interpreter import run_python

import lavis_dynrefer

PACKAGE = Path(lavis_dynrefer.__file__).parent
AUTOLOAD = PACKAGE / "host" / "autoload"
THREADS = """
import importlib, threading, traceback
import lavis_dynrefer_autoload
lavis_dynrefer_autoload.install()  # as at start-up: LAVIS alone needs packages that may be missing
together = threading.Barrier({count})
def run(name):
    together.wait()
    try:
        importlib.import_module(name)
    except BaseException:
        traceback.print_exc()
        print("failed:", name)
threads = [threading.Thread(target=run, args=(name,)) for name in {names}]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def import_together(*names):
    names = ["lavis" if name == "lavis" else f"lavis_dynrefer.{name}".rstrip(".") for name in names]
    result = run_python(THREADS.format(count=len(names), names=names), AUTOLOAD)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr


@pytest.mark.parametrize("attempt", range(6))
def test_small_modules_are_imported_together(attempt):
    del attempt
    import_together("errors", "paths", "settings", "")


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(5))
@pytest.mark.parametrize(
    "names",
    [
        ("", "predictor"),
        ("", "lavis", "predictor"),
        ("training.runner", "predictor", "datasets.builders", ""),
        ("models.dynrefer", "training.launch", "explain", "lavis"),
        ("images", "metrics", "serve.service", "training.region_task"),
        ("formats", "formats.coco_json", "vocab.pos", "vocab"),
        ("training.launch", "vocab", "datasets.builders", "synthetic.scene"),
    ],
)
def test_modules_are_imported_together(names, attempt):
    del attempt
    import_together(*names)


def imported(path):
    """Modules that importing a file imports, in order."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module)
    return found


@pytest.mark.parametrize("package", ["lavis", "torch", "torchvision"])
def test_packages_are_imported_before_their_modules(package):
    """Else two modules in two threads begin a package at two ends; LAVIS begins the others."""
    first = {package, "lavis"}
    late = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if [name for name in imported(path) if name.split(".")[0] in first][:1]
        not in ([], [package], ["lavis"])
    ]
    assert late == []


def test_packages_do_not_import_their_modules():
    """They are imported on first use, see `lazy_names`; `cli` begins in one thread."""
    eager = [
        (package, name)
        for path in PACKAGE.glob("*/**/__init__.py")
        for package in [".".join(["lavis_dynrefer", *path.parent.relative_to(PACKAGE).parts])]
        for name in imported(path)
        if name.startswith(f"{package}.") and package != "lavis_dynrefer.cli"
    ]
    assert eager == []


def test_the_package_imports_next_to_nothing_of_itself():
    own = [name for name in imported(PACKAGE / "__init__.py") if name.startswith("lavis_dynrefer")]
    assert own == ["lavis_dynrefer.host", "lavis_dynrefer.host.autoload"]
    for name in ("versions.py", "autoload/lavis_dynrefer_autoload.py", "__init__.py"):
        assert not [one for one in imported(PACKAGE / "host" / name) if "lavis" in one]
