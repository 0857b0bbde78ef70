"""Images of noise, and what is asked about them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from lavis_dynrefer import Questions

QUESTIONS = Questions(tasks=["tags", "categories"], categories=["circle", "square"])
SIZE = (40, 30)  # pixels


def noise(seed: int, kind: str = "PNG") -> bytes:
    """The file of an image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()
