"""Imports go down only, and the house rules that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "lavis_dynrefer"

# Lowest first; a room is a module or a folder right below the package.
FLOORS = (
    ("errors", "settings", "config", "structures", "paths", "images"),
    ("vocab", "views", "metrics", "formats", "pages"),
    ("questions",),
    ("models", "detectors"),
    ("datasets", "synthetic"),
    ("training", "host"),
    ("predictor", "explain"),
    ("cli", "serve", "demo", "lab", "train", "evaluate", "__init__"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PURE = [room for rooms in FLOORS[:3] for room in rooms]
HEAVY = ("lavis", "transformers", "torchvision", f"{PACKAGE}.models")  # no pure room imports them
MAY_PRINT = {"cli", "demo", "lab"}
BANNED_NAMES = {"utils", "misc", "common", "helpers"}
MOST_LINES = 400
MOST_FILES = 13  # of a folder, without its __init__.py
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
        if count > MOST_FILES:
            found.append(f"{folder.relative_to(root)}: more than {MOST_FILES} files")
    return found


def _check(path: Path, root: Path) -> list[str]:
    parts = path.relative_to(root / PACKAGE).with_suffix("").parts
    room = parts[0]
    if room not in FLOOR:
        return [f"{room} has no place in FLOORS"]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [what for name in _imports(tree) for what in _check_import(room, name)]
    if BANNED_NAMES.intersection(parts):
        found.append("name says nothing")
    if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES:
        found.append(f"more than {MOST_LINES} lines")
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
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert result.stdout == "[]\n", result.stderr


@pytest.mark.parametrize(
    ("path", "code", "complaint"),
    [
        ("images/boxes.py", "from lavis_dynrefer.models import losses", "imports upwards"),
        ("images/boxes.py", "import lavis_dynrefer.training.task", "imports upwards"),
        ("images/boxes.py", "from lavis_dynrefer import predictor", "imports upwards"),
        ("views/nesting.py", "def f():\n    import lavis.models", "must not know LAVIS"),
        ("metrics/caption_scores.py", "from lavis_dynrefer.models import x", "imports upwards"),
        ("models/losses.py", "from . import x", "relative import"),
        ("models/helpers.py", "", "name says nothing"),
        ("common/boxes.py", "", "has no place in FLOORS"),
        ("vocab/names.py", "from lavis_dynrefer.questions import Questions", "imports upwards"),
        ("cli/export.py", "from lavis_dynrefer.lab import estimates", "imports lab"),
        ("models/losses.py", "x = 1\n" * 401, "more than 400 lines"),
        ("models/losses.py", "print('loss')", "line 1 prints"),
        ("training/task.py", "try:\n    pass\nexcept:\n    raise", "swallows every error"),
        (
            "training/task.py",
            "try:\n    x = 1\nexcept Exception:\n    pass",
            "swallows every error",
        ),
    ],
)
def test_planted_violation_is_found(tmp_path, path, code, complaint):
    planted = tmp_path / PACKAGE / path
    planted.parent.mkdir(parents=True)
    planted.write_text(code)

    found = violations(tmp_path)

    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("cli/main.py", "from lavis_dynrefer.predictor import RegionPredictor\nprint('caption')"),
        ("models/losses.py", "import lavis.models\nfrom lavis_dynrefer.images import boxes"),
        ("training/runner.py", "try:\n    x = 1\nexcept ValueError:\n    pass"),
    ],
)
def test_allowed_code_is_not_reported(tmp_path, path, code):
    allowed = tmp_path / PACKAGE / path
    allowed.parent.mkdir(parents=True)
    allowed.write_text(code)

    assert violations(tmp_path) == []


def test_second_file_of_a_name_is_found(tmp_path):
    for folder in ("images", "views"):
        (tmp_path / PACKAGE / folder).mkdir(parents=True)
        (tmp_path / PACKAGE / folder / "boxes.py").touch()
        (tmp_path / PACKAGE / folder / "train.py").touch()

    assert violations(tmp_path) == ["boxes.py: 2 files of that name"]


def test_overfull_folder_is_found(tmp_path):
    folder = tmp_path / PACKAGE / "images"
    folder.mkdir(parents=True)
    for number in range(MOST_FILES + 1):
        (folder / f"boxes_{number}.py").touch()

    assert violations(tmp_path) == [f"{PACKAGE}/images: more than {MOST_FILES} files"]
