"""DynRefer, dynamic-resolution region understanding, as a plugin of LAVIS.

Importing this package imports neither LAVIS nor torch. It registers the model, processors,
datasets, task and runner with LAVIS, now or when LAVIS is imported: where .pth files are not read,
nothing else does.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

# Nothing else of this package: two threads that import two of its modules at the same moment would
# wait for each other.
from lavis_dynrefer.host import versions
from lavis_dynrefer.host.autoload import lavis_dynrefer_autoload

if TYPE_CHECKING:
    from lavis_dynrefer.config import DynReferConfig
    from lavis_dynrefer.errors import DynReferError
    from lavis_dynrefer.models.dynrefer import DynRefer
    from lavis_dynrefer.predictor import RegionPredictor
    from lavis_dynrefer.questions import Questions
    from lavis_dynrefer.structures import RegionPrediction

__version__ = "0.1.0"

__all__ = [
    "DynRefer",
    "DynReferConfig",
    "DynReferError",
    "Questions",
    "RegionPrediction",
    "RegionPredictor",
    "__version__",
]

_HOMES = {
    "DynRefer": "lavis_dynrefer.models.dynrefer",
    "DynReferConfig": "lavis_dynrefer.config",
    "DynReferError": "lavis_dynrefer.errors",
    "Questions": "lavis_dynrefer.questions",
    "RegionPrediction": "lavis_dynrefer.structures",
    "RegionPredictor": "lavis_dynrefer.predictor",
}


def __getattr__(name: str) -> Any:
    """The public names, imported on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lavis_dynrefer.host.compat import needing_lavis

    with needing_lavis(name):
        value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


versions.check_python()
lavis_dynrefer_autoload.install()
if "lavis" in sys.modules:
    from lavis_dynrefer.host import registration

    registration.connect()
