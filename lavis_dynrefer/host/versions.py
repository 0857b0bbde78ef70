"""Versions of Python and transformers that the plugin works with."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

OLDEST_PYTHON = (3, 9)
OLDEST_TRANSFORMERS = (4, 26)
REFUSED_TRANSFORMERS = (6, 0)  # never tried


def check_versions() -> None:
    """Refuse versions of Python and transformers on which the plugin fails or answers wrongly.

    Raises:
        ImportError: names the version found, the range expected and the command that cures it.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise _refusal(
            f"lavis_dynrefer needs Python >= {_dotted(OLDEST_PYTHON)}, "
            f"found {_dotted(sys.version_info[:3])}; make a virtual environment with a newer Python"
        )
    try:
        found = version("transformers")
    except PackageNotFoundError:
        return  # the layers below models do not need it
    if not OLDEST_TRANSFORMERS <= _parsed(found) < REFUSED_TRANSFORMERS:
        expected = f">={_dotted(OLDEST_TRANSFORMERS)},<{_dotted(REFUSED_TRANSFORMERS[:1])}"
        raise _refusal(
            f"lavis_dynrefer needs transformers {expected}, found {found}; "
            f"pip install 'transformers{expected}'"
        )


def _refusal(message: str) -> ImportError:
    # Not imported above: see `lavis_dynrefer/__init__.py`.
    from lavis_dynrefer.errors import MissingPackageError

    return MissingPackageError(message)


def _parsed(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def _dotted(parts: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in parts)
