"""What a visitor may send to the page, and what the page may make a browser load."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_UPLOAD = "/gradio_api/upload"  # the only address that takes anything but json
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


class PageGuard:
    """ASGI middleware around gradio's page.

    Requests that name a file which nobody uploaded are refused. gradio checks that only in pages
    it launches itself, not in mounted ones, and would download a URL given instead of a path.

    Args:
        app: the page.
        folders: uploaded files and examples lie in them.
    """

    def __init__(self, app: ASGIApp, folders: Sequence[Path]) -> None:
        self._app = app
        self._folders = [folder.resolve() for folder in folders]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        posted = scope["type"] == "http" and scope["method"] == "POST"
        if not posted or scope["path"] == _UPLOAD:
            await self._app(scope, receive, send_with_headers)
            return
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            return
        refusal = self._refusal(body)
        if refusal:
            response = JSONResponse({"detail": refusal}, 403)
            await response(scope, receive, send_with_headers)
            return
        checked: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_checked() -> Message:
            return checked.pop() if checked else await receive()

        await self._app(scope, receive_checked, send_with_headers)

    def _refusal(self, body: bytes) -> str | None:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            return "expected json"
        if not all(map(self._is_uploaded, _paths_in(document))):
            return "this page reads and fetches nothing but what is uploaded to it"
        return None

    def _is_uploaded(self, path: Any) -> bool:
        try:
            # Absolute, so that gradio does not take for a URL what resolves to a file here.
            if not Path(path).is_absolute():
                return False
            parents = Path(path).resolve().parents
        except (OSError, TypeError, ValueError):
            return False
        return any(folder in parents for folder in self._folders)


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
