"""Web pages as clients: which may ask, and which may read the answers."""

from __future__ import annotations

import json

import pytest
from serve_client import encoded

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.serve.other_origins import check_origins

HOME, OTHER = "https://app.example.org", "https://other.example.org"
CORS = "access-control-allow-origin"


def preflight(client, origin, path="/v1/chat/completions", method="POST"):
    return client.request(
        "OPTIONS",
        path,
        origin=origin,
        access_control_request_method=method,
        access_control_request_headers="authorization,content-type,x-stainless-lang",
    )


def ask(client, image, **headers):
    body = json.dumps({"image": encoded(image), "boxes": [], "tasks": ["categories"]})
    return client.request("POST", "/v1/regions", body, content_type="application/json", **headers)


@pytest.fixture(scope="module")
def open_client(serving):
    with serving(cors_origins=[HOME, "http://localhost:3000"]) as client:
        yield client


def test_by_default_no_page_may_read(client):
    refused = preflight(client, HOME)
    assert refused.error == "method_not_allowed"
    asked = client.request("GET", "/v1/models", origin=HOME)
    assert asked.status == 200
    both = {**refused.headers, **asked.headers}
    assert [name for name in both if name.lower().startswith("access-control")] == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/regions", "/v1/models"])
def test_pages_of_a_named_origin_may_ask_and_read(open_client, small_image, path):
    allowed = preflight(open_client, HOME, path)
    assert (allowed.status, allowed.headers[CORS]) == (200, HOME)
    assert "POST" in allowed.headers["access-control-allow-methods"]
    assert "x-stainless-lang" in allowed.headers["access-control-allow-headers"]
    reply = ask(open_client, small_image, origin=HOME, sec_fetch_site="cross-site")
    assert (reply.status, reply.headers[CORS]) == (200, HOME)
    assert "Origin" in reply.headers["vary"]


def test_pages_may_also_read_errors(open_client):
    for path, document in (("/v1/regions", {}), ("/v1/nothing", {})):
        body = json.dumps(document)
        reply = open_client.request(
            "POST", path, body, content_type="application/json", origin=HOME
        )
        assert reply.status in (404, 422)
        assert reply.headers[CORS] == HOME


@pytest.mark.parametrize(
    "origin", [OTHER, "http://app.example.org", f"{HOME}:444", f"{HOME}.evil.org", "null"]
)
def test_pages_of_other_origins_may_not(open_client, small_image, origin):
    refused = preflight(open_client, origin)
    assert (refused.status, CORS in refused.headers) == (400, False)
    assert CORS not in open_client.request("GET", "/v1/models", origin=origin).headers
    reply = ask(open_client, small_image, origin=origin, sec_fetch_site="cross-site")
    assert (reply.status, reply.error) == (403, "other_site")
    assert "--cors-origin" in reply.message


def test_all_pages_may_if_asked_for(serving, small_image):
    with serving(cors_origins=["*"]) as client:
        assert preflight(client, OTHER).headers[CORS] == "*"
        reply = ask(client, small_image, origin=OTHER, sec_fetch_site="cross-site")
        assert (reply.status, reply.headers[CORS]) == (200, "*")


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data; boundary=x"])
def test_blind_requests_of_other_sites_are_refused(client, content_type):
    """Browsers send these without asking first."""
    for path in ("/v1/regions", "/v1/chat/completions"):
        reply = client.request(
            "POST", path, b"", content_type=content_type, origin=OTHER, sec_fetch_site="cross-site"
        )
        assert (reply.status, reply.error) == (403, "other_site")


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none"])
def test_own_page_and_programs_may_ask(client, small_image, site):
    origin = f"http://127.0.0.1:{client.port}"
    assert ask(client, small_image, origin=origin, sec_fetch_site=site).status == 200
    assert ask(client, small_image).status == 200


def test_origins_are_written_as_browsers_write_them():
    given = ["HTTPS://App.Example.org:443", "http://localhost:80", "http://[::1]:3000", "*"]
    written = ("https://app.example.org", "http://localhost", "http://[::1]:3000", "*")
    assert check_origins(given) == written


@pytest.mark.parametrize(
    "origin", ["", "app.example.org", f"{HOME}/", f"{HOME}/page", "https://*.a.org", "null", "*,*"]
)
def test_what_is_no_origin_is_named(origin):
    with pytest.raises(InputError, match="cors_origin: expected scheme and host"):
        check_origins([origin])
