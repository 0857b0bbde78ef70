"""Text files written piece by piece, so that results need not fit in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


def as_json(value: Any) -> str:
    """One line of strict json; other tools do not read NaN.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def dump_list(items: Iterable[Any], file: TextIO) -> None:
    """Write a json list, one line per item."""
    file.write("[")
    for number, item in enumerate(items):
        file.write(",\n" if number else "\n")
        file.write(as_json(item))
    file.write("\n]")


def dump_object(pairs: Iterable[tuple[str, Any]], file: TextIO) -> None:
    """Write a json object, one line per key; the value of an iterator is a list."""
    file.write("{")
    for number, (key, value) in enumerate(pairs):
        file.write(",\n" if number else "\n")
        file.write(f"{as_json(key)}: ")
        if isinstance(value, Iterator):
            dump_list(value, file)
        elif isinstance(value, Mapping):
            dump_object(value.items(), file)
        else:
            file.write(as_json(value))
    file.write("\n}")


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    r"""A text file that replaces `path` once it is complete.

    Bytes of a file name that are not UTF-8 are written as \udcxx, which json reads back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        yield file
    os.replace(partial, path)
