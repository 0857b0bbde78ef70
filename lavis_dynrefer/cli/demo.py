"""A web page to try the model: draw boxes on an image, see the answers and what the model saw.

dynrefer demo
dynrefer demo --model flant5xl --device cuda --port 7860

Ctrl-C or SIGTERM ends it, exit code 0. 2: invalid call.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path

from lavis_dynrefer.cli.model_arguments import add_server_arguments, load_predictor
from lavis_dynrefer.demo import require_packages
from lavis_dynrefer.serve import ServeSettings

_PORT = 7860
_LIMITS = ("max_body", "max_pixels", "max_boxes", "max_words", "max_word_length", "max_queue")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer demo`."""
    defaults = ServeSettings(max_boxes=20)
    add_server_arguments(parser, port=_PORT, settings=defaults, limits=_LIMITS)


def run(arguments: argparse.Namespace) -> int:
    """Show the page until stopped; returns the exit code."""
    require_packages()
    settings = ServeSettings(**{name: getattr(arguments, name) for name in _LIMITS})
    # Imported here, as below: they need the libraries of the extra.
    from lavis_dynrefer.serve.http_server import bind, warn_if_open

    bound = bind(arguments.host, arguments.port)
    with tempfile.TemporaryDirectory(prefix="dynrefer-demo-") as folder:
        # Before gradio is imported; uploaded images go there and are deleted with it.
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from lavis_dynrefer.demo import web_server
        from lavis_dynrefer.demo.web_app import create_app

        logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stderr)
        examples = Path(folder) / "examples"
        app = create_app(
            load_predictor(arguments), folder=examples, name=arguments.model, settings=settings
        )
        warn_if_open(bound)
        host, port = bound.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        terminal = sys.stdout  # gradio's own output is hidden
        web_server.run(
            app,
            bound,
            lambda: print(f"open {address} (Ctrl-C ends it)", file=terminal, flush=True),
        )
    return 0
