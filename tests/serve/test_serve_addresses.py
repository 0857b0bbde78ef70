"""GET addresses, the OpenAPI description, and unknown addresses."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from lavis_dynrefer.questions import TASKS
from lavis_dynrefer.serve.json_bodies import Region
from lavis_dynrefer.structures import RegionPrediction


def test_health_reports_the_model_and_the_requests_in_progress(client):
    assert client.get("/health").json == {
        "status": "ready",
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
    assert list(Region.model_fields) == [item.name for item in fields(RegionPrediction)]


def test_docs_page_needs_no_network(client):
    page = client.get("/docs")
    assert page.status == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert b"http://" not in page.body
    assert b"https://" not in page.body
    assert client.get("/").headers["location"] == "docs"


def test_models_are_listed_in_the_format_of_openai(client):
    listed = client.get("/v1/models").json
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["dynrefer-tiny"]
