"""The page's server, from its start to the signal that ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

_CLOSING = 2  # seconds for running answers when stopped


def page_server(app: FastAPI) -> uvicorn.Server:
    """Uvicorn for the page.

    Args:
        app: made by `create_app`.
    """
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=_CLOSING
    )
    return uvicorn.Server(config)


def run(app: FastAPI, bound: socket.socket, when_ready: Callable[[], None]) -> None:
    """Show the page until SIGINT or SIGTERM.

    Args:
        app: made by `create_app`.
        bound: socket to listen on.
        when_ready: called once it listens.
    """

    def end(number: int, frame: object) -> None:
        raise SystemExit(0)

    # Before uvicorn handles signals, and afterwards: it raises again those that ended it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    bound.listen()
    with (
        contextlib.suppress(SystemExit),
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),  # gradio prints
    ):
        when_ready()
        page_server(app).run(sockets=[bound])
