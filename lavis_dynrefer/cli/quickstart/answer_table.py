"""How many answers were right before and after training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.table import Table

from lavis_dynrefer.cli.quickstart.answers_before_after import SplitAnswers
from lavis_dynrefer.synthetic.scene_world import RELATIONS

_LINKS = (*RELATIONS, "on the")


class CaptionParts(NamedTuple):
    """A caption cut at its first relation, or "on the"."""

    own: str  # about the object itself
    link: str  # "" without one
    rest: str

    @classmethod
    def of(cls, caption: str) -> CaptionParts:
        """Cut a caption.

        >>> CaptionParts.of("a rocket in red left of a mug")
        CaptionParts(own='a rocket in red', link='left of', rest='a mug')
        """
        places = [(caption.find(f" {link} "), link) for link in _LINKS]
        place, link = min(((at, one) for at, one in places if at >= 0), default=(-1, ""))
        if not link:
            return cls(caption, "", "")
        return cls(caption[:place], link, caption[place + len(link) + 2 :])


class Row(NamedTuple):
    """A line of the table: percentages of `count` regions."""

    split: str
    question: str
    count: int
    values: tuple[float, float]


def table_rows(splits: Sequence[SplitAnswers]) -> list[Row]:
    """All numbers of the table."""
    return [row for split in splits for row in _rows(split)]


def comparison_table(splits: Sequence[SplitAnswers]) -> Table:
    """The table as the console shows it."""
    table = Table("split", "question", title="percent right, before and after training")
    for column in ("regions", "before", "after"):
        table.add_column(column, justify="right")
    last = ""
    for row in table_rows(splits):
        if row.split != last:
            table.add_section()
        name = row.split if row.split != last else ""
        table.add_row(name, row.question, f"{row.count}", *(f"{x:.1f}" for x in row.values))
        last = row.split
    return table


def _rows(split: SplitAnswers) -> Iterator[Row]:
    if split.evaluator in ("dense_caption", "reg"):
        yield from _caption_rows(split)
    question = {
        "attributes": "attributes, mean average precision",
        "categories": f"category, one of {len(split.region_set.category_names)}",
        "dense_caption": "captions, mean average precision by METEOR",
        "reg": "captions, METEOR",
    }[split.evaluator]
    first, last = (float(one["metrics"][one["primary"]]) for one in split.reports)
    yield Row(split.name, question, split.reports[0]["counts"]["regions"], (first, last))


def _caption_rows(split: SplitAnswers) -> Iterator[Row]:
    regions = split.captioned()
    wanted = [region.caption or "" for region in regions]
    said = [split.captions(run, regions) for run in (0, 1)]
    parts = [CaptionParts.of(text) for text in wanted]
    if any(part.link for part in parts):
        own = [[CaptionParts.of(text).own for text in texts] for texts in said]
        yield _row(split, "words about the object", [part.own for part in parts], own)
    related = [index for index, part in enumerate(parts) if part.link in RELATIONS]
    if related:
        links = [[CaptionParts.of(texts[index]).link for index in related] for texts in said]
        yield _row(split, "relation", [parts[index].link for index in related], links)
    yield _row(split, "whole caption", wanted, said)


def _row(
    split: SplitAnswers, question: str, wanted: Sequence[str], said: Sequence[Sequence[str]]
) -> Row:
    first, last = (
        100 * sum(text == other for text, other in zip(texts, wanted)) / len(wanted)
        for texts in said
    )
    return Row(split.name, question, len(wanted), (first, last))
