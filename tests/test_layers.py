"""Imports go down only, and the house rules that a machine can check."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "lavis_dynrefer"

# Lowest first; a part is a module or a folder right below the package.
LAYERS = (
    ("config", "structures", "paths", "geometry", "compat", "run_keys"),
    ("vocab", "views", "metrics"),
    ("models",),
    ("processors", "datasets", "synthetic", "drawing"),
    ("task", "runner", "checkpointing", "loaders"),
    ("registration", "run_config"),
    ("checks",),
    ("launch", "train", "evaluate", "_lavis", "_autoload"),
    ("predictor", "inputs", "explain", "explain_page", "results"),
    ("cli", "serve", "benchmarks", "demo", "__init__"),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
WITHOUT_LAVIS = {*LAYERS[0], *LAYERS[1]}
FORBIDDEN = {("models", "metrics"), ("models", "datasets"), ("metrics", "models")}
MAY_PRINT = {"cli", "demo"}
BANNED_NAMES = {"utils", "misc", "common", "helpers"}
MOST_LINES = 400


def violations(root: Path) -> list[str]:
    """Every broken rule of the package below `root`, as "path: what"."""
    files = sorted((root / PACKAGE).rglob("*.py"))
    return [f"{path.relative_to(root)}: {what}" for path in files for what in _check(path, root)]


def _check(path: Path, root: Path) -> list[str]:
    parts = path.relative_to(root / PACKAGE).with_suffix("").parts
    part = parts[0]
    if part not in RANK:
        return [f"{part} has no place in LAYERS"]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [what for name in _imports(tree) for what in _check_import(part, name)]
    if BANNED_NAMES.intersection(parts):
        found.append("name says nothing")
    if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES:
        found.append(f"more than {MOST_LINES} lines")
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and _swallows(node):
            found.append(f"line {node.lineno} swallows every error")
        is_print = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
        if is_print and part not in MAY_PRINT:
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


def _check_import(part: str, name: str) -> list[str]:
    if name.startswith("."):
        return [f"relative import {name}"]
    head, *rest = name.split(".")
    if head == "lavis" and part in WITHOUT_LAVIS:
        return [f"{part} must not know LAVIS: {name}"]
    if head != PACKAGE or not rest or rest[0] not in RANK:
        return []
    if RANK[rest[0]] > RANK[part]:
        return [f"imports upwards: {name}"]
    return [f"{part} must not know {rest[0]}: {name}"] if (part, rest[0]) in FORBIDDEN else []


def _swallows(handler: ast.ExceptHandler) -> bool:
    """Bare `except:`, or `except Exception` whose body does nothing."""
    if handler.type is None:
        return True
    broad = getattr(handler.type, "id", "") in ("Exception", "BaseException")
    return broad and all(isinstance(node, (ast.Pass, ast.Continue)) for node in handler.body)


def test_package_keeps_its_layers_and_house_rules():
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("path", "code", "complaint"),
    [
        ("geometry/boxes.py", "from lavis_dynrefer.models import losses", "imports upwards"),
        ("geometry/boxes.py", "import lavis_dynrefer.task", "imports upwards"),
        ("geometry/boxes.py", "from lavis_dynrefer import predictor", "imports upwards"),
        ("views/nesting.py", "def f():\n    import lavis.models", "must not know LAVIS"),
        ("metrics/captioning.py", "from lavis_dynrefer.models import x", "imports upwards"),
        ("models/losses.py", "from lavis_dynrefer.metrics import x", "models must not know"),
        ("models/losses.py", "from . import x", "relative import"),
        ("models/helpers.py", "", "name says nothing"),
        ("common/boxes.py", "", "has no place in LAYERS"),
        ("models/losses.py", "x = 1\n" * 401, "more than 400 lines"),
        ("models/losses.py", "print('loss')", "line 1 prints"),
        ("task.py", "try:\n    pass\nexcept:\n    raise", "swallows every error"),
        ("task.py", "try:\n    x = 1\nexcept Exception:\n    pass", "swallows every error"),
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
        ("models/losses.py", "import lavis.models\nfrom lavis_dynrefer.geometry import boxes"),
        ("runner.py", "try:\n    x = 1\nexcept ValueError:\n    pass"),
    ],
)
def test_allowed_code_is_not_reported(tmp_path, path, code):
    allowed = tmp_path / PACKAGE / path
    allowed.parent.mkdir(parents=True)
    allowed.write_text(code)

    assert violations(tmp_path) == []
