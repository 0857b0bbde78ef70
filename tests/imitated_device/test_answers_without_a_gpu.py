"""The checks of tests/gpu on a device that is not there."""

from __future__ import annotations

from tests.gpu.test_gpu_answers import (  # noqa: F401
    expected,
    predictor,
    scene,
    test_a_chunk_that_does_not_fit_is_halved,
    test_a_frozen_vit_is_cast_once_and_gives_the_same,
    test_answers_are_those_of_the_cpu,
    test_beam_search_finds_what_it_finds_on_the_cpu,
    test_boxes_and_masks_may_be_on_the_gpu,
    test_explanations_are_those_of_the_cpu,
    test_idle_parts_wait_in_main_memory,
    test_recorded_steps_write_what_plain_steps_write,
)
