"""The checks of training of tests/gpu, on a device that is not there."""

from __future__ import annotations

import pytest

from tests.gpu.test_gpu_fast_paths import (  # noqa: F401
    test_a_fused_optimiser_takes_the_same_steps,
    test_alignment_of_views_is_that_of_the_cpu,
    test_muon_takes_the_steps_of_the_cpu,
)
from tests.gpu.test_gpu_training import (  # noqa: F401
    test_a_resumed_run_goes_on_with_its_gradient_scaler,
    test_every_trained_weight_gets_a_finite_gradient,
    test_gradients_are_those_of_the_cpu,
    test_loaders_bring_the_same_batches,
    test_waits_of_a_training_step,
)

# Two whole runs of the embedded model: 7 s of a core.
pytest.mark.slow(test_a_resumed_run_goes_on_with_its_gradient_scaler)
