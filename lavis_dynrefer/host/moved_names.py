"""Names that transformers has moved or dropped since LAVIS was written, for LAVIS's modules alone.

LAVIS imports them at the top of its modules. What was dropped served to prune heads and to spread
a model over devices, which nothing here does.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from lavis_dynrefer.errors import MissingPackageError

_NEW_HOME = "transformers.pytorch_utils"
# Modules that LAVIS imports such names from.
_HOMES = (
    "transformers.modeling_utils",
    "transformers.pytorch_utils",
    "transformers.utils.model_parallel_utils",
)


def found_again(module: str, names: Sequence[str]) -> SimpleNamespace | None:
    """What `from module import names` gives LAVIS; None: import as usual.

    A name that was moved is the original object. One that is gone raises `MissingPackageError` when
    it is called.
    """
    if module not in _HOMES:
        return None
    homes = [_imported(module), _imported(_NEW_HOME)]
    return SimpleNamespace(**{name: _find(homes, module, name) for name in names})


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # not transformers without a module, but no transformers
            raise
        return None


def _find(homes: Sequence[Any], module: str, name: str) -> Any:
    for home in homes:
        if hasattr(home, name):
            return getattr(home, name)
    return _gone(module, name)


def _gone(module: str, name: str) -> Any:
    def gone(*_args: Any, **_kwargs: Any) -> Any:
        raise MissingPackageError(
            f"{module}.{name}, which this part of LAVIS calls, is gone from the installed "
            "transformers; pip install 'transformers<5'"
        )

    return gone
