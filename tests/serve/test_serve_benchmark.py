from lavis_dynrefer.lab.benchmarks.service_load import measure_serve


def test_the_load_benchmark_measures_a_running_server(serving):
    with serving() as client:
        found = measure_serve(client.port, clients=3, requests=6)
    assert found["requests_per_s"] > 0
    assert found["p95_ms"] >= found["p50_ms"] > 0
    assert 1 <= found["batch"] <= 3
