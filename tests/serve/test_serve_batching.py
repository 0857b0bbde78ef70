"""Batches of requests, and the queue in front of the model."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

pytest.importorskip("pydantic", reason="needs the extra `serve`")

import torch

from lavis_dynrefer.questions import Questions
from lavis_dynrefer.serve import ServeSettings
from lavis_dynrefer.serve.request_batching import Batcher, CroppedRequest
from lavis_dynrefer.serve.request_errors import RequestError
from lavis_dynrefer.structures import RegionPrediction

FLOWERS, BOATS = (Questions(tasks=["categories"], categories=[name]) for name in ("flower", "boat"))


def request(regions=1, questions=FLOWERS, name=0.0):
    """A request whose views are just numbers."""
    return CroppedRequest(questions, [{"views": torch.full((regions,), name)}], (1, 1))


class Model:
    """Answers with the views it gets, once it may; refuses views of 13."""

    def __init__(self):
        self.may = threading.Event()
        self.busy = threading.Event()
        self.batches = []

    def __call__(self, samples, questions):
        self.busy.set()
        assert self.may.wait(20)
        self.batches.append([len(sample["views"]) for sample in samples])
        views = torch.cat([sample["views"] for sample in samples]).tolist()
        if 13 in views:
            raise ValueError("13 is unlucky")
        return [RegionPrediction((value, 0, 1, 1)) for value in views]


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def batcher_of(model):
    """Makes a started batcher."""
    made = []

    def make(*, wait=600, batch_regions=8, **limits):
        settings = ServeSettings(batch_wait=wait, batch_regions=batch_regions, **limits)
        batcher = Batcher(model, settings)
        made.append(batcher)
        batcher.start()
        return batcher

    yield make
    model.may.set()
    for batcher in made:
        batcher.close(20)


@pytest.fixture
def busy_batcher(model, batcher_of):
    """Makes a batcher whose model is busy with a first request until `model.may` is set."""

    def make(**options):
        batcher = batcher_of(wait=0.0, **options)
        batcher.submit(request())
        assert model.busy.wait(20)
        return batcher

    return make


def test_requests_that_arrive_while_the_model_is_busy_are_answered_together(busy_batcher, model):
    batcher = busy_batcher()
    futures = [batcher.submit(request(name=float(name))) for name in range(3)]
    model.may.set()
    answers = [future.result(20) for future in futures]
    assert model.batches == [[1], [1, 1, 1]]
    assert [answer.predictions[0].box[0] for answer in answers] == [0, 1, 2]
    assert answers[2].batch_requests == answers[2].batch_regions == 3


def test_other_questions_are_answered_in_another_batch(busy_batcher, model):
    batcher = busy_batcher()
    futures = [batcher.submit(request(questions=asked)) for asked in (FLOWERS, BOATS, FLOWERS)]
    model.may.set()
    assert [future.result(20).batch_requests for future in futures] == [2, 1, 2]


def test_batches_are_bounded_by_regions(busy_batcher, model):
    batcher = busy_batcher(batch_regions=4)
    futures = [batcher.submit(request(regions)) for regions in (3, 2, 1, 9)]
    model.may.set()
    assert [len(future.result(20).predictions) for future in futures] == [3, 2, 1, 9]
    assert model.batches == [[1], [3, 1], [2], [9]]


def test_requests_of_a_failed_batch_are_retried_one_by_one(busy_batcher, model, caplog):
    batcher = busy_batcher()
    futures = [batcher.submit(request(name=name)) for name in (1.0, 13.0, 2.0)]
    model.may.set()
    assert [futures[0].result(20).batch_requests, futures[2].result(20).batch_requests] == [1, 1]
    with pytest.raises(RequestError, match="internal error"):
        futures[1].result(20)
    assert "13 is unlucky" in caplog.text


def test_full_queue_refuses(busy_batcher):
    batcher = busy_batcher(max_queue=2)
    batcher.submit(request())
    batcher.submit(request())
    with pytest.raises(RequestError, match="2 requests with 2 regions are waiting"):
        batcher.submit(request())
    with pytest.raises(RequestError, match="2 requests"), batcher.expecting():
        pass


@pytest.mark.parametrize("waiting", [[11], [6, 4]], ids=["one large request", "two"])
def test_queue_is_bounded_by_regions_but_takes_one_request_of_any_size(busy_batcher, waiting):
    batcher = busy_batcher(max_queue_regions=10)
    for regions in waiting:
        batcher.submit(request(regions))
    with pytest.raises(RequestError, match=f"{sum(waiting)} regions are waiting"):
        batcher.submit(request())
    assert len(batcher) == len(waiting)


def test_cancelled_request_leaves_the_queue_and_is_not_answered(busy_batcher, model):
    batcher = busy_batcher(max_queue=1)
    assert batcher.submit(request(regions=5)).cancel()
    assert len(batcher) == 0
    future = batcher.submit(request())
    model.may.set()
    assert future.result(20)
    assert model.batches == [[1], [1]]


def test_request_waits_for_those_being_received(batcher_of, model):
    model.may.set()
    batcher = batcher_of()
    with batcher.expecting():
        first = batcher.submit(request())
        assert not model.busy.wait(0.2)
        second = batcher.submit(request())
    assert [first.result(20).batch_requests, second.result(20).batch_requests] == [2, 2]


def test_lone_request_does_not_wait(batcher_of, model):
    model.may.set()
    assert batcher_of().submit(request()).result(20).batch_requests == 1


def test_full_batch_does_not_wait(batcher_of, model):
    model.may.set()
    batcher = batcher_of(batch_regions=2)
    with batcher.expecting():
        futures = [batcher.submit(request()), batcher.submit(request())]
        assert [future.result(20).batch_requests for future in futures] == [2, 2]


def test_wait_for_other_requests_is_bounded(batcher_of, model):
    model.may.set()
    batcher = batcher_of(wait=0.01)
    with batcher.expecting():
        assert batcher.submit(request()).result(20).batch_requests == 1


def test_closed_batcher_answers_what_waits_and_refuses_the_rest(batcher_of, model):
    model.may.set()
    batcher = batcher_of()
    with batcher.expecting():
        future = batcher.submit(request())
        assert batcher.close(20)
    assert future.result(0)
    with pytest.raises(RequestError):
        batcher.submit(request())


def test_close_gives_up_after_its_timeout(busy_batcher):
    assert not busy_batcher().close(0.01)


def test_views_are_freed_once_they_are_answered(batcher_of, model):
    model.may.set()
    batcher = batcher_of(wait=0.0)
    asked = request()
    views = weakref.ref(asked.samples[0]["views"])
    batcher.submit(asked).result(20)
    del asked
    batcher.submit(request(questions=BOATS)).result(20)  # the model's thread is past the first
    gc.collect()
    assert views() is None
