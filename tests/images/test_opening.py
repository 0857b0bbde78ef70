from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lavis_dynrefer.images import open_image


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def test_a_path_a_pil_image_and_an_array_mean_the_same(pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.png")

    for_all = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels]

    assert [np.asarray(open_image(one)).tolist() for one in for_all] == [pixels.tolist()] * 4


def test_an_image_that_asks_to_be_rotated_is_read_as_stored_and_said_so(pixels, tmp_path, caplog):
    sideways = Image.Exif()
    sideways[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=sideways)
    Image.fromarray(pixels).save(tmp_path / "plain.png")

    assert open_image(tmp_path / "plain.png").size == (8, 6)
    assert not caplog.records
    assert open_image(tmp_path / "turned.png").size == (8, 6)
    assert (
        "turned.png asks to be shown rotated (EXIF); boxes count in its pixels as stored, 8 x 6"
        in (caplog.text)
    )


def test_a_rotation_is_told_once_for_each_image(pixels, tmp_path, caplog):
    sideways = Image.Exif()
    sideways[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=sideways)

    open_image(open_image(tmp_path / "turned.png"))
    open_image(tmp_path / "turned.png")  # to draw it
    assert len(caplog.records) == 1

    with Image.open(tmp_path / "turned.png") as image:
        open_image(open_image(image))
    assert [record.getMessage().split(" asks")[0] for record in caplog.records] == [
        str(tmp_path / "turned.png"),
        "an image",
    ]


def test_gray_arrays_are_gray_images(pixels):
    found = open_image(pixels[..., 0])

    assert found.mode == "RGB"
    assert np.asarray(found)[..., 2].tolist() == pixels[..., 0].tolist()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((6, 8, 3), dtype=np.float32),
        np.zeros((3, 6, 8), dtype=np.uint8),
        np.zeros((6, 8, 4), dtype=np.uint8),
        np.zeros((0, 8, 3), dtype=np.uint8),
        np.zeros((1, 6, 8, 3), dtype=np.uint8),
    ],
)
def test_arrays_of_another_kind_are_refused(array):
    with pytest.raises(ValueError, match=r"expected an array \(h, w, 3\) or \(h, w\) of uint8"):
        open_image(array)


def test_what_is_no_image_at_all_is_refused():
    with pytest.raises(ValueError, match="expected a path, PIL image or array"):
        open_image(7)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image .*absent\.png"):
        open_image(tmp_path / "absent.png")


def test_a_page_that_calls_itself_an_image_is_refused(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>not found</html>")

    with pytest.raises(ValueError, match=r"cannot read image .*page\.jpg"):
        open_image(tmp_path / "page.jpg")


def test_a_header_that_claims_too_many_pixels_is_refused_unread(tmp_path):
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)

    with pytest.raises(ValueError, match=r"huge\.png"):
        open_image(tmp_path / "huge.png")
