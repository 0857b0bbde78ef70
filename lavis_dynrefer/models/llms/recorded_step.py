"""A step that is repeated on the same tensors, recorded once and played again.

On a GPU a step of a language model is hundreds of small kernels, and starting them one by one takes
longer than they do. As a CUDA graph they start together.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from lavis_dynrefer.models.device_errors import is_out_of_memory

logger = logging.getLogger(__name__)

Step = Callable[[], Tensor]
# What plays a step, and the tensor with the step's result that playing writes.
Capture = Callable[[Step], tuple[Callable[[], None], Tensor]]

# Largest difference of a result from the plain step's, as a share of the largest result. The
# kernels are the same, so that nothing but another order of sums can differ.
ALLOWED = 0.02
_WARM_UP = 2  # plain steps before the recording set up what kernels need
FEWEST = 4  # steps of a sequence that is worth a recording, which takes some itself


def capture_graph(step: Step) -> tuple[Callable[[], None], Tensor]:
    """Record a step as a CUDA graph of the current device; see `Capture`.

    Raises:
        RuntimeError: the step does what a graph cannot hold.
    """
    graph, stream, outside = torch.cuda.CUDAGraph(), _stream_of(), torch.cuda.current_stream()
    stream.wait_stream(outside)
    try:
        # Entered here, too: torch leaves a recording that fails on its stream.
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                step()
            # Other threads may go on using the GPU meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                result = step()
    finally:
        outside.wait_stream(stream)
    return graph.replay, result


def _stream_of() -> torch.cuda.Stream:
    """The stream on which the current device records."""
    return _recording_stream(torch.cuda.current_device())


@cache
def _recording_stream(device: int) -> torch.cuda.Stream:
    # One for all recordings: cuBLAS keeps memory of its own for each stream. Torch's default is on
    # the device that recorded first.
    return torch.cuda.Stream(device)


class RecordedStep:
    """A step, recorded where that works and gives the same.

    Args:
        step: reads and writes the same tensors at each call; reads no values of a GPU and returns
            the same tensor each time.
        capture: records it; None leaves it as it is.
    """

    def __init__(self, step: Step, capture: Capture | None) -> None:
        self._step, self._capture = step, capture
        self._play: Callable[[], None] | None = None

    @property
    def failed(self) -> bool:
        """Whether recording was tried, and the plain step is used nevertheless."""
        return self._capture is None and self._play is None

    def prepare(self, begin: Callable[[], None]) -> None:
        """Set the tensors to the start, and record the step if it is not recorded yet.

        Args:
            begin: sets the tensors that the step reads.

        Raises:
            RuntimeError: too little memory, as the step itself.
        """
        begin()
        if self._capture is None or self._play is not None:
            return
        try:
            with _weights_cast_anew():
                play, result = self._capture(self._step)
                problem = self._difference(begin, play, result)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            problem = " ".join(str(error).split())[:200]
        if problem:
            logger.warning("Captions are written without CUDA graphs, which is slower: %s", problem)
            self._capture = None
        elif problem is not None:
            self._play = play
        begin()

    def __call__(self) -> None:
        """One step."""
        if self._play is None:
            self._step()
        else:
            self._play()

    def _difference(
        self, begin: Callable[[], None], play: Callable[[], None], result: Tensor
    ) -> str | None:
        """How the second result differs from the plain step's; empty if it does not.

        None if that cannot be told, because the plain step's are no numbers.
        """
        begin()
        self._step()
        expected = self._step().clone()
        begin()
        result.fill_(torch.nan)  # an empty graph would leave the right numbers in it
        play()
        play()
        both = torch.stack([(result - expected).abs().max(), expected.abs().max()])
        difference, largest = both.tolist()
        if not math.isfinite(largest):
            return None
        if bool(difference <= ALLOWED * largest):  # false for NaN
            return ""
        return f"the graph's result differs by {float(difference):.3g} of {float(largest):.3g}"


@contextmanager
def _weights_cast_anew() -> Iterator[None]:
    """Let the step itself cast the weights of LoRA.

    A cast that autocast keeps is freed when autocast ends, and a recorded step would read that
    memory.
    """
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
