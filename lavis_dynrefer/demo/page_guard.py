"""What a visitor may send to the page, and what the page may make a browser load."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lavis_dynrefer.errors import shorten

logger = logging.getLogger(__name__)

_API = "/gradio_api"
_FILE = f"{_API}/file="
_UPLOAD = f"{_API}/upload"  # the only address that takes anything but json
# All that the page in a browser asks for. gradio has many more, for programs and for developers.
_READ = {
    "/",
    "/config",
    "/favicon.ico",
    "/robots.txt",
    "/theme.css",
    f"{_API}/queue/data",
    f"{_API}/theme.css",
    f"{_API}/upload_progress",
}
_READ_BELOW = (
    "/assets/",
    "/static/",
    "/svelte/",
    f"{_API}/custom_component/",
    f"{_API}/heartbeat/",
    _FILE,
)
_ASK = f"{_API}/queue/join"
_WRITTEN = {_ASK, _UPLOAD, f"{_API}/cancel", f"{_API}/reset"}
_ASKED = ("data", "event_data", "fn_index", "session_hash", "trigger_id")  # fields of a question
_MAX_SESSION = 100  # characters
_NO_API = "this page has no API for programs; dynrefer serve has one"
# Browsers then load nothing from other servers; gradio's page needs inline scripts and styles.
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "worker-src 'self' blob:; form-action 'self'; base-uri 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Refusal(Exception):
    """A request that the page does not take: a status, and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class PageGuard:
    """ASGI middleware around gradio's page.

    Only the addresses that the page itself asks for exist. Requests that name a file which nobody
    uploaded are refused: gradio checks that only in pages it launches itself, not in mounted ones,
    would download a URL given instead of a path, and sends a browser to any URL given as a file.

    Args:
        app: the page.
        folders: uploaded files and examples lie in them.
        events: for each of the page's events, by its number, gradio's models of its inputs; None
            for an input that may be anything.
        max_body: most bytes of a request with json.
    """

    def __init__(
        self,
        app: ASGIApp,
        folders: Sequence[Path],
        events: Mapping[int, Sequence[type[BaseModel] | None]],
        max_body: int,
    ) -> None:
        self._app = app
        self._folders = {*folders, *(folder.resolve() for folder in folders)}
        self._events = events
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            self._check_address(scope)
            if scope["method"] == "POST" and scope["path"] != _UPLOAD:
                receive = await self._checked(scope, receive)
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            return
        except Refusal as refusal:
            response = JSONResponse({"detail": str(refusal)}, refusal.status)
            await response(scope, receive, send_with_headers)
        except Exception as error:  # of gradio, about a request that the page never makes
            logger.warning("%s %r failed: %r", scope["method"], scope["path"][:200], error)
            if not begun:
                response = JSONResponse({"detail": "this request cannot be answered"}, 500)
                await response(scope, receive, send_with_headers)

    def _check_address(self, scope: Scope) -> None:
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD"):
            if path not in _READ and not path.startswith(_READ_BELOW):
                raise Refusal(404, _NO_API)
            if path.startswith(_FILE) and not self._is_uploaded(path[len(_FILE) :]):
                raise Refusal(403, "this page shows no files but those uploaded to it")
            return
        if method != "POST" or path not in _WRITTEN:
            raise Refusal(404, _NO_API)
        if Headers(scope=scope).get("sec-fetch-site") == "cross-site":
            raise Refusal(403, "a page of another site may not ask")

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """The request's body, once it has been read and found harmless."""
        body = b""
        async for part in Request(scope, receive).stream():
            body += part
            if len(body) > self._max_body:
                raise Refusal(413, f"expected at most {self._max_body:,} bytes")
        document = self._harmless(body)
        if scope["path"] == _ASK:
            document = self._question(document)
        checked = json.dumps(document).encode()
        messages: list[Message] = [{"type": "http.request", "body": checked, "more_body": False}]

        async def receive_checked() -> Message:
            return messages.pop() if messages else await receive()

        return receive_checked

    def _harmless(self, body: bytes) -> Any:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            raise Refusal(403, "expected json") from None
        if not all(map(self._is_uploaded, _paths_in(document))):
            raise Refusal(403, "this page reads only what is uploaded to it")
        return document

    def _question(self, document: Any) -> dict[str, Any]:
        """The fields of a question that the page can ask."""
        if not isinstance(document, dict):
            raise Refusal(422, f"expected a question of this page; {_NO_API}")
        asked = {name: document.get(name) for name in _ASKED}
        number, data, session = asked["fn_index"], asked["data"], asked["session_hash"]
        models = self._events.get(number) if type(number) is int else None
        if (
            models is None
            or not isinstance(data, list)
            or len(data) != len(models)
            or not isinstance(session, str)
            or not 0 < len(session) <= _MAX_SESSION
            or not isinstance(asked["event_data"], (dict, type(None)))
            or type(asked["trigger_id"]) not in (int, type(None))
        ):
            raise Refusal(422, f"expected a question of this page; {_NO_API}")
        for value, model in zip(data, models):
            try:
                if model is not None and value is not None:
                    model.model_validate(value, context={"validate_meta": True})
            except ValueError:  # also pydantic's
                text = f"expected what this page sends, got {shorten(repr(value), 80)}; {_NO_API}"
                raise Refusal(422, text) from None
        return asked

    def _is_uploaded(self, path: Any) -> bool:
        # First as written: only to look at a share of another Windows machine is to log in there.
        # Absolute, so that gradio does not take for a URL what resolves to a file here.
        try:
            if not Path(path).is_absolute() or not self._inside(Path(os.path.normpath(path))):
                return False
            return self._inside(Path(path).resolve())
        except (OSError, TypeError, ValueError, RuntimeError):
            return False

    def _inside(self, path: Path) -> bool:
        return not self._folders.isdisjoint(path.parents)


def _paths_in(document: Any) -> Iterator[Any]:
    """Every value named "path", at any depth: files have one."""
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "path" in item:
                yield item["path"]
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
