"""Errors for users: each says what was expected, what was found, and what to do.

The commands and the service show their text alone. Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import Any

EXIT_BAD_INPUT = 2  # of every command that ends with such an error; as argparse
EXIT_DEVICE_LOST = 4

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SHOWN = 60  # characters before and after one that is wrong


class DynReferError(Exception):
    """Base of all errors that a user can correct."""


class InputError(DynReferError, ValueError):
    """A value, file or option that cannot be used."""


class MissingFileError(DynReferError, FileNotFoundError):
    """A file or folder that does not exist."""


class MissingPackageError(DynReferError, ImportError):
    """A package that is not installed, or of another version."""


class TooLittleMemoryError(DynReferError, MemoryError):
    """Even the smallest part of some work does not fit into the memory."""


def text_for_user(error: BaseException) -> str | None:
    """Message of an error that a user can correct; None for a bug.

    Besides our own errors, these are the system's about files: no permission, disk full, names
    that are not UTF-8, which few libraries can open.
    """
    if isinstance(error, DynReferError):
        text = str(error)
        if "Original Traceback" in text:  # torch's, from the process of a data loader
            text = text.rstrip().splitlines()[-1].partition(": ")[2]
        return text
    if isinstance(error, OSError) and (error.filename is not None or error.errno in DISK_FULL):
        return str(error)
    if isinstance(error, UnicodeEncodeError) and "\ud800" <= error.object[error.start] <= "\udfff":
        found = error.object[max(error.start - _SHOWN, 0) : error.end + _SHOWN]
        return f"{found!r} holds bytes that are not UTF-8; rename that file or folder"
    return None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name; empty where no known name is close.

    >>> did_you_mean("atributes", ["attributes", "categories"])
    '; did you mean attributes?'
    >>> did_you_mean("x", ["attributes"])
    ''
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def choice_problem(place: str, name: Any, known: Iterable[str]) -> str | None:
    """Message about a name that is not one of `known`; None if it is.

    >>> choice_problem("run.task", "dynrefr", ["dynrefer"])
    "run.task: unknown 'dynrefr'; did you mean dynrefer?"
    """
    choices = sorted(known)
    if name in choices:
        return None
    if name is None:
        return f"{place}: is missing; expected one of {choices}"
    hint = did_you_mean(str(name), choices) or f"; expected one of {choices}"
    return f"{place}: unknown {name!r}{hint}"


def shorten(text: str, max_length: int, *, printable: bool = False) -> str:
    r"""Cut foreign text to at most `max_length` characters; what cannot be encoded becomes "?".

    Args:
        text: any text, such as a file name with bytes that are not UTF-8.
        max_length: number of characters, the ellipsis included.
        printable: replace line breaks and control characters by spaces.

    >>> shorten("a red bus\n", 6), shorten("a\tb\udcff", 6, printable=True)
    ('a red…', 'a b?')
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    if printable:
        text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"
