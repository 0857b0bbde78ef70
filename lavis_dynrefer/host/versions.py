"""Versions of Python that the plugin works with; that of transformers is checked in `models`."""

from __future__ import annotations

import sys

OLDEST_PYTHON = (3, 9)


def check_python() -> None:
    """Refuse a Python on which the package fails.

    Raises:
        ImportError: names the version found and the oldest that works.
    """
    if sys.version_info >= OLDEST_PYTHON:
        return
    # Not imported above: see `lavis_dynrefer/__init__.py`.
    from lavis_dynrefer.errors import MissingPackageError

    raise MissingPackageError(
        f"lavis_dynrefer needs Python >= {_dotted(OLDEST_PYTHON)}, "
        f"found {_dotted(sys.version_info[:3])}; make a virtual environment with a newer Python"
    )


def _dotted(parts: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in parts)
