"""Answers about any number of rows, on Ray Data and other engines that work on batches of a table.

`BulkPredictor` needs no engine; `ray_job` alone imports Ray, which the extra `ray` installs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lavis_dynrefer.lazy_names import lazy_names

if TYPE_CHECKING:
    from lavis_dynrefer.bulk.answer_columns import ANSWER_SCHEMA, answer_schema, read_regions
    from lavis_dynrefer.bulk.bulk_predictor import BulkPredictor
    from lavis_dynrefer.bulk.webdataset_rows import webdataset_row

__all__ = ["ANSWER_SCHEMA", "BulkPredictor", "answer_schema", "read_regions", "webdataset_row"]

__getattr__ = lazy_names(
    __name__,
    {
        "answer_columns": ("ANSWER_SCHEMA", "answer_schema", "read_regions"),
        "bulk_predictor": ("BulkPredictor",),
        "webdataset_rows": ("webdataset_row",),
    },
)
