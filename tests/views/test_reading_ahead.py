"""Views cropped by reader threads ahead of their use."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from lavis_dynrefer.views.policies import FixedScales, ImagePrior, RandomScales
from lavis_dynrefer.views.reading_ahead import crop_ahead
from lavis_dynrefer.views.samples import batches, concat_samples
from lavis_dynrefer.views.view_processor import ViewProcessor

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS)
BOXES = torch.tensor([[x, 1.0, x + 7.0, 50.0] for x in range(70)])
POLICIES = {
    "fixed": lambda: FixedScales([0, 0.5]),
    "image": lambda: ImagePrior(2),
    "random": lambda: RandomScales(2, rng=torch.Generator().manual_seed(3)),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("regions", "chunk"), [(0, 64), (16, 5), (40, 20), (70, 64), (70, 7)])
def test_samples_are_those_of_the_chunks_one_after_another(policy, regions, chunk):
    boxes = BOXES[:regions]
    alone = ViewProcessor(POLICIES[policy](), image_size=8)
    parts = [boxes[start : start + chunk] for start in range(0, regions, chunk)]
    expected = [alone.crop(IMAGE, part) for part in parts]

    found = list(crop_ahead(IMAGE, boxes, ViewProcessor(POLICIES[policy](), image_size=8), chunk))

    assert [len(sample["views"]) for sample in found] == [len(one["views"]) for one in expected]
    if regions:
        ours, theirs = concat_samples(found), concat_samples(expected)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs if key != "routes")


def test_the_next_chunk_is_cropped_while_one_is_in_use():
    others = threading.Event()
    here = threading.get_ident()

    class Watched(FixedScales):
        def plan(self, image, boxes):
            assert threading.get_ident() != here
            if boxes[0, 0] >= 32:
                others.set()
            return super().plan(image, boxes)

    samples = crop_ahead(IMAGE, BOXES, ViewProcessor(Watched([0, 0.5]), image_size=8), 32)
    first = next(samples)
    assert len(first["views"]) == 32
    assert others.wait(timeout=60)  # nobody has asked for the second one
    assert [len(sample["views"]) for sample in samples] == [32, 6]


def test_an_error_while_cropping_is_raised_where_its_sample_is_due():
    class Failing(FixedScales):
        def plan(self, image, boxes):
            if boxes[0, 0] >= 64:
                raise ValueError("no plan")
            return super().plan(image, boxes)

    samples = crop_ahead(IMAGE, BOXES, ViewProcessor(Failing([0]), image_size=8), 32)
    assert [len(next(samples)["views"]) for _ in range(2)] == [32, 32]
    with pytest.raises(ValueError, match="no plan"):
        next(samples)


def test_a_full_batch_does_not_wait_for_the_next_sample():
    sample = ViewProcessor(FixedScales([0]), image_size=8).crop(IMAGE, BOXES[:4])

    def samples():
        yield from (sample, sample)
        raise AssertionError("nobody needs a third one yet")

    assert len(next(batches(samples(), 8))["views"]) == 8
