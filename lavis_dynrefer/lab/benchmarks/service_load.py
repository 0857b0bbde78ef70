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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_dynrefer.lab.benchmarks.machine import describe_machine
from lavis_dynrefer.synthetic import make_scene, render

SERVERS = {"off": ("--batch-regions", "1"), "on": ()}
_IMAGES = 20
_SEED = 5


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
    changing order, so that whatever else the machine does slows both.

    Args:
        clients: how many ask at once.
        requests: of all clients together, for each server, number of clients and round.
        rounds: how often all is done.
        options: arguments of both servers, such as --device.

    Returns:
        For each number of clients: of both servers the requests_per_s (median of the rounds),
        p50_ms, p95_ms, mean batch and, on Linux, cpu_ms: processor time per request; and `ratio`,
        the median over the rounds of requests per second with batching to those without. On a busy
        machine only the processor time tells much.
    """
    bodies = _bodies()
    asked: dict[int, dict[str, list[_Asked]]] = {
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
                    asked[count][name].append(_ask(servers[name], bodies, requests, count))
    return {str(count): _summary(asked[count]) for count in clients}


@dataclass(frozen=True)
class _Server:
    port: int
    process: int

    def cpu_seconds(self) -> float | None:
        """Processor time the process has had; None where it is not told."""
        path = Path(f"/proc/{self.process}/stat")
        if not path.exists():
            return None
        numbers = path.read_text().rpartition(")")[2].split()
        return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class _Asked:
    """What one server did with some requests."""

    rate: float  # requests per second
    latencies: list[float]  # seconds
    batches: list[int]  # requests answered together with each, itself included
    cpu: float | None  # seconds of a core per request


def _summary(asked: dict[str, list[_Asked]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for name, rounds in asked.items():
        latencies = [1000 * value for one in rounds for value in one.latencies]
        times = [one.cpu for one in rounds if one.cpu is not None]
        cpu = statistics.median(times) if times else None
        hundredths = statistics.quantiles(latencies, n=100, method="inclusive")
        summary[name] = {
            "requests_per_s": round(statistics.median(one.rate for one in rounds), 2),
            "p50_ms": round(hundredths[49], 1),
            "p95_ms": round(hundredths[94], 1),
            "cpu_ms": None if cpu is None else round(1000 * cpu, 1),
            "batch": round(statistics.mean(size for one in rounds for size in one.batches), 1),
        }
    ratios = [on.rate / off.rate for on, off in zip(asked["on"], asked["off"])]
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
            reader.submit(process.stderr.read)  # or a full pipe would stop it
            yield _Server(int(address[1]), process.pid)
        finally:
            process.terminate()


def _ask(server: _Server, bodies: Sequence[bytes], requests: int, clients: int) -> _Asked:
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
    after = server.cpu_seconds()
    cpu = None if before is None or after is None else (after - before) / requests
    return _Asked(rate, [took for took, _ in found], [batch for _, batch in found], cpu)


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
