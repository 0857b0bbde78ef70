"""The columns of answers: one fixed Arrow schema, which pyarrow, pandas, Spark and others read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.questions import TASKS
from lavis_dynrefer.structures import RegionPrediction, ScoredName

_NAMED = pa.list_(
    pa.struct([("name", pa.string()), ("probability", pa.float32()), ("score", pa.float32())])
)

# Boxes and scores are float32 in the model, so that nothing is rounded here.
_REGION = pa.struct(
    [
        ("box", pa.list_(pa.float32())),
        ("caption", pa.string()),
        ("caption_score", pa.float64()),
        ("tags", _NAMED),
        ("attributes", _NAMED),
        ("categories", _NAMED),
        ("scales", pa.struct([(task, pa.list_(pa.float64())) for task in TASKS])),
        ("familiarity", pa.float32()),
    ]
)

ANSWER_SCHEMA = pa.schema(
    [
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
        ("regions", pa.list_(_REGION)),
        ("error", pa.string()),
        ("error_kind", pa.string()),
    ]
)


@dataclass(frozen=True)
class RowAnswer:
    """The answers about one row, or why there are none.

    Args:
        size: width and height of the image in pixels; None if it could not be read.
        regions: one prediction per box, in order.
        error: a sentence for users; None if all is well.
        error_kind: "image", "boxes", "answer" (too little memory, scores that are not finite) or
            "file" (the input file is damaged).
    """

    size: tuple[int, int] | None = None
    regions: Sequence[RegionPrediction] = ()
    error: str | None = None
    error_kind: str | None = None


def answer_schema(given: pa.Schema, *, without: Iterable[str] = ()) -> pa.Schema:
    """The schema of answered rows: columns that pass through, then those of the answers.

    Args:
        given: schema of the rows.
        without: names of columns that are dropped.

    Raises:
        InputError: a column has the name of one of ours.
    """
    dropped = set(without)
    kept = [field for field in given if field.name not in dropped]
    check_free_names(field.name for field in kept)
    return pa.schema([*kept, *ANSWER_SCHEMA])


def check_free_names(names: Iterable[str]) -> None:
    """Check that columns that pass through do not have the names of answers.

    Raises:
        InputError: names them.
    """
    taken = [name for name in names if name in ANSWER_SCHEMA.names]
    if taken:
        raise InputError(
            f"the rows already have columns {taken}, the names of answers; rename or drop them"
        )


def answer_lists(answers: Sequence[RowAnswer]) -> dict[str, list[Any]]:
    """The columns of `ANSWER_SCHEMA` as lists of plain Python values."""
    sizes = [answer.size or (None, None) for answer in answers]
    return {
        "image_width": [width for width, _ in sizes],
        "image_height": [height for _, height in sizes],
        "regions": [[_as_row(region) for region in answer.regions] for answer in answers],
        "error": [answer.error for answer in answers],
        "error_kind": [answer.error_kind for answer in answers],
    }


def answer_table(answers: Sequence[RowAnswer]) -> pa.Table:
    """The answers as a table of `ANSWER_SCHEMA`."""
    return pa.Table.from_pydict(answer_lists(answers), schema=ANSWER_SCHEMA)


def read_regions(regions: Iterable[Mapping[str, Any]]) -> list[RegionPrediction]:
    """The predictions in a value of the column `regions`, exactly as the model gave them.

    Args:
        regions: the value, from `to_pylist`, pandas, datasets or Spark.
    """
    return [_prediction(region) for region in regions]


def _as_row(region: RegionPrediction) -> dict[str, Any]:
    return {
        "box": list(region.box),
        "caption": region.caption,
        "caption_score": region.caption_score,
        "tags": _named(region.tags),
        "attributes": _named(region.attributes),
        "categories": _named(region.categories),
        "scales": {task: _listed(region.scales.get(task)) for task in TASKS},
        "familiarity": region.familiarity,
    }


def _named(entries: Sequence[ScoredName]) -> list[dict[str, Any]]:
    return [
        {"name": one.name, "probability": one.probability, "score": one.score} for one in entries
    ]


def _listed(scales: Sequence[float] | None) -> list[float] | None:
    return None if scales is None else list(scales)


def _prediction(region: Mapping[str, Any]) -> RegionPrediction:
    scales = {task: region["scales"][task] for task in TASKS}
    x1, y1, x2, y2 = (float(value) for value in region["box"])
    score = region["caption_score"]
    return RegionPrediction(
        box=(x1, y1, x2, y2),
        caption=region["caption"],
        caption_score=None if region["caption"] is None else float(score),
        tags=_pairs(region["tags"]),
        attributes=_pairs(region["attributes"]),
        categories=_pairs(region["categories"]),
        scales={
            task: tuple(map(float, values)) for task, values in scales.items() if values is not None
        },
        familiarity=_number(region.get("familiarity")),
    )


def _pairs(rows: Iterable[Mapping[str, Any]]) -> tuple[ScoredName, ...]:
    return tuple(
        ScoredName(row["name"], float(row["score"]), _number(row.get("probability")))
        for row in rows
    )


def _number(value: Any) -> float | None:
    """A float; None where there is none, as in files of earlier versions."""
    return None if value is None else float(value)
