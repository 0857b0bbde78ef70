from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from lavis_dynrefer.errors import DynReferError, MissingPackageError
from lavis_dynrefer.images import decoding, open_image, readable_suffixes
from lavis_dynrefer.images.decoding import IMAGE_ERRORS, image_size, to_rgb
from lavis_dynrefer.images.opening import decode_image

STORED = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)  # no two pixels are equal


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"),
    [("png", {}), ("webp", {"lossless": True}), ("tif", {}), ("tif", {"compression": "tiff_lzw"})],
)
def test_pixels_are_as_stored_whatever_the_type(tmp_path, caplog, suffix, options, orientation):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(STORED).save(path, exif=turned(orientation), **options)

    assert np.array_equal(np.asarray(open_image(path)), STORED)
    assert np.array_equal(np.asarray(decode_image(path)), STORED)
    assert image_size(path) == (8, 6)
    assert ("EXIF rotation" in caplog.text) == (orientation != 1)
    assert "8 x 6" in caplog.text or orientation == 1


def test_a_jpeg_and_a_tiff_of_one_orientation_are_one_image(tmp_path):
    image = Image.new("RGB", (60, 40), "red")
    image.paste("blue", (0, 0, 20, 40))
    for name in ("a.jpg", "a.tif"):
        image.save(tmp_path / name, exif=turned(6), quality=100)

    opened = [open_image(tmp_path / name) for name in ("a.jpg", "a.tif")]

    assert [one.size for one in opened] == [(60, 40)] * 2
    assert [one.getpixel((5, 20))[2] > 200 for one in opened] == [True] * 2


def test_a_pil_image_is_taken_as_pillow_gives_it(tmp_path, caplog):
    Image.fromarray(STORED).save(tmp_path / "a.tif", exif=turned(6))

    with Image.open(tmp_path / "a.tif") as image:
        found = open_image(image)

    assert np.array_equal(np.asarray(found), np.rot90(STORED, -1))
    assert "Pillow applies to a TIFF: boxes refer to its pixels as they are, 6 x 8" in caplog.text


RAMP = np.linspace(0, 1, 64).reshape(8, 8)


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch):
    monkeypatch.setattr(decoding, "_told", set())


def deep_file(path, values, **options):
    Image.fromarray(values).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "top", "dtype"),
    [
        ("eight.png", 255, np.uint16),
        ("ten.png", 1023, np.uint16),
        ("twelve.png", 4095, np.uint16),
        ("fourteen.tif", 16383, np.uint16),
        ("sixteen.png", 65535, np.uint16),
        ("int32_eight.tif", 255, np.int32),
        ("int32_twelve.tif", 4095, np.int32),
        ("int32_sixteen.tif", 65535, np.int32),
        ("float_one.tif", 1, np.float32),
        ("float_eight.tif", 255, np.float32),
        ("float_twelve.tif", 4095, np.float32),
    ],
)
def test_deep_gray_values_are_scaled_by_their_range(tmp_path, caplog, name, top, dtype):
    path = deep_file(tmp_path / name, (RAMP * top).astype(dtype))

    found = np.asarray(open_image(path))

    assert found.shape == (8, 8, 3)
    assert found.min() == 0
    assert found.max() == 255
    assert np.abs(found[..., 0] - RAMP * 255).max() <= 1.001
    assert ("deep gray values" in caplog.text) == (top < 65535)


def test_many_images_of_one_range_are_told_once(tmp_path, caplog):
    for number in range(3):
        decode_image(deep_file(tmp_path / f"{number}.png", (RAMP * 4095).astype(np.uint16)))

    (record,) = caplog.records
    assert "0.png has deep gray values, taken as 12-bit values" in record.getMessage()


def test_16_bit_values_keep_their_high_byte(tmp_path):
    path = deep_file(tmp_path / "a.png", np.array([[0, 255, 256, 128 << 8, 65535]], np.uint16))

    assert np.asarray(open_image(path))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_a_file_that_says_its_depth_is_not_guessed(tmp_path, caplog):
    dark = (RAMP * 900).astype(np.uint16)
    path = deep_file(tmp_path / "said.tif", dark, tiffinfo={281: 4095})
    (tmp_path / "said.pgm").write_bytes(b"P5 2 1 4095\n" + bytes([0x02, 0x00, 0x00, 0x00]))

    assert np.asarray(open_image(path)).max() == 900 // 16
    assert open_image(tmp_path / "said.pgm").getpixel((0, 0))[0] == 512 // 16
    assert not caplog.records


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.array([[-1024, 3071]], np.int32), "-1024 to 3071"),
        (np.array([[0, 70000]], np.int32), "0 to 70000"),
        (np.array([[0.0, np.nan]], np.float32), "nan to nan"),
        (np.array([[-0.5, 0.5]], np.float32), "-0.5 to 0.5"),
        (np.array([[0.0, np.inf]], np.float32), "0 to inf"),
    ],
)
def test_gray_values_without_a_known_range_are_refused(tmp_path, values, found):
    path = deep_file(tmp_path / "a.tif", values)

    with pytest.raises(DynReferError, match=f"a.tif: its gray values are {found}; expected 0 to"):
        open_image(path)
    with pytest.raises(IMAGE_ERRORS):
        decode_image(path)
    with pytest.raises(DynReferError, match="gray values"):
        to_rgb(Image.fromarray(values))


def heic(path, image, **options):
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    pillow_heif.from_pillow(image).save(path, quality=-1, **options)
    return path


def test_heic_is_opened_with_pillow_heif(tmp_path):
    image = Image.new("RGB", (64, 48), (200, 30, 30))

    path = heic(tmp_path / "a.heic", image)

    assert image_size(path) == (64, 48)
    assert np.abs(np.asarray(open_image(path)).astype(int) - (200, 30, 30)).max() <= 8


def test_heic_without_pillow_heif_names_the_cure(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name not in ("HEIF", "AVIF")])
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(100))

    with pytest.raises(MissingPackageError, match=r"a\.heic: HEIC images need pillow-heif: pip"):
        open_image(tmp_path / "a.heic")


def test_readable_suffixes_depend_on_what_is_installed(monkeypatch):
    monkeypatch.setattr(decoding, "find_spec", lambda name: None)
    assert {".jpg", ".tif", ".png"} < readable_suffixes()
    assert ".heic" not in readable_suffixes()
    monkeypatch.undo()
    monkeypatch.setattr(decoding, "find_spec", lambda name: name == "pillow_heif" or None)
    assert {".heic", ".heif", ".jpg"} < readable_suffixes()


KINDS = {
    **{
        "rgb.jpg": "RGB",
        "progressive.jpg": "RGB",
        "gray.jpg": "L",
        "cmyk.jpg": "CMYK",
        "rgb.png": "RGB",
        "rgba.png": "RGBA",
    },
    **{"palette.png": "P", "bilevel.png": "1", "la.png": "LA", "rgb.gif": "P", "rgb.bmp": "RGB"},
    **{"rgb.webp": "RGB", "rgba.webp": "RGBA", "rgb.ppm": "RGB", "rgb.tif": "RGB"},
    **{"lzw.tif": "RGB", "rgb.jp2": "RGB", "rgb.tga": "RGB", "deep.png": "I;16", "float.tif": "F"},
    **({"rgb.avif": "RGB"} if features.check("avif") else {}),
}


def undamaged(name):
    image = ImageOps.expand(Image.linear_gradient("L").resize((40, 30)), 3, 200)
    if KINDS[name] in ("I;16", "F"):
        image = Image.fromarray(np.asarray(image).astype({"F": np.float32}.get(KINDS[name], "u2")))
    else:
        image = image.convert("RGB").convert(KINDS[name])
    buffer = io.BytesIO()
    options = {"lzw.tif": {"compression": "tiff_lzw"}, "progressive.jpg": {"progressive": True}}
    options = options.get(name, {})
    options |= {"exif": turned(6)} if name.endswith(("jpg", "png", "webp", "tif")) else {}
    buffer.name = name  # tells the format
    image.save(buffer, **options)
    return buffer.getvalue()


def damaged(content, generator):
    """A file cut short, with bytes changed, inserted, repeated, or with its header damaged."""
    data = bytearray(content)
    kind = generator.integers(6)
    start, stop = sorted(generator.integers(0, len(data), 2).tolist())
    if kind == 0:
        return bytes(data[: stop + 1])
    if kind == 1:
        data[start:stop] = bytes(stop - start)
    elif kind == 2:
        del data[start : start + 1 + stop % 16]
    elif kind == 3:
        data[start:start] = generator.bytes(1 + stop % 64)
    elif kind == 4:
        header = min(64, len(data))
        data[generator.integers(header)] = generator.integers(256)
    else:
        for at in generator.integers(0, len(data), 8):
            data[at] = generator.integers(256)
    return bytes(data)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of some kinds of damage
@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_read_or_refused_with_their_name(tmp_path, name):
    content, generator = undamaged(name), np.random.default_rng(len(name))
    path = tmp_path / name
    path.write_bytes(content)
    assert open_image(path).size == (46, 36)

    refused = []
    for _ in range(200):
        path.write_bytes(damaged(content, generator))
        try:
            assert open_image(path).mode == "RGB"
        except DynReferError as error:
            refused.append(str(error))
            with pytest.raises(IMAGE_ERRORS):
                decode_image(path)
    assert 20 < len(refused) < 200
    assert all(name in message for message in refused)
