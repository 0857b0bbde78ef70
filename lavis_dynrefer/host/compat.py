"""Makes LAVIS 1.0.2 import beside newer or missing libraries."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lavis_dynrefer.errors import MissingPackageError
from lavis_dynrefer.host.deferred_imports import deferred_imports

INSTALL_LAVIS = "pip install --no-deps salesforce-lavis==1.0.2"

# Their warnings are meant for the authors of these modules.
_NOISY_MODULES = (r"fairscale\.", r"timm\.", r"torch\.jit\.")


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
        raise _missing_lavis(what) from error


def require_lavis(what: str) -> None:
    """Say how to install LAVIS if it is missing, for `what` starts LAVIS in another process.

    Raises:
        ImportError: LAVIS is not installed.
    """
    if importlib.util.find_spec("lavis") is None:
        raise _missing_lavis(what)


def _missing_lavis(what: str) -> MissingPackageError:
    return MissingPackageError(f"{what} needs LAVIS, which is not installed; {INSTALL_LAVIS}")


@contextmanager
def lavis_importable() -> Iterator[None]:
    """While entered, `import lavis` works beside newer libraries and without unused packages.

    Raises:
        ImportError: LAVIS still does not import; says how to reinstall it.
    """
    try:
        with deferred_imports(), _quiet_imports():
            # LAVIS begins with modules of both, which fails while another thread imports either.
            import torch  # noqa: F401
            import torchvision  # noqa: F401

            yield
    except ImportError as error:
        raise MissingPackageError(
            f"LAVIS is installed but does not import: {error}; install both afresh in a new "
            f"environment, from a clone of lavis_dynrefer: pip install . && {INSTALL_LAVIS}"
        ) from error


@contextmanager
def _quiet_imports() -> Iterator[None]:
    """Silence what is for the authors of imported code.

    Unlike `catch_warnings`, keep the filters that libraries set.
    """
    before = list(warnings.filters)
    for module in _NOISY_MODULES:
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
    # Of LAVIS's source, when Python compiles it.
    warnings.filterwarnings("ignore", "invalid escape sequence", category=SyntaxWarning)
    ours = [entry for entry in warnings.filters if entry not in before]
    try:
        yield
    finally:
        filters: Any = warnings.filters
        filters[:] = [entry for entry in filters if entry not in ours]
