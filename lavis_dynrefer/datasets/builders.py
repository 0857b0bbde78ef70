"""The datasets of `dataset_catalog` under the names by which LAVIS knows them."""

from __future__ import annotations

import lavis  # noqa: F401  first, for threads
from lavis.common.registry import registry

from lavis_dynrefer.datasets.dataset_catalog import SOURCES
from lavis_dynrefer.datasets.region_builder import RegionDatasetBuilder

for _name, _source in SOURCES.items():
    _about = {"__module__": __name__, "__doc__": _source.__doc__}
    _builder = type(f"{_source.__name__}Builder", (_source, RegionDatasetBuilder), _about)
    registry.register_builder(_name)(_builder)
