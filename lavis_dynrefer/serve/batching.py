"""Requests that ask the same are answered together, by the one thread that uses the model."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from torch import Tensor

from lavis_dynrefer.serve.work import Work
from lavis_dynrefer.structures import RegionPrediction

logger = logging.getLogger(__name__)

Answer = Callable[
    [Sequence[tuple[Image.Image, Tensor]], dict[str, Any]], list[list[RegionPrediction]]
]


class QueueFull(RuntimeError):
    """As many requests wait as may."""


@dataclass(frozen=True)
class Answered:
    """Answers to one request.

    Args:
        predictions: one per region, in order.
        queue_seconds: how long it waited.
        model_seconds: how long the batch it was in took.
        batch_requests: requests of that batch.
        batch_regions: regions of that batch.
    """

    predictions: list[RegionPrediction]
    queue_seconds: float
    model_seconds: float
    batch_requests: int
    batch_regions: int


@dataclass(eq=False)
class _Job:
    work: Work
    arrived: float
    future: Future[Answered] = field(default_factory=Future)

    @property
    def regions(self) -> int:
        return len(self.work.boxes)


class Batcher:
    """A queue before the model.

    The request that waited longest is next, together with all others that ask the same, as far as
    they fit. While the model works the next batch gathers by itself. Where it rests, a request
    waits for those that are known to come, and for nobody else.

    Args:
        answer: images with boxes, and questions -> predictions of each image; called by one
            thread only. Where it fails with a batch it is called with each request alone.
        wait: most seconds the first request of a batch waits for others.
        most_regions: of a batch; a larger request is answered alone.
        most_waiting: requests in the queue.
    """

    def __init__(
        self, answer: Answer, *, wait: float, most_regions: int, most_waiting: int
    ) -> None:
        self._answer = answer
        self._wait = wait
        self._most_regions = most_regions
        self._most_waiting = most_waiting
        self._waiting: list[_Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._expected = 0  # requests that are being read
        self.answering = 0  # requests of the batch the model has now
        # A daemon: an answer under way cannot be stopped, and must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self, timeout: float) -> bool:
        """Take no more, answer what waits; returns whether all is answered within the seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def __len__(self) -> int:
        """Requests that wait."""
        with self._changed:
            return sum(not job.future.cancelled() for job in self._waiting)

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """While entered, one more request is known to come."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify_all()

    def submit(self, work: Work) -> Future[Answered]:
        """Put a request into the queue; cancelling its future takes it out again.

        Raises:
            QueueFull: too many wait already, or the batcher is closed.
        """
        with self._changed:
            self._waiting = [job for job in self._waiting if not job.future.cancelled()]
            if self._closed or len(self._waiting) >= self._most_waiting:
                raise QueueFull(f"{len(self._waiting)} requests wait for the model")
            job = _Job(work, time.monotonic())
            self._waiting.append(job)
            self._changed.notify_all()
        return job.future

    def _run(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                return
            self.answering = len(batch)
            if batch:
                self._answer_batch(batch)
            self.answering = 0
            del batch  # else its images would stay until the next one

    def _next_batch(self) -> list[_Job] | None:
        """The next jobs, all asking the same; None where there are none and will be none."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if not self._waiting:
                return None
            until = self._waiting[0].arrived + self._wait
            while not self._closed and self._waiting:
                left = until - time.monotonic()
                if left <= 0 or not self._expected or self._is_full():
                    break
                self._changed.wait(left)
            batch = self._fitting()
            self._waiting = [job for job in self._waiting if job not in batch]
        return [job for job in batch if job.future.set_running_or_notify_cancel()]

    def _is_full(self) -> bool:
        first = self._waiting[0].work.asked
        alike = [job for job in self._waiting if job.work.asked == first]
        return sum(job.regions for job in alike) >= self._most_regions

    def _fitting(self) -> list[_Job]:
        batch: list[_Job] = []
        regions = 0
        for job in self._waiting:
            if batch and job.work.asked != batch[0].work.asked:
                continue
            if batch and regions + job.regions > self._most_regions:
                continue
            batch.append(job)
            regions += job.regions
        return batch

    def _answer_batch(self, batch: list[_Job]) -> None:
        started = time.monotonic()
        try:
            pairs = [(job.work.image, job.work.boxes) for job in batch]
            answers = self._answer(pairs, batch[0].work.asked.arguments())
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            logger.warning("a batch of %d requests failed (%s); one by one", len(batch), error)
            for job in batch:
                self._answer_batch([job])
            return
        took = time.monotonic() - started
        regions = sum(job.regions for job in batch)
        for job, predictions in zip(batch, answers):
            job.future.set_result(
                Answered(predictions, started - job.arrived, took, len(batch), regions)
            )
