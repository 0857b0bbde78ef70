"""What all pages share: data URLs, names and numbers, and the policy that protects them."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lavis_dynrefer.pages.html_page import bar, bars, data_url, page_template, plain, script_hash

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))


def image_of(url):
    kind, data = url.split(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_data_url_shows_the_image():
    ramp = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    difference = np.asarray(image_of(data_url(ramp)), dtype=int) - np.asarray(ramp, dtype=int)
    assert np.abs(difference).max() <= 4  # JPEG


def test_a_data_url_scales_large_images_down():
    assert image_of(data_url(NOISE, side=200)).size == (200, 150)
    assert NOISE.size == (400, 300)


@pytest.mark.parametrize("max_bytes", [3_000, 20_000, 100_000])
def test_a_data_url_keeps_its_limit(max_bytes):
    assert len(data_url(NOISE, max_bytes=max_bytes)) <= max_bytes * 4 / 3 + 30


def test_script_hash_is_that_of_the_content_security_policy():
    digest = hashlib.sha256(b"run()").digest()
    assert script_hash("run()") == "sha256-" + base64.b64encode(digest).decode()


def test_texts_are_cut_and_valid_utf8():
    assert plain("c" * 301) == "c" * 299 + "\u2026"
    assert plain("odd\udcff.png") == "odd?.png"


@pytest.mark.parametrize(
    ("value", "length"), [(1.0, 0.5), (-9.0, -1.0), (math.nan, 0.0), (math.inf, 0.0)]
)
def test_bars_end_at_the_axis(value, length):
    assert bar(value, 2.0) == length


def test_bars_of_a_list_start_at_its_lowest_score():
    scores = [("dog", 0.8), ("cat", 0.6), ("cow", 0.3)]
    assert bars(scores, "categories", 2) == [("dog", 0.8, 1.0), ("cat", 0.6, 0.6)]


def test_close_scores_have_bars_of_similar_length():
    assert bars([("wet", 0.5), ("red", 0.49)], "attributes", 5)[1][2] == pytest.approx(0.9)


def test_templates_refuse_missing_values():
    with pytest.raises(Exception, match="undefined"):
        page_template("explain.html").render(name="x")


def test_importing_the_room_does_not_import_jinja():
    code = (
        "import sys; sys.modules['lavis'] = None; import lavis_dynrefer.pages.html_page; "
        "sys.exit('jinja2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
