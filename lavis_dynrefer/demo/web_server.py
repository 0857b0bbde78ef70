"""The page's server: what it adds to every answer, and its end."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CLOSING = 2  # seconds for running answers when stopped
# The browser itself then asks nobody but this server; gradio's page needs what is inline.
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "worker-src 'self' blob:; form-action 'self'; base-uri 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class StayHere:
    """Tells browsers to load nothing from elsewhere.

    Args:
        app: the page.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class PageServer(uvicorn.Server):
    """Uvicorn that ends quietly at SIGINT and SIGTERM.

    Args:
        app: made by `create_app`.
        when_ready: called once, when it listens and signals end it.
    """

    def __init__(self, app: FastAPI, when_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app, log_config=None, access_log=False, timeout_graceful_shutdown=_CLOSING
            )
        )
        self._when_ready = when_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn begins to listen."""
        await super().startup(sockets)
        self._when_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Let running answers finish; at the second signal do not."""
        del sig, frame
        self.force_exit = self.should_exit
        self.should_exit = True


def run(app: FastAPI, bound: socket.socket, when_ready: Callable[[], None]) -> None:
    """Show the page on a socket until a signal comes; see `PageServer`."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # gradio talks
        PageServer(app, when_ready).run(sockets=[bound])
