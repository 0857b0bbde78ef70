"""Tables of settings: key, values, default, and the comment that stands behind it in the source."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

_TYPES = {int: "integer", float: "number", str: "text", bool: "true, false", Any: "any"}


def comments_of(cls: type[Any]) -> dict[str, str]:
    """The comment behind each field that a class itself declares, in their order.

    Args:
        cls: a class in a file.

    Returns:
        Field -> comment, "" where there is none.
    """
    text = inspect.getsource(cls)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokens
        if token.type == tokenize.COMMENT
    }
    (definition,) = ast.parse(text).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for item in definition.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            lines = range(item.lineno, (item.end_lineno or item.lineno) + 1)
            found[item.target.id] = " ".join(comments[line] for line in lines if line in comments)
    return found


def values_of(kind: Any, bounds: Iterable[Any] = ()) -> str:
    """What a field may hold, in words."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return values_of(parts[0], [*bounds, *parts[1:]])
    if origin is Literal:
        return ", ".join(map(str, parts))
    if origin is Union:
        (inner,) = (part for part in parts if part is not type(None))
        return values_of(inner, bounds)
    if origin is tuple:
        return f"list of {values_of(parts[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return "mapping"
    if hasattr(kind, "__pydantic_fields__"):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return " ".join([_TYPES[kind], *_bounds(bounds)])


def _bounds(found: Iterable[Any]) -> list[str]:
    names = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}
    limits: dict[str, Any] = {}
    for item in found:
        for part in (item, *getattr(item, "metadata", ())):
            limits.update({n: v for n in names if (v := getattr(part, n, None)) is not None})
    return [text.format(f"{limits[n]:,}") for n, text in names.items() if n in limits]


def _default_of(field: Any) -> str:
    if field.default_factory is not None:
        made = field.default_factory()
        return "" if hasattr(made, "__pydantic_fields__") else f"`{made!r}`"
    if field.is_required():
        return "needed"
    value = field.default
    if value is None:
        return "none"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, bool):
        text = text.lower()
    if isinstance(value, tuple):
        text = "[" + ", ".join(map(str, value)) + "]"
    return f"`{text}`" if text else "empty"


class SettingsTable(SphinxDirective):
    """`{settings-table} MODULE.CLASS`: a row for each key that the class itself declares."""

    required_arguments = 1

    def run(self) -> Sequence[nodes.Node]:
        """The sentence about the class, then its table."""
        module, _, name = self.arguments[0].rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        fields = cls.__pydantic_fields__
        rows = [
            f"| `{key}` | {values_of(fields[key].annotation, fields[key].metadata)} "
            f"| {_default_of(fields[key])} | {comment or fields[key].description or ''} |"
            for key, comment in comments_of(cls).items()
            if key in fields
        ]
        lines = [
            *inspect.cleandoc(cls.__doc__).splitlines(),
            *("", "| key | values | default | meaning |", "|---|---|---|---|", *rows),
        ]
        section = nodes.Element()
        self.state.nested_parse(StringList(lines, self.arguments[0]), 0, section)
        return section.children
