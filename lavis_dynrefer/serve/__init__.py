"""HTTP service over `RegionPredictor`; needs the extra `serve`.

Nothing here is imported by the rest of the package, and only `server` and what it imports need the
extra's libraries.
"""

from __future__ import annotations

import importlib.util

from lavis_dynrefer.errors import MissingPackageError
from lavis_dynrefer.serve.service_limits import ServeSettings

__all__ = ["ServeSettings", "require_packages"]

INSTALL = "pip install 'lavis_dynrefer[serve]'"
_PACKAGES = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}


def require_packages() -> None:
    """Check that the libraries of the extra are there.

    Raises:
        ImportError: names those that are missing and the command that installs them.
    """
    missing = [
        package for name, package in _PACKAGES.items() if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise MissingPackageError(f"dynrefer serve needs {', '.join(missing)}; {INSTALL}")
