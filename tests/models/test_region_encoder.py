"""Cutting the region out of every view and fusing the views."""

from __future__ import annotations

import pytest
import torch

from lavis_dynrefer.models.region_encoder import (
    RegionEncoder,
    ViewFeatures,
    mask_shares,
    masked_cells,
)


def encoder(
    width: int = 4, num_views: int = 2, roi_size: int = 2, masks: str = "ignore"
) -> RegionEncoder:
    torch.manual_seed(0)
    return RegionEncoder(
        width,
        num_views=num_views,
        image_size=32,
        roi_size=roi_size,
        sampling_ratio=2,
        offset_groups=2,
        masks=masks,
    )


def test_region_is_averaged_from_the_cells_it_covers():
    # 4 x 4 map whose cell value is its column; the region covers columns 1 and 2, rows 0 and 1.
    # RoI-Align without half-cell shift samples column 1 + (.25, .75): bilinear, 1.5; then 2.5.
    columns = torch.arange(4.0).repeat(4, 1).reshape(1, 1, 16, 1).expand(1, 1, 16, 4)
    tokens = torch.cat([torch.full((1, 1, 1, 4), 7.0), columns], dim=2)
    features = encoder(num_views=1).pool(tokens, torch.tensor([[[8.0, 0.0, 24.0, 16.0]]]))
    assert features.maps[0, 0, 0].tolist() == [[1.5, 2.5], [1.5, 2.5]]
    assert features.summary[0, 0].tolist() == [7, 7, 7, 7]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_neither_boxes_nor_numbers_of_views(dtype):
    # bfloat16 would take 300 for 300 but 301 for 300, and 9.4 for 9.375.
    tokens = (torch.arange(302.0) % 7)[:, None, None].expand(302, 17, 4).clone()
    tokens[:, 1:] += torch.arange(4.0).repeat(4)[None, :, None]  # the column
    boxes = torch.tensor([9.4, 8.0, 17.1, 16.0]).expand(302, 1, 4)

    found = encoder(num_views=1).pool(tokens[:, None].to(dtype), boxes)

    exact = encoder(num_views=1).pool(tokens[:, None], boxes)
    assert found.maps.dtype == found.summary.dtype == dtype
    assert torch.equal(found.maps, exact.maps.to(dtype))


def test_a_region_without_width_still_gives_one_cell():
    tokens = torch.randn(1, 1, 17, 4)
    features = encoder(num_views=1).pool(tokens, torch.tensor([[[8.0, 8.0, 8.0, 16.0]]]))
    assert features.maps.isfinite().all()


def test_before_training_other_views_count_by_their_class_token_only():
    model = encoder()
    base = ViewFeatures(torch.randn(1, 2, 4), torch.randn(1, 2, 4, 2, 2))
    other = ViewFeatures(base.summary, base.maps.clone())
    other.maps[:, 1] += 1  # what the second view shows of the region
    assert torch.equal(model(base), model(other))


def test_regions_do_not_see_each_other():
    model = encoder()
    torch.nn.init.normal_(model.align.offset_mask.weight)
    features = ViewFeatures(torch.randn(3, 2, 4), torch.randn(3, 2, 4, 2, 2))
    order = torch.tensor([2, 0, 1])
    swapped = ViewFeatures(features.summary[order], features.maps[order])
    assert torch.allclose(model(features)[order], model(swapped), atol=1e-6)


def test_wrong_number_of_views_is_named():
    features = ViewFeatures(torch.randn(1, 3, 4), torch.randn(1, 3, 4, 2, 2))
    with pytest.raises(ValueError, match="fuses 2 views, got 3"):
        encoder()(features)


def test_route_picks_views_in_its_order():
    features = ViewFeatures(torch.arange(6.0).reshape(2, 3, 1), torch.zeros(2, 3, 1, 1, 1))
    chosen = features.select(torch.tensor([[0, 2], [2, 1]]))
    assert chosen.summary[..., 0].tolist() == [[0, 2], [5, 4]]


def test_cells_are_the_mean_of_their_parts_in_the_mask():
    # One cell of 2 x 2 parts. Of the first part all is mask, of the second a half.
    parts = torch.tensor([[8.0, 2.0], [100.0, 100.0]]).reshape(1, 1, 1, 2, 2)
    grid = torch.tensor([[[254, 127], [0, 0]]], dtype=torch.uint8)

    found = masked_cells(parts, grid)

    assert found.item() == pytest.approx((8 + 0.5 * 2) / 1.5)


def test_all_cells_together_count_as_much_as_without_a_mask():
    # Of cells of two by two parts, the first is all mask, of the second a half, two have none:
    # together 1.5 of 4, and so 4 / 1.5 times as much, but at most twice.
    grid = torch.zeros(1, 4, 4, dtype=torch.uint8)
    grid[0, :2, :3] = 255
    parts = torch.ones(1, 2, 3, 4, 4)

    found = masked_cells(parts, grid)

    expected = torch.tensor([[2.0, 0.5 * 4 / 1.5], [0, 0]])
    assert torch.allclose(found, expected.expand(1, 2, 3, 2, 2))


def test_cells_count_at_most_twice():
    grid = torch.zeros(1, 28, 28, dtype=torch.uint8)
    grid[0, 14] = 2  # of 28 rows one, to 2 / 255

    found = masked_cells(torch.full((1, 1, 1, 8, 8), 3.0), grid)

    assert torch.allclose(found[0, 0, 0, 2], torch.tensor(6.0))
    assert found[0, 0, 0, [0, 1, 3]].eq(0).all()
    none = masked_cells(torch.full((1, 1, 1, 8, 8), 3.0), torch.zeros_like(grid))
    assert none.eq(0).all()  # and finite


def test_shares_need_not_divide_the_grid():
    # Cells of 28 / 16 = 1.75: the first two end at 3.5, in the middle of the fourth column.
    grid = torch.zeros(1, 28, 28, dtype=torch.uint8)
    grid[:, :, :3] = 255

    shares = mask_shares(grid, 16)

    assert torch.allclose(shares[0, 5], torch.tensor([1, 1.25 / 1.75] + [0.0] * 14))
    assert torch.allclose(mask_shares(grid, 56)[0, 5, :8], torch.tensor([1.0] * 6 + [0.0] * 2))


@pytest.mark.parametrize("ratio", [1, 2, 4, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_leave_the_cells_that_they_fill(ratio, dtype):
    # The left half of a region of 2 x 2 cells is mask: both cells there count twice.
    grid = torch.zeros(2, 28, 28, dtype=torch.uint8)
    grid[:, :, :14] = 255
    grid[1] = 255
    tokens = torch.randn(2, 2, 65, 4).to(dtype)
    boxes = torch.tensor([[[0.0, 0, 32, 32], [8, 8, 24, 24]]] * 2)
    model = encoder()
    model.sampling_ratio = ratio

    plain, masked = model.pool(tokens, boxes), model.pool(tokens, boxes, grid)

    assert masked.maps.dtype == dtype
    twice = 2 * plain.maps[0, ..., 0]
    close = {"atol": 0.05, "rtol": 0.05} if dtype == torch.bfloat16 else {}
    assert ratio == 1 or torch.allclose(masked.maps[0, ..., 0], twice, **close)  # of every view
    assert masked.maps[0, ..., 1].eq(0).all()
    assert torch.equal(masked.maps[1], plain.maps[1])
    assert torch.equal(masked.summary, plain.summary)


def test_masks_are_used_by_a_model_that_was_trained_for_them():
    sample = {"masks": torch.zeros(1, 28, 28, dtype=torch.uint8)}

    assert encoder().masks_of(sample) is None
    assert encoder(masks="cells").masks_of(sample) is sample["masks"]
    assert encoder(masks="cells").masks_of({}) is None
