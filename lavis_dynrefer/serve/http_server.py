"""Run an ASGI application on a socket, until a signal stops it."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from lavis_dynrefer.errors import InputError

logger = logging.getLogger(__name__)

_CLOSING = 1  # seconds that uvicorn gives clients to take their answers
_TICK = 0.05  # seconds


class HttpServer:
    """Runs uvicorn in a thread so that we handle the signals.

    Args:
        app: the application.
        bound: the socket of `bind`.
    """

    def __init__(self, app: FastAPI, bound: socket.socket) -> None:
        self._bound = bound
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=_CLOSING,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [bound]}, name="http", daemon=True
        )

    @property
    def running(self) -> bool:
        """Whether the server's thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to serve."""
        self._bound.listen()  # from here on clients are kept waiting instead of refused
        self._thread.start()

    def stop(self) -> None:
        """Close the port, cancel the running requests, and end."""
        self._server.should_exit = True
        self._thread.join()


def run(
    app: FastAPI,
    bound: socket.socket,
    *,
    on_start: Callable[[str], None],
    drain: Callable[[Callable[[], bool]], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        app: the application.
        bound: the socket of `bind`.
        on_start: called with the server's URL once it listens.
        drain: called at the signal, while the port is still open, with a function that tells
            whether a second signal has been received.
    """
    host, port = bound.getsockname()[:2]
    warn_if_open(bound)
    server = HttpServer(app, bound)
    received: list[int] = []
    handled = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda sent, _: received.append(sent)) for one in handled}
    server.start()
    on_start(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    while not received and server.running:
        time.sleep(_TICK)
    if not received:
        raise RuntimeError("the server thread exited unexpectedly")
    logger.info("%s: shutting down", signal.Signals(received[0]).name)
    if drain is not None:
        drain(lambda: len(received) > 1)
    server.stop()
    for one, handler in before.items():
        signal.signal(one, handler)


def bind(host: str, port: int) -> socket.socket:
    """A socket that does not listen yet, so that no client waits while the model is loaded.

    Raises:
        InputError: an invalid port, or an address that is taken or belongs to another machine.
    """
    if not 0 <= port < 2**16:  # the system would take the remainder
        raise InputError(f"port: expected a number from 0 to {2**16 - 1}, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {error}; choose another --host or --port"
        ) from error
    return bound


def warn_if_open(bound: socket.socket) -> None:
    """Warn if the socket can be reached from other machines."""
    host = bound.getsockname()[0]
    if not ipaddress.ip_address(host).is_loopback:
        logger.warning(
            "%s is open to the network: anybody who can reach it can use the model, there is no "
            "password and no encryption; put a proxy in front of it",
            host,
        )
