"""The running server: its socket, its signals, and its end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.serve.service import Service

logger = logging.getLogger(__name__)

_CLOSING = 5  # seconds for clients to take their answers


class GracefulServer(uvicorn.Server):
    """Uvicorn, but on a signal it first lets running requests finish, and answers new ones 503.

    Args:
        app: made by `create_app`.
    """

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,  # the gate writes it
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=_CLOSING,
            )
        )
        self.service: Service = app.state.service
        self.unfinished = 0  # requests that did not finish in time
        self._deadline = 0.0

    def stop(self) -> None:
        """Take no more requests; end when those under way are answered, or their time is up."""
        self._deadline = time.monotonic() + self.service.settings.grace
        self.service.gate.closing = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On the first signal stop, on the second stop at once."""
        del frame
        logger.info("%s: shutting down", signal.Signals(sig).name)
        if self.service.gate.closing:
            self._deadline = 0.0
        else:
            self.stop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn begins to listen."""
        await super().startup(sockets)
        for bound in sockets or ():
            logger.info("%s on http://%s:%d", self.service.model, *_address(bound))

    async def on_tick(self, counter: int) -> bool:
        """Uvicorn asks ten times a second whether to end."""
        gate = self.service.gate
        if gate.closing and (not gate.inside or time.monotonic() >= self._deadline):
            self.unfinished = gate.inside
            for task in self.server_state.tasks:  # they answer that they were
                task.cancel()
            self.should_exit = True
        return await super().on_tick(counter)


def bind(host: str, port: int) -> socket.socket:
    """A socket that does not listen yet, so that nobody waits while the model is loaded.

    Raises:
        OSError: the address is taken, or is none of this machine's.
        ValueError: there is no such port.
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
        raise OSError(
            f"cannot listen on {host} port {port}: {error}; choose another --host or --port"
        ) from error
    return bound


def warn_if_open(bound: socket.socket) -> None:
    """Say what it means to listen on more than this machine's own address."""
    host, _ = _address(bound)
    if not ipaddress.ip_address(host.strip("[]")).is_loopback:
        logger.warning(
            "%s is open to the network: whoever reaches it can use the model, there is no password "
            "and no encryption; put a proxy in front of it",
            host,
        )


def _address(bound: socket.socket) -> tuple[str, int]:
    host, port = bound.getsockname()[:2]
    return f"[{host}]" if ":" in host else host, port


def run(app: FastAPI, bound: socket.socket) -> int:
    """Serve until SIGTERM or SIGINT; returns how many requests were cut off.

    Args:
        app: made by `create_app`.
        bound: the socket of `bind`.
    """
    warn_if_open(bound)
    server = GracefulServer(app)
    server.service.warm_up()
    asyncio.run(server.serve(sockets=[bound]))
    if server.unfinished:
        logger.warning("%d requests were cut off", server.unfinished)
    return server.unfinished
