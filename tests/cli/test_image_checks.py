"""Which image files cannot be used, and which are unusual."""

from __future__ import annotations

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from lavis_dynrefer.cli.inspect.image_checks import (
    UNUSABLE,
    UNUSUAL,
    check_image,
    check_images,
    summarise,
)
from lavis_dynrefer.datasets.region_dataset import SampleError, read_image
from lavis_dynrefer.structures import ImageRecord

# file of shared/fixtures/tricky/images -> kinds by its header, kinds when decoded
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
UNREADABLE = {"not_an_image.jpg", "truncated.jpg", "zero_bytes.jpg"}


def record(path, width=40, height=30, image_id=7):
    return ImageRecord(image_id, str(path), width, height)


def saved(path, mode="RGB", size=(40, 30), **options):
    Image.new(mode, size).save(path, **options)
    return record(path)


def tricky(shared, name):
    return record(shared / "fixtures/tricky/images" / name, 160, 115)


def png_header(width, height):
    """The beginning of a PNG, which ends before its pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 99) + b"IDAT"


def test_every_tricky_image_has_an_expected_finding(shared):
    folder = shared / "fixtures/tricky/images"
    assert {path.name for path in folder.iterdir()} == set(TRICKY)


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("name", TRICKY)
def test_tricky_image(shared, name, decode):
    assert list(check_image(tricky(shared, name), decode=decode).kinds) == TRICKY[name][decode]


@pytest.mark.parametrize("name", TRICKY)
def test_an_image_is_usable_if_the_loader_reads_it(shared, name):
    image = tricky(shared, name)
    try:
        read_image(image)
        is_read = True
    except SampleError:
        is_read = False

    assert check_image(image, decode=True).is_usable == is_read == (name not in UNREADABLE)


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        ("RGB", ()),
        ("L", ("gray",)),
        ("1", ("bilevel",)),
        ("P", ("palette",)),
        ("RGBA", ("alpha",)),
        ("LA", ("gray", "alpha")),
        ("I;16", ("deep",)),
        ("LAB", ("other_colours",)),
    ],
)
def test_modes(tmp_path, mode, kinds):
    assert check_image(saved(tmp_path / "a.tif", mode), decode=True).kinds == kinds


def test_a_transparent_palette_colour_is_transparency(tmp_path):
    image = saved(tmp_path / "a.png", "P", transparency=0)
    assert check_image(image, decode=False).kinds == ("palette", "alpha")


@pytest.mark.parametrize("path", ["", "nowhere.jpg"])
def test_a_missing_file(path):
    finding = check_image(record(path), decode=False)
    assert finding.kinds == ("missing_image",)
    assert not finding.is_usable


def test_a_folder_cannot_be_opened(tmp_path):
    assert check_image(record(tmp_path), decode=False).kinds == ("unreadable_file",)


def test_an_error_page_shows_its_first_bytes(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"<!DOCTYPE html><title>404 Not Found</title>")
    finding = check_image(record(tmp_path / "a.jpg"), decode=False)
    assert finding.kinds == ("not_an_image",)
    assert finding.detail == "begins with b'<!DOCTYPE html><title>40'"


def test_truncation_is_found_by_decoding_only(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])

    assert check_image(record(tmp_path / "a.png"), decode=False).kinds == ()
    assert check_image(record(tmp_path / "a.png"), decode=True).kinds == ("damaged",)


def test_truncation_is_found_even_if_pillow_tolerates_it(shared, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert check_image(tricky(shared, "truncated.jpg"), decode=True).kinds == ("damaged",)


def test_a_size_other_than_annotated_is_reported(tmp_path):
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


def test_upright_orientation_is_ordinary(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 1
    assert check_image(saved(tmp_path / "a.jpg", exif=exif), decode=False).kinds == ()


def test_damaged_exif_is_ignored_as_the_loader_does(tmp_path):
    image = saved(tmp_path / "a.png", exif=b"Exif\x00\x00no such thing")
    assert check_image(image, decode=True).kinds == ()


def test_a_decompression_bomb_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(png_header(30000, 30000))
    finding = check_image(record(tmp_path / "a.png"), decode=False)
    assert finding.kinds == ("too_many_pixels",)


def test_a_huge_image_is_a_finding_not_a_warning(tmp_path):
    (tmp_path / "a.png").write_bytes(png_header(10000, 10000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finding = check_image(record(tmp_path / "a.png", 10000, 10000), decode=False)
    assert finding.kinds == ("huge",)


@pytest.fixture
def many(tmp_path):
    """150 images: each third gray, number 70 missing."""
    for number in range(150):
        if number != 70:
            Image.new("L" if number % 3 == 0 else "RGB", (40, 30)).save(tmp_path / f"{number}.png")
    return [record(tmp_path / f"{number}.png", image_id=number) for number in range(150)]


def test_kinds_are_counted_with_their_first_image(many):
    report = summarise(check_images(many, decode=True), decoded=True)

    assert (report.checked, report.decoded, report.unusable) == (150, True, 1)
    assert report.counts == {"missing_image": 1, "gray": 50}
    assert [report.examples[kind].image_id for kind in report.counts] == [70, 0]


@pytest.mark.slow
def test_two_processes_find_what_one_does(many):
    one = list(check_images(many, decode=True))
    assert list(check_images(many, decode=True, processes=2)) == one


def test_every_kind_is_either_unusable_or_unusual():
    assert UNUSABLE.keys().isdisjoint(UNUSUAL)
