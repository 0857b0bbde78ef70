"""Untrusted images: decoded, or refused before they take memory."""

from __future__ import annotations

import base64
import io

import pytest

pytest.importorskip("pydantic", reason="needs the extra `serve`")

from PIL import Image

from lavis_dynrefer.serve.request_errors import RequestError
from lavis_dynrefer.serve.sent_images import IMAGE_FORMATS, decode_base64, open_sent_image


def saved(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def opened(data, max_pixels=10_000):
    return open_sent_image(data, max_pixels=max_pixels)


@pytest.mark.parametrize("format", IMAGE_FORMATS)
def test_accepted_formats_are_decoded_as_rgb(format):
    image = opened(saved(Image.new("RGB", (4, 3), "white"), format)).image
    assert (image.mode, image.size) == ("RGB", (4, 3))


def test_base64_may_have_line_breaks():
    text = base64.encodebytes(bytes(100)).decode()
    assert "\n" in text
    assert decode_base64(text) == bytes(100)


def test_data_url_is_decoded():
    assert decode_base64("data:image/png;name=a.png;base64,AAEC") == b"\0\1\2"


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1/secret.png", "HTTPS://example.org/a.png", "file:///etc/passwd", " ftp://a"],
)
def test_other_urls_are_refused(address):
    with pytest.raises(RequestError, match="this server fetches nothing, send the image itself"):
        decode_base64(address)


@pytest.mark.parametrize(
    ("url", "head"),
    [
        ("data:image/png,%89PNG", "'data:image/png'"),
        (" DATA:,AAEC", "'DATA:'"),
        ("data:image/png;base64", "'data:image/png;base64'"),
        ("data:" + 99 * "\n", "'data:'"),
    ],
)
def test_data_url_without_base64_is_named(url, head):
    with pytest.raises(RequestError, match=f"got {head} without ;base64,") as caught:
        decode_base64(url)
    assert caught.value.status == 400


@pytest.mark.parametrize("text", ["AAE", "AA!EC", "Äpfel", "data:image/png;base64,A", "../a.png"])
def test_damaged_base64_is_named(text):
    with pytest.raises(RequestError, match="damaged base64") as caught:
        decode_base64(text)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<!DOCTYPE html><html>404</html>", "got an html page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "got xml or svg"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "bytes of something else"),
    ],
)
def test_files_that_are_not_images_are_named(data, message):
    with pytest.raises(RequestError, match=message) as caught:
        opened(data)
    assert caught.value.status == 415


def test_size_of_a_too_large_image_is_named():
    with pytest.raises(RequestError, match="at most 10,000 pixels, got 101 x 100"):
        opened(saved(Image.new("1", (101, 100))))


def test_alpha_box_is_tight():
    image = Image.new("RGBA", (9, 7), (255, 0, 0, 0))
    image.paste((0, 255, 0, 1), (2, 3, 6, 5))
    assert opened(saved(image)).alpha_box == (2, 3, 6, 5)


@pytest.mark.parametrize(
    ("mode", "colour", "box"),
    [
        ("RGB", "red", None),
        ("P", 0, None),
        ("RGBA", (1, 2, 3, 255), (0, 0, 4, 3)),
        ("RGBA", (1, 2, 3, 0), (0, 0, 0, 0)),
        ("LA", (1, 9), (0, 0, 4, 3)),
    ],
)
def test_alpha_box_of_opaque_and_transparent_images(mode, colour, box):
    assert opened(saved(Image.new(mode, (4, 3), colour))).alpha_box == box
