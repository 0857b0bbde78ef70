"""The checks of fast paths of tests/gpu, on a device that is not there: with kernels of the CPU."""

from __future__ import annotations

from tests.gpu.test_gpu_fast_paths import (  # noqa: F401
    test_attention_is_the_formula,
    test_weights_in_8_bit_are_whole_numbers_times_scales,
)
