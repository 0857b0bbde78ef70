"""What LAVIS 1.0.2 needs in order to import beside newer or missing libraries."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lavis_dynrefer.errors import MissingPackageError
from lavis_dynrefer.host.deferred_imports import deferred_imports

OLDEST_PYTHON = (3, 9)
OLDEST_TRANSFORMERS = (4, 26)
REFUSED_TRANSFORMERS = (5, 0)  # T5Config forces tied embeddings, so Flan-T5 answers nonsense

LAVIS = "salesforce-lavis==1.0.2"
LEAN_INSTALL = f"pip install -r requirements-modern.txt && pip install --no-deps {LAVIS}"

# Tell every program that imports LAVIS what their own authors should change.
_WARN_ABOUT_THEMSELVES = (r"fairscale\.", r"torch\.jit\.")

# Moved between modules of transformers after LAVIS was written.
MOVED_NAMES = (
    "apply_chunking_to_forward",
    "find_pruneable_heads_and_indices",
    "prune_linear_layer",
)


def check_versions() -> None:
    """Refuse a Python or transformers on which the plugin would fail or answer wrongly.

    Raises:
        ImportError: names the version found, the range expected and the command that cures it.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise MissingPackageError(
            f"lavis_dynrefer needs Python >= {_dotted(OLDEST_PYTHON)}, "
            f"found {_dotted(sys.version_info[:3])}; make a virtual environment with a newer Python"
        )
    try:
        found = version("transformers")
    except PackageNotFoundError:
        return  # the layers below models do not need it
    if not OLDEST_TRANSFORMERS <= _parsed(found) < REFUSED_TRANSFORMERS:
        expected = f">={_dotted(OLDEST_TRANSFORMERS)},<{_dotted(REFUSED_TRANSFORMERS[:1])}"
        raise MissingPackageError(
            f"lavis_dynrefer needs transformers {expected}, found {found}; "
            f"pip install 'transformers{expected}'"
        )


@contextmanager
def needing_lavis(what: str) -> Iterator[None]:
    """Where `what` imports LAVIS, which is not installed, say how to install it.

    Raises:
        ImportError: LAVIS is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "lavis":
            raise
        raise MissingPackageError(
            f"{what} needs LAVIS, which is not installed; "
            f"pip install {LAVIS}, or on Python >= 3.12: {LEAN_INSTALL}"
        ) from error


@contextmanager
def lavis_importable() -> Iterator[None]:
    """While entered, `import lavis` works on transformers 4.26 to 4.57 and without unused packages.

    Raises:
        ImportError: LAVIS does not import all the same; says how to install it afresh.
    """
    _restore_moved_names()
    try:
        with deferred_imports(), _without_warnings_about_themselves():
            yield
    except ImportError as error:
        raise MissingPackageError(
            f"LAVIS is installed but does not import: {error}; "
            f"install it afresh in a new environment: pip install {LAVIS}, "
            f"or beside newer libraries: {LEAN_INSTALL}"
        ) from error


@contextmanager
def _without_warnings_about_themselves() -> Iterator[None]:
    """Not `catch_warnings`: that would also undo the filters which libraries set for themselves."""
    before = list(warnings.filters)
    for module in _WARN_ABOUT_THEMSELVES:
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
    ours = [entry for entry in warnings.filters if entry not in before]
    try:
        yield
    finally:
        filters: Any = warnings.filters
        filters[:] = [entry for entry in filters if entry not in ours]


def _restore_moved_names() -> None:
    """Newer transformers took three functions out of the module where LAVIS looks for them."""
    if importlib.util.find_spec("transformers") is None:
        return
    old_home = importlib.import_module("transformers.modeling_utils")
    new_home = importlib.import_module("transformers.pytorch_utils")
    for name in MOVED_NAMES:
        if not hasattr(old_home, name):
            setattr(old_home, name, getattr(new_home, name))


def _parsed(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def _dotted(parts: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in parts)
