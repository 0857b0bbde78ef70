"""Downloads one file over HTTP: continued after a break or a kill, and checked.

`requests` does the connections, redirects, proxies, certificates and repeated requests. It and the
other libraries at hand (torch.hub, pooch, the hub's with its chunk store) begin a broken file
again, which for ten gigabytes over a bad line means never to finish.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry

from lavis_dynrefer.errors import DISK_FULL, InputError, MissingFileError
from lavis_dynrefer.paths import replace_file

OFFLINE_VARIABLES = ("DYNREFER_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
HUB = "https://huggingface.co"
HUB_VARIABLE = "HF_ENDPOINT"  # the address of a mirror of the hub
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before a further attempt, when the last brought nothing
_BUSY = (429, 500, 502, 503, 504)
_TIMEOUT = (10, 60)  # seconds to connect, and without a byte
_BLOCK = 1 << 18  # bytes; at most so many are lost when a connection breaks

logger = logging.getLogger(__name__)


class TransferError(MissingFileError):
    """A file cannot be downloaded; the message names it and why."""


class Expected(NamedTuple):
    """What is known of a file before it is downloaded.

    Args:
        size: bytes.
        sha256: in hex.
    """

    size: int | None = None
    sha256: str | None = None


class _Broken(Exception):
    """The connection ended too early; what has arrived is kept."""


def offline_variable() -> str | None:
    """The environment variable that forbids the network; None if it is allowed."""
    for name in OFFLINE_VARIABLES:
        if os.environ.get(name, "").strip().upper() in ("1", "ON", "YES", "TRUE"):
            return name
    return None


def mirrored(url: str, mirror: str | None = None) -> str:
    """The address to ask instead: another scheme and host, the same path.

    Args:
        url: as published.
        mirror: address of a server that holds the files under the paths of their own; None:
            HF_ENDPOINT for those of the hub.

    >>> mirrored("https://example.org/models/a.pth", "http://mirror:8000/weights")
    'http://mirror:8000/weights/models/a.pth'
    """
    if mirror is None and url.startswith(f"{HUB}/"):
        mirror = os.environ.get(HUB_VARIABLE)
    if not mirror:
        return url
    return mirror.rstrip("/") + "/" + url.split("://", 1)[1].partition("/")[2]


@contextmanager
def open_session() -> Iterator[requests.Session]:
    """Connections that repeat what a busy server refused."""
    retry = Retry(
        total=4,
        connect=2,
        read=0,
        status_forcelist=_BUSY,
        backoff_factor=PAUSES[0],
        allowed_methods=["GET"],
        raise_on_status=False,
    )
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        # A compressed answer has another length, and cannot be continued.
        session.headers["Accept-Encoding"] = "identity"
        yield session


def download(
    url: str,
    target: Path,
    *,
    expected: Expected = Expected(),  # noqa: B008  immutable
    arrived: Callable[[int], None] = lambda count: None,
) -> str:
    """Download a file, or the rest of one that was broken off. The caller holds a lock.

    Until it is whole, it is called `target`.part.

    Args:
        url: where it is.
        target: its name here, in a folder that exists; replaced if it is there.
        expected: a file of another size or checksum is refused.
        arrived: called with the number of bytes that are here already, then with each further one;
            with a negative number where the server begins again.

    Returns:
        Its sha256 in hex.

    Raises:
        TransferError: it is not there, is another file, or the connection fails again and again.
        InputError: the disk is full.
    """
    offline = offline_variable()
    if offline:
        raise TransferError(f"{url} is not downloaded, because {offline} is set")
    partial = _Partial(target, url, arrived)
    failures, most = 0, partial.size
    with open_session() as session:
        while True:
            try:
                digest = partial.receive(session, expected)
                break
            except (requests.RequestException, HTTPError, _Broken) as error:
                failures = 0 if partial.size > most else failures + 1
                most = max(most, partial.size)  # where a server begins again, it must get further
                if failures > len(PAUSES) or _is_hopeless(error, partial):
                    kept = "; what has arrived is kept for the next attempt" if partial.size else ""
                    raise TransferError(f"cannot download {url}: {_reason(error)}{kept}") from error
                logger.warning("%s: %s; trying again", url, _reason(error))
                time.sleep(PAUSES[max(failures, 1) - 1])
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
                raise InputError(
                    f"no space left for {target}; what has arrived stays there: make space and "
                    "repeat the command"
                ) from error
    replace_file(partial.path, target)
    partial.note.unlink(missing_ok=True)
    return digest


def _is_hopeless(error: Exception, partial: _Partial) -> bool:
    """Whether it would fail again: an address that leads nowhere, or nobody there at all."""
    refused = isinstance(error, requests.ConnectionError) and not partial.size
    return refused or isinstance(error, (ValueError, requests.TooManyRedirects))


def _reason(error: Exception) -> str:
    """The innermost message, without the objects that libraries wrap around it."""
    text = " ".join(str(error).split())
    if "IncompleteRead" in text or "RemoteDisconnected" in text:
        return "the connection ended too early"
    inner = re.findall(r"(?:\[Errno -?\d+\] )([\w ,]+)", text)
    return inner[-1] if inner else text[:200] or type(error).__name__


class _Partial:
    """The part of a file that has arrived, with the note of which file it is."""

    def __init__(self, target: Path, url: str, arrived: Callable[[int], None]) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")
        self.url = url
        self.arrived = arrived
        self.hasher = hashlib.sha256()
        self.size = 0
        self.version = self._read_note()
        if self.version is not None:
            self._read_part()

    def _read_note(self) -> str | None:
        """What identifies the server's version of the file; None: begin anew."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept: dict[str, Any] = json.loads(self.note.read_text(encoding="utf-8"))
            if kept["url"] == self.url:
                return str(kept["version"])
        return None

    def _read_part(self) -> None:
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            for block in iter(lambda: file.read(_BLOCK), b""):
                self.hasher.update(block)
                self.size += len(block)
                self.arrived(len(block))

    def forget(self) -> None:
        """Remove what has arrived; the next attempt begins anew."""
        self.note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self.arrived(-self.size)
        self.hasher, self.size, self.version = hashlib.sha256(), 0, None

    def _begin(self, version: str) -> None:
        self.forget()  # first: a kill here must not leave the new note beside old bytes
        self.version = version
        note = json.dumps({"url": self.url, "version": version})
        self.note.write_text(note, encoding="utf-8")

    def receive(self, session: requests.Session, expected: Expected) -> str:
        """One attempt; returns the sha256.

        Raises:
            _Broken: the connection ended too early.
            TransferError: another attempt would fail, too.
        """
        headers = {}
        if self.size and self.version:
            headers = {"Range": f"bytes={self.size}-", "If-Range": self.version}
        with session.get(self.url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
            total = _total(answer)
            if answer.status_code == 416 and self.size == (total or expected.size):
                return self._checked(expected, total)  # there is nothing after what is here
            if answer.status_code == 416 or not _continues(answer, self.size):
                self.forget()
                raise _Broken("the server has another file than before")
            self._refuse(answer, expected, total)
            if answer.status_code == 200:
                self._begin(_version(answer))
            self._append(answer)
            if self.size < (total or expected.size or 0):
                raise _Broken("the connection ended too early")
            return self._checked(expected, total, _hub_digest(answer))

    def _refuse(self, answer: requests.Response, expected: Expected, total: int | None) -> None:
        """Raise an error, before it is read, for what is not the file."""
        if answer.status_code not in (200, 206):
            raise TransferError(
                f"cannot download {self.url}: the server answers {answer.status_code} "
                f"{answer.reason}"
            )
        problem = None
        if expected.size is not None and total not in (None, expected.size):
            problem = f"expected {expected.size:,} bytes, the server has {total:,}"
        elif answer.headers.get("Content-Type", "").startswith("text/html"):
            problem = "the server sends a web page"
        if problem is not None:
            self.forget()
            raise TransferError(f"{self.url} is not the published file: {problem}")

    def _append(self, answer: requests.Response) -> None:
        with self.path.open("r+b" if self.size else "wb") as file:
            file.seek(self.size)
            for block in answer.iter_content(_BLOCK):
                file.write(block)
                file.flush()  # so that a kill loses little
                self.hasher.update(block)
                self.size += len(block)
                self.arrived(len(block))
            os.fsync(file.fileno())

    def _checked(self, expected: Expected, total: int | None, told: str | None = None) -> str:
        """The sha256 of the whole file; one that is not the right one is removed."""
        digest, size = self.hasher.hexdigest(), self.size
        problem = None
        if size != (expected.size or total or size):
            problem = f"expected {expected.size or total:,} bytes, got {size:,}"
        elif digest != (expected.sha256 or told or digest):
            problem = f"expected sha256 {expected.sha256 or told}, got {digest}"
        if problem is None:
            return digest
        self.forget()
        raise TransferError(f"{self.url} is not the published file: {problem}")


def _total(answer: requests.Response) -> int | None:
    """Bytes of the whole file, where the server tells."""
    if answer.status_code == 200:
        length = answer.headers.get("Content-Length", "")
    else:
        length = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(length) if length.isdigit() else None


def _continues(answer: requests.Response, size: int) -> bool:
    """False for a part of the file that was not asked for."""
    return answer.status_code != 206 or answer.headers.get("Content-Range", "").startswith(
        f"bytes {size}-"
    )


def _version(answer: requests.Response) -> str:
    """What `If-Range` takes: a strong tag or a date; empty where the server has neither."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


def _hub_digest(answer: requests.Response) -> str | None:
    """The sha256 that the hub tells of a large file, on the way to where it is stored."""
    for response in (answer, *answer.history):
        tag = response.headers.get("X-Linked-ETag", "").strip('"')
        if re.fullmatch("[0-9a-f]{64}", tag):
            return tag
    return None
