"""Random choices that are the same on every machine and with every numpy version.

Only the raw bits of PCG64 are used: numpy keeps those stable, while methods of `Generator` may
change between versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class RandomStream:
    """A seeded stream of choices.

    Args:
        key: integers that name the stream, e.g. (seed, scene index).
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self.field(1, 1)[0, 0])

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.uniform(0.0, 1.0) * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform(0.0, 1.0) < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, all equally likely."""
        return items[self.integer(0, len(items) - 1)]

    def order(self, items: Sequence[T]) -> list[T]:
        """All items, in random order."""
        left = list(items)
        return [left.pop(self.integer(0, len(left) - 1)) for _ in items]

    def weighted(self, weights: Mapping[str, float]) -> str:
        """One of the keys, in proportion to its weight."""
        left = self.uniform(0.0, sum(weights.values()))
        for name, weight in weights.items():
            left -= weight
            if left < 0:
                return name
        return next(reversed(list(weights)))  # after rounding

    def field(self, height: int, width: int) -> np.ndarray:
        """(height, width) float64 numbers in [0, 1)."""
        raw = self._bits.random_raw(height * width) >> np.uint64(11)  # 53 bits, as a double holds
        return raw.reshape(height, width) * 2.0**-53
