"""Makes LAVIS 1.0.2 import beside newer or missing libraries."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lavis_dynrefer.errors import MissingPackageError
from lavis_dynrefer.host.deferred_imports import deferred_imports

LAVIS = "salesforce-lavis==1.0.2"
LEAN_INSTALL = f"pip install -r requirements-modern.txt && pip install --no-deps {LAVIS}"

# Their warnings are meant for the authors of these modules.
_NOISY_MODULES = (r"fairscale\.", r"torch\.jit\.")

# Moved between modules of transformers after LAVIS was written.
MOVED_NAMES = (
    "apply_chunking_to_forward",
    "find_pruneable_heads_and_indices",
    "prune_linear_layer",
)


@contextmanager
def needing_lavis(what: str) -> Iterator[None]:
    """Say how to install LAVIS if `what` needs it and it is missing.

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
        ImportError: LAVIS still does not import; says how to reinstall it.
    """
    _restore_moved_names()
    try:
        with deferred_imports(), _quiet_imports():
            yield
    except ImportError as error:
        raise MissingPackageError(
            f"LAVIS is installed but does not import: {error}; "
            f"install it afresh in a new environment: pip install {LAVIS}, "
            f"or beside newer libraries: {LEAN_INSTALL}"
        ) from error


@contextmanager
def _quiet_imports() -> Iterator[None]:
    """Silence the noisy modules; unlike `catch_warnings`, keep the filters that libraries set."""
    before = list(warnings.filters)
    for module in _NOISY_MODULES:
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
    ours = [entry for entry in warnings.filters if entry not in before]
    try:
        yield
    finally:
        filters: Any = warnings.filters
        filters[:] = [entry for entry in filters if entry not in ours]


def _restore_moved_names() -> None:
    """Newer transformers moved three functions away from where LAVIS imports them."""
    if importlib.util.find_spec("transformers") is None:
        return
    old_home = importlib.import_module("transformers.modeling_utils")
    new_home = importlib.import_module("transformers.pytorch_utils")
    for name in MOVED_NAMES:
        if not hasattr(old_home, name):
            setattr(old_home, name, getattr(new_home, name))
