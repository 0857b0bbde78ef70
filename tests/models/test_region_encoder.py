"""Cutting the region out of every view and fusing the views."""

from __future__ import annotations

import pytest
import torch

from lavis_dynrefer.models.region_encoder import RegionEncoder, ViewFeatures


def encoder(width: int = 4, num_views: int = 2, roi_size: int = 2) -> RegionEncoder:
    torch.manual_seed(0)
    return RegionEncoder(
        width,
        num_views=num_views,
        image_size=32,
        roi_size=roi_size,
        sampling_ratio=2,
        offset_groups=2,
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
