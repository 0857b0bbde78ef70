"""How often the CPU would wait for a GPU, counted on a device that is not there."""

from __future__ import annotations

from tests.gpu.test_gpu_waits import (  # noqa: F401
    predictor,
    scene,
    test_a_chunk_of_any_size,
    test_an_evaluation_batch,
    test_an_explanation_of_any_number_of_regions,
    test_tasks_with_views_of_their_own,
)
