"""Addresses of images: http, what pyarrow reads, and the limit of their size."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from noise_rows import SIZE, noise

from lavis_dynrefer.bulk import image_sources
from lavis_dynrefer.bulk.image_sources import load_image
from lavis_dynrefer.errors import InputError, MissingFileError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *about):
        pass


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Address of a server with the image a.png."""
    for name in ("DYNREFER_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "a.png").write_bytes(noise(0))
    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_image_is_fetched(address, monkeypatch):
    assert load_image(f"{address}/a.png").size == SIZE
    assert load_image("a.png", address).size == SIZE

    with pytest.raises(MissingFileError, match="404"):
        load_image(f"{address}/b.png")
    monkeypatch.setenv("DYNREFER_OFFLINE", "1")
    with pytest.raises(InputError, match="DYNREFER_OFFLINE is set"):
        load_image(f"{address}/a.png")


def test_a_file_that_is_too_large_is_not_read_to_its_end(address, monkeypatch):
    monkeypatch.setattr(image_sources, "MAX_BYTES", 100)

    with pytest.raises(InputError, match=r"a\.png: larger than"):
        load_image(f"{address}/a.png")


def test_a_server_that_is_not_there(address):
    with pytest.raises(InputError, match=r"image http://127\.0\.0\.1:9/a\.png: "):
        load_image("http://127.0.0.1:9/a.png")


def test_addresses_that_pyarrow_and_fsspec_know(tmp_path):
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    with fsspec.open("memory://a.png", "wb") as file:
        file.write(noise(1))

    assert load_image("memory://a.png").size == SIZE
    with pytest.raises(MissingFileError):
        load_image("memory://b.png")


def test_cells_that_are_no_images():
    with pytest.raises(InputError, match="a struct of bytes and path"):
        load_image({"url": "x"})
    with pytest.raises(InputError, match="expected a path, PIL image or array"):
        load_image(7)
    assert load_image(np.zeros((3, 4), dtype=np.uint8)).size == (4, 3)
