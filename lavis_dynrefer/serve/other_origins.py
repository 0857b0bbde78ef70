"""Pages of other web sites: which of them may ask.

A browser lets a page of any site send a form to any address, and only keeps the answer from it.
Such blind requests would take the model's time, so they are refused by what browsers say about the
page. Other programs than browsers say nothing about it and are not concerned.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.serve.request_errors import RequestError

ANY = "*"
METHODS = ("GET", "HEAD", "POST")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://[^\s/?#@,*]+")
_USUAL_PORTS = {"http": ":80", "https": ":443"}  # browsers leave them out


def check_origins(origins: Sequence[str]) -> tuple[str, ...]:
    """Origins as browsers write them.

    Args:
        origins: such as "https://app.example.org" or "http://localhost:3000"; or "*", all.

    Raises:
        InputError: not an origin.

    >>> check_origins(["https://App.example.org:443"])
    ('https://app.example.org',)
    """
    checked = []
    for origin in origins:
        lower = origin.strip().lower()
        match = _ORIGIN.fullmatch(lower)
        if match is None and lower != ANY:
            raise InputError(
                "cors_origin: expected scheme and host, and a port if needed, such as "
                f"https://app.example.org or http://localhost:3000, or {ANY} for all pages, "
                f"got {origin!r:.80}"
            )
        port = _USUAL_PORTS.get(match[1]) if match else None
        checked.append(lower[: -len(port)] if port and lower.endswith(port) else lower)
    return tuple(checked)


def refuse_blind_request(headers: Mapping[str, str], allowed: Collection[str]) -> None:
    """Refuse what a page of another site sends, unless its origin is allowed.

    Args:
        headers: of the request.
        allowed: what `check_origins` returned.

    Raises:
        RequestError: names the origin and the option that allows it.
    """
    if headers.get("sec-fetch-site") != "cross-site" or ANY in allowed:
        return
    origin = headers.get("origin", "null")
    if origin not in allowed:
        raise RequestError(
            "other_site",
            f"a page of another site ({origin:.80}) may not ask; start the server with "
            "--cors-origin and its origin to allow it",
        )
