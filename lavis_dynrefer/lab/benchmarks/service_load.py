"""Requests per second of `dynrefer serve` on this machine, with batching and without.

python -m lavis_dynrefer.lab.benchmarks.service_load
python -m lavis_dynrefer.lab.benchmarks.service_load --clients 1,8 --device cuda
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import re
import statistics
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lavis_dynrefer.lab.benchmarks.measuring import describe_machine
from lavis_dynrefer.synthetic import make_scene, render

SERVERS = {"off": ("--batch-regions", "1"), "on": ()}
_IMAGES = 20
_SEED = 5


class _Server(NamedTuple):
    port: int
    process: int

    def cpu_seconds(self) -> float:
        """Processor time of the process; nan where the system does not tell it."""
        path = Path(f"/proc/{self.process}/stat")
        if not path.exists():
            return float("nan")
        numbers = path.read_text().rpartition(")")[2].split()
        return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


class _Round(NamedTuple):
    """What one server did with some requests."""

    rate: float  # requests per second
    latencies: list[float]  # seconds
    batches: list[int]  # requests answered together with each, itself included
    cpu: float  # seconds of a core per request


def measure_serve(
    *,
    clients: Sequence[int] = (1, 4, 16),
    requests: int = 60,
    rounds: int = 5,
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """Ask two servers in turns, one that batches and one that does not.

    Every request is one region of one image with all questions; every client waits for its answer
    before it asks again. The servers run at the same time but are asked one after the other, in
    changing order, so that other programs slow down both.

    Args:
        clients: numbers of clients to try.
        requests: of all clients together, for each server, number of clients and round.
        rounds: number of repetitions.
        options: arguments of both servers, such as --device.

    Returns:
        Number of clients -> server -> requests_per_s (median of the rounds), p50_ms, p95_ms, mean
        batch and, on Linux, cpu_ms, the processor time per request; and `ratio`, the median of
        requests per second with batching over those without.
    """
    bodies = _bodies()
    found: dict[int, dict[str, list[_Round]]] = {
        count: {name: [] for name in SERVERS} for count in clients
    }
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(_server([*own, *options])) for name, own in SERVERS.items()
        }
        for server in servers.values():
            _ask(server, bodies, len(bodies), 2)
        for number in range(rounds):
            names = list(SERVERS) if number % 2 == 0 else list(SERVERS)[::-1]
            for count in clients:
                for name in names:
                    found[count][name].append(_ask(servers[name], bodies, requests, count))
    return {str(count): _summary(found[count]) for count in clients}


def _summary(found: dict[str, list[_Round]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for name, rounds in found.items():
        latencies = [1000 * value for one in rounds for value in one.latencies]
        hundredths = statistics.quantiles(latencies, n=100, method="inclusive")
        summary[name] = {
            "requests_per_s": round(statistics.median(one.rate for one in rounds), 2),
            "p50_ms": round(hundredths[49], 1),
            "p95_ms": round(hundredths[94], 1),
            "cpu_ms": round(1000 * statistics.median(one.cpu for one in rounds), 1),
            "batch": round(statistics.mean(size for one in rounds for size in one.batches), 1),
        }
    ratios = [on.rate / off.rate for on, off in zip(found["on"], found["off"])]
    summary["ratio"] = round(statistics.median(ratios), 2)
    return summary


def _bodies() -> list[bytes]:
    bodies = []
    for number in range(_IMAGES):
        scene = make_scene(_SEED, 4_000_001 + number)
        file = io.BytesIO()
        render(scene).save(file, "JPEG", quality=90)
        image = b64encode(file.getvalue()).decode()
        bodies.append(json.dumps({"image": image, "boxes": [scene.objects[0].box]}).encode())
    return bodies


@contextmanager
def _server(options: Sequence[str]) -> Iterator[_Server]:
    """A server in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "lavis_dynrefer.cli", "serve", "--port", "0"]
    with (
        subprocess.Popen(
            [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process,
        ThreadPoolExecutor(1) as reader,
    ):
        try:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                address = re.search(r" on http://127\.0\.0\.1:(\d+)$", line.rstrip())
                if address:
                    break
            else:
                raise ChildProcessError("the server did not start:\n" + "".join(lines))
            reader.submit(process.stderr.read)  # a full pipe would block the server
            yield _Server(int(address[1]), process.pid)
        finally:
            process.terminate()


def _ask(server: _Server, bodies: Sequence[bytes], requests: int, clients: int) -> _Round:
    def ask(client: int) -> list[tuple[float, int]]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        found = []
        for number in range(client, requests, clients):
            body = bodies[number % len(bodies)]
            started = time.perf_counter()
            connection.request("POST", "/v1/regions", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            took = time.perf_counter() - started
            if answer.status != 200:
                raise ChildProcessError(f"{answer.status}: {content.decode()}")
            found.append((took, json.loads(content)["batch"]["requests"]))
        connection.close()
        return found

    started, before = time.perf_counter(), server.cpu_seconds()
    with ThreadPoolExecutor(clients) as pool:
        found = [pair for row in pool.map(ask, range(clients)) for pair in row]
    rate = requests / (time.perf_counter() - started)
    cpu = (server.cpu_seconds() - before) / requests
    return _Round(rate, [took for took, _ in found], [batch for _, batch in found], cpu)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the numbers as json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(argv)
    before = describe_machine()
    results = measure_serve(
        clients=[int(number) for number in arguments.clients.split(",")],
        requests=arguments.requests,
        rounds=arguments.rounds,
        options=["--device", arguments.device],
    )
    load = {"load_before": before["load"], "load_after": describe_machine()["load"]}
    sys.stdout.write(json.dumps({"machine": {**before, **load}, "results": results}, indent=1))
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
