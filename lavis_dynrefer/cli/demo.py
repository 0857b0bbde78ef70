"""A web page to try the model: draw boxes on an image, see the answers and what the model saw.

dynrefer demo
dynrefer demo --model flant5xl --device cuda --port 7860

Ctrl-C or SIGTERM ends it, exit code 0. 2: invalid call. 4: the GPU is lost (see the log).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
from pathlib import Path

from lavis_dynrefer.cli.model_arguments import add_server_arguments, load_predictor, read_limits
from lavis_dynrefer.cli.serve import exit_now
from lavis_dynrefer.errors import EXIT_DEVICE_LOST
from lavis_dynrefer.serve import ServeSettings, require_packages

_PORT = 7860
_LIMITS = ("max_body", "max_pixels", "max_boxes", "max_words", "max_word_length", "max_queue")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer demo`."""
    defaults = ServeSettings(max_boxes=20)
    add_server_arguments(parser, port=_PORT, settings=defaults, limits=_LIMITS)


def run(arguments: argparse.Namespace) -> int:
    """Show the page until stopped; returns the exit code."""
    require_packages("demo")
    settings = read_limits(arguments)
    # Imported here, as below: they need the libraries of the extra.
    from lavis_dynrefer.serve import http_server

    bound = http_server.bind(arguments.host, arguments.port)
    predictor = load_predictor(arguments)  # before gradio, whose import takes seconds
    with tempfile.TemporaryDirectory(
        prefix="dynrefer-demo-",
        # Of Python 3.10, as gradio; Windows keeps files that somebody is still reading.
        ignore_cleanup_errors=True,
    ) as folder:
        # Before gradio is imported; uploaded images go there and are deleted with it.
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from lavis_dynrefer.demo.web_app import create_app

        logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stderr)
        examples = Path(folder) / "examples"
        app = create_app(
            predictor, folder=examples, name=Path(arguments.model).stem, settings=settings
        )
        terminal = sys.stdout

        def announce(url: str) -> None:
            print(f"open {url} (Ctrl-C ends it)", file=terminal, flush=True)

        # gradio's own output is hidden.
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
        ):
            http_server.run(
                app, bound, on_start=announce, failure=lambda: app.state.answers.failure
            )
    if app.state.answers.failure is not None:
        exit_now(EXIT_DEVICE_LOST)
    return 0
