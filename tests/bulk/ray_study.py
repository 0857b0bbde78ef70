"""Measures jobs on Ray: a node that is killed, one and two workers, more images than the store.

python tests/bulk/ray_study.py killed --rows 20000
python tests/bulk/ray_study.py workers --rows 2000
python tests/bulk/ray_study.py store --megabytes 500

Needs the extra `ray`. `test_ray_jobs.py` runs the same at a small size.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lavis_dynrefer import Questions
from lavis_dynrefer.bulk import BulkPredictor, read_regions
from lavis_dynrefer.bulk.part_answerer import PartAnswerer
from lavis_dynrefer.bulk.ray_job import Workers, connected, run_parts
from lavis_dynrefer.bulk.work_parts import find_parts

QUESTIONS = Questions(tasks=["categories"], categories=["circle", "square", "triangle"])
STORE = 100 << 20  # bytes
BOXES = pa.list_(pa.list_(pa.float64()))


def noise(seed, side=48, kind="PNG"):
    """Bytes of an image file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write_rows(path, count, distinct):
    """Rows with ids 0, 1, ...; row i has image and box number i % distinct."""
    images = [noise(seed) for seed in range(distinct)]
    boxes = [[[2, 3, 20 + seed % 25, 24 + seed % 19]] for seed in range(distinct)]
    table = {
        "id": list(range(count)),
        "image": [images[row % distinct] for row in range(count)],
        "boxes": pa.array([boxes[row % distinct] for row in range(count)], BOXES),
    }
    pq.write_table(pa.table(table), path, row_group_size=1000)
    return images, boxes


def answer_while_a_node_dies(folder, *, rows, distinct, rows_per_part, kill_after):
    """Answer on a cluster of four nodes, and kill one that works after some parts.

    Returns the numbers of the run; raises AssertionError where an answer is lost or differs.
    """
    import ray
    from ray.cluster_utils import Cluster

    source, answers = folder / "rows.parquet", folder / "answers"
    answers.mkdir()
    images, boxes = write_rows(source, rows, distinct)
    parts = find_parts([source], rows_per_part)
    answerer = PartAnswerer(BulkPredictor(QUESTIONS, device="cpu"), str(answers))
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": STORE},
    )
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(3)]
    start, done, killed = time.monotonic(), [], None
    try:
        for result in run_parts(parts, answerer, Workers(2, address=cluster.address)):
            done.append(result["number"])
            if len(done) == kill_after:
                busy = {
                    actor["Address"]["NodeID"]
                    for actor in ray._private.state.actors().values()
                    if actor["State"] == "ALIVE"
                }
                killed = next(node for node in nodes if node.node_id in busy)
                cluster.remove_node(killed, allow_graceful=False)
    finally:
        cluster.shutdown()
    seconds = time.monotonic() - start
    assert killed is not None
    assert sorted(done) == list(range(len(parts)))
    check_answers(answers, rows, images, boxes)
    return {"rows": rows, "parts": len(parts), "killed after parts": kill_after, "seconds": seconds}


def check_answers(answers, rows, images, boxes):
    """Every row once, in order, with exactly the answer of one process."""
    table = pq.read_table(answers)
    assert table.column("id").to_pylist() == list(range(rows))
    assert table.column("error").null_count == rows
    predictor = BulkPredictor(QUESTIONS, device="cpu").predictor()
    expected = [
        predictor.predict(Image.open(io.BytesIO(image)), box, questions=QUESTIONS)
        for image, box in zip(images, boxes)
    ]
    for row, regions in enumerate(table.column("regions")):
        assert read_regions(regions.as_py()) == expected[row % len(images)], row


def compare_workers(folder, *, rows):
    """Rows per second with one and with two workers.

    The first quarter of the parts is not counted: in that time the last worker loads its model.
    "at once" is how many parts were worked on at a time, which tells whether all workers had work.
    """
    source = folder / "rows.parquet"
    write_rows(source, rows, rows)
    parts = find_parts([source], max(rows // 40, 1))
    numbers = {}
    for count in (1, 2):
        answers = folder / f"answers-{count}"
        answers.mkdir()
        answerer = PartAnswerer(BulkPredictor(QUESTIONS, device="cpu"), str(answers))
        start, counted, worked = 0.0, 0, 0.0
        for done, result in enumerate(run_parts(parts, answerer, Workers(count)), 1):
            counted += result["rows"]
            worked += result["seconds"]
            if done == len(parts) // 4:
                start, counted, worked = time.monotonic(), 0, 0.0
        seconds = time.monotonic() - start
        numbers[count] = {"rows per second": counted / seconds, "at once": worked / seconds}
        print(count, numbers[count], flush=True)
    rates = [numbers[count]["rows per second"] for count in (1, 2)]
    return {**numbers, "ratio": rates[1] / rates[0]}


def answer_more_than_the_store(folder, *, megabytes):
    """Peaks while images are answered that the object store cannot hold, by way of the answers."""
    source = folder / "rows"
    write_large_rows(source, megabytes)
    ways = {
        "predict-many": _by_parts,
        "Ray Data": _by_pipeline,
        "Ray Data, limited": lambda *folders: _by_pipeline(*folders, limited=True),
    }
    numbers = {}
    for name, way in ways.items():
        answers = folder / name
        answers.mkdir()
        with _Watch() as watch:
            way(source, answers)
        numbers[name] = watch.peaks
        print(name, watch.peaks, flush=True)
        table = pq.read_table(answers)
        assert sorted(table.column("id").to_pylist()) == list(range(megabytes))
        assert table.column("error").null_count == megabytes
    return {"store": STORE >> 20, **numbers}


def write_large_rows(folder, megabytes):
    """Files of ten rows; each has an image of 1 MB."""
    folder.mkdir()
    for start in range(0, megabytes, 10):
        seeds = range(start, min(start + 10, megabytes))
        table = {
            "id": list(seeds),
            "image": [noise(seed, 590, "BMP") for seed in seeds],
            "boxes": pa.array([[[5, 5, 200, 300]]] * len(seeds), BOXES),
        }
        pq.write_table(pa.table(table), folder / f"{start:06}.parquet")


def _by_parts(source, answers):
    parts = find_parts(sorted(source.iterdir()), 10)
    answerer = PartAnswerer(BulkPredictor(QUESTIONS, device="cpu"), str(answers), batch_size=10)
    assert len(list(run_parts(parts, answerer, Workers(1)))) == len(parts)


def _by_pipeline(source, answers, *, limited=False):
    with connected(Workers(1), store=STORE, cpus=2):
        import ray

        context = ray.data.DataContext.get_current()
        if limited:
            context.target_max_block_size = 4 << 20
            context.execution_options.resource_limits = ray.data.ExecutionResources.for_limits(
                object_store_memory=STORE // 2
            )
        # Few tasks: on a busy machine Ray else starts many processes before the first is there.
        rows = ray.data.read_parquet(
            str(source), override_num_blocks=len(list(source.iterdir())), concurrency=1
        )
        rows.map_batches(
            BulkPredictor,
            fn_constructor_kwargs={"questions": QUESTIONS, "device": "cpu"},
            batch_format="pyarrow",
            batch_size=10,
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=1,
        ).write_parquet(str(answers))


class _Watch:
    """Peaks of the object store, of spilled files and of processes, seen four times a second."""

    def __init__(self):
        self.peaks = {"store": 0, "spilled": 0, "worker": 0, "driver": 0}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join()
        self.peaks = {f"peak MB, {name}": size >> 20 for name, size in self.peaks.items()}

    def _look(self):
        import psutil

        own = psutil.Process()
        while not self._ended.wait(0.25):
            self._see("driver", own.memory_info().rss)
            for child in own.children(recursive=True):
                try:
                    if child.name() == "raylet":
                        self._see_store(child)
                    elif child.name().startswith("ray::"):
                        self._see("worker", child.memory_info().rss)
                except (OSError, psutil.Error):
                    continue  # it has ended

    def _see_store(self, raylet):
        """Pages of the store that were ever in use, and the size of what was moved to disk."""
        for path in Path(f"/proc/{raylet.pid}/fd").iterdir():
            if "plasma" in os.readlink(path):
                self._see("store", path.stat().st_blocks * 512)
        words = raylet.cmdline()
        (session,) = (word.partition("=")[2] for word in words if word.startswith("--session_dir="))
        spilled = Path(session).glob("ray_spilled_objects*/*")
        self._see("spilled", sum(path.stat().st_size for path in spilled))

    def _see(self, name, size):
        self.peaks[name] = max(self.peaks[name], size)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=("killed", "workers", "store"))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--distinct", type=int, default=2500)
    parser.add_argument("--megabytes", type=int, default=500)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.study == "killed":
            print(
                answer_while_a_node_dies(
                    folder,
                    rows=given.rows,
                    distinct=min(given.distinct, given.rows),
                    rows_per_part=max(given.rows // 80, 1),
                    kill_after=30,
                )
            )
        elif given.study == "workers":
            print(compare_workers(folder, rows=given.rows))
        else:
            print(answer_more_than_the_store(folder, megabytes=given.megabytes))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
