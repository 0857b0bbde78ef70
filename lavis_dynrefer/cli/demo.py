"""A web page to try the model: draw boxes on an image, see what it says and what it looked at.

dynrefer demo
dynrefer demo --model flant5xl --device cuda --port 7860

Ctrl-C or SIGTERM ends it, exit code 0. 2: the call is wrong.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from lavis_dynrefer.cli.server_arguments import add_server_arguments
from lavis_dynrefer.demo import require_packages
from lavis_dynrefer.serve.service_limits import ServeSettings

_PORT = 7860
_LIMITS = {
    "max_body": (32 * 2**20, "bytes of an image's file"),
    "max_pixels": (40_000_000, "of an image"),
    "max_boxes": (20, "of an image"),
    "max_words": (1000, "in each list"),
    "max_word_length": (100, "characters"),
    "max_queue": (32, "visitors waiting for the model"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer demo`."""
    add_server_arguments(parser, port=_PORT, numbers=_LIMITS)


def run(arguments: argparse.Namespace) -> int:
    """Show the page until stopped; returns the exit code."""
    require_packages()
    settings = ServeSettings(**{name: getattr(arguments, name) for name in _LIMITS})
    # Here, as it imports what only the extra brings.
    from lavis_dynrefer.serve.server import bind, warn_if_open

    bound = bind(arguments.host, arguments.port)
    with tempfile.TemporaryDirectory(prefix="dynrefer-demo-") as folder:
        # Before gradio is imported; uploaded images go there, and are gone when the page is.
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from lavis_dynrefer.demo import web_server
        from lavis_dynrefer.demo.web_app import create_app

        logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stderr)
        with redirect_stdout(sys.stderr):  # libraries talk
            from lavis_dynrefer.predictor import RegionPredictor

            predictor = RegionPredictor(
                arguments.model,
                device=arguments.device,
                dtype=arguments.dtype,
                checkpoint=arguments.checkpoint,
            )
        app = create_app(
            predictor, folder=Path(folder) / "examples", name=arguments.model, settings=settings
        )
        warn_if_open(bound)
        host, port = bound.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        terminal = sys.stdout
        web_server.run(
            app,
            bound,
            lambda: print(f"open {address} (Ctrl-C ends it)", file=terminal, flush=True),
        )
    return 0
