"""Which requests are answered together, and what becomes of the others."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

pytest.importorskip("pydantic", reason="needs the extra `serve`")

import torch
from PIL import Image

from lavis_dynrefer.serve.batching import Batcher, QueueFull
from lavis_dynrefer.serve.work import Asked, Work
from lavis_dynrefer.structures import RegionPrediction

FLOWERS, BOATS = (
    Asked(
        tasks=("categories",),
        attributes=None,
        categories=(name,),
        tags=None,
        controls=(),
        views=None,
    )
    for name in ("flower", "boat")
)


def work(regions=1, asked=FLOWERS, name=0.0):
    boxes = torch.full((regions, 4), name)
    return Work(Image.new("RGB", (1, 1)), boxes, asked)


class Model:
    """Answers with the boxes it gets, when it may; refuses boxes of 13."""

    def __init__(self):
        self.may = threading.Event()
        self.busy = threading.Event()
        self.batches = []

    def __call__(self, pairs, asked):
        self.busy.set()
        assert self.may.wait(20)
        self.batches.append([len(boxes) for _, boxes in pairs])
        if any((boxes == 13).any() for _, boxes in pairs):
            raise ValueError("13 is unlucky")
        return [[RegionPrediction(tuple(row)) for row in boxes.tolist()] for _, boxes in pairs]


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def start(model):
    """A batcher whose model is busy with a first request until `model.may` is set."""
    started = []

    def start(*, wait=0.0, most_regions=8, most_waiting=99):
        batcher = Batcher(model, wait=wait, most_regions=most_regions, most_waiting=most_waiting)
        started.append(batcher)
        batcher.start()
        batcher.submit(work())
        assert model.busy.wait(20)
        return batcher

    yield start
    model.may.set()
    for batcher in started:
        batcher.close(20)


def test_what_gathers_while_the_model_works_is_answered_together(start, model):
    batcher = start()
    futures = [batcher.submit(work(name=float(name))) for name in range(3)]
    model.may.set()
    answers = [future.result(20) for future in futures]
    assert model.batches == [[1], [1, 1, 1]]
    assert [answer.predictions[0].box[0] for answer in answers] == [0, 1, 2]
    assert answers[2].batch_requests == answers[2].batch_regions == 3


def test_requests_that_ask_something_else_are_answered_apart(start, model):
    batcher = start()
    futures = [batcher.submit(work(asked=asked)) for asked in (FLOWERS, BOATS, FLOWERS)]
    model.may.set()
    assert [future.result(20).batch_requests for future in futures] == [2, 1, 2]


def test_a_batch_has_no_more_regions_than_it_may(start, model):
    batcher = start(most_regions=4)
    futures = [batcher.submit(work(regions)) for regions in (3, 2, 1, 9)]
    model.may.set()
    assert [len(future.result(20).predictions) for future in futures] == [3, 2, 1, 9]
    assert model.batches == [[1], [3, 1], [2], [9]]


def test_a_bad_request_does_not_spoil_its_batch(start, model):
    batcher = start()
    futures = [batcher.submit(work(name=name)) for name in (1.0, 13.0, 2.0)]
    model.may.set()
    assert [futures[0].result(20).batch_requests, futures[2].result(20).batch_requests] == [1, 1]
    with pytest.raises(ValueError, match="13 is unlucky"):
        futures[1].result(20)


def test_a_full_queue_refuses(start):
    batcher = start(most_waiting=2)
    batcher.submit(work())
    batcher.submit(work())
    with pytest.raises(QueueFull, match="2 requests wait"):
        batcher.submit(work())


def test_a_cancelled_request_leaves_its_place_and_is_not_answered(start, model):
    batcher = start(most_waiting=1)
    assert batcher.submit(work(regions=5)).cancel()
    assert len(batcher) == 0
    future = batcher.submit(work())
    model.may.set()
    assert future.result(20)
    assert model.batches == [[1], [1]]


def test_a_request_waits_for_those_that_come(model):
    model.may.set()
    batcher = Batcher(model, wait=600, most_regions=9, most_waiting=9)
    batcher.start()
    with batcher.expecting():
        first = batcher.submit(work())
        assert not model.busy.wait(0.2)
        second = batcher.submit(work())
    assert [first.result(20).batch_requests, second.result(20).batch_requests] == [2, 2]


def test_a_request_does_not_wait_where_nobody_comes(model):
    model.may.set()
    batcher = Batcher(model, wait=600, most_regions=9, most_waiting=9)
    batcher.start()
    assert batcher.submit(work()).result(20).batch_requests == 1


def test_a_full_batch_does_not_wait(model):
    model.may.set()
    batcher = Batcher(model, wait=600, most_regions=2, most_waiting=9)
    batcher.start()
    with batcher.expecting():
        futures = [batcher.submit(work()), batcher.submit(work())]
        assert [future.result(20).batch_requests for future in futures] == [2, 2]


def test_a_request_does_not_wait_for_ever(model):
    model.may.set()
    batcher = Batcher(model, wait=0.01, most_regions=9, most_waiting=9)
    batcher.start()
    with batcher.expecting():
        assert batcher.submit(work()).result(20).batch_requests == 1


def test_closing_answers_what_waits_and_refuses_the_rest(model):
    model.may.set()
    batcher = Batcher(model, wait=600, most_regions=2, most_waiting=9)
    future = batcher.submit(work())
    with batcher.expecting():
        batcher.start()
        assert batcher.close(20)
    assert future.result(0)
    with pytest.raises(QueueFull):
        batcher.submit(work())


def test_closing_does_not_wait_for_ever(start):
    assert not start().close(0.01)


def test_images_are_let_go_when_they_are_answered(model):
    model.may.set()
    batcher = Batcher(model, wait=0.0, most_regions=8, most_waiting=99)
    batcher.start()
    asked = work()
    image = weakref.ref(asked.image)
    batcher.submit(asked).result(20)
    del asked
    batcher.submit(work(asked=BOATS)).result(20)  # the model's thread is past the first
    gc.collect()
    assert image() is None
    assert batcher.close(20)
