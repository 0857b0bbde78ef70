"""Single faults of a file: counted by reason, with the first example of each."""

from __future__ import annotations

from lavis_dynrefer.errors import InputError


class Faults:
    """Counts what cannot be used while the rest of a file is.

    >>> faults = Faults()
    >>> faults.add("annotations without a usable box", "annotations[3]: expected a box")
    >>> faults.add("annotations without a usable box", "annotations[5]: expected a box")
    >>> faults.sentences()
    ['annotations without a usable box: 2, first annotations[3]: expected a box']
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, str] = {}

    def __len__(self) -> int:
        return sum(self._counts.values())

    def add(self, reason: str, example: object) -> None:
        """Count one fault."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        self._examples.setdefault(reason, str(example))

    def items(self) -> list[tuple[str, str, int]]:
        """Each reason with its first example, and how often."""
        return [(reason, self._examples[reason], times) for reason, times in self._counts.items()]

    def sentences(self) -> list[str]:
        """One sentence for each reason."""
        return [f"{reason}: {times:,}, first {example}" for reason, example, times in self.items()]

    def require(self, usable: int) -> None:
        """Refuse a file of which nothing is usable.

        Raises:
            InputError: there are faults, and `usable` is 0.
        """
        if self._counts and not usable:
            raise InputError(f"nothing in it can be used: {self.sentences()[0]}")
