"""Rows of noise, and one model for all tests."""

from __future__ import annotations

import io

import pytest
from noise_rows import QUESTIONS, noise
from PIL import Image

from lavis_dynrefer.bulk import BulkPredictor


@pytest.fixture(scope="session")
def bulk() -> BulkPredictor:
    return BulkPredictor(QUESTIONS, device="cpu")


@pytest.fixture(scope="session")
def files() -> list[bytes]:
    return [noise(seed) for seed in range(3)]


@pytest.fixture(scope="session")
def boxes() -> list[list[list[float]]]:
    return [[[1, 2, 30, 20]], [], [[0, 0, 9, 9], [5, 5, 40, 30]]]


@pytest.fixture(scope="session")
def expected(bulk, files, boxes):
    """What `RegionPredictor.predict` answers about each of the files."""
    predictor = bulk.predictor()
    return [
        predictor.predict(Image.open(io.BytesIO(data)), of_image, questions=QUESTIONS)
        for data, of_image in zip(files, boxes)
    ]
