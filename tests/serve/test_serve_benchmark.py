"""The load benchmark of `dynrefer serve`, one round."""

from __future__ import annotations

import pytest

from lavis_dynrefer.lab.benchmarks.service_load import measure_serve


@pytest.mark.slow
def test_load_benchmark_measures_both_servers():
    pytest.importorskip("fastapi", reason="needs the extra `serve`")
    found = measure_serve(clients=[3], requests=6, rounds=1, options=["--device", "cpu"])
    assert found["3"]["off"]["batch"] == 1
    assert found["3"]["on"]["requests_per_s"] > 0
    assert found["3"]["ratio"] > 0
