"""Too little memory: parts are halved, and nothing of a failed try is kept; lost devices."""

from __future__ import annotations

import gc
import logging
import weakref

import numpy as np
import pytest
import torch

from lavis_dynrefer import RegionPredictor
from lavis_dynrefer.errors import TooLittleMemoryError
from lavis_dynrefer.models.answering import Answerer
from lavis_dynrefer.models.device_errors import (
    RETRY_AFTER,
    FittingSize,
    in_parts,
    is_device_failure,
    is_out_of_memory,
)
from lavis_dynrefer.synthetic import make_scene, render

OutOfMemory = torch.cuda.OutOfMemoryError


def too_large():
    """The CPU's own error."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**46)
    return caught.value


def too_large_for_numpy():
    with pytest.raises(MemoryError) as caught:
        np.empty(2**50)
    return caught.value


def wrapped(error):
    try:
        raise ValueError("image 3") from error
    except ValueError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "memory", "lost"),
    [
        (OutOfMemory("CUDA out of memory. Tried to allocate 2.00 GiB."), True, False),
        (RuntimeError("CUDA error: out of memory"), True, False),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
            True,
            False,
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), True, False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"), True, False),
        (too_large(), True, False),
        (too_large_for_numpy(), True, False),
        (TooLittleMemoryError("a single region"), True, False),
        (wrapped(MemoryError()), True, False),
        (RuntimeError("CUDA error: device-side assert triggered"), False, True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False, True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling"), False, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), False, True),
        (RuntimeError("CUDA error: device not ready"), False, True),
        (RuntimeError("HIP error: the operation cannot be performed"), False, True),
        (wrapped(RuntimeError("CUDA error: unspecified launch failure")), False, True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
        (ValueError("a file called CUDA error.png is out of memory"), False, False),
        (OSError("cannot read image"), False, False),
    ],
)
def test_kinds_of_errors(error, memory, lost):
    assert (is_out_of_memory(error), is_device_failure(error)) == (memory, lost)


def test_parts_are_halved_until_they_fit(caplog):
    tried = []

    def work(rows):
        tried.append(rows.stop - rows.start)
        if tried[-1] > 3:
            raise OutOfMemory("CUDA out of memory")
        return list(range(rows.start, rows.stop))

    with caplog.at_level(logging.WARNING):
        assert in_parts(work, 11, 8) == (list(range(11)), 2)

    assert tried == [8, 4, *[2] * 5, 1]
    assert caplog.messages == [
        "out of memory with 8 regions at once; going on with 4, as chunk=4 would",
        "out of memory with 4 regions at once; going on with 2, as chunk=2 would",
    ]


def test_other_errors_are_not_tried_again():
    tried = []

    def work(rows):
        tried.append(rows)
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        in_parts(work, 4, 4)
    assert len(tried) == 1


def test_a_failed_try_leaves_no_tensor_behind():
    """Although someone keeps the errors, as futures and logs do, and something is in a circle."""
    alive, found, errors = [], [], []

    def allocate(count):
        tensor = torch.zeros(count)
        alive.append(weakref.ref(tensor))
        return tensor

    def chunks(count):
        held = allocate(count)
        yield held
        yield held

    def look_up(tensor):
        raise KeyError(tensor.shape)

    def fail(count):
        circle = [allocate(count)]
        circle.append(circle)
        try:
            look_up(allocate(count))
        except KeyError as error:
            errors.extend([OutOfMemory("CUDA out of memory"), error.__traceback__])
            raise errors[-2] from None

    def work(rows):
        found.append(sum(tensor() is not None for tensor in alive))
        count = rows.stop - rows.start
        for _ in chunks(count):
            if count > 1:
                fail(count)
        return [count]

    gc.collect()
    assert in_parts(work, 4, 4) == ([1] * 4, 1)
    assert found == [0] * 6


def test_a_number_of_rows_that_fits_is_remembered_and_in_time_doubled():
    memory, tried = 3, []

    def work(rows):
        tried.append(rows.stop - rows.start)
        if tried[-1] > memory:
            raise MemoryError
        return list(range(rows.start, rows.stop))

    fitting = FittingSize()
    assert fitting.in_parts(work, 4, 4, str) == [0, 1, 2, 3]
    assert tried == [4, 2, 2]
    for _ in range(RETRY_AFTER):
        fitting.in_parts(work, 2, 4, str)
    assert set(tried[3:]) == {2}
    memory = 8
    assert fitting.in_parts(work, 5, 8, str) == [0, 1, 2, 3, 4]
    assert tried[-2:] == [4, 1]
    assert FittingSize().in_parts(work, 8, 8, str) == list(range(8))


class Limit:
    """Makes a model run out of memory from some number of regions, as a small GPU would."""

    def __init__(self, model, regions):
        self.regions, self.tried, self.alive, self.kept = regions, [], [], []
        self._handles = [
            model.backbone.vit.blocks[0].register_forward_hook(self.remember),
            model.qformer.register_forward_pre_hook(self.check),
        ]

    def remember(self, _module, _given, output):
        self.kept.append(sum(tensor() is not None for tensor in self.alive))
        self.alive.append(weakref.ref(output))

    def check(self, _module, given):
        self.tried.append(len(given[0]))
        if len(given[0]) > self.regions:
            raise OutOfMemory("CUDA out of memory. Tried to allocate 20.00 MiB")

    def lift(self):
        for handle in self._handles:
            handle.remove()


@pytest.fixture(scope="module")
def scene():
    made = make_scene(0, 2_000_001)
    return render(made), [item.box for item in made.objects][:7]


@pytest.fixture(scope="module")
def loaded():
    return RegionPredictor("tiny", device="cpu")


@pytest.fixture
def predictor(loaded):
    loaded.answerer = Answerer(loaded.model, loaded.formats)  # remembers nothing
    return loaded


@pytest.fixture
def small(predictor):
    """A predictor whose memory suffices for three regions, and its limit."""
    limit = Limit(predictor.model, 3)
    yield predictor, limit
    limit.lift()


def check_same(found, expected):
    assert [one.caption for one in found] == [one.caption for one in expected]
    assert [one.box for one in found] == [one.box for one in expected]
    for one, other in zip(found, expected):
        assert dict(one.attributes) == pytest.approx(dict(other.attributes), abs=1e-5)


def test_answers_in_parts_are_those_of_the_whole(small, scene):
    predictor, limit = small
    found = predictor.predict(*scene)
    first = list(limit.tried)
    again = predictor.predict_batch([scene])

    encoded = predictor.encode(*scene)
    decoded = predictor.answer(encoded)
    limit.lift()
    expected = predictor.predict(*scene)

    assert len(scene[1]) == 7
    assert first == [7, 4, 2, 2, 2, 1]  # regions of each try
    assert max(limit.tried[len(first) :]) == 2  # the smaller chunk is kept
    assert limit.kept[:2] == [0, 0]  # nothing of the tries that failed
    for answers in (found, *again, decoded):
        check_same(answers, expected)


def test_encoded_regions_are_decoded_in_parts_too(small, scene):
    predictor, limit = small
    limit.regions = 7
    encoded = predictor.encode(*scene)
    expected = predictor.answer(encoded, tasks=["attributes"])
    limit.regions = 3

    check_same(predictor.answer(encoded, tasks=["attributes"]), expected)
    assert limit.tried == [7, 7, 4, 2, 2, 2, 1]


def test_laviss_predict_halves_its_chunk(smallest_model, region_batch):
    expected = smallest_model.predict(region_batch)
    limit = Limit(smallest_model, 2)

    found = smallest_model.predict(region_batch, chunk=5)

    assert limit.tried == [5, 3, 2, 2, 1]
    smallest_model.predict(region_batch, chunk=1, tasks=["attributes"])
    smallest_model.predict(region_batch, tasks=["attributes"])
    assert limit.tried[5:] == [1] * 5 + [2, 2, 1]  # what fits is remembered
    assert [one.caption for one in found] == [one.caption for one in expected]


def test_a_region_that_does_not_fit_alone_is_named(small, scene):
    predictor, limit = small
    limit.regions = 0

    with pytest.raises(
        TooLittleMemoryError,
        match=r"out of memory with a single region \(box \[.*\] of the image, 2 views of 64 x 64 "
        r"pixels\): free memory.*dtype.*\(CUDA out of memory",
    ):
        predictor.predict(*scene)
    tries = len(limit.tried)
    limit.lift()
    predictor.predict(*scene)
    assert limit.tried[tries:] == []
