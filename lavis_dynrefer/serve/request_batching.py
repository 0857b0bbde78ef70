"""Requests with the same questions are answered together, by the one thread that runs the model."""

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

from lavis_dynrefer.models.device_errors import device_loss, forget_frames
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.serve.request_errors import (
    INTERNAL,
    RequestError,
    error_of_exception,
)
from lavis_dynrefer.serve.service_limits import ServeSettings
from lavis_dynrefer.structures import RegionPrediction

logger = logging.getLogger(__name__)

Answer = Callable[[Sequence[dict[str, Any]], Questions], list[RegionPrediction]]


@dataclass(frozen=True)
class Answered:
    """Answers to one request.

    Args:
        predictions: one per region, in order.
        queue_seconds: time in the queue.
        model_seconds: time for its whole batch.
        batch_requests: requests in that batch.
        batch_regions: regions in that batch.
    """

    predictions: list[RegionPrediction]
    queue_seconds: float
    model_seconds: float
    batch_requests: int
    batch_regions: int


@dataclass(frozen=True, eq=False)
class CroppedRequest:
    """A request that is ready for the model.

    Args:
        questions: what to answer.
        samples: cropped views of the regions, as `RegionPredictor.crop` returns them.
        image_size: width and height of the image in pixels.
        answered: the result; cancelling it removes the request from the queue.
        arrived: when it was cropped, by `time.monotonic`.
    """

    questions: Questions
    samples: Sequence[dict[str, Any]]
    image_size: tuple[int, int]
    answered: Future[Answered] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)

    def __len__(self) -> int:
        return sum(len(sample["views"]) for sample in self.samples)


class Batcher:
    """A queue in front of the model.

    The request that has waited longest is next, together with all others that have the same
    questions, as far as they fit. While the model is busy, the next batch fills up by itself. When
    the model is idle, a request waits only for requests that are already being received.

    Args:
        answer: `RegionPredictor.answer_samples`, called by one thread only. If it fails on a
            batch, it is called again with each request alone; but not if the device is lost.
        limits: of the queue and of a batch; a request with more regions is answered alone.
    """

    def __init__(self, answer: Answer, limits: ServeSettings) -> None:
        self._answer = answer
        self._limits = limits
        self._waiting: list[CroppedRequest] = []
        self._changed = threading.Condition()
        self._closed = False
        self._expected = 0  # requests being received or read
        self.answering = 0  # requests in the batch that the model is answering
        self.failure: str | None = None  # why no request can be answered any more
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
            self._waiting = [one for one in self._waiting if not one.answered.cancelled()]
            return len(self._waiting)

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Announce one more request for as long as the context is entered.

        Raises:
            RequestError: the queue is full.
        """
        with self._changed:
            self._check_room(1)
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify_all()

    def submit(self, request: CroppedRequest) -> Future[Answered]:
        """Put a request into the queue; returns its `answered`.

        Raises:
            RequestError: the queue is full, or the batcher is closed.
        """
        with self._changed:
            self._check_room(len(request))
            self._waiting.append(request)
            self._changed.notify_all()
        return request.answered

    def _check_room(self, regions: int) -> None:
        if self.failure is not None:
            raise self._lost()
        requests, waiting = len(self), sum(map(len, self._waiting))
        full = requests >= self._limits.max_queue
        if requests and waiting + regions > self._limits.max_queue_regions:
            full = True
        if full or self._closed:
            raise RequestError(
                "overloaded",
                f"{requests} requests with {waiting:,} regions are waiting for the model; "
                "try again later",
            )

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

    def _next_batch(self) -> list[CroppedRequest] | None:
        """The next requests with equal questions; None if the batcher is closed and empty."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if not self._waiting:
                return None
            until = self._waiting[0].arrived + self._limits.batch_wait
            while not self._closed and self._waiting:
                left = until - time.monotonic()
                full = sum(map(len, self._alike())) >= self._limits.batch_regions
                if left <= 0 or not self._expected or full:
                    break
                self._changed.wait(left)
            batch = self._fitting()
            self._waiting = [one for one in self._waiting if one not in batch]
        return [one for one in batch if one.answered.set_running_or_notify_cancel()]

    def _alike(self) -> list[CroppedRequest]:
        """The requests with the same questions as the first."""
        questions = self._waiting[0].questions if self._waiting else None
        return [one for one in self._waiting if one.questions == questions]

    def _fitting(self) -> list[CroppedRequest]:
        batch: list[CroppedRequest] = []
        regions = 0
        for request in self._alike():
            if not batch or regions + len(request) <= self._limits.batch_regions:
                batch.append(request)
                regions += len(request)
        return batch

    def _answer_batch(self, batch: list[CroppedRequest]) -> None:
        started = time.monotonic()
        answers, problem = self._try(batch)
        # Not in an `except`: there the error would keep what the failed try holds on the device.
        if problem is not None and len(batch) > 1:
            for request in batch:
                self._answer_batch([request])
            return
        if problem is not None:
            for request in batch:
                request.answered.set_exception(problem)
            return
        took = time.monotonic() - started
        regions = sum(map(len, batch))
        for request in batch:
            request.answered.set_result(
                Answered(
                    list(islice(answers, len(request))),
                    started - request.arrived,
                    took,
                    len(batch),
                    regions,
                )
            )

    def _try(
        self, batch: list[CroppedRequest]
    ) -> tuple[Iterator[RegionPrediction], RequestError | None]:
        """The answers; or why there are none, without the frames of the failed try."""
        if self.failure is not None:
            return iter(()), self._lost()
        samples = [sample for request in batch for sample in request.samples]
        try:
            return iter(self._answer(samples, batch[0].questions)), None
        except Exception as error:
            shown = error_of_exception(error)
            loss = device_loss(error)
            if loss is not None:
                with self._changed:
                    self.failure = loss
                logger.critical("%s: no request can be answered", loss, exc_info=error)
                shown = self._lost()
            elif len(batch) > 1:
                logger.warning(
                    "a batch of %d requests failed (%s); retrying its requests one by one",
                    len(batch),
                    error,
                )
            elif shown is None:
                logger.error("a request failed", exc_info=error)
            forget_frames(error)
        return iter(()), shown or RequestError("internal_error", INTERNAL)

    def _lost(self) -> RequestError:
        return RequestError("unhealthy", f"{self.failure}; ask another server")
