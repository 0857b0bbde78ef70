"""Rows of annotation files, read strictly: ids, numbers, strings, boxes.

Annotation files are not trusted: ids may be strings, numbers `NaN`, rows no objects. A value with
one possible meaning is converted; anything else is an `InputError` that shows the value.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lavis_dynrefer.datasets.sources.raw_files import RawFile
from lavis_dynrefer.datasets.sources.region_collector import RegionCollector
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.boxes import xywh_to_xyxy
from lavis_dynrefer.structures import Box

Row = Mapping[str, Any]

ROW_ERRORS = (KeyError, TypeError, ValueError)  # what reading a malformed row raises
MAX_ID = 2**63 - 1  # of the tables
MAX_SIDE = 2**31 - 1  # pixels, of the tables
_EXACT = 2**53  # integers below are exact as floats
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxdict = 8
_SHORT.maxlevel = 3


def shown(value: Any) -> str:
    """The repr of a value for a message, shortened where it is long or deep.

    >>> shown([1, "a" * 100])
    "[1, 'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa']"
    """
    return _SHORT.repr(value)


def whole_number(value: Any) -> int:
    """An id or a count, also as a string or as a float without a fraction.

    Raises:
        InputError: anything else, or more than 64 bits.

    >>> whole_number("12"), whole_number(900100184613.0)
    (12, 900100184613)
    """
    if type(value) is int:
        number = value
    elif isinstance(value, str) and _INTEGER.fullmatch(value):
        number = int(value)
    elif isinstance(value, float) and value.is_integer() and -_EXACT < value < _EXACT:
        return int(value)
    else:
        raise InputError(f"expected an integer, got {shown(value)}")
    if -MAX_ID <= number <= MAX_ID:
        return number
    raise InputError(f"expected an integer of at most 64 bits, got {shown(value)}")


def finite_number(value: Any) -> float:
    """A coordinate or a score, also as a string.

    Raises:
        InputError: anything else, NaN or infinity.
    """
    kind = type(value)
    if kind is int and -_EXACT < value < _EXACT:  # nearly all are
        return float(value)
    if kind is int or kind is float or (kind is str and _NUMBER.fullmatch(value)):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise InputError(f"expected a finite number, got {shown(value)}")


def side_length(value: Any) -> int:
    """A side of an image in pixels.

    Raises:
        InputError: not a positive integer below 2**31.
    """
    number = whole_number(value)
    if not 0 < number <= MAX_SIDE:
        raise InputError(f"expected a number of pixels, got {number}")
    return number


def text_of(value: Any) -> str:
    """A string that can be written to a file.

    Raises:
        InputError: not a string.
        UnicodeEncodeError: it has a lone surrogate.
    """
    if not isinstance(value, str):
        raise InputError(f"expected a string, got {shown(value)}")
    if not value.isascii():
        value.encode("utf-8")
    return value


def xyxy(bbox: Any) -> Box:
    """COCO's x, y, width, height as two corners.

    Raises:
        InputError: not a list of four finite numbers.

    >>> xyxy([10, 20, 4, 3])
    (10.0, 20.0, 14.0, 23.0)
    """
    if not isinstance(bbox, (list, tuple)) or len(bbox) != 4:
        raise InputError(f"expected a box of x, y, width, height, got {shown(bbox)}")
    x, y, width, height = map(finite_number, bbox)
    return xywh_to_xyxy((x, y, width, height))


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
