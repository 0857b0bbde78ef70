"""What `dynrefer validate` finds, and the two questions asked of every section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse

from lavis_dynrefer.paths import find_resource

Section = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that may be.

    Args:
        text: the place, what was expected and what came.
        fatal: False for what may be in order on another machine, such as a file that is not here.
    """

    text: str
    fatal: bool = True


Findings = Iterator[Finding]


def not_a_mapping(value: Any, place: str) -> Findings:
    """A section that is neither a mapping nor left out."""
    if value is not None and not isinstance(value, Mapping):
        yield Finding(f"{place}: expected a mapping, got {value!r}")


def absent_file(name: Any, place: str) -> Findings:
    """A file that a config names and that is neither here nor in the package."""
    if not name:
        return
    if not isinstance(name, str):
        yield Finding(f"{place}: expected a path or a URL, got {name!r}")
    elif urlparse(name).scheme not in ("http", "https") and find_resource(name) is None:
        yield Finding(f"{place}: no file {name!r} here or in the package", fatal=False)
