"""Lists of rows with ids: rows without one are counted, and so are repeated ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lavis_dynrefer.datasets.sources.raw_files import RawFile
from lavis_dynrefer.datasets.sources.region_collector import RegionCollector
from lavis_dynrefer.formats.reading.strict_values import ROW_ERRORS, Row, shown, whole_number


def rows_with_ids(
    rows: Iterable[Any],
    what: str,
    source: RawFile,
    collectors: Sequence[RegionCollector],
    keys: Sequence[str] = ("id",),
) -> Iterator[tuple[int, Row]]:
    """Yield each row with its id; rows without one are counted.

    Args:
        rows: as read from the file.
        what: what a row is, for messages.
        source: what the file is, for errors.
        collectors: of all splits of the file; the row may belong to any of them.
        keys: where the id may be; the first one present counts.

    Raises:
        DatasetError: there are rows, and none has an id.
    """
    problem, is_known = "", False
    for row in rows:
        try:
            number = whole_number(next((row[key] for key in keys if key in row), None))
        except ROW_ERRORS as error:
            problem = problem or f"{what} {shown(row)}: {' or '.join(keys)}: {error}"
            for collector in collectors:
                collector.leave_out("unreadable_entry", f"{what} {shown(row)}: {error}", None)
            continue
        is_known = True
        yield number, row
    if problem and not is_known:
        raise source.error(f"{source.setting}: no {what} has an id, for example {problem}")


def rows_by_id(
    rows: Iterable[Any],
    what: str,
    source: RawFile,
    collectors: Sequence[RegionCollector],
    keys: Sequence[str] = ("id",),
) -> dict[int, Row]:
    """Id -> row; the first row of an id is used, others are counted. Arguments: `rows_with_ids`."""
    found: dict[int, Row] = {}
    for number, row in rows_with_ids(rows, what, source, collectors, keys):
        if found.setdefault(number, row) is not row:
            for collector in collectors:
                detail = f"{what} {number} is listed more than once; only the first counts"
                collector.leave_out("duplicate_entry", detail, None)
    return found
