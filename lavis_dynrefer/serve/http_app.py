"""The service as an ASGI application: its addresses, its OpenAPI description, its page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from lavis_dynrefer import __version__
from lavis_dynrefer.pages.html_page import page_template
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.serve.json_bodies import (
    ChatAnswer,
    ChatBody,
    Health,
    RegionsAnswer,
    RegionsBody,
)
from lavis_dynrefer.serve.other_origins import ANY, METHODS, check_origins
from lavis_dynrefer.serve.request_errors import ErrorBody, error_of_status
from lavis_dynrefer.serve.request_gate import RequestGate
from lavis_dynrefer.serve.service import Service
from lavis_dynrefer.serve.service_limits import ServeSettings

_PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src blob:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
_REFERENCE = "#/components/schemas/{model}"
_NAME = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
_CHAT_ANSWER = {
    "model": ChatAnswer,
    "description": "The answer, or with `stream` its events: each a json after `data: `, and "
    "`data: [DONE]` at the end",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
_DESCRIPTION = "Captions, tags, attributes and categories of image regions."


def create_app(
    predictor: RegionPredictor,
    *,
    name: str = "tiny",
    settings: ServeSettings | None = None,
    cors_origins: Sequence[str] = (),
) -> FastAPI:
    """The service as an ASGI application; `app.state.service` is its `Service`.

    Args:
        predictor: the model; no other thread should use it.
        name: its model type.
        settings: None means the defaults.
        cors_origins: origins of web pages that may ask and read the answers; "*" for all pages.

    Raises:
        InputError: what is not an origin.
    """
    origins = check_origins(cors_origins)
    service = Service(predictor, name, settings or ServeSettings())
    app = FastAPI(
        title="dynrefer",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=service.lifespan,
        docs_url=None,  # FastAPI's page loads its scripts from elsewhere; ours works offline
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(RequestGate, traffic=service.traffic, origins=origins)
    if origins:
        app.add_middleware(
            CORSMiddleware,  # outermost, so that pages can also read the errors of the gate
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=[ANY],
            expose_headers=["Retry-After"],
        )
    app.add_exception_handler(HTTPException, _show_error)
    health = {503: {"model": Health, "description": "Shutting down, or unhealthy"}}
    app.add_api_route("/health", service.health, response_model=Health, responses=health)
    app.add_api_route("/v1/model", service.model_card)
    app.add_api_route("/v1/models", service.models)
    app.add_api_route(
        "/v1/models/{model}",
        service.model_of_name,
        responses={404: {"model": ErrorBody}},
        openapi_extra={"parameters": [_NAME]},
    )
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody} for status in (400, 403, 413, 415, 422, 500, 503, 504)
    }
    app.add_api_route(
        "/v1/regions",
        service.regions,
        methods=["POST"],
        responses=errors,
        response_model=RegionsAnswer,
        openapi_extra=_takes(RegionsBody, with_file=True),
    )
    app.add_api_route(
        "/v1/chat/completions",
        service.chat,
        methods=["POST"],
        responses={**errors, 404: {"model": ErrorBody}, 200: _CHAT_ANSWER},
        openapi_extra=_takes(ChatBody),
    )
    # Where clients of describe-anything's server look for it.
    app.add_api_route("/chat/completions", service.chat, methods=["POST"], include_in_schema=False)
    app.add_api_route("/", _to_page, include_in_schema=False)
    app.add_api_route("/docs", _page, include_in_schema=False)
    app.openapi = partial(_openapi, app)  # type: ignore[method-assign]
    return app


def _takes(model: type[RegionsBody] | type[ChatBody], *, with_file: bool = False) -> dict[str, Any]:
    """OpenAPI of a body that the endpoint reads itself."""
    schema = {"$ref": _REFERENCE.format(model=model.__name__)}
    if not with_file:
        content: dict[str, Any] = {"application/json": {"schema": schema}}
    else:
        here = {"required": ["image"], "properties": {"image": {"type": "string", "minLength": 1}}}
        elsewhere = {"properties": {"image": {"type": "null"}}}
        parts = {
            "image": {"type": "string", "format": "binary"},
            "request": {"allOf": [schema, elsewhere]},
        }
        form = {"type": "object", "properties": parts, "required": ["image", "request"]}
        content = {
            "application/json": {"schema": {"allOf": [schema, here]}},
            "multipart/form-data": {"schema": {**form, "additionalProperties": False}},
        }
    return {"requestBody": {"content": content, "required": True}}


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        _, bodies = models_json_schema(
            [(RegionsBody, "validation"), (ChatBody, "validation")], ref_template=_REFERENCE
        )
        schema["components"]["schemas"].update(bodies["$defs"])
        app.openapi_schema = schema
    return app.openapi_schema


async def _show_error(request: Request, error: Exception) -> Response:
    """The framework's own errors, such as 404, as json; the gate shows all others."""
    del request
    if not isinstance(error, HTTPException):
        raise error
    shown = error_of_status(error.status_code, str(error.detail))
    # Its headers may list the allowed methods.
    return JSONResponse(shown.body(), shown.status, {**(error.headers or {}), **shown.headers})


async def _to_page() -> Response:
    return RedirectResponse("docs")


async def _page() -> Response:
    page = page_template("serve.html").render()
    return HTMLResponse(page, headers={"Content-Security-Policy": _PAGE_POLICY})
