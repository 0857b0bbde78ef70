"""Requests per second of a running `dynrefer serve`.

dynrefer serve --port 8000
python -m lavis_dynrefer.lab.benchmarks.service_load --port 8000 --clients 1,8
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import statistics
import sys
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

from lavis_dynrefer.synthetic import make_scene, render

_IMAGES, _SEED, _FIRST = 20, 5, 4_000_001  # scenes that no model was trained on


def measure_serve(port: int, *, clients: int, requests: int) -> dict[str, float]:
    """Ask one region of one image per request, with all questions.

    Args:
        port: of a server on this machine.
        clients: each waits for its answer before the next request.
        requests: of all clients together.

    Returns:
        `requests_per_s`, the latencies `p50_ms` and `p95_ms`, and `batch`, the mean number of
        requests that were answered together.
    """
    bodies = [_body(_FIRST + number) for number in range(_IMAGES)]

    def ask(client: int) -> list[tuple[float, int]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        answers = []
        for number in range(client, requests, clients):
            start = time.perf_counter()
            headers = {"content-type": "application/json"}
            connection.request("POST", "/v1/regions", bodies[number % _IMAGES], headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise ConnectionError(f"{answer.status}: {content.decode()}")
            answers.append((time.perf_counter() - start, json.loads(content)["batch"]["requests"]))
        connection.close()
        return answers

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = [answer for row in pool.map(ask, range(clients)) for answer in row]
    rate = requests / (time.perf_counter() - start)
    seconds = statistics.quantiles((took for took, _ in answers), n=100, method="inclusive")
    return {
        "requests_per_s": round(rate, 2),
        "p50_ms": round(1000 * seconds[49], 1),
        "p95_ms": round(1000 * seconds[94], 1),
        "batch": round(statistics.mean(batch for _, batch in answers), 1),
    }


def _body(index: int) -> bytes:
    scene, file = make_scene(_SEED, index), io.BytesIO()
    render(scene).save(file, "JPEG", quality=90)
    image = b64encode(file.getvalue()).decode()
    return json.dumps({"image": image, "boxes": [scene.objects[0].box]}).encode()


def main() -> None:
    """Print the numbers as json, a line for each number of clients."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--requests", type=int, default=60)
    arguments = parser.parse_args()
    measure_serve(arguments.port, clients=2, requests=_IMAGES)  # warms up
    for clients in map(int, arguments.clients.split(",")):
        numbers = measure_serve(arguments.port, clients=clients, requests=arguments.requests)
        sys.stdout.write(json.dumps({"clients": clients, **numbers}) + "\n")


if __name__ == "__main__":
    main()
