"""Findings of checks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlparse

from lavis_dynrefer.paths import find_resource
from lavis_dynrefer.settings import SettingsError, from_mapping

Section = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or may be wrong.

    Args:
        text: the place, what was expected and what came.
        fatal: the yaml is wrong on any machine.
        stops: a run cannot start on this machine.
    """

    text: str
    fatal: bool = True
    stops: bool = True


Findings = Iterator[Finding]


def missing(text: str) -> Finding:
    """Something that the run needs and that this machine does not have."""
    return Finding(text, fatal=False)


def warning(text: str) -> Finding:
    """Something that may be intended."""
    return Finding(text, fatal=False, stops=False)


def each(problems: Iterable[str | None]) -> Findings:
    """Findings that stop every run."""
    return (Finding(problem) for problem in problems if problem is not None)


def read_checked(cls: type[T], values: Any, place: str) -> tuple[T | None, list[Finding]]:
    """Settings as `from_mapping` reads them, or None and what is wrong with them."""
    try:
        return from_mapping(cls, values, where=place), []
    except SettingsError as error:
        return None, list(each(error.problems))


def not_a_mapping(value: Any, place: str) -> Findings:
    """A section that is neither a mapping nor left out."""
    if value is not None and not isinstance(value, Mapping):
        yield Finding(f"{place}: expected a mapping, got {value!r}")


def absent_file(name: str | None, place: str) -> Findings:
    """A file that a config names and that is neither here nor in the package."""
    if not name or urlparse(name).scheme in ("http", "https"):
        return
    path = find_resource(name)
    if path is None:
        yield missing(f"{place}: no file {name!r} here or in the package")
    elif not path.is_file():
        yield missing(f"{place}: expected a file, {name!r} is a folder")
