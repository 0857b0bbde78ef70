"""The page with the embedded model, one for all tests, and a client without a browser."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass

import pytest

from lavis_dynrefer.serve import ServeSettings


@dataclass
class Page:
    """A running page.

    Args:
        address: of the page.
    """

    address: str

    def get(self, path):
        return urllib.request.urlopen(self.address + path, timeout=60)

    def ask(self, drawing, **fields):
        """Press "Describe the boxes" with texts of some fields; returns the html, or the error."""
        config = json.load(self.get("/config"))
        names = {one["id"]: one["props"].get("elem_id") for one in config["components"]}
        press = next(
            one for one in config["dependencies"] if names[one["targets"][0][0]] == "describe"
        )
        values = {"board": drawing, "views": "own", **fields}
        return self.result(press["id"], [values.get(names[one], "") for one in press["inputs"]])

    def result(self, event, data, **fields):
        """The first output of an event, or its error."""
        session = uuid.uuid4().hex
        body = {"data": data, "fn_index": event, "session_hash": session, **fields}
        status, refusal = self.post("queue/join", body)
        if status != 200:
            return refusal["detail"]
        with self.get(f"/gradio_api/queue/data?session_hash={session}") as events:
            for line in events:
                event = json.loads(line[5:]) if line.startswith(b"data:") else {}
                if event.get("msg") == "process_completed":
                    return event["output"].get("error") or event["output"]["data"][0]
        raise AssertionError("no answer")

    def post(self, path, document):
        """Send json, or bytes as they are; returns status and answer."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        request = urllib.request.Request(
            f"{self.address}/gradio_api/{path}", body, {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def upload(self, name, content):
        """Send a file; returns what the drawing board makes of it."""
        mark = uuid.uuid4().hex
        start = (
            f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        )
        body = start.encode() + content + f"\r\n--{mark}--\r\n".encode()
        request = urllib.request.Request(
            f"{self.address}/gradio_api/upload",
            body,
            {"content-type": f"multipart/form-data; boundary={mark}"},
        )
        (path,) = json.load(urllib.request.urlopen(request))
        return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="session")
def predictor():
    from lavis_dynrefer import RegionPredictor

    return RegionPredictor("tiny", device="cpu")


@pytest.fixture(scope="session")
def page(predictor, tmp_path_factory):
    pytest.importorskip("gradio_image_annotation", reason="needs the extra `demo`")
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        from lavis_dynrefer.demo.web_app import create_app
        from lavis_dynrefer.serve.http_server import HttpServer, bind

        settings = ServeSettings(max_pixels=1_000_000, max_body=2_000_000, max_boxes=20)
        bound = bind("127.0.0.1", 0)
        app = create_app(predictor, folder=folder / "examples", settings=settings)
        server = HttpServer(app, bound)
        server.start()
        try:
            yield Page(f"http://127.0.0.1:{bound.getsockname()[1]}")
        finally:
            server.stop()
