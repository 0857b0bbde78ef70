"""Bytes of image files are opened by the same rules as files."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images import open_image, open_image_bytes


def test_bytes_and_file_give_the_same_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(pixels).save(path)

    assert (np.asarray(open_image_bytes(path.read_bytes())) == pixels).all()


def test_every_tricky_file_is_read_or_refused_as_bytes_too(tricky_images):
    for path in sorted(path for path in tricky_images.rglob("*") if path.is_file()):
        answers = []
        for open_it in (open_image, lambda path: open_image_bytes(path.read_bytes())):
            try:
                answers.append(np.asarray(open_it(path)).tobytes())
            except InputError:
                answers.append("refused")
        assert answers[0] == answers[1], path


def test_a_file_that_another_program_would_draw_is_refused():
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "EPS")

    with pytest.raises(InputError, match="EPS files are not read; convert it to PNG"):
        open_image_bytes(file.getvalue(), "image a.eps")
