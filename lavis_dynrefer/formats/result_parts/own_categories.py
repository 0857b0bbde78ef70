"""Categories of regions in the user's own COCO file, so that answers carry its ids."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from lavis_dynrefer.formats.image_result import Category, category_labels
from lavis_dynrefer.structures import RegionPrediction


class OwnCategories:
    """The categories of a COCO file; names that it lacks are numbered above its largest id.

    Names match without regard to case, and to blanks or underscores between words.

    Args:
        known: id -> name; empty for a file without categories.
    """

    def __init__(self, known: Mapping[int, str]) -> None:
        self.known = known
        self._by_name: dict[str, Category] = {}
        for number, name in known.items():
            self._by_name.setdefault(_folded(name), Category(number, name))
        self._added = lru_cache(maxsize=8)(self._number)
        self._lacking: set[Category] = set()

    def of(self, region: RegionPrediction, annotated: int | None) -> Category | None:
        """The category of an answer: its best name, or its annotation's if none were asked.

        Args:
            region: the answer.
            annotated: id in the user's file, if the region has one there.

        Returns:
            None if the file has no categories.
        """
        own = None
        if annotated is not None:
            own = Category(annotated, self.known.get(annotated, str(annotated)))
        if own and not region.categories:
            return own
        if not self.known:
            return None
        best, *others = category_labels(region)
        if own and _folded(own.name) == _folded(best):  # several ids may have one name
            return own
        if _folded(best) in self._by_name:
            return self._by_name[_folded(best)]
        category = self._added(tuple(sorted([best, *others])))[best]
        self._lacking.add(category)
        return category

    def notes(self) -> list[str]:
        """A sentence about answers that the file has no category for."""
        if not self._lacking:
            return []
        first = min(self._lacking)
        return [
            f"names in the answers that are not categories of your file: {len(self._lacking):,}, "
            f"first {first.name}; in COCO json they are numbered from {max(self.known) + 1}"
        ]

    def _number(self, names: tuple[str, ...]) -> dict[str, Category]:
        new = [name for name in names if _folded(name) not in self._by_name]
        first = max(self.known) + 1
        return {name: Category(number, name) for number, name in enumerate(new, start=first)}


def _folded(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())
