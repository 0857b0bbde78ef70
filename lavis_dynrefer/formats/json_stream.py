"""Text files written piece by piece, so that results need not fit in memory."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from lavis_dynrefer.errors import DynReferError, InputError
from lavis_dynrefer.paths import replace_file


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

    Raises:
        InputError: it cannot be written; says why.
    """
    with replacing_path(path) as partial, ExitStack() as stack:
        file = partial.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        yield stack.enter_context(file)


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file that replaces `path` once it is complete.

    Raises:
        InputError: it cannot be written; says why.
    """
    with replacing_path(path) as partial:
        partial.write_bytes(content)


def cannot_write(path: Path, error: OSError) -> InputError:
    """The error about a file of results that cannot be written."""
    cures = {
        errno.ENOSPC: "; the disk is full: make room",
        errno.EDQUOT: "; your disk quota is used up: make room",
        errno.ENOENT: "; was its folder removed?",
        errno.EACCES: "; if it is open in another program, close it there",
    }
    cure = cures.get(error.errno or 0, "")
    return InputError(f"cannot write {path}: {error.strerror or error}{cure}")


@contextmanager
def replacing_path(path: Path) -> Iterator[Path]:
    """A path to write to; the file there replaces `path` at the end, without an error.

    Raises:
        InputError: it cannot be written, or cannot replace `path`; says why. In the second case,
            as where another program of Windows has `path` open, the new file is kept.
    """
    partial = path.with_name(path.name + ".partial")
    is_complete = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        is_complete = True
        replace_file(partial, path)
    except BaseException as error:
        kept = ""
        if is_complete and isinstance(error, PermissionError) and path.exists():
            kept = f"; the new file is {partial}"
        else:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, DynReferError):
            raise InputError(f"{cannot_write(path, error)}{kept}") from error
        raise
