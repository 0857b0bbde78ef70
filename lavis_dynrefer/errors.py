"""Errors meant for users: each says what was expected, what came, and the cure.

The commands and the service show their text alone. Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DynReferError(Exception):
    """Base of all errors that a user can cure."""


class InputError(DynReferError, ValueError):
    """A value, file or option that cannot be used."""


class MissingFileError(DynReferError, FileNotFoundError):
    """A file or folder that is not there."""


class MissingPackageError(DynReferError, ImportError):
    """A package that is not installed, or of another version."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name; empty where no known name is close.

    >>> did_you_mean("atributes", ["attributes", "categories"])
    '; did you mean attributes?'
    >>> did_you_mean("x", ["attributes"])
    ''
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
