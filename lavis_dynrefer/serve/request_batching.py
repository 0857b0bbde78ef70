"""Requests that ask the same are answered together, by the one thread that uses the model."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from lavis_dynrefer.questions import Questions
from lavis_dynrefer.serve.request_errors import RequestError
from lavis_dynrefer.serve.request_reading import CroppedRequest
from lavis_dynrefer.structures import RegionPrediction

logger = logging.getLogger(__name__)

Answer = Callable[[Sequence[dict[str, Any]], Questions], list[RegionPrediction]]


@dataclass(frozen=True)
class Answered:
    """Answers to one request.

    Args:
        predictions: one per region, in order.
        queue_seconds: how long it waited.
        model_seconds: how long its batch took.
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
    request: CroppedRequest
    arrived: float
    future: Future[Answered] = field(default_factory=Future)


class Batcher:
    """A queue in front of the model.

    The request that has waited longest is next, together with all others that ask the same, as far
    as they fit. While the model is busy, the next batch fills up by itself. When the model is idle,
    a request waits only for requests that are already being received.

    Args:
        answer: `RegionPredictor.answer_samples`, called by one thread only. If it fails on a
            batch, it is called again with each request alone.
        wait: most seconds that the first request of a batch waits for others.
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
        self._expected = 0  # requests being received or read
        self.answering = 0  # requests of the batch that the model has now
        # A daemon: the model cannot be interrupted, and must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self, timeout: float) -> bool:
        """Take no more requests; True if those waiting are answered within `timeout` seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def __len__(self) -> int:
        """Requests in the queue."""
        with self._changed:
            return sum(not job.future.cancelled() for job in self._waiting)

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Announce one more request for as long as the context is entered."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify_all()

    def submit(self, request: CroppedRequest) -> Future[Answered]:
        """Put a request into the queue; cancelling its future removes it.

        Raises:
            RequestError: too many are waiting, or the batcher is closed.
        """
        with self._changed:
            self._waiting = [job for job in self._waiting if not job.future.cancelled()]
            if self._closed or len(self._waiting) >= self._most_waiting:
                raise RequestError(
                    "overloaded",
                    f"{len(self._waiting)} requests are waiting for the model; try again later",
                )
            job = _Job(request, time.monotonic())
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
            del batch  # else its views would stay in memory until the next one

    def _next_batch(self) -> list[_Job] | None:
        """The next jobs, all asking the same; None if the batcher is closed and empty."""
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
        return sum(len(job.request) for job in self._alike()) >= self._most_regions

    def _alike(self) -> list[_Job]:
        """The jobs that ask the same as the first."""
        questions = self._waiting[0].request.questions if self._waiting else None
        return [job for job in self._waiting if job.request.questions == questions]

    def _fitting(self) -> list[_Job]:
        batch: list[_Job] = []
        regions = 0
        for job in self._alike():
            if not batch or regions + len(job.request) <= self._most_regions:
                batch.append(job)
                regions += len(job.request)
        return batch

    def _answer_batch(self, batch: list[_Job]) -> None:
        started = time.monotonic()
        samples = [sample for job in batch for sample in job.request.samples]
        try:
            answers = iter(self._answer(samples, batch[0].request.questions))
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            logger.warning("a batch of %d requests failed (%s); one by one", len(batch), error)
            for job in batch:
                self._answer_batch([job])
            return
        took = time.monotonic() - started
        regions = sum(len(job.request) for job in batch)
        for job in batch:
            predictions = list(islice(answers, len(job.request)))
            job.future.set_result(
                Answered(predictions, started - job.arrived, took, len(batch), regions)
            )
