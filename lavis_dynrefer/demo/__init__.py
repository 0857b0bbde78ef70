"""A web page over `RegionPredictor`; needs the extra `demo`.

Nothing here is imported by the rest of the package, and only `app` and `server` need the extra's
libraries. What a visitor sends is read with the limits and the checks of the HTTP service.
"""

from __future__ import annotations

import importlib.util

from lavis_dynrefer.errors import MissingPackageError

INSTALL = "pip install 'lavis_dynrefer[demo]'"
_PACKAGES = {"gradio": "gradio", "gradio_image_annotation": "gradio-image-annotation"}


def require_packages() -> None:
    """Check that the libraries of the extra are there.

    Raises:
        ImportError: names those that are missing and the command that installs them.
    """
    missing = [
        package for name, package in _PACKAGES.items() if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise MissingPackageError(
            f"dynrefer demo needs {', '.join(missing)}; {INSTALL} (Python 3.10 or newer)"
        )
