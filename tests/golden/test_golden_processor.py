"""Same image and segments in, the official processor's views out."""

from __future__ import annotations

import hashlib

import numpy as np
import PIL
import pytest
import torch
from golden_folder import read_json
from PIL import Image

from lavis_dynrefer.host.processors import EvalProcessor
from lavis_dynrefer.images.masks import box_from_polygons, box_from_rle
from lavis_dynrefer.views.hashing import official_hash
from lavis_dynrefer.views.nesting import nest_boxes, whole_pixels
from lavis_dynrefer.views.policies import CANDIDATES, ImagePrior

# Pillow's versions round a few pixels differently, by one level (0.015 after normalisation); with
# that of the golden folder the means agree to 6e-6.
MEANS = 2e-3


@pytest.fixture(scope="session")
def images(golden_dir):
    """(record of processor.json, RGB image) of every image."""
    records = read_json(golden_dir / "processor.json")["images"]
    return [
        (record, Image.open(golden_dir / "images" / record["file"]).convert("RGB"))
        for record in records
    ]


@pytest.fixture(scope="session")
def cases(images):
    """(record, image, boxes, number of views, recorded views)."""
    return [
        (record, image, torch.tensor(record["boxes_from_segs"]).float(), int(count), views)
        for record, image in images
        for count, views in record["views"].items()
    ]


def box_of(segment):
    if isinstance(segment, dict):
        return box_from_rle(segment, rule="official")
    return box_from_polygons(segment, rule="official")


def test_boxes_of_segments(images, close):
    for record, _ in images:
        boxes = [list(box_of(segment)) for segment in record["segs"]]
        close(f"boxes {record['file']}", boxes, record["boxes_from_segs"], atol=1e-4)


def test_scales(cases):
    chosen = [
        ImagePrior(count, hash="official").plan(image, boxes).scales
        for _, image, boxes, count, _ in cases
    ]
    recorded = [torch.tensor(views["ratios"]) for *_, views in cases]
    assert all(torch.allclose(ours, theirs.float()) for ours, theirs in zip(chosen, recorded))


def test_selection_scores(golden_dir, images, close):
    arrays = np.load(golden_dir / "processor.npz")
    for index, (record, image) in enumerate(images):
        boxes = torch.tensor(record["boxes_from_segs"]).float()
        (count,) = {key.split("/")[1] for key in arrays.files if key.startswith(f"img{index}/")}
        scores = ImagePrior(3, hash="official").scores(image, boxes)
        theirs = arrays[f"img{index}/{count}/difference"]
        close(f"selection scores {record['file']}", scores, theirs, atol=1e-9)


def test_hash_bits(golden_dir, images):
    arrays = np.load(golden_dir / "processor.npz")
    for index, (record, image) in enumerate(images):
        boxes = torch.tensor(record["boxes_from_segs"]).float()
        scales = torch.tensor([0.0, *CANDIDATES]).repeat(len(boxes), 1)
        sizes = torch.tensor([image.size]).float().expand(len(boxes), 2)
        frames = whole_pixels(nest_boxes(boxes, sizes, scales), *image.size).tolist()
        bits = np.array([[h.hash.ravel() for h in official_hash(image, row)] for row in frames])
        (count,) = {key.split("/")[1] for key in arrays.files if key.startswith(f"img{index}/")}
        assert (bits[:, 0] == arrays[f"img{index}/{count}/hash_basic"]).all()
        assert (bits[:, 1:] == arrays[f"img{index}/{count}/hash_candidates"]).all()


def test_nested_boxes(cases, close):
    for record, image, boxes, count, views in cases:
        sizes = torch.tensor([image.size]).float().expand(len(boxes), 2)
        nested = nest_boxes(boxes, sizes, torch.tensor(views["ratios"]).float())
        close(
            f"nested boxes {record['file']} n={count}",
            nested,
            views["cascade_boxes_float32"],
            atol=0,
        )
        whole = whole_pixels(nested, *image.size)
        assert torch.equal(whole, torch.tensor(views["cascade_boxes_int"]))


def process(image, boxes, count):
    policy = ImagePrior(count, hash="official")
    return EvalProcessor(policy, image_size=224)(image, boxes)


def test_region_boxes_in_the_views(cases):
    for _, image, boxes, count, views in cases:
        inside = process(image, boxes, count)["boxes"]
        assert inside.tolist() == views["region_bboxes_224"]


def test_pixels(golden_dir, cases, model, close):
    arrays = np.load(golden_dir / "processor.npz")
    for record, image, boxes, count, views in cases:
        if "image_mean" not in views:
            continue
        pixels = process(image, boxes, count)["views"].float() * (1 / 255)
        normalised = (pixels - model.backbone.mean) / model.backbone.std
        index = [other["file"] for other, *_ in cases[:: len(record["views"])]].index(
            record["file"]
        )
        name = f"{record['file']} n={count}"
        means = torch.nn.functional.adaptive_avg_pool2d(normalised.flatten(0, 1), 8)
        close(
            f"8 x 8 means {name}",
            means.reshape(*normalised.shape[:3], 8, 8),
            arrays[f"img{index}/n{count}/mean8x8"],
            atol=MEANS,
        )


@pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="older Pillows round a few pixels differently"
)
def test_normalised_views_bit_by_bit(cases, model):
    checked = 0
    for _, image, boxes, count, views in cases:
        if "image_sha256" not in views:
            continue
        pixels = process(image, boxes, count)["views"]
        normalised = (pixels.float() * (1 / 255) - model.backbone.mean) / model.backbone.std
        for row, recorded in zip(normalised, views["image_sha256"]):
            found = [hashlib.sha256(view.numpy().tobytes()).hexdigest()[:16] for view in row]
            assert found == recorded
            checked += len(found)
    assert checked


def test_one_view_pixel_by_pixel(golden_dir, cases, close):
    arrays = np.load(golden_dir / "processor.npz")
    _, image, boxes, count, _ = cases[0]
    ours = process(image, boxes, count)["views"][4, 1].int()
    close("pixels of one view", ours, arrays["full_example_u8_region4_view1"].astype(int), atol=1)


@pytest.mark.parametrize("name", ["negative_x", "sub_pixel_at_origin", "rle_one_pixel_wide"])
def test_boxes_on_which_the_official_code_stops_are_answered(name, images):
    for record, image in images:
        box = torch.tensor([list(box_of(record["failures"][name]["seg"]))]).float()
        sample = process(image, box, 3)
        assert sample["views"].shape == (1, 3, 3, 224, 224)
        assert (sample["boxes"][..., 2:] > sample["boxes"][..., :2]).all()


def test_boxes_outside_the_image_are_refused(images):
    for record, image in images:
        box = torch.tensor([list(box_of(record["failures"]["outside_image"]["seg"]))]).float()
        with pytest.raises(ValueError, match="no part inside"):
            process(image, box, 3)
