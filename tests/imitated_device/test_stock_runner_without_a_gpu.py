"""LAVIS's own runner on a device that is not there; it trains over NCCL, which is not imitated."""

from __future__ import annotations

import pytest

from tests.gpu.test_gpu_stock_runner import (  # noqa: F401
    options,
    test_stock_runner_evaluates_to_a_report,
)

pytestmark = pytest.mark.slow  # a whole evaluation of the embedded model
