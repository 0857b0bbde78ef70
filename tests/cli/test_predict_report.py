"""What people see of the answers."""

from __future__ import annotations

import io

from PIL import Image

from lavis_dynrefer.cli.predict.predict_report import annotated_jpeg, printable
from lavis_dynrefer.formats import ImageResult
from lavis_dynrefer.structures import RegionPrediction


def drawn(image, result):
    return Image.open(io.BytesIO(annotated_jpeg(image, result)))


def test_a_name_cannot_control_a_terminal():
    assert printable("[b]\x1b[31m\n\udcff花") == "[b]\\x1b[31m\\n\\udcff花"


def test_a_drawing_of_thousands_of_regions_shows_some():
    region = RegionPrediction(box=(5.0, 5.0, 50.0, 50.0), caption="a dot")
    result = ImageResult("a.png", "/a.png", 480, 360, (region,) * 5000)
    drawing = drawn(Image.new("RGB", (480, 360)), result)
    assert drawing.width == 640  # enlarged, with lines of text below
    assert 480 < drawing.height < 5000


def test_boxes_fit_an_image_that_was_resized_before():
    region = RegionPrediction(box=(1000.0, 500.0, 3000.0, 1500.0))
    result = ImageResult("a.png", "/a.png", 4000, 2000, (region,))
    drawing = drawn(Image.new("RGB", (1600, 800), "white"), result)
    red = drawing.convert("RGB").getpixel((800, 200))  # on the upper edge of the box
    assert red[0] > 150 > red[1]
