"""Json documents and json lines; an object with two values for one key is refused."""

from __future__ import annotations

import json
from typing import Any

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.reading.strict_values import shown


def parse_json(text: str) -> Any:
    """Parse a json document, or json lines as a list.

    Raises:
        InputError: damaged json, or a key with two values; a mapping would keep only the last.
    """
    try:
        return parse_value(text)
    except InputError as error:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        cause = error.__cause__  # other line ends may be part of a caption
        if len(lines) < 2 or getattr(cause, "msg", "") != "Extra data":
            raise
    rows = []
    for number, line in lines:
        try:
            rows.append(parse_value(line))
        except InputError as error:
            raise InputError(f"line {number}: {error}") from error
    return rows


def parse_value(text: str | bytes) -> Any:
    """Parse one json value.

    Raises:
        InputError: see `parse_json`.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"damaged json: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if found[key] is not value and found[key] != value:
                raise InputError(
                    f"the key {shown(key)} has two values, {shown(value)} and {shown(found[key])}; "
                    "merge them"
                )
    return found
