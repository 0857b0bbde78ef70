"""CUDA graphs of a device that is not there: the same operators again, on the very same tensors."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import _disable_current_modes


class Graph:
    """As `torch.cuda.CUDAGraph`.

    Args:
        compute: runs an operator (func, name, args, kwargs) on the CPU.
    """

    def __init__(self, compute):
        self.compute = compute
        self.operators = []  # func, name, args, kwargs, result

    def replay(self):
        with _disable_current_modes():
            for func, name, args, kwargs, result in self.operators:
                if not getattr(func, "is_view", False):
                    again = self.compute(func, name, args, kwargs)
                    for old, new in zip(_tensors(result), _tensors(again)):
                        if old.data_ptr() != new.data_ptr():
                            old.copy_(new)


class Recording:
    """As `torch.cuda.graph`, except that what is recorded is computed, too.

    Args:
        machine: an `ImitatedCuda`.
        graph: a `Graph`.
    """

    def __init__(self, machine, graph):
        self.machine, self.graph = machine, graph

    def __enter__(self):
        self.machine.recording = self.graph.operators

    def __exit__(self, *error):
        self.machine.recording = None


def _tensors(values):
    values = values if isinstance(values, (list, tuple)) else [values]
    return [value for value in values if isinstance(value, torch.Tensor)]
