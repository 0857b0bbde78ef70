"""Deformable sampling: hand-worked taps, then the official module."""

from __future__ import annotations

import pytest
import torch

from lavis_dynrefer.models.region_encoder import DeformableAlign, deform_conv, offset_mask_channels

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


def test_gradients_are_exact():
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(1, 2, 3, 2, dtype=torch.double, generator=generator, requires_grad=True)
    channels = offset_mask_channels(2)
    offsets = torch.randn(1, 2, 3, channels, dtype=torch.double, generator=generator)
    offsets.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v, o: deform_conv(v, o, groups=2), (value, offsets))


def test_a_new_alignment_is_silent():
    align = DeformableAlign(8, groups=2)
    assert not align(torch.randn(2, 8, 3, 3), torch.randn(2, 8, 3, 3)).any()


def test_half_precision_keeps_exact_positions():
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(3, 4, 5, 6, generator=generator).bfloat16()
    offset_mask = 3 * torch.randn(3, 4, 5, offset_mask_channels(2), generator=generator).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = deform_conv(value, offset_mask, groups=2)
    exact = deform_conv(value.float(), offset_mask.float(), groups=2)
    assert torch.equal(found, exact.bfloat16())


def test_samples_are_not_kept_for_the_backward_pass():
    value = torch.randn(2, 4, 4, 8, requires_grad=True)
    offset_mask = torch.randn(2, 4, 4, offset_mask_channels(2), requires_grad=True)
    kept = {}  # an address -> what is there

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        deform_conv(value, offset_mask, groups=2)
    inputs = value.untyped_storage().nbytes() + offset_mask.untyped_storage().nbytes()
    assert sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) <= inputs
