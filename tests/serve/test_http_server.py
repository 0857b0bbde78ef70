"""The server ends, whatever its application does."""

import asyncio
import logging
from contextlib import asynccontextmanager
from urllib.request import urlopen

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from fastapi import FastAPI

from lavis_dynrefer.serve import http_server


def test_an_application_that_never_shuts_down_is_left_behind(monkeypatch, caplog):
    monkeypatch.setattr(http_server, "_ENDING", 0.3)

    @asynccontextmanager
    async def lifespan(app):
        yield
        await asyncio.sleep(3600)

    app = FastAPI(lifespan=lifespan)
    app.get("/")(lambda: "here")
    bound = http_server.bind("127.0.0.1", 0)
    server = http_server.HttpServer(app, bound)
    server.start()
    assert urlopen(f"http://127.0.0.1:{bound.getsockname()[1]}").read() == b'"here"'
    with caplog.at_level(logging.WARNING):
        server.stop()
    assert "did not end within" in caplog.text
    assert server.running
