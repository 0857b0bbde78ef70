"""Datasets: raw files to tables to regions with views.

What a dataset of your own needs can be imported from here; LAVIS is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "AnnotationsInfo": "lavis_dynrefer.datasets.build_info",
    "ImageFolder": "lavis_dynrefer.datasets.sources.raw_files",
    "RawFile": "lavis_dynrefer.datasets.sources.raw_files",
    "RegionCollector": "lavis_dynrefer.datasets.sources.region_collector",
    "RegionDatasetBuilder": "lavis_dynrefer.datasets.region_builder",
    "RegionInfo": "lavis_dynrefer.datasets.build_info",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
