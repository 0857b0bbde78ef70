"""GET addresses, the OpenAPI description, and unknown addresses."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from lavis_dynrefer.questions import TASKS
from lavis_dynrefer.serve.json_bodies import Region
from lavis_dynrefer.structures import RegionPrediction


def test_health_reports_the_model_and_the_requests_in_progress(client):
    assert client.get("/health").json == {
        "status": "ready",
        "reason": None,
        "model": "dynrefer-tiny",
        "device": "cpu",
        "queue": 0,
        "answering": 0,
        "requests": 1,
    }


def test_model_card_lists_tasks_and_limits(client, predictor):
    card = client.get("/v1/model").json
    assert card["vocabularies"]["categories"] == len(predictor.model.categories)
    assert card["tasks"] == list(TASKS)
    assert card["limits"]["max_boxes"] == 1000


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/v2", "not_found"),
        ("GET", "/../../etc/passwd", "not_found"),
        ("GET", "/docs/..%2f..%2fetc/passwd", "not_found"),
        ("GET", "/v1/regions", "method_not_allowed"),
        ("POST", "/health", "method_not_allowed"),
    ],
)
def test_unknown_addresses_are_refused(client, method, path, kind):
    reply = client.request(method, path)
    assert reply.error == kind
    if kind == "method_not_allowed":
        assert reply.headers["allow"] in ("POST", "GET")


def test_openapi_describes_both_bodies_and_defines_every_reference(client):
    page = client.get("/openapi.json").json
    content = page["paths"]["/v1/regions"]["post"]["requestBody"]["content"]
    assert content.keys() == {"application/json", "multipart/form-data"}
    text = json.dumps(page)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= page["components"]["schemas"].keys()
    assert "RunLengths" in names
    assert "#/$defs" not in text
    chat = page["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert chat["200"]["content"].keys() == {"application/json", "text/event-stream"}
    assert {"403", "404", "415", "503"} <= chat.keys()
    assert list(Region.model_fields) == list(RegionPrediction((0, 0, 1, 1)).to_dict())


def test_docs_page_needs_no_network(client):
    page = client.get("/docs")
    assert page.status == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert b"http://" not in page.body
    assert b"https://" not in page.body
    assert client.get("/").headers["location"] == "docs"


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/v1/models", "/openapi.json"])
def test_head_gets_the_headers_alone(client, path):
    asked, other = client.get(path), client.request("HEAD", path)
    assert (other.status, other.body) == (asked.status, b"")
    assert other.headers["content-length"] == asked.headers["content-length"]


@pytest.mark.parametrize("path", ["/health", "/docs", "/v1/models", "/v1/models/dynrefer-tiny"])
def test_a_slash_at_the_end_changes_nothing(client, path):
    assert client.get(f"{path}/").status == client.get(f"{path}//").status == 200
    assert client.post("/v1/regions/", {}).error == "unprocessable"


@pytest.mark.parametrize("name", ["dynrefer-tiny", "dynrefer", "describe_anything_model"])
def test_a_model_is_found_by_its_names(client, name):
    assert client.get(f"/v1/models/{name}").json == client.get("/v1/models").json["data"][0]


@pytest.mark.parametrize("name", ["gpt-4", "dynrefer-", "a%2Fb", "%F0%9F%98%80", "x" * 500])
def test_another_model_is_not_found(client, name):
    error = client.get(f"/v1/models/{name}").json["error"]
    if "/" not in name and "%2F" not in name:
        assert error["code"] == "model_not_found"
    assert error["type"] == "not_found"
    assert len(error["message"]) < 200


def test_models_are_listed_in_the_format_of_openai(client):
    listed = client.get("/v1/models").json
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["dynrefer-tiny"]
