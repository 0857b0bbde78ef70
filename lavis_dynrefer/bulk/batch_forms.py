"""Batches in the forms of engines: Arrow tables, pandas frames, and mappings of columns."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lavis_dynrefer.bulk.answer_columns import (
    ANSWER_SCHEMA,
    RowAnswer,
    answer_lists,
    answer_table,
    check_free_names,
)
from lavis_dynrefer.errors import InputError

Batch = Any  # pyarrow.Table or RecordBatch, pandas.DataFrame, or a mapping of lists or arrays


def column_names(batch: Batch) -> list[str]:
    """Names of the columns of a batch.

    Raises:
        InputError: it is no batch, or two columns have one name.
    """
    if isinstance(batch, (pa.Table, pa.RecordBatch)):
        names = list(batch.schema.names)
    elif _is_frame(batch) or isinstance(batch, Mapping):
        names = list(batch)
    else:
        raise InputError(
            "batch: expected a pyarrow table, a pandas frame or a mapping of columns, got "
            f"{type(batch).__name__}"
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"several columns are called {twice[0]!r}; rename or drop them")
    return names


def column(batch: Batch, name: str) -> list[Any]:
    """The values of a column; its cells are Python values or arrays."""
    if isinstance(batch, (pa.Table, pa.RecordBatch)):
        values: list[Any] = batch.column(name).to_pylist()
        return values
    return [None if _is_missing(value) else value for value in batch[name]]


def with_answers(
    batch: Batch, answers: Sequence[RowAnswer], *, without: Sequence[str] = ()
) -> Batch:
    """The batch with the columns of answers, in its own form.

    Args:
        batch: its other columns pass through.
        answers: one per row.
        without: columns to drop.

    Raises:
        InputError: a column has the name of one of ours.
    """
    names = [name for name in column_names(batch) if name not in without]
    check_free_names(names)
    if isinstance(batch, (pa.Table, pa.RecordBatch)):
        made = answer_table(answers)
        fields = [batch.schema.field(name) for name in names]
        columns = [*(batch.column(name) for name in names), *made.columns]
        schema = pa.schema([*fields, *ANSWER_SCHEMA])
        return pa.table(dict(zip(schema.names, columns)), schema=schema)
    lists = answer_lists(answers)
    if _is_frame(batch):
        frame = batch[names].copy()
        for name, values in lists.items():
            frame[name] = _pandas_column(name, values, frame.index)
        return frame
    as_arrays = any(isinstance(value, np.ndarray) for value in batch.values())
    made_columns = (
        {name: _objects(values) for name, values in lists.items()} if as_arrays else lists
    )
    return {**{name: batch[name] for name in names}, **made_columns}


def holds_files(batch: Batch, name: str) -> bool:
    """Whether the cells of a column of images are more than paths and addresses."""
    if isinstance(batch, (pa.Table, pa.RecordBatch)):
        kind = batch.schema.field(name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        return not (pa.types.is_string(kind) or pa.types.is_large_string(kind))
    first = next((value for value in batch[name] if not _is_missing(value)), None)
    return not isinstance(first, (str, type(None)))


def _is_frame(batch: Batch) -> bool:
    pandas = sys.modules.get("pandas")  # who has a frame has imported it
    return pandas is not None and isinstance(batch, pandas.DataFrame)


def _is_missing(value: Any) -> bool:
    """Whether a cell is empty; pandas has NaN or its own NA for it."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    pandas = sys.modules.get("pandas")
    return pandas is not None and value is pandas.NA


def _pandas_column(name: str, values: list[Any], index: Any) -> Any:
    import pandas

    kind = ANSWER_SCHEMA.field(name).type
    return pandas.Series(values, index=index, dtype="Int32" if kind == pa.int32() else object)


def _objects(values: list[Any]) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
