"""A server of weight files on this machine, as good or as bad as a test asks for."""

from __future__ import annotations

import hashlib
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Site:
    """Files by path, and how the next requests for each are answered.

    Attributes:
        files: path -> content.
        moods: path -> what happens to its next requests, one after the other: a status code, or
            ("break", bytes sent before the connection ends), ("quiet", the same without a length),
            ("anew", as "break" for a server that ignores ranges),
            ("slow", seconds before each byte), ("elsewhere", address to go to), "whole" (ranges are
            ignored), "page" (html), "nameless" (no tag, no date, no ranges), "lengthless"
            (no length, as of a pipe).
        asked: the path and the range of each request.
        large: path -> the sha256 that is told of it, as the Hugging Face hub does.
    """

    def __init__(self):
        self.files, self.moods, self.asked, self.large = {}, {}, [], {}
        self.address = ""

    def put(self, path, content, *moods):
        """Serve a file; returns its address."""
        self.files[path] = content
        self.moods[path] = list(moods)
        return self.address + path


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self):
        path = "/" + self.path.split("://", 1)[-1].partition("/")[2] if "://" in self.path else None
        path = path or self.path  # a proxy is asked for the whole address
        wanted = self.headers.get("Range")
        self.site.asked.append((path, wanted))
        moods = self.site.moods.get(path) or [None]
        mood = moods.pop(0)
        content = self.site.files.get(path)
        if content is None or isinstance(mood, int):
            self._head(mood or 404, 0)
            return
        told = {"X-Linked-ETag": f'"{self.site.large[path]}"'} if path in self.site.large else {}
        if isinstance(mood, tuple) and mood[0] == "elsewhere":
            self._head(302, 0, {"Location": mood[1], **told})
            return
        kind = mood[0] if isinstance(mood, tuple) else mood
        tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        headers = {"Content-Type": "text/html" if mood == "page" else "application/octet-stream"}
        headers.update(told)
        start = 0
        if mood != "nameless":
            headers["ETag"] = tag
            if (
                wanted
                and kind not in ("whole", "anew")
                and self.headers.get("If-Range", tag) == tag
            ):
                start = int(wanted.partition("=")[2].rstrip("-"))
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if start >= len(content) > 0 and start:
            self._head(416, 0, {"Content-Range": f"bytes */{len(content)}"})
            return
        left = len(content) - start if kind not in ("lengthless", "quiet") else None
        self._head(206 if start else 200, left, headers)
        self._send(content[start:], mood)

    def _send(self, body, mood):
        kind, number = mood if isinstance(mood, tuple) else (mood, 0)
        if kind in ("break", "quiet", "anew"):
            body = body[:number]
        if kind == "slow":
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(number)
            return
        self.wfile.write(body)
        if kind in ("break", "quiet", "anew", "lengthless"):
            self.close_connection = True

    def _head(self, status, length, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *words):
        """Say nothing."""


@contextmanager
def serve_weights():
    """A running `Site`."""
    site = Site()
    handler = type("Handler", (_Handler,), {"site": site})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        site.address = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()
