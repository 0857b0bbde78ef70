"""Devices that fail: too little memory, and devices that are lost."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra `serve`")

import torch

from lavis_dynrefer.models.answering import Answerer

BOX = [[1, 2, 3, 4]]
FEW = {"tasks": ["categories"], "categories": ["flower", "tree"]}
LOST = "CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA"


class Failing(torch.nn.Module):
    """Fails in front of the text decoders, after it has made a tensor; remembers the tensors."""

    def __init__(self, fails):
        super().__init__()
        self.fails = fails  # gets the number of regions; returns an error, or None
        self.sizes = []
        self.alive = []
        self.before = []  # tensors of earlier calls that were alive when a call began

    def forward(self, queries):
        self.before.append(sum(one() is not None for one in self.alive))
        made = queries * 2
        self.sizes.append(len(queries))
        self.alive.append(weakref.ref(made))
        error = self.fails(len(queries))
        if error is not None:
            raise error
        return made


@pytest.fixture
def failing(predictor):
    """Puts a `Failing` into the model while its context is entered."""

    @contextmanager
    def put(fails):
        module = Failing(fails)

        def before(decoder, texts_and_queries):
            module(texts_and_queries[1])

        hook = predictor.model.contrast.decoder.register_forward_pre_hook(before)
        try:
            yield module
        finally:
            hook.remove()
            predictor.answerer = Answerer(predictor.model, predictor.formats)  # remembers nothing

    return put


def out_of_memory_beyond(limit):
    def fails(regions):
        return torch.cuda.OutOfMemoryError("CUDA out of memory.") if regions > limit else None

    return fails


def test_batch_that_does_not_fit_is_answered_in_parts(serving, failing, small_image, predictor):
    expected = predictor.predict(small_image, BOX * 4, **FEW)
    with serving() as client, failing(out_of_memory_beyond(1)) as module:
        rows = client.regions(small_image, BOX * 4, **FEW).json["regions"]
        assert client.get("/health").status == 200
    assert len(rows) == 4
    assert [row["categories"][0][0] for row in rows] == [one.categories[0][0] for one in expected]
    assert max(module.before) == 0


def test_request_that_never_fits_is_refused_and_its_tensors_are_gone(serving, failing, small_image):
    with serving() as client, failing(out_of_memory_beyond(0)) as module:
        replies = [client.regions(small_image, BOX, **FEW) for _ in range(3)]
        health = client.get("/health")
    assert {(reply.status, reply.error) for reply in replies} == {(503, "out_of_memory")}
    assert all("retry-after" in reply.headers for reply in replies)
    assert health.status == 200
    assert module.before == [0, 0, 0]


def test_failed_request_leaves_nothing_in_memory(serving, failing, small_image):
    with serving() as client, failing(lambda regions: ZeroDivisionError()) as module:
        gc.collect()
        gc.disable()
        try:
            replies = [client.regions(small_image, BOX, **FEW) for _ in range(3)]
        finally:
            gc.enable()
    assert {reply.error for reply in replies} == {"internal_error"}
    assert module.before == [0, 0, 0]


def test_lost_device_makes_the_service_unhealthy(serving, failing, small_image, predictor, caplog):
    errors = [RuntimeError(LOST)]
    with (
        serving(batch_wait=0.0) as client,
        failing(lambda regions: errors.pop() if errors else None) as module,
        ThreadPoolExecutor(3) as pool,
    ):
        with predictor.using_model():  # the server's model waits
            running = [pool.submit(client.regions, small_image, BOX, **FEW)]
            client.wait_for(answering=1)
            other = {"tasks": ["categories"], "categories": ["boat"]}
            running += [pool.submit(client.regions, small_image, BOX, **other) for _ in range(2)]
            client.wait_for(queue=2)
        replies = [one.result() for one in running]
        replies.append(client.regions(small_image, BOX, **FEW))
        health = client.get("/health")
    assert {(reply.status, reply.error) for reply in replies} == {(503, "unhealthy")}
    assert all("device-side assert triggered" in reply.message for reply in replies)
    assert (health.status, health.json["status"]) == (503, "unhealthy")
    assert "device-side assert" in health.json["reason"]
    assert module.sizes == [1]  # the device was asked once
    assert caplog.text.count("Traceback") == 1


def test_batch_of_a_lost_device_is_not_retried(serving, failing, small_image, predictor):
    other = {"tasks": ["categories"], "categories": ["boat"]}
    with (
        serving(batch_wait=0.0) as client,
        failing(lambda regions: RuntimeError(LOST) if regions == 2 else None) as module,
        ThreadPoolExecutor(3) as pool,
    ):
        with predictor.using_model():  # the server's model waits
            first = pool.submit(client.regions, small_image, BOX, **FEW)
            client.wait_for(answering=1)
            both = [pool.submit(client.regions, small_image, BOX, **other) for _ in range(2)]
            client.wait_for(queue=2)
        assert first.result().status == 200
        assert {reply.result().error for reply in both} == {"unhealthy"}
    assert module.sizes == [1, 2]


def test_refused_request_leaves_no_image_in_memory(serving, scene):
    def images():
        return sum(isinstance(one, Image.Image) for one in gc.get_objects())

    with serving() as client:
        client.regions(scene[0], BOX, **FEW)
        gc.collect()
        gc.disable()
        try:
            before = images()
            replies = [client.regions(scene[0], [[900, 900, 901, 901]]) for _ in range(3)]
            assert images() == before
        finally:
            gc.enable()
    assert {reply.status for reply in replies} == {422}
