"""The outermost layer: how many requests at once, how many bytes, and one line of log for each."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

from lavis_dynrefer.serve.errors import RequestError

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LONGEST_PATH = 200  # characters of it in the log


class Gate:
    """State of the gate; `GateMiddleware` asks it.

    Args:
        max_requests: POST requests at once.
        max_body: bytes of a request.
    """

    def __init__(self, *, max_requests: int, max_body: int) -> None:
        self.max_requests = max_requests
        self.max_body = max_body
        self.inside = 0  # requests under way
        self.closing = False

    def refusal(self, scope: Scope) -> RequestError | None:
        """Why a request is not let in, from its head alone."""
        if scope["method"] != "POST":
            return None
        if self.closing:
            return RequestError("shutting_down", "the server is shutting down; ask another one")
        if self.inside > self.max_requests:
            return RequestError(
                "overloaded", f"{self.max_requests} requests are under way; try again later"
            )
        length = dict(scope["headers"]).get(b"content-length", b"0")
        # Python does not make numbers of thousands of digits.
        if not length.isdigit() or len(length) > 18 or int(length) > self.max_body:
            return self.too_long()
        return None

    def too_long(self) -> RequestError:
        """The error for a body with more bytes than may be."""
        return RequestError("too_large", f"expected a request of at most {self.max_body:,} bytes")


class GateMiddleware:
    """Lets requests in, turns failures into json, and writes the log.

    Args:
        app: the application inside.
        gate: counts requests and knows the limits.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], gate: Gate) -> None:
        self.app = app
        self.gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 0
        state = scope.setdefault("state", {})  # shared with the endpoint, which counts regions
        self.gate.inside += 1

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refusal = self.gate.refusal(scope)
            if refusal is not None:
                raise refusal
            await self.app(scope, self._counting(receive), send_noting)
        except (Exception, asyncio.CancelledError) as error:
            if status:  # half an answer is out; the connection is cut
                raise
            await _send_error(_error_for_client(error), send_noting)
        finally:
            self.gate.inside -= 1
            logger.info(
                "%s %s %d %.1f ms%s",
                scope["method"],
                quote(scope["path"])[:_LONGEST_PATH],
                status,
                1000 * (time.monotonic() - started),
                f" {state['regions']} regions" if "regions" in state else "",
            )

    def _counting(self, receive: Receive) -> Receive:
        """Receive at most so many bytes: a body in chunks does not say how long it will be."""
        received = 0

        async def receive_counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.gate.max_body:
                raise self.gate.too_long()
            return message

        return receive_counting


def _error_for_client(error: BaseException) -> RequestError:
    if isinstance(error, RequestError):
        return error
    if isinstance(error, asyncio.CancelledError):  # by the server, which has waited long enough
        return RequestError("shutting_down", "the server stopped before there was an answer")
    logger.error("no answer to a request", exc_info=error)
    return RequestError("internal_error", "the server failed; its log says why")


async def _send_error(error: RequestError, send: Send) -> None:
    body = json.dumps(error.body()).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **{name.lower(): value for name, value in error.headers.items()},
    }
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
