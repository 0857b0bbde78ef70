from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from lavis_dynrefer.images import open_image


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.fixture
def sideways():
    """EXIF that asks to show the image rotated."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_path_pil_image_and_array_are_equivalent(pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.png")

    inputs = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels]

    assert [np.asarray(open_image(one)).tolist() for one in inputs] == [pixels.tolist()] * 4


def test_rgb_pil_image_is_not_copied(pixels, sideways, tmp_path):
    image = Image.fromarray(pixels)
    image.info["exif"] = sideways.tobytes()

    assert open_image(image) is image
    assert "exif" in image.info  # the user's image stays as it is


def test_pixels_outlive_the_open_file(pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.png")

    with Image.open(tmp_path / "a.png") as file:
        image = open_image(file)

    assert np.asarray(image).tolist() == pixels.tolist()


def test_exif_rotation_is_logged_and_not_applied(pixels, sideways, tmp_path, caplog):
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=sideways)
    Image.fromarray(pixels).save(tmp_path / "plain.png")

    assert open_image(tmp_path / "plain.png").size == (8, 6)
    assert not caplog.records
    assert open_image(tmp_path / "turned.png").size == (8, 6)
    assert "turned.png has an EXIF rotation" in caplog.text
    assert "8 x 6" in caplog.text


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_exif_rotation_is_logged_once_per_image(pixels, sideways, tmp_path, caplog, mode):
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "turned.png", exif=sideways)
    open_image(open_image(tmp_path / "turned.png"))
    open_image(tmp_path / "turned.png")  # to draw it
    assert len(caplog.records) == 1

    image = image.resize((11, 7 + len(mode)))  # of a size that no other test uses
    image.info["exif"] = sideways.tobytes()
    open_image(image)
    open_image(open_image(image))
    assert [record.getMessage().split(" has")[0] for record in caplog.records] == [
        str(tmp_path / "turned.png"),
        "an image",
    ]


def test_truncated_files_are_refused_even_if_pillow_would_fill_them(pixels, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as some datasets of LAVIS do
    Image.fromarray(np.tile(pixels, (40, 40, 1))).save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])

    with pytest.raises(ValueError, match=r"cannot read image .*cut\.jpg: .*truncated"):
        open_image(tmp_path / "cut.jpg")

    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_damaged_avif_is_refused(pixels, tmp_path):
    path = tmp_path / "a.avif"
    Image.fromarray(pixels).save(path)
    start = path.read_bytes().index(b"mdat") + 4
    path.write_bytes(path.read_bytes()[:start] + bytes(path.stat().st_size - start))

    with pytest.raises(ValueError, match="cannot read"):
        open_image(path)


def test_gray_array_becomes_rgb(pixels):
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
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match=r"expected an array \(h, w, 3\) or \(h, w\) of uint8"):
        open_image(array)


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="expected a path, PIL image or array"):
        open_image(7)


def test_missing_file_error_names_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image .*missing\.png"):
        open_image(tmp_path / "missing.png")


def test_html_named_jpg_is_refused(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>not found</html>", encoding="utf-8")

    with pytest.raises(ValueError, match=r"cannot read image .*page\.jpg"):
        open_image(tmp_path / "page.jpg")


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    (tmp_path / "huge.ppm").write_bytes(b"P6 50000 50000 255\n")

    with pytest.raises(ValueError, match=r"huge\.ppm"):
        open_image(tmp_path / "huge.ppm")
