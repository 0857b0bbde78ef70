"""Real servers on free ports, with the embedded model."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from PIL import Image
from serve_client import Client

REASON = "needs the extra `serve`"


@pytest.fixture(scope="session")
def predictor():
    from lavis_dynrefer import RegionPredictor

    return RegionPredictor("tiny", device="cpu")


@pytest.fixture(scope="session")
def scene():
    """An image and the boxes of its seven objects."""
    from lavis_dynrefer.synthetic import make_scene, render

    made = make_scene(0, 2_000_001)
    return render(made), [list(item.box) for item in made.objects]


@pytest.fixture(scope="session")
def serving(predictor):
    """Starts a server with the given settings, for as long as its context; yields a client."""
    pytest.importorskip("fastapi", reason=REASON)
    pytest.importorskip("uvicorn", reason=REASON)
    from lavis_dynrefer.serve import ServeSettings
    from lavis_dynrefer.serve.http_app import create_app
    from lavis_dynrefer.serve.http_server import HttpServer, bind

    @contextmanager
    def start(*, cors_origins=(), **settings):
        bound = bind("127.0.0.1", 0)
        limits = ServeSettings(**settings)
        app = create_app(predictor, settings=limits, cors_origins=cors_origins)
        server = HttpServer(app, bound)
        server.start()
        try:
            yield Client(bound.getsockname()[1])
        finally:
            server.stop()

    return start


@pytest.fixture(scope="module")
def client(serving):
    """A server with the default settings, one for all tests of a module."""
    with serving() as started:
        yield started


@pytest.fixture(scope="session")
def small_image():
    return Image.new("RGB", (40, 20), "red")
