"""The running server: its socket, its signals, and its end."""

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
from lavis_dynrefer.serve.service import Service

logger = logging.getLogger(__name__)

_CLOSING = 1  # seconds that uvicorn gives clients to take their answers
_TICK = 0.05  # seconds


class HttpServer:
    """uvicorn in a thread of its own, where it leaves signals to us.

    At a signal uvicorn would close its port at once. Here the port stays open until the running
    requests are finished, so that new ones get 503 and GET /health says why.

    Args:
        app: made by `create_app`.
        bound: the socket of `bind`.
    """

    def __init__(self, app: FastAPI, bound: socket.socket) -> None:
        self.service: Service = app.state.service
        self._bound = bound
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,  # the gate writes it
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
        logger.info("%s on http://%s:%d", self.service.model, *_address(self._bound))

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> int:
        """Refuse new requests, finish the running ones, and end.

        Args:
            hurry: asked again and again; True ends the wait before the grace is over.

        Returns:
            How many requests were cut off.
        """
        traffic = self.service.traffic
        traffic.closing = True
        deadline = time.monotonic() + self.service.settings.grace
        while traffic.running and time.monotonic() < deadline and not hurry():
            time.sleep(_TICK)
        self._server.should_exit = True
        self._thread.join()
        return traffic.cut_off


def run(app: FastAPI, bound: socket.socket) -> int:
    """Serve until SIGTERM or SIGINT; returns how many requests were cut off.

    Args:
        app: made by `create_app`.
        bound: the socket of `bind`.
    """
    warn_if_open(bound)
    server = HttpServer(app, bound)
    server.service.warm_up()
    received: list[int] = []
    handled = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda sent, _: received.append(sent)) for one in handled}
    server.start()
    while not received and server.running:
        time.sleep(_TICK)
    if not received:
        raise RuntimeError("the server's thread has ended by itself")
    logger.info("%s: shutting down", signal.Signals(received[0]).name)
    cut_off = server.stop(hurry=lambda: len(received) > 1)
    for one, handler in before.items():
        signal.signal(one, handler)
    if cut_off:
        logger.warning("%d requests were cut off", cut_off)
    return cut_off


def bind(host: str, port: int) -> socket.socket:
    """A socket that does not listen yet, so that no client waits while the model is loaded.

    Raises:
        InputError: an invalid port, or an address that is taken or not of this machine.
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
    host, _ = _address(bound)
    if not ipaddress.ip_address(host.strip("[]")).is_loopback:
        logger.warning(
            "%s is open to the network: anybody who can reach it can use the model, there is no "
            "password and no encryption; put a proxy in front of it",
            host,
        )


def _address(bound: socket.socket) -> tuple[str, int]:
    host, port = bound.getsockname()[:2]
    return f"[{host}]" if ":" in host else host, port
