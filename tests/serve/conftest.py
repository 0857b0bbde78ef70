"""Real servers on free ports with the embedded model, and a client for them."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from PIL import Image

REASON = "needs the extra `serve`"


@dataclass
class Reply:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """Type of the error; its body has nothing else than a type and a message."""
        (found,) = self.json.values()
        assert found.keys() == {"type", "message"}
        assert "Traceback" not in found["message"]
        return found["type"]

    @property
    def message(self):
        return self.json["error"]["message"]


class Client:
    """Asks one server; every request has its own connection."""

    def __init__(self, port):
        self.port = port

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def request(self, method, path, body=None, **headers):
        connection = self.connect()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, document, content_type="application/json"):
        body = document if isinstance(document, (bytes, str)) else json.dumps(document)
        return self.request("POST", path, body, content_type=content_type)

    def regions(self, image, boxes=None, **fields):
        document = {"image": encoded(image), **fields}
        return self.post("/v1/regions", {**document, **({} if boxes is None else {"boxes": boxes})})

    def upload(self, file, document, *, name="image.png", path="/v1/regions"):
        mark = uuid.uuid4().hex
        parts = [
            f'--{mark}\r\nContent-Disposition: form-data; name="request"\r\n\r\n'.encode(),
            document if isinstance(document, bytes) else json.dumps(document).encode(),
            f'\r\n--{mark}\r\nContent-Disposition: form-data; name="image"; '
            f'filename="{name}"\r\nContent-Type: image/png\r\n\r\n'.encode(),
            file,
            f"\r\n--{mark}--\r\n".encode(),
        ]
        return self.post(path, b"".join(parts), f"multipart/form-data; boundary={mark}")

    def wait_for(self, **numbers):
        """Until the health has these numbers."""
        wait_until(lambda: numbers.items() <= self.get("/health").json.items())

    @contextmanager
    def half_a_request(self, document):
        """A request of which the last byte is still to come; sending it is what is yielded."""
        body = json.dumps(document).encode()
        connection = self.connect()
        connection.putrequest("POST", "/v1/regions")
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body[:-1])

        def finish():
            connection.send(body[-1:])
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())

        try:
            yield finish
        finally:
            connection.close()


def encoded(image):
    """An image, or the bytes of any file, as base64."""
    data = image if isinstance(image, bytes) else png(image)
    return base64.b64encode(data).decode()


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def predictor():
    from lavis_dynrefer import RegionPredictor

    return RegionPredictor("tiny", device="cpu")


@pytest.fixture(scope="session")
def scene():
    """An image and the boxes of its seven things."""
    from lavis_dynrefer.synthetic import make_scene, render

    made = make_scene(0, 2_000_001)
    return render(made), [list(item.box) for item in made.objects]


@pytest.fixture(scope="session")
def serving(predictor):
    """Starts a server with given settings for as long as it is entered; gives its client."""
    pytest.importorskip("fastapi", reason=REASON)
    pytest.importorskip("uvicorn", reason=REASON)
    from lavis_dynrefer.serve import ServeSettings
    from lavis_dynrefer.serve.app import create_app
    from lavis_dynrefer.serve.server import GracefulServer, bind

    @contextmanager
    def start(**settings):
        bound = bind("127.0.0.1", 0)
        server = GracefulServer(create_app(predictor, settings=ServeSettings(**settings)))
        client = Client(bound.getsockname()[1])
        client.server = server
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield client
        finally:
            server.stop()
            thread.join()

    return start


@pytest.fixture(scope="module")
def client(serving):
    """A server with the default settings, one for all tests of a module."""
    with serving() as started:
        yield started


@pytest.fixture(scope="session")
def small_image():
    return Image.new("RGB", (40, 20), "red")
