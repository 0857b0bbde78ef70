"""A web page over `RegionPredictor`; needs the extra `demo`.

Only `web_app`, `web_server` and `page_guard` need the libraries of the extra. Whatever a visitor
sends is read with the limits and checks of the HTTP service.
"""

from __future__ import annotations

from lavis_dynrefer import serve

_PACKAGES = {"gradio": "gradio", "gradio_image_annotation": "gradio-image-annotation"}


def require_packages() -> None:
    """Check that the libraries of the extra are installed.

    Raises:
        MissingPackageError: names the missing packages and the command that installs them.
    """
    serve.require_packages("demo", _PACKAGES, note=" (Python 3.10 or newer)")
