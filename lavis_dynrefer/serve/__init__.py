"""HTTP service over `RegionPredictor`; needs the extra `serve`.

Only `http_app`, `http_server` and what they import need the libraries of the extra.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from lavis_dynrefer.errors import MissingPackageError
from lavis_dynrefer.serve.service_limits import ServeSettings

__all__ = ["ServeSettings", "require_packages"]

_PACKAGES = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}


def require_packages(
    extra: str = "serve", packages: Mapping[str, str] = _PACKAGES, note: str = ""
) -> None:
    """Check that the libraries of an extra are installed.

    Args:
        extra: its name, which is also that of the command.
        packages: module -> package.
        note: what else it needs, for the error.

    Raises:
        MissingPackageError: names the missing packages and the command that installs them.
    """
    missing = [
        package for name, package in packages.items() if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise MissingPackageError(
            f"dynrefer {extra} needs {', '.join(missing)}; "
            f"pip install 'lavis_dynrefer[{extra}]'{note}"
        )
