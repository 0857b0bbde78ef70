"""Answer over HTTP: regions of images in, json out; also in the form of OpenAI's chat.

dynrefer serve
dynrefer serve --model flant5xl --device cuda --port 8008
curl -F image=@photo.jpg -F 'request={"boxes": [[10, 20, 110, 220]]}' 127.0.0.1:8008/v1/regions

SIGTERM or Ctrl-C: running requests are finished, new ones are refused, exit code 0. 1: requests
were cut off when their time (--grace) was up. 2: the call is wrong.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import redirect_stdout

from lavis_dynrefer.cli.server_arguments import add_server_arguments
from lavis_dynrefer.serve import ServeSettings, require_packages

EXIT_CUT_OFF = 1
_PORT = 8008
_SETTINGS = {
    "max_body": "bytes of a request",
    "max_pixels": "of an image",
    "max_boxes": "of a request",
    "max_words": "in each list of a request",
    "max_word_length": "characters",
    "max_requests": "at once",
    "max_queue": "requests waiting for the model",
    "timeout": "seconds until a request has its answer",
    "grace": "seconds for running requests when stopped",
    "batch_regions": "most regions answered together; 1 answers each request alone",
    "batch_wait": "most seconds a request waits for others to be answered with",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer serve`."""
    defaults = ServeSettings()
    numbers = {name: (getattr(defaults, name), text) for name, text in _SETTINGS.items()}
    add_server_arguments(parser, port=_PORT, numbers=numbers)


def run(arguments: argparse.Namespace) -> int:
    """Serve; returns the exit code."""
    require_packages()
    settings = ServeSettings(**{name: getattr(arguments, name) for name in _SETTINGS})
    # Here, as they import what only the extra brings.
    from lavis_dynrefer.serve import server
    from lavis_dynrefer.serve.app import create_app

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("lavis_dynrefer.serve").setLevel(logging.INFO)
    bound = server.bind(arguments.host, arguments.port)
    with redirect_stdout(sys.stderr):  # libraries talk
        from lavis_dynrefer.predictor import RegionPredictor

        predictor = RegionPredictor(
            arguments.model,
            device=arguments.device,
            dtype=arguments.dtype,
            checkpoint=arguments.checkpoint,
        )
    app = create_app(predictor, name=arguments.model, settings=settings)
    if server.run(app, bound):
        logging.shutdown()
        # The model's thread is at work and cannot be stopped; an interpreter that ends before its
        # threads would crash.
        os._exit(EXIT_CUT_OFF)
    return 0
