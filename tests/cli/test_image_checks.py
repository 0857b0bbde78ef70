"""Which image files cannot be used, and which are unusual."""

from __future__ import annotations

import struct
import warnings
import zlib
from contextlib import nullcontext

import pytest
from PIL import Image

from lavis_dynrefer.cli.inspect.image_checks import (
    check_image,
    check_images,
    count_findings,
)
from lavis_dynrefer.datasets.region_dataset import SampleError, read_image
from lavis_dynrefer.structures import ImageRecord

# file of `write_tricky_images` -> kinds by its header, kinds when decoded
TRICKY = {
    "bilevel.png": (["bilevel"], ["bilevel"]),
    "cmyk.jpg": (["cmyk"], ["cmyk"]),
    "exif_orient6.jpg": (["exif_rotated"], ["exif_rotated"]),
    "gray.jpg": (["gray"], ["gray"]),
    "gray16.png": (["deep", "size_differs"], ["deep", "size_differs"]),
    "not_an_image.jpg": (["not_an_image"], ["not_an_image"]),
    "one_pixel.jpg": (["size_differs", "small"], ["size_differs", "small"]),
    "palette.png": (["palette"], ["palette"]),
    "panorama_600x4.jpg": (["size_differs", "small"], ["size_differs", "small"]),
    "png_rgba_named.jpg": (["alpha"], ["alpha"]),
    "progressive.jpg": ([], []),
    "truncated.jpg": ([], ["damaged"]),
    "width1.jpg": (["size_differs", "small"], ["size_differs", "small"]),
    "zero_bytes.jpg": (["empty_file"], ["empty_file"]),
}


def record(path, width=40, height=30, image_id=7):
    return ImageRecord(image_id, str(path), width, height)


def saved(path, mode="RGB", size=(40, 30), **options):
    Image.new(mode, size).save(path, **options)
    return record(path)


def png_header(width, height):
    """The beginning of a PNG, which ends before its pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 99) + b"IDAT"


def test_every_tricky_image_has_expected_kinds(tricky_images):
    assert {path.name for path in tricky_images.iterdir()} == set(TRICKY)


@pytest.mark.parametrize("name", TRICKY)
def test_kinds_of_tricky_images(tricky_images, name):
    image = record(tricky_images / name, 160, 115)
    found = [check_image(image, decode=decode) for decode in (False, True)]
    assert tuple(list(finding.kinds) for finding in found) == TRICKY[name]
    # Usable is what the loader reads.
    with pytest.raises(SampleError) if not found[1].is_usable else nullcontext():
        read_image(image)


@pytest.mark.parametrize(
    ("mode", "options", "kinds"),
    [
        ("LA", {}, ("gray", "alpha")),
        ("I;16", {}, ("deep",)),
        ("LAB", {}, ("other_colours",)),
        ("P", {"transparency": 0}, ("palette", "alpha")),
    ],
)
def test_kinds_of_modes(tmp_path, mode, options, kinds):
    path = tmp_path / ("a.png" if options else "a.tif")
    assert check_image(saved(path, mode, **options), decode=True).kinds == kinds


@pytest.mark.parametrize(
    ("path", "kind"),
    [("", "missing_image"), ("no.jpg", "missing_image"), (".", "unreadable_file")],
)
def test_a_path_that_cannot_be_opened_is_unusable(path, kind):
    finding = check_image(record(path), decode=False)
    assert finding.kinds == (kind,)
    assert not finding.is_usable


def test_an_error_page_shows_its_first_bytes(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"<!DOCTYPE html><title>404 Not Found</title>")
    finding = check_image(record(tmp_path / "a.jpg"), decode=False)
    assert finding.kinds == ("not_an_image",)
    assert finding.detail == "begins with b'<!DOCTYPE html><title>40'"


def test_other_size_than_annotated_is_reported(tmp_path):
    finding = check_image(record(saved(tmp_path / "a.jpg").path, 80, 60), decode=False)
    assert finding.kinds == ("size_differs",)
    assert finding.is_usable
    assert finding.detail == "40 x 30 pixels, mode RGB; annotated 80 x 60"


def test_size_of_the_rotated_image_is_recognised(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", exif=exif).path

    finding = check_image(record(path, 30, 40), decode=False)

    assert finding.kinds == ("size_differs", "exif_rotated")
    assert "annotated 30 x 40, its size when shown rotated" in finding.detail


@pytest.mark.parametrize(("side", "kind"), [(30_000, "too_many_pixels"), (10_000, "huge")])
def test_sizes_that_pillow_refuses_or_warns_about_are_kinds(tmp_path, side, kind):
    (tmp_path / "a.png").write_bytes(png_header(side, side))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finding = check_image(record(tmp_path / "a.png", side, side), decode=False)
    assert finding.kinds == (kind,)


@pytest.fixture
def many(tmp_path):
    """150 images: each third gray, number 70 missing."""
    for number in range(150):
        if number != 70:
            Image.new("L" if number % 3 == 0 else "RGB", (40, 30)).save(tmp_path / f"{number}.png")
    return [record(tmp_path / f"{number}.png", image_id=number) for number in range(150)]


def test_kinds_are_counted_with_their_first_image(many):
    report = count_findings(check_images(many, decode=True), decoded=True)

    assert (report.checked, report.decoded, report.unusable) == (150, True, 1)
    assert report.counts == {"missing_image": 1, "gray": 50}
    assert [report.examples[kind].image_id for kind in report.counts] == [70, 0]


@pytest.mark.slow
def test_two_processes_find_what_one_does(many):
    one = list(check_images(many, decode=True))
    assert list(check_images(many, decode=True, processes=2)) == one
