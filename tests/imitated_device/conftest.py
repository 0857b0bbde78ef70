"""The imitated device in the place of a GPU."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from imitated_cuda import CUDA, ImitatedCuda, problem


class ImitatedGpu:
    """As `RealGpu` of tests/gpu."""

    device = CUDA
    many = 12
    workers = 0

    def __init__(self, machine):
        self.machine = machine

    @contextmanager
    def counted(self):
        self.machine.waits.clear()
        waits = []
        try:
            yield waits
        finally:
            waits += [wait.place for wait in self.machine.waits]

    @contextmanager
    def short_of_memory(self, work):
        self.machine.largest = 0
        work()
        self.machine.limit = 2 * self.machine.largest
        try:
            yield
        finally:
            self.machine.limit = None


@pytest.fixture(scope="module")
def gpu():
    """Computes in any number format, but has no backward."""
    with entered(ImitatedCuda()) as machine:
        yield ImitatedGpu(machine)


@pytest.fixture(scope="module")
def training_gpu():
    """Has a backward, but computes in float32 whatever the autocast."""
    with entered(ImitatedCuda(backward=True)) as machine:
        yield ImitatedGpu(machine)


@contextmanager
def entered(machine):
    if problem():
        pytest.skip(problem())
    with machine:
        yield machine
