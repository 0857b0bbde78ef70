"""A client for the service: one connection per request, replies as they came."""

from __future__ import annotations

import base64
import http.client
import io
import json
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass


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
        """Type of the error; the body holds nothing but the fields of OpenAI's errors."""
        (found,) = self.json.values()
        assert found.keys() == {"type", "message", "code", "param"}
        assert "Traceback" not in found["message"]
        return found["type"]

    @property
    def message(self):
        return self.json["error"]["message"]


class Client:
    """Asks the server on a port of this machine."""

    def __init__(self, port):
        self.port = port

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def request(self, method, path, body=None, **headers):
        connection = self.connect()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, named)
            return read_reply(connection)
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

    def upload(self, file, document, *, name="image.png", json_name=None, path="/v1/regions"):
        mark = uuid.uuid4().hex
        named = "" if json_name is None else f'; filename="{json_name}"'
        parts = [
            f'--{mark}\r\nContent-Disposition: form-data; name="request"{named}\r\n\r\n'.encode(),
            document if isinstance(document, bytes) else json.dumps(document).encode(),
            f'\r\n--{mark}\r\nContent-Disposition: form-data; name="image"; '
            f'filename="{name}"\r\nContent-Type: image/png\r\n\r\n'.encode(),
            file,
            f"\r\n--{mark}--\r\n".encode(),
        ]
        return self.post(path, b"".join(parts), f"multipart/form-data; boundary={mark}")

    def wait_for(self, **numbers):
        """Wait until GET /health reports these numbers."""
        wait_until(lambda: numbers.items() <= self.get("/health").json.items())

    @contextmanager
    def half_a_request(self, document):
        """Send all but the last byte of a request; yields a function that sends it."""
        body = json.dumps(document).encode()
        connection = self.connect()
        connection.putrequest("POST", "/v1/regions")
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body[:-1])

        def finish():
            connection.send(body[-1:])
            return read_reply(connection)

        try:
            yield finish
        finally:
            connection.close()


def read_reply(connection):
    answer = connection.getresponse()
    return Reply(answer.status, dict(answer.getheaders()), answer.read())


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
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)
