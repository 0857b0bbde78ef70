"""Imports go down only, and the house rules that a machine can check."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest
from fresh_interpreter import run_python

ROOT = Path(__file__).parents[1]
PACKAGE = "lavis_dynrefer"

# Lowest first; a room is a module or a folder right below the package.
FLOORS = (
    (
        *("errors", "settings", "config", "structures", "paths", "cores", "lazy_names"),
        *("ending_signals", "living_processes", "images"),
    ),
    ("vocab", "views", "metrics", "formats", "pages"),
    ("questions",),
    ("models", "detectors"),
    ("datasets", "synthetic"),
    ("training", "host"),
    ("predictor", "explain", "report"),
    ("cli", "bulk", "serve", "demo", "lab", "train", "evaluate", "__init__"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PURE = [room for rooms in FLOORS[:3] for room in rooms]
HEAVY = ("lavis", "transformers", "torchvision", f"{PACKAGE}.models")  # no pure room imports them
MAY_PRINT = {"cli", "demo", "lab"}
BANNED_NAMES = {"utils", "misc", "common", "helpers"}
MAX_LINES = 400
MAX_FILES = 13  # of a folder, without its __init__.py
LAVIS_NAMES = {"train.py", "evaluate.py"}  # modules that LAVIS's commands are called by


def violations(root: Path) -> list[str]:
    """Every broken rule of the package below `root`, as "path: what"."""
    files = sorted((root / PACKAGE).rglob("*.py"))
    found = [f"{path.relative_to(root)}: {what}" for path in files for what in _check(path, root)]
    named = [path for path in files if not path.name.startswith("__")]
    for name, count in Counter(path.name for path in named).items():
        if count > 1 and name not in LAVIS_NAMES:
            found.append(f"{name}: {count} files of that name")
    for folder, count in Counter(path.parent for path in named).items():
        if count > MAX_FILES:
            found.append(f"{folder.relative_to(root)}: more than {MAX_FILES} files")
    return found


def _check(path: Path, root: Path) -> list[str]:
    parts = path.relative_to(root / PACKAGE).with_suffix("").parts
    room = parts[0]
    if room not in FLOOR:
        return [f"{room} has no place in FLOORS"]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [what for name in _imports(tree) for what in _check_import(room, name)]
    if BANNED_NAMES.intersection(parts):
        found.append("meaningless name")
    if len(path.read_text(encoding="utf-8").splitlines()) > MAX_LINES:
        found.append(f"more than {MAX_LINES} lines")
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and _swallows(node):
            found.append(f"line {node.lineno} swallows every error")
        is_print = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
        if is_print and room not in MAY_PRINT:
            found.append(f"line {node.lineno} prints")
    return found


def _imports(tree: ast.Module) -> list[str]:
    """Full names imported anywhere in a module: "a.b" for `import a.b` and `from a import b`."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            names += [f"{dots}{node.module or ''}.{alias.name}" for alias in node.names]
    return names


def _check_import(room: str, name: str) -> list[str]:
    if name.startswith("."):
        return [f"relative import {name}"]
    head, *rest = name.split(".")
    if head == "lavis" and room in PURE:
        return [f"{room} must not know LAVIS: {name}"]
    if head != PACKAGE or not rest or rest[0] not in FLOOR:
        return []
    if FLOOR[rest[0]] > FLOOR[room]:
        return [f"imports upwards: {name}"]
    if rest[0] == "lab" and room != "lab":
        return [f"imports lab: {name}"]
    return []


def _swallows(handler: ast.ExceptHandler) -> bool:
    """Bare `except:`, or `except Exception` whose body does nothing."""
    if handler.type is None:
        return True
    broad = getattr(handler.type, "id", "") in ("Exception", "BaseException")
    return broad and all(isinstance(node, (ast.Pass, ast.Continue)) for node in handler.body)


def test_package_keeps_its_layers_and_house_rules():
    assert violations(ROOT) == []


def test_pure_rooms_import_nothing_heavy():
    code = f"""
import importlib, pkgutil, sys
def load(name):
    module = importlib.import_module(name)
    for item in pkgutil.iter_modules(getattr(module, "__path__", ()), name + "."):
        load(item.name)
for room in {PURE}:
    load("{PACKAGE}." + room)
heavy = {HEAVY}
print([name for name in sys.modules if name.startswith(tuple(f"{{name}}." for name in heavy))
       or name in heavy])
"""
    result = run_python(code)

    assert result.stdout == "[]\n", result.stderr


@pytest.fixture
def plant(tmp_path):
    """Write modules below an empty package: path -> code. Returns the violations found."""

    def write(**modules):
        for path, code in modules.items():
            file = tmp_path / PACKAGE / f"{path.replace('__', '/')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(code, encoding="utf-8")
        return violations(tmp_path)

    return write


@pytest.mark.parametrize(
    ("path", "code", "complaint"),
    [
        ("images__boxes", "import lavis_dynrefer.models.losses", "imports upwards"),
        ("images__boxes", "from lavis_dynrefer import predictor", "imports upwards"),
        ("views__nesting", "def f():\n    import lavis.models", "must not know LAVIS"),
        ("models__losses", "from . import x", "relative import"),
        ("cli__export", "from lavis_dynrefer.lab import estimates", "imports lab"),
        ("models__helpers", "", "meaningless name"),
        ("common__boxes", "", "has no place in FLOORS"),
        ("models__losses", "x = 1\n" * 401, "more than 400 lines"),
        ("models__losses", "print('loss')", "line 1 prints"),
        ("training__task", "try:\n    x = 1\nexcept Exception:\n    pass", "swallows every error"),
    ],
)
def test_planted_violation_is_found(plant, path, code, complaint):
    (found,) = plant(**{path: code})

    assert complaint in found


def test_allowed_code_is_not_reported(plant):
    found = plant(
        cli__main="from lavis_dynrefer.predictor import RegionPredictor\nprint('caption')",
        models__losses="import lavis.models\nfrom lavis_dynrefer.images import boxes",
        training__runner="try:\n    x = 1\nexcept ValueError:\n    pass",
    )

    assert found == []


def test_repeated_names_and_overfull_folders_are_found(plant):
    files = {f"images__boxes_{number}": "" for number in range(MAX_FILES)}

    assert plant(**files, images__boxes="", views__boxes="") == [
        "boxes.py: 2 files of that name",
        f"{PACKAGE}/images: more than {MAX_FILES} files",
    ]
