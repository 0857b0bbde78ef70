"""Values of foreign files, read strictly: ids, numbers, texts, boxes.

Annotation files are not trusted: ids may be strings, numbers `NaN`, rows no objects. A value with
one possible meaning is converted; anything else is an `InputError` that shows the value.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Union

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.boxes import xywh_to_xyxy
from lavis_dynrefer.structures import Box

Row = Mapping[str, Any]
Id = Union[int, str]

ROW_ERRORS = (KeyError, OverflowError, TypeError, ValueError)  # what reading a bad row raises
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


def id_of(value: Any) -> Id:
    """An id: an integer in any notation, or a text.

    Raises:
        InputError: anything else.

    >>> id_of("12"), id_of("img_12")
    (12, 'img_12')
    """
    if isinstance(value, str) and value.strip() and not _INTEGER.fullmatch(value):
        return text_of(value)
    return whole_number(value)


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


def refuse_turned(degrees: Any) -> None:
    """Refuse a box that is rotated; what is no number says nothing.

    Raises:
        InputError: the angle is not 0.
    """
    with suppress(InputError):
        degrees = finite_number(degrees)
    if isinstance(degrees, float) and degrees:
        raise InputError(f"a box that is rotated by {degrees:g}; expected an upright one")


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
        InputError: not a string, or with a lone surrogate.
    """
    if not isinstance(value, str):
        raise InputError(f"expected a string, got {shown(value)}")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"expected a string of Unicode, got {shown(value)}: {error}") from None
    return value


def four_numbers(bbox: Any, expected: str = "a box of x, y, width, height") -> Box:
    """Four finite numbers.

    Raises:
        InputError: not a list of four finite numbers.
    """
    if not isinstance(bbox, (list, tuple)) or len(bbox) != 4:
        rotated = " (a rotated box?)" if isinstance(bbox, list) and len(bbox) == 5 else ""
        raise InputError(f"expected {expected}, got {shown(bbox)}{rotated}")
    one, two, three, four = map(finite_number, bbox)
    return one, two, three, four


def xyxy(bbox: Any) -> Box:
    """COCO's x, y, width, height as two corners.

    Raises:
        InputError: not a list of four finite numbers.

    >>> xyxy([10, 20, 4, 3])
    (10.0, 20.0, 14.0, 23.0)
    """
    return xywh_to_xyxy(four_numbers(bbox))
