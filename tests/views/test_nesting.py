"""Nested boxes and their crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lavis_dynrefer.views.nesting import crop_views, nest_boxes, whole_pixels

SIZE = torch.tensor([[100.0, 80.0]])
REGION = torch.tensor([[40.0, 20.0, 60.0, 40.0]])


@pytest.mark.parametrize(
    ("scale", "box"),
    [
        (0.0, [40, 20, 60, 40]),
        (0.5, [20, 10, 80, 60]),
        (1.0, [0, 0, 100, 80]),
    ],
)
def test_scale_moves_every_side_towards_the_frame(scale, box):
    nested = nest_boxes(REGION, SIZE, torch.tensor([[scale]]))
    assert nested[0, 0].tolist() == box


def test_no_regions_give_no_boxes():
    assert nest_boxes(torch.zeros(0, 4), torch.zeros(0, 2), torch.zeros(0, 3)).shape == (0, 3, 4)


@pytest.mark.parametrize("scale", [-0.1, 1.1])
def test_scale_outside_zero_to_one_is_refused(scale):
    with pytest.raises(ValueError, match="scales must lie in"):
        nest_boxes(REGION, SIZE, torch.tensor([[scale]]))


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ([33.7, 41.2, 80.9, 77.4], [33, 41, 80, 77]),  # truncated
        ([-20.0, 30.0, 60.0, 90.0], [0, 30, 60, 80]),  # clipped
        ([5.2, 6.1, 5.9, 6.8], [5, 6, 6, 7]),  # never below one pixel
        ([99.9, 79.9, 100.0, 80.0], [99, 79, 100, 80]),  # nor at the far edge
    ],
)
def test_pixel_boxes_are_clipped_truncated_and_never_empty(box, pixels):
    assert whole_pixels(torch.tensor([box]), 100, 80)[0].tolist() == pixels


def test_views_show_what_their_boxes_say():
    pixels = np.zeros((80, 100, 3), dtype=np.uint8)
    pixels[20:40, 40:60] = (200, 30, 10)  # the region, on black
    nested = nest_boxes(REGION, SIZE, torch.tensor([[0.0, 1.0]]))

    views, inside = crop_views(Image.fromarray(pixels), REGION, nested, 16)

    assert views.dtype == torch.uint8
    assert views.shape == (1, 2, 3, 16, 16)
    assert (views[0, 0] == torch.tensor([200, 30, 10])[:, None, None]).all()
    assert views[0, 1, :, 0, 0].tolist() == [0, 0, 0]
    # 40..60 of 100 and 20..40 of 80 pixels, in 16ths, truncated
    assert inside.tolist() == [[[0, 0, 16, 16], [6, 4, 9, 8]]]


def test_region_box_is_truncated_in_float32():
    # 177 * float32(224 / 177) is just below 224 (released code; measured)
    region = torch.tensor([[33.0, 41.0, 210.0, 177.0]])
    _, inside = crop_views(Image.new("RGB", (640, 426)), region, region[:, None], 224)
    assert inside[0, 0].tolist() == [0, 0, 223, 224]


def test_views_are_the_pixels_of_pillow_and_equal_frames_look_equal():
    pixels = np.random.default_rng(1).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    frames = torch.tensor([[[40, 20, 60, 40], [0, 0, 100, 80]], [[7, 3, 9, 80], [0, 0, 100, 80]]])

    views, _ = crop_views(image, frames[:, 0].float(), frames.float(), 24)

    for view, frame in zip(views.flatten(0, 1), frames.flatten(0, 1).tolist()):
        theirs = image.crop(frame).resize((24, 24), Image.Resampling.BICUBIC)
        assert (view.permute(1, 2, 0).numpy() == np.asarray(theirs)).all()
    assert views.is_contiguous()
