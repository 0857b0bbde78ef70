"""Deformable sampling: hand-worked taps, then the official module."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from lavis_dynrefer.models.region_encoder import DeformableAlign
from lavis_dynrefer.models.sampling import deform_conv as sampling
from lavis_dynrefer.models.sampling.deform_conv import deform_conv, offset_mask_channels

RAMP = torch.arange(12.0).reshape(1, 3, 4, 1)  # value = 4 * row + column


def one_tap(tap: int, dx: float = 0.0, dy: float = 0.0, mask: float = 1.0) -> torch.Tensor:
    """Offsets and masks for a 3 x 4 map in which a single tap counts."""
    offset_mask = torch.zeros(1, 3, 4, offset_mask_channels(1))
    offset_mask[..., 2 * tap] = dx
    offset_mask[..., 2 * tap + 1] = dy
    offset_mask[..., 18 + tap] = mask
    return offset_mask


def test_centre_tap_copies_the_map():
    assert torch.allclose(deform_conv(RAMP, one_tap(4), groups=1), RAMP, atol=1e-6)


def test_second_tap_looks_one_column_to_the_left():
    # tap 1 = column offset -1, row offset 0: the outer index runs over columns
    out = deform_conv(RAMP, one_tap(1), groups=1)[0, :, :, 0]
    assert torch.allclose(
        out, torch.tensor([[0.0, 0, 1, 2], [0, 4, 5, 6], [0, 8, 9, 10]]), atol=1e-5
    )


def test_offsets_are_x_then_y_and_sampled_bilinearly():
    out = deform_conv(RAMP, one_tap(4, dx=0.5, dy=1.0, mask=-2.0), groups=1)[0, :, :, 0]
    # row 0, column 0 reads between 4 and 5 of row 1; the last row reads outside: 0
    assert out[0, 0].item() == pytest.approx(-2 * 4.5, abs=1e-5)
    assert out[2].tolist() == [0, 0, 0, 0]


def test_half_outside_counts_half():
    out = deform_conv(torch.ones(1, 3, 4, 1), one_tap(4, dx=-0.5), groups=1)[0, 0, :, 0]
    assert out.tolist() == pytest.approx([0.5, 1, 1, 1], abs=1e-5)


def test_groups_have_their_own_offsets():
    value = torch.cat([RAMP, RAMP], dim=-1)
    offset_mask = torch.zeros(1, 3, 4, offset_mask_channels(2))
    offset_mask[..., 18 + 4] = 1  # group 0: centre
    offset_mask[..., 27 + 18 + 4] = 3  # group 1: centre, times three
    out = deform_conv(value, offset_mask, groups=2)
    assert torch.allclose(out, torch.cat([RAMP, 3 * RAMP], dim=-1), atol=1e-5)


def test_padding_channels_are_the_official_ones():
    assert [offset_mask_channels(groups) for groups in (1, 2, 4)] == [32, 56, 112]


def tap_by_tap(value, offset_mask, groups):
    """The sum over taps by torch's `grid_sample`."""
    height, width = value.shape[1:3]
    packed = rearrange(offset_mask[..., : groups * 27], "m h w (g p) -> (m g) h w p", g=groups)
    planes = rearrange(value, "m h w (g c) -> (m g) c h w", g=groups)
    columns, rows = torch.arange(width), torch.arange(height)[:, None]
    out = 0
    for tap in range(9):
        x = columns + (tap // 3 - 1) + packed[..., 2 * tap]
        y = rows + (tap % 3 - 1) + packed[..., 2 * tap + 1]
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
        sampled = F.grid_sample(planes, grid, align_corners=False)
        out = out + sampled * packed[..., None, :, :, 18 + tap]
    return rearrange(out, "(m g) c h w -> m h w (g c)", g=groups)


def far_and_near(dtype=torch.double):
    """A value and offsets that reach far outside of the map."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(3, 4, 5, 6, dtype=dtype, generator=generator)
    offset_mask = 3 * torch.randn(3, 4, 5, 56, dtype=dtype, generator=generator)
    return value, offset_mask


@pytest.mark.parametrize("largest", [1, 2**26])  # one map at a time in the backward pass, or all
def test_values_and_gradients_are_those_of_torchs_sampling(monkeypatch, largest):
    monkeypatch.setattr(sampling, "_LARGEST", largest)
    given = [tensor.requires_grad_(True) for tensor in far_and_near()]
    ours, theirs = deform_conv(*given, groups=2), tap_by_tap(*given, groups=2)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn(ours.shape, dtype=torch.double)
    for mine, other in zip(
        torch.autograd.grad((ours * weights).sum(), given),
        torch.autograd.grad((theirs * weights).sum(), given),
    ):
        torch.testing.assert_close(mine, other)


def test_gradients_between_cells_are_exact():
    given = [tensor[:1, :2, :3].requires_grad_(True) for tensor in far_and_near()]
    assert torch.autograd.gradcheck(lambda v, o: deform_conv(v, o, groups=2), given)


def test_the_way_of_other_devices_gives_the_same():
    value, offset_mask = far_and_near()
    planes = rearrange(value, "m h w (g c) -> m g (h w) c", g=2)
    matrices = sampling._matrices(*sampling._corners(offset_mask, 2))
    summed = rearrange(matrices.transpose(-1, -2) @ planes, "m g (h w) c -> m h w (g c)", h=4)
    torch.testing.assert_close(summed, deform_conv(value, offset_mask, groups=2))


def test_half_precision_keeps_exact_positions():
    value, offset_mask = (tensor.bfloat16() for tensor in far_and_near())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = deform_conv(value, offset_mask, groups=2)
    exact = deform_conv(value.float(), offset_mask.float(), groups=2)
    assert torch.equal(found, exact.bfloat16())


def test_alignment_is_the_released_formula_for_each_nested_view():
    torch.manual_seed(0)
    align = DeformableAlign(8, groups=2)
    torch.nn.init.normal_(align.offset_mask.weight)
    torch.nn.init.normal_(align.offset_mask.bias)
    reference, nested = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 3, 4, 8)
    aligned = align(reference, nested)
    for view in range(3):
        own = nested[:, view]
        both = rearrange(torch.cat([own, reference], dim=-1), "m h w c -> m c h w")
        offset_mask = align.offset_mask(align.offset_mask_dw(both).permute(0, 2, 3, 1))
        sampled = tap_by_tap(align.value_proj(own), offset_mask, 2)
        assert torch.allclose(aligned[:, view], align.output_proj(sampled), atol=1e-5)


def test_a_new_alignment_is_silent():
    align = DeformableAlign(8, groups=2)
    assert not align(torch.randn(2, 3, 3, 8), torch.randn(2, 2, 3, 3, 8)).any()
