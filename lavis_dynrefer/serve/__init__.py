"""HTTP service over `RegionPredictor`; needs the extra `serve`.

Only `http_app`, `http_server` and what they import need the libraries of the extra.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from lavis_dynrefer.errors import MissingPackageError
from lavis_dynrefer.lazy_names import lazy_names

if TYPE_CHECKING:
    from lavis_dynrefer.serve.service_limits import ServeSettings

__all__ = ["ServeSettings", "require_packages"]

__getattr__ = lazy_names(__name__, {"service_limits": ("ServeSettings",)})

# Extra, also the name of its command -> module -> package.
_PACKAGES = {
    "serve": {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"},
    "demo": {"gradio": "gradio", "gradio_image_annotation": "gradio-image-annotation"},
}


def require_packages(extra: str) -> None:
    """Check that the libraries of an extra are installed.

    Args:
        extra: "serve" or "demo".

    Raises:
        MissingPackageError: names the missing packages and the command that installs them.
    """
    missing = [
        package
        for name, package in _PACKAGES[extra].items()
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        note = " (Python 3.10 or newer)" if extra == "demo" else ""
        raise MissingPackageError(
            f"dynrefer {extra} needs {', '.join(missing)}; "
            f"pip install 'lavis_dynrefer[{extra}]'{note}"
        )
