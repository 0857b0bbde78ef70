"""Answer over HTTP: regions of images in, json out; also in the format of OpenAI's chat API.

dynrefer serve
dynrefer serve --model flant5xl --device cuda --port 8008
dynrefer serve --cors-origin https://app.example.org --cors-origin http://localhost:3000
curl -F image=@photo.jpg -F 'request={"boxes": [[10, 20, 110, 220]]}' 127.0.0.1:8008/v1/regions

SIGTERM or Ctrl-C: running requests are finished, new ones refused. Exit code 0: stopped so. 1:
requests were cut off after --grace seconds. 2: invalid call. 4: the GPU is lost (see the log).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from lavis_dynrefer.cli.model_arguments import add_server_arguments, load_predictor, read_limits
from lavis_dynrefer.errors import EXIT_DEVICE_LOST
from lavis_dynrefer.serve import ServeSettings, require_packages
from lavis_dynrefer.serve.other_origins import check_origins
from lavis_dynrefer.serve.service_limits import DESCRIPTIONS

EXIT_CUT_OFF = 1
_PORT = 8008


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dynrefer serve`."""
    parser.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="web pages of this origin may ask and read the answers, such as "
        "https://app.example.org; may be repeated; * for all pages; default none",
    )
    add_server_arguments(parser, port=_PORT, settings=ServeSettings(), limits=DESCRIPTIONS)


def run(arguments: argparse.Namespace) -> int:
    """Serve; returns the exit code."""
    require_packages("serve")
    settings, origins = read_limits(arguments), check_origins(arguments.cors_origin)
    # Imported here: they need the libraries of the extra.
    from lavis_dynrefer.serve import http_server
    from lavis_dynrefer.serve.http_app import create_app

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logger = logging.getLogger("lavis_dynrefer.serve")
    logger.setLevel(logging.INFO)
    bound = http_server.bind(arguments.host, arguments.port)
    predictor = load_predictor(arguments)
    app = create_app(
        predictor, name=Path(arguments.model).stem, settings=settings, cors_origins=origins
    )
    service = app.state.service
    service.warm_up()
    http_server.run(
        app,
        bound,
        on_start=lambda url: logger.info("%s on %s", service.model, url),
        failure=lambda: service.failure,
        drain=service.drain,
    )
    if service.traffic.cut_off:
        logger.warning("%d requests were cut off", service.traffic.cut_off)
    # A normal exit would wait for the model's thread, or ask the lost device to clean up.
    if service.failure is not None:
        exit_now(EXIT_DEVICE_LOST)
    if service.traffic.cut_off:
        exit_now(EXIT_CUT_OFF)
    return 0


def exit_now(code: int) -> NoReturn:
    """End the process without waiting for threads or devices."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
