"""Outermost layer: limits the number and size of requests, and logs one line for each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lavis_dynrefer.models.device_errors import forget_frames
from lavis_dynrefer.serve.other_origins import refuse_blind_request
from lavis_dynrefer.serve.request_errors import INTERNAL, RequestError, error_of_exception
from lavis_dynrefer.serve.service_limits import ServeSettings

logger = logging.getLogger(__name__)

_MAX_PATH = 200  # characters in the log
_MAX_DIGITS = 18  # of a content-length; Python refuses to parse thousands


@dataclass
class Traffic:
    """The requests in progress, shared by the gate and the service.

    Args:
        limits: max_requests POST requests at once, max_body bytes each.
        running: requests in progress.
        closing: new POST requests are refused.
        cut_off: requests that were cancelled by the server.
    """

    limits: ServeSettings
    running: int = 0
    closing: bool = False
    cut_off: int = 0


class RequestGate:
    """ASGI middleware that admits requests, turns failures into json, and writes the log.

    uvicorn's `limit_concurrency` would refuse GET /health too, and answer in plain text without
    Retry-After; it has no limit for bytes.

    Args:
        app: the application inside.
        traffic: counted here.
        origins: pages that may ask, as `check_origins` returns them.
    """

    def __init__(self, app: ASGIApp, traffic: Traffic, origins: Collection[str] = ()) -> None:
        self._app = app
        self._traffic, self._limits = traffic, traffic.limits
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0
        state = scope.setdefault("state", {})  # the endpoints put the number of regions there
        self._traffic.running += 1

        async def send_recording(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check(scope)
            await self._app(_plain(scope), self._counting(receive), send_recording)
        except (Exception, asyncio.CancelledError) as error:
            self._traffic.cut_off += isinstance(error, asyncio.CancelledError)
            if status:  # half an answer is out; the connection is cut
                raise
            shown = _error_for_client(error)
            forget_frames(error)  # they hold the image, its views, and the future with this error
            response = JSONResponse(shown.body(), shown.status, shown.headers)
            await response(scope, receive, send_recording)
        finally:
            self._traffic.running -= 1
            logger.info(
                "%s %s %d %.1f ms%s",
                scope["method"],
                quote(scope["path"])[:_MAX_PATH],
                status,
                1000 * (time.monotonic() - started),
                f" {state['regions']} regions" if "regions" in state else "",
            )

    def _check(self, scope: Scope) -> None:
        """Refuse a POST request by its headers."""
        if scope["method"] != "POST":
            return
        headers = Headers(scope=scope)
        refuse_blind_request(headers, self._origins)
        if self._traffic.closing:
            raise RequestError("shutting_down", "the server is shutting down; ask another one")
        if self._traffic.running > self._limits.max_requests:
            raise RequestError(
                "overloaded",
                f"{self._limits.max_requests} requests are in progress; try again later",
            )
        length = headers.get("content-length", "0")
        valid = length.isdigit() and len(length) <= _MAX_DIGITS
        if not valid or int(length) > self._limits.max_body:
            raise self._too_large()

    def _counting(self, receive: Receive) -> Receive:
        """Count the bytes received: a chunked body does not announce its length."""
        received = 0

        async def receive_counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limits.max_body:
                raise self._too_large()
            return message

        return receive_counting

    def _too_large(self) -> RequestError:
        return RequestError(
            "too_large", f"expected a request of at most {self._limits.max_body:,} bytes"
        )


def _plain(scope: Scope) -> Scope:
    """HEAD as GET, whose body the server leaves out; and the path without a slash at its end."""
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return {**scope, "method": method, "path": scope["path"].rstrip("/") or "/"}


def _error_for_client(error: BaseException) -> RequestError:
    if isinstance(error, asyncio.CancelledError):  # by uvicorn, after its graceful-shutdown timeout
        return RequestError("shutting_down", "the server stopped before the request was answered")
    shown = error_of_exception(error)
    if shown is None:
        logger.error("a request failed", exc_info=error)
        shown = RequestError("internal_error", INTERNAL)
    return shown
