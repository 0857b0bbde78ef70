"""Masks in a view processor and in its samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.views.dimming import dim_own_views
from lavis_dynrefer.views.policies import FixedScales, RandomScales
from lavis_dynrefer.views.samples import concat_samples, rows_of
from lavis_dynrefer.views.view_processor import ViewProcessor

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
LEFT = np.zeros((30, 40), dtype=bool)
LEFT[5:15, 4:12] = True  # the left half of the box below
BOX = [4.0, 5.0, 20.0, 15.0]
OTHER = [0.0, 0.0, 10.0, 10.0]


def processor(**options):
    return ViewProcessor(FixedScales([0, 0.5]), image_size=8, **options)


def test_the_grid_is_over_the_box():
    sample = processor()(IMAGE, [BOX], masks=[LEFT])

    assert sample["masks"].dtype == torch.uint8
    assert sample["masks"][0, :, :14].eq(255).all()
    assert sample["masks"][0, :, 14:].eq(0).all()
    assert torch.equal(sample["views"], processor()(IMAGE, [BOX])["views"])


def test_the_grid_is_over_the_pixels_that_the_model_looks_at():
    # Views show whole pixels inside the image: 0 to 20 of -20.5 to 20.9.
    sample = processor()(IMAGE, [[-20.5, 5.0, 20.9, 15.0]], masks=[LEFT])

    columns = sample["masks"][0].float().mean(dim=0) / 255
    inside = columns.reshape(20 if len(columns) % 20 == 0 else 28, -1)[:, 0]
    # 28 cells over 20 pixels: cell 5.6 begins at pixel 4, cell 16.8 at 12.
    assert inside[:5].eq(0).all()
    assert inside[6:16].eq(1).all()
    assert inside[5].item() == pytest.approx(0.4, abs=1 / 255)
    assert inside[16].item() == pytest.approx(0.8, abs=1 / 255)
    assert inside[17:].eq(0).all()


def test_without_boxes_they_are_those_of_the_masks():
    sample = processor()(IMAGE, masks=[LEFT])

    assert sample["image_boxes"].tolist() == [[4, 5, 12, 15]]
    assert sample["masks"].eq(255).all()


def test_samples_without_a_mask_have_no_masks():
    assert "masks" not in processor()(IMAGE, [BOX])
    assert "masks" not in processor()(IMAGE, [BOX], masks=[None])


def test_masks_are_as_many_as_boxes():
    with pytest.raises(InputError, match="expected one for each of 2 boxes, got 1"):
        processor()(IMAGE, [BOX, OTHER], masks=[LEFT])


def test_joined_samples_fill_what_some_lack():
    with_mask, without = processor()(IMAGE, [BOX], masks=[LEFT]), processor()(IMAGE, [OTHER, BOX])

    for order, place in (([without, with_mask], 2), ([with_mask, without], 0)):
        masks = concat_samples(order)["masks"]
        assert torch.equal(masks[place], with_mask["masks"][0])
        assert masks.flatten(1).eq(255).all(dim=1).sum() == 2
    assert "masks" not in concat_samples([without, without])


def test_rows_and_devices_keep_masks():
    sample = processor()(IMAGE, [OTHER, BOX], masks=[None, LEFT])

    assert torch.equal(rows_of(sample, slice(1, 2))["masks"][0], sample["masks"][1])
    assert sample.to("meta")["masks"].is_meta
    assert "masks" not in rows_of(processor()(IMAGE, [OTHER]), slice(0, 1))


def test_dimmed_views_keep_the_mask_and_move_the_rest_halfway_to_gray():
    plain = processor()(IMAGE, [BOX, OTHER])["views"].double()
    sample = processor(mask_views="dim")(IMAGE, [BOX, OTHER], masks=[LEFT, None])
    views = sample["views"].double()

    assert torch.equal(views[1], plain[1])  # no mask
    assert torch.equal(views[0, 0, :, :, :4], plain[0, 0, :, :, :4])
    halfway = ((plain[0, 0, :, :, 4:] + 127.5) / 2).numpy()
    assert np.array_equal(views[0, 0, :, :, 4:].numpy(), np.rint(halfway))
    # The wider view: (2, 2.5) to (30, 22.5), as whole pixels 2 to 30 and 2 to 22; the mask begins
    # at 3 / 8 of its rows less a part of a pixel, so that its first two rows are outside.
    assert not torch.equal(views[0, 1], plain[0, 1])
    outside = ((plain[0, 1, :, 0] + 127.5) / 2).numpy()
    assert np.array_equal(views[0, 1, :, 0].numpy(), np.rint(outside))


def test_only_the_own_view_is_dimmed():
    plain = processor()(IMAGE, [BOX, OTHER])["views"].double()
    sample = processor(mask_views="dim_own")(IMAGE, [BOX, OTHER], masks=[LEFT, None])
    views = sample["views"].double()

    assert torch.equal(views[1], plain[1])  # no mask
    assert torch.equal(views[0, 1], plain[0, 1])  # the wider view
    # The mask ends in the middle of the view; only pixels at its edge are dimmed in part.
    assert torch.equal(views[0, 0, :, :, :3], plain[0, 0, :, :, :3])
    halfway = ((plain[0, 0, :, :, 5:] + 127.5) / 2).numpy()
    assert np.array_equal(views[0, 0, :, :, 5:].numpy(), np.rint(halfway))
    assert torch.equal(
        sample["masks"], processor()(IMAGE, [BOX, OTHER], masks=[LEFT, None])["masks"]
    )


def test_every_view_of_scale_0_is_an_own_view():
    twice = ViewProcessor(FixedScales([0, 0]), image_size=8, mask_views="dim_own")

    views = twice(IMAGE, [BOX], masks=[LEFT])["views"]

    assert torch.equal(views[0, 0], views[0, 1])
    assert not torch.equal(views, twice(IMAGE, [BOX])["views"])


@pytest.mark.parametrize("views", ["none", "dim", "dim_own"])
def test_no_elements_of_a_sample_share_a_place(views):
    # `pin_memory` of a loader copies into a tensor of the same strides, and refuses those.
    sample = processor(mask_views=views)(IMAGE, [BOX, OTHER], masks=[LEFT, None])

    tensors = [value for value in sample.values() if isinstance(value, torch.Tensor)]
    assert len(tensors) >= 5
    assert all(tensor.is_contiguous() for tensor in tensors)


def test_views_without_the_region_alone_stay_as_they_are():
    views = torch.full((2, 1, 3, 8, 8), 9, dtype=torch.uint8)

    dimmed = dim_own_views(views, torch.full((2, 1), 0.5), torch.zeros(2, 28, 28).byte())

    assert torch.equal(dimmed, views)


def test_own_views_are_dimmed_by_the_masks_with_their_errors():
    noisy = processor(mask_views="dim_own", mask_share=1, mask_noise=3)
    torch.manual_seed(0)
    sample = noisy(IMAGE, [BOX] * 30, masks=[LEFT] * 30)

    seen = {
        (mask.sum().item(), view.sum(dtype=torch.int64).item())
        for mask, view in zip(sample["masks"], sample["views"][:, 0].double())
    }
    assert len({mask for mask, _ in seen}) == len({view for _, view in seen}) == 7


def test_a_share_of_the_masks_is_drawn_by_the_generator():
    boxes, masks = [BOX] * 200, [LEFT] * 200

    def drawn(seed):
        torch.manual_seed(seed)
        grids = processor(mask_share=0.5)(IMAGE, boxes, masks=masks)["masks"]
        return grids[:, 0, -1] == 0

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
    assert 70 < drawn(3).sum() < 130
    own = [
        processor(mask_share=0.5, rng=torch.Generator().manual_seed(1))(IMAGE, boxes, masks=masks)
        for _ in range(2)
    ]
    assert torch.equal(own[0]["masks"], own[1]["masks"])


def test_masks_change_no_scale_that_is_drawn():
    def scales(masks, **options):
        torch.manual_seed(0)
        random = ViewProcessor(RandomScales(3), image_size=8, **options)
        return random(IMAGE, [BOX, OTHER], masks=masks)["scales"]

    assert torch.equal(scales(None), scales([LEFT, None], mask_share=0.5))


def test_all_masks_or_none_of_them():
    whole = processor(mask_share=1)(IMAGE, [BOX] * 50, masks=[LEFT] * 50)["masks"]

    assert whole[:, 0, -1].eq(0).all()


@pytest.mark.parametrize(
    ("options", "asks", "draws"),
    [
        ({}, False, False),
        ({"mask_share": 0.5}, True, True),
        ({"use_masks": True}, True, False),
        ({"mask_views": "dim"}, False, False),
        ({"mask_views": "dim_own"}, False, False),
    ],
)
def test_options_of_a_yaml_say_whether_masks_are_asked_for(options, asks, draws):
    node = OmegaConf.create({"image_size": 8, "policy": "fixed", "scales": [0, 0.5], **options})

    built = ViewProcessor.from_config(node)

    assert (built.asks_for_masks, built.draws) == (asks, draws)
    assert built.mask_views == options.get("mask_views", "none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_share": 1.5}, "mask_share: expected a number from 0 to 1, got 1.5"),
        ({"mask_share": True}, "mask_share"),
        ({"mask_share": 0.5, "mask_noise": -1}, "mask_noise: expected whole pixels from 0"),
        ({"mask_noise": 2}, "mask_noise: set mask_share"),
        ({"use_masks": 1}, "use_masks: expected true or false"),
        ({"use_masks": True, "mask_share": 0.5}, "not both"),
        ({"mask_views": "blur"}, "mask_views.*blur"),
    ],
)
def test_invalid_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        processor(**options)
