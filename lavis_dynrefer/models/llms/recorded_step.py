"""A step that is repeated on the same tensors, recorded once and played again.

On a GPU a step of a language model is hundreds of small kernels, and starting them one by one takes
longer than they do. As a CUDA graph they start together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Step = Callable[[], Tensor]
Capture = Callable[[Step], Callable[[], None]]

# Largest difference of a result from the plain step's, as a share of the largest result. The
# kernels are the same, so that nothing but another order of sums can differ.
ALLOWED = 0.02
_WARM_UP = 2  # plain steps before the recording set up what kernels need


def capture_graph(step: Step) -> Callable[[], None]:
    """Record a step as a CUDA graph; returns what plays it.

    Raises:
        RuntimeError: the step does what a graph cannot hold.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on using the GPU meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay


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
            torch.cuda.OutOfMemoryError: as the step itself.
        """
        begin()
        if self._capture is None or self._play is not None:
            return
        try:
            play = self._capture(self._step)
            problem = self._difference(begin, play)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            problem = " ".join(str(error).split())[:200]
        if problem:
            logger.warning("Captions are written without CUDA graphs, which is slower: %s", problem)
            self._capture = None
        else:
            self._play = play
        begin()

    def __call__(self) -> None:
        """One step."""
        if self._play is None:
            self._step()
        else:
            self._play()

    def _difference(self, begin: Callable[[], None], play: Callable[[], None]) -> str:
        """How the second result differs from the plain step's; empty if it does not."""
        begin()
        self._step()
        result = self._step()
        expected = result.clone()
        begin()
        play()
        play()
        difference, largest = (result - expected).abs().max(), expected.abs().max()
        if bool(difference <= ALLOWED * largest):  # false for NaN
            return ""
        return f"the graph's result differs by {float(difference):.3g} of {float(largest):.3g}"
