"""docs/troubleshooting.md against the code: all messages of ours are there, and no others."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lavis_dynrefer"
VARIES = "…"  # what a message names, on the page; in the code's messages as well
# Functions that take a message for the user, beside `raise SomeError(message)`.
REPORTERS = {"Finding", "missing", "warning", "error"}
METHODS = {"_error", "error"}  # `builder._error(message)`, `source.error(message)`
# What only a program can cause, or what is caught and said in other words.
FOR_PROGRAMMERS = {"AttributeError", "IndexError", "KeyError", "UnpicklingError"}
PARTS = {  # of `...: expected <this>, got ...` in inputs/box_files.py
    "a list of boxes",
    "a row with picture and regions",
    "an object with id and file_name",
    "bbox is no box",
    "bbox or segmentation",
    "four numbers",
}
UNQUOTED = ("benchmarks/", "synthetic/", "drawing.py")  # measurements and drawings: not in the way


def said(node):
    """The text that an expression gives, with `…` for what varies; None if it is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(
            value.value if isinstance(value, ast.Constant) else VARIES for value in node.values
        )
    if isinstance(node, ast.BinOp):
        return (said(node.left) or VARIES) + (said(node.right) or VARIES)
    return None


def is_reported(call):
    """Whether a call hands its text to the user, as `Finding(...)` and `logger.warning(...)` do."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr in METHODS | REPORTERS
    return getattr(call.func, "id", None) in REPORTERS


def is_raised(call):
    """Whether what is raised is an error, and none of those a user never sees."""
    name = getattr(call.func, "id", None) or call.func.attr
    is_method = isinstance(call.func, ast.Attribute) and name in METHODS
    return is_method or (name[0].isupper() and name not in FOR_PROGRAMMERS)


def message_of(node):
    """The message that a node raises or reports, if it spells one out."""
    call = node.exc if isinstance(node, ast.Raise) else node
    if not isinstance(call, ast.Call):
        return None
    if not (is_reported(call) if call is node else is_raised(call)):
        return None
    texts = [text for text in map(said, call.args) if text and " " in text.strip(VARIES + " ,:;.")]
    return texts[-1] if texts else None


def messages():
    """Place in the code -> what is raised or reported there."""
    return {
        f"{place}:{node.lineno}": message
        for path in sorted(PACKAGE.rglob("*.py"))
        for place in [path.relative_to(PACKAGE).as_posix()]
        if not place.startswith(UNQUOTED)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (message := message_of(node))
    }


def texts_of_the_code():
    """Everything the package may say."""
    return [
        text
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (text := said(node))
    ]


def entries():
    """The messages that the page quotes: the first column of its tables."""
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?) \|", page, re.M)
    return [text for row in rows for text in re.findall(r"`+([^`]+|.+?)`+(?:<br>|$)", row)]


def pattern_of(entry):
    parts = [re.escape(part.strip()) for part in entry.split(VARIES) if part.strip()]
    return re.compile(".*?".join(parts), re.DOTALL)


def test_the_messages_of_the_page_are_those_of_the_code():
    texts = texts_of_the_code()

    invented = [entry for entry in entries() if not any(map(pattern_of(entry).search, texts))]

    assert len(entries()) > 200
    assert invented == []


def test_every_message_of_the_code_is_on_the_page():
    patterns = [pattern_of(entry) for entry in entries()]

    absent = {
        place: message
        for place, message in messages().items()
        if message not in PARTS and not any(pattern.search(message) for pattern in patterns)
    }

    assert len(messages()) > 300  # or else the search has gone blind
    assert absent == {}  # a row for each, in docs/troubleshooting.md
