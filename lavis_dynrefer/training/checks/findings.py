"""What a check finds, and the questions asked of every section."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse

from lavis_dynrefer.paths import find_resource

Section = Mapping[str, Any]

# Of whole numbers; 1 of all others. A sampling ratio of 0 or less adapts to the size of the region.
LEAST = {"min_length": 0, "sampling_ratio": -1, "seed": 0, "context_length": 3}
SHARES = ("dropout", "threshold", "control_drop", "control_drop_all")  # in [0, 1]
ABOVE_ZERO = ("repetition_penalty", "mlp_ratio")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that may be.

    Args:
        text: the place, what was expected and what came.
        fatal: the yaml is wrong, on any machine.
        stops: a run on this machine ends here.
    """

    text: str
    fatal: bool = True
    stops: bool = True


Findings = Iterator[Finding]


def missing(text: str) -> Finding:
    """Something that the run needs and that this machine does not have."""
    return Finding(text, fatal=False)


def warning(text: str) -> Finding:
    """Something that may be in order."""
    return Finding(text, fatal=False, stops=False)


def not_a_mapping(value: Any, place: str) -> Findings:
    """A section that is neither a mapping nor left out."""
    if value is not None and not isinstance(value, Mapping):
        yield Finding(f"{place}: expected a mapping, got {value!r}")


def absent_file(name: Any, place: str) -> Findings:
    """A file that a config names and that is neither here nor in the package."""
    if name is None or name == "":
        return
    if not isinstance(name, str):
        yield Finding(f"{place}: expected a path or a URL, got {name!r}")
        return
    path = find_resource(name)
    if urlparse(name).scheme in ("http", "https"):
        return
    if path is None:
        yield missing(f"{place}: no file {name!r} here or in the package")
    elif not path.is_file():
        yield missing(f"{place}: expected a file, {name!r} is a folder")


def check_numbers(config: Any, place: str) -> Findings:
    """Counts and sizes below 1, shares outside [0, 1] and the like, in a config dataclass."""
    for item in dataclasses.fields(config):
        value, where = getattr(config, item.name), f"{place}.{item.name}"
        least = LEAST.get(item.name, 1)
        if dataclasses.is_dataclass(value):
            yield from check_numbers(value, where)
        elif type(value) is int and value < least:
            yield Finding(f"{where}: expected at least {least}, got {value}")
        elif isinstance(value, float) and not math.isfinite(value):
            yield Finding(f"{where}: expected a finite number, got {value}")
        elif item.name in SHARES and not 0 <= value <= 1:
            yield Finding(f"{where}: expected a number in [0, 1], got {value}")
        elif item.name in ABOVE_ZERO and value <= 0:
            yield Finding(f"{where}: expected a number above 0, got {value}")
