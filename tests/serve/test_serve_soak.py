"""Thousands of requests to one server, broken ones among them: nothing grows."""

from __future__ import annotations

import json
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from serve_client import encoded, png
from test_serve_command import running

from lavis_dynrefer.synthetic import make_scene, render

CLIENTS, SEED = 4, 13
REQUESTS = int(os.environ.get("DYNREFER_SOAK_REQUESTS", "2000"))
SIZES = [(20, 10), (64, 64), (480, 360), (640, 900), (1600, 1200)]
FEW = {"tasks": ["caption", "categories"], "categories": ["flower", "tree", "boat"]}


def prepared():
    """Images of all sizes: width and height, base64, and file."""
    drawn = render(make_scene(0, 2_000_001))
    images = [drawn.resize(size) for size in SIZES]
    masked = drawn.copy()
    masked.putalpha(Image.new("L", masked.size, 255))
    return [(one.size, encoded(one), png(one)) for one in (*images, masked)]


def boxes_in(size, rng):
    width, height = size
    return [
        [x := rng.randrange(width - 4), y := rng.randrange(height - 4), x + 4, y + 4]
        for _ in range(rng.choice([1, 1, 2, 5, 40]))
    ]


class Asking:
    """What the clients do, by its name; each returns the status of the answer, or None."""

    def __init__(self, client, images, rng):
        self.client, self.images, self.rng = client, images, rng

    def in_json(self):
        size, text, _ = self.rng.choice(self.images)
        return self.regions({"image": text, "boxes": boxes_in(size, self.rng), **FEW})

    def in_form(self):
        size, _, file = self.rng.choice(self.images)
        return self.client.upload(file, {"boxes": boxes_in(size, self.rng), **FEW}).status

    def chat(self):
        _, text, _ = self.images[-1]
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text}"}}
        message = {"role": "user", "content": [part]}
        asked = {"model": "dynrefer", "messages": [message], "stream": self.rng.random() < 0.5}
        return self.client.post("/v1/chat/completions", asked).status

    def damaged_image(self):
        _, _, file = self.rng.choice(self.images)
        return self.client.upload(file[: len(file) // 2], {"boxes": [[1, 2, 3, 4]]}).status

    def box_outside(self):
        _, text, _ = self.rng.choice(self.images)
        return self.regions({"image": text, "boxes": [[9000, 9000, 9001, 9001]]})

    def broken_json(self):
        return self.client.post("/v1/regions", b'{"image": "' + b"A" * 5000).status

    def too_large(self):
        return self.client.post("/v1/regions", b" " * 2_500_000).status

    def nowhere(self):
        return self.client.get(f"/v1/{self.rng.random()}").status

    def hang_up_in_the_body(self):
        with self.client.half_a_request({"image": self.images[2][1]}):
            return None

    def hang_up_before_the_answer(self):
        size, text, _ = self.rng.choice(self.images)
        body = json.dumps({"image": text, "boxes": boxes_in(size, self.rng), **FEW})
        connection = self.client.connect()
        connection.request("POST", "/v1/regions", body, {"content-type": "application/json"})
        connection.close()

    def regions(self, document):
        return self.client.post("/v1/regions", document).status


EXPECTED = {
    "in_json": 200,
    "in_form": 200,
    "chat": 200,
    "damaged_image": 422,
    "box_outside": 422,
    "broken_json": 400,
    "too_large": 413,
    "nowhere": 404,
    "hang_up_in_the_body": None,
    "hang_up_before_the_answer": None,
}
WEIGHTS = [8, 4, 3, 1, 1, 1, 1, 1, 1, 2]


@pytest.mark.slow
def test_nothing_grows_over_thousands_of_requests(tmp_path, monkeypatch):
    psutil = pytest.importorskip("psutil", reason="needs psutil to look at the server's process")
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(tmp_path))
    images = prepared()

    def ask(client, numbers, seed):
        rng = random.Random(seed)
        asking = Asking(client, images, rng)
        for _ in numbers:
            (name,) = rng.choices(list(EXPECTED), WEIGHTS)
            status = getattr(asking, name)()
            assert status in (EXPECTED[name], 503), (name, status)

    with running("--max-body", "2400000") as (process, client):
        threading.Thread(target=process.stderr.read, daemon=True).start()  # else its log fills up
        server = psutil.Process(process.pid)

        def measured():
            client.wait_for(requests=1, queue=0, answering=0)
            handles = server.num_fds() if hasattr(server, "num_fds") else server.num_handles()
            return {
                "memory in MB": server.memory_info().rss // 2**20,
                "handles": handles,
                "threads": server.num_threads(),
                "temporary files": len(list(tmp_path.iterdir())),
            }

        table = [measured()]
        for part in range(4):
            with ThreadPoolExecutor(CLIENTS) as pool:
                jobs = [
                    pool.submit(
                        ask, client, range(REQUESTS // 4 // CLIENTS), SEED + 100 * part + one
                    )
                    for one in range(CLIENTS)
                ]
                assert [job.result() for job in jobs] == [None] * CLIENTS
            table.append(measured())
    print(json.dumps(table))
    first, last = table[1], table[-1]  # the first quarter fills the caches
    assert last["handles"] <= first["handles"] + 8
    assert last["threads"] <= first["threads"] + 8  # pools add a thread when all are busy
    assert last["temporary files"] <= first["temporary files"]
    assert last["memory in MB"] <= 1.1 * first["memory in MB"] + 50
