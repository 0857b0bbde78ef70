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

from lavis_dynrefer.ending_signals import handling
from lavis_dynrefer.errors import InputError

logger = logging.getLogger(__name__)

_CLOSING = 1  # seconds that uvicorn gives clients to take their answers
_ENDING = 10.0  # seconds that a server may take to end by itself, and again when told to hurry
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
        """Begin to serve.

        Raises:
            InputError: another server, started at the same time, listens on the port.
        """
        try:
            self._bound.listen()  # from here on clients are kept waiting instead of refused
        except OSError as error:
            raise _cannot_listen(*self._bound.getsockname()[:2], error) from error
        self._thread.start()

    def stop(self) -> None:
        """Close the port, cancel the running requests, and end.

        A thread that does not end, such as of an application that never finishes its own shutdown,
        is left behind: as a daemon it does not keep the process.
        """
        self._server.should_exit = True
        self._thread.join(_ENDING)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(_ENDING)
        if self._thread.is_alive():
            logger.warning("the server did not end within %.0f seconds; left behind", 2 * _ENDING)


def run(
    app: FastAPI,
    bound: socket.socket,
    *,
    on_start: Callable[[str], None],
    failure: Callable[[], str | None] = lambda: None,
    drain: Callable[[Callable[[], bool]], None] | None = None,
) -> None:
    """Serve until a signal asks to stop, or until the application has failed.

    Args:
        app: the application.
        bound: the socket of `bind`.
        on_start: called with the server's URL once it listens.
        failure: polled; tells why the application can answer nothing any more, else None.
        drain: called at the end, while the port is still open, with a function that tells
            whether a second signal has been received.
    """
    host, port = bound.getsockname()[:2]
    warn_if_open(bound)
    server = HttpServer(app, bound)
    received: list[int] = []
    with handling(lambda number, _: received.append(number)):
        server.start()
        on_start(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        while not received and server.running and failure() is None:
            time.sleep(_TICK)
        if received:
            logger.info("%s: shutting down", signal.Signals(received[0]).name)
        elif failure() is None:
            raise RuntimeError("the server thread exited unexpectedly")
        else:
            logger.critical("%s: shutting down", failure())
        if drain is not None:
            drain(lambda: len(received) > 1)
        server.stop()


def bind(host: str, port: int) -> socket.socket:
    """A socket that does not listen yet, so that no client waits while the model is loaded.

    Raises:
        InputError: an invalid port, or an address that is taken or belongs to another machine.
    """
    if not 0 <= port < 2**16:  # the system would take the remainder
        raise InputError(f"port: expected a number from 0 to {2**16 - 1}, got {port}")
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host  # [::1]
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            # On Windows SO_REUSEADDR would let two servers listen on one port.
            exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
            option = socket.SO_REUSEADDR if exclusive is None else exclusive
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that is too long
        raise _cannot_listen(host, port, error) from error
    return bound


def _cannot_listen(host: str, port: int, error: Exception) -> InputError:
    return InputError(
        f"cannot listen on {host} port {port}: {error}; choose another --host or --port"
    )


def warn_if_open(bound: socket.socket) -> None:
    """Warn if the socket can be reached from other machines."""
    host = bound.getsockname()[0]
    if not ipaddress.ip_address(host).is_loopback:
        logger.warning(
            "%s is open to the network: anybody who can reach it can use the model, there is no "
            "password and no encryption; put a proxy in front of it",
            host,
        )
