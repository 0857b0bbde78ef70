"""Points through SAM, with a tiny SAM of random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tiny_sam import HAS_SAM, needs_sam, save_tiny_sam

from lavis_dynrefer.detectors.sam import PointSegmenter
from lavis_dynrefer.images.mask_encoding import decode_mask

POINTS = [[10, 10], [40, 20.5], [49.9, 0], *([x, 15] for x in range(1, 48, 3))]  # more than a chunk


@pytest.fixture(scope="module")
def image():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_sam(tmp_path_factory.mktemp("sam"))


@pytest.fixture
def segmenter(folder):
    return PointSegmenter(folder)


@needs_sam
@torch.no_grad()
def test_a_point_becomes_the_best_mask(segmenter, folder, image):
    processor = transformers.SamProcessor.from_pretrained(folder)
    inputs = processor(image, input_points=[[[x] for x in POINTS]], return_tensors="pt")
    inputs["input_points"] = inputs["input_points"].float()
    sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
    output = transformers.SamModel.from_pretrained(folder).eval()(**inputs)
    masks = processor.image_processor.post_process_masks(output.pred_masks, *sizes)[0]
    expected = [three[scores.argmax()] for three, scores in zip(masks, output.iou_scores[0])]

    found = segmenter(image, POINTS)

    for mask, best in zip(found, expected):
        np.testing.assert_array_equal(decode_mask(mask), best.numpy())
    assert len(found) == len(POINTS)
    assert len({mask["counts"] for mask in found}) > 1


@needs_sam
def test_no_points_give_no_masks(segmenter, image):
    assert segmenter(image, []) == []


@needs_sam
@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([3, 4], r"expected shape \(R, 2\), got \(2,\); a single one is a list of one row"),
        ([[1, 2, 3, 4]], r"expected shape \(R, 2\), got \(1, 4\)"),
        ([[1, 2], [50, 3]], r"row 1 \[50\.0, 3\.0\] is not inside the 50 x 30 image"),
        ([[1, -1]], "is not inside"),
        ([[1, float("nan")]], "is not inside"),
        ([["left", 2]], "expected rows of 2 numbers"),
    ],
)
def test_invalid_points_are_refused(segmenter, image, points, message):
    with pytest.raises(ValueError, match=message):
        segmenter(image, points)


@needs_sam
def test_a_point_without_a_mask_is_refused(segmenter, image):
    with torch.no_grad():
        for weight in segmenter._model.mask_decoder.parameters():
            weight.zero_()  # every mask is 0 everywhere, and masks begin above

    with pytest.raises(ValueError, match=r"SAM finds nothing at \[4\.0, 5\.0\]"):
        segmenter(image, [[4, 5]])


@needs_sam
def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights of SAM in"):
        PointSegmenter(tmp_path)


@pytest.mark.skipif(HAS_SAM, reason="this transformers has SamModel")
def test_an_older_transformers_is_refused():
    with pytest.raises(ImportError, match=r"4\.29 or newer, found .*pip install -U transformers"):
        PointSegmenter("sam")


@needs_sam
def test_the_predictor_takes_points(folder, image):
    from lavis_dynrefer import RegionPredictor

    predictor = RegionPredictor(device="cpu")
    masks = PointSegmenter(folder)(image, [[40, 20]])

    for use in ("box", "cells"):
        (answer,) = predictor.predict(image, points=[[40, 20]], sam=folder, masks_as=use)
        assert answer == predictor.predict(image, masks=masks, masks_as=use)[0]
    assert predictor.predict(image, points=[], sam=folder) == []
