"""Registers the plugin with LAVIS; what `import lavis_dynrefer` and the import hook both do."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

from lavis_dynrefer import paths
from lavis_dynrefer.errors import MissingPackageError
from lavis_dynrefer.host import compat

# Each registers its classes as it is imported; in the order of the layers.
REGISTERING_MODULES = (
    "lavis_dynrefer.models.dynrefer",
    "lavis_dynrefer.lab.pretraining",
    "lavis_dynrefer.host.processors",
    "lavis_dynrefer.datasets.builders",
    "lavis_dynrefer.datasets.custom_builder",
    "lavis_dynrefer.training.task",
    "lavis_dynrefer.training.runner",
)


def connect() -> None:
    """Import LAVIS and register with it; without LAVIS installed, do nothing.

    Raises:
        ImportError: LAVIS or one of our modules does not import.
    """
    host = sys.modules.get("lavis")
    if getattr(host, "__dynrefer_pending__", False):
        return  # LAVIS is being imported; its import hook calls register() when it is complete
    if host is None:
        if importlib.util.find_spec("lavis") is None:
            return
        _import_lavis()
    register()


def _import_lavis() -> None:
    with compat.lavis_importable():
        try:
            importlib.import_module("lavis")
        except ImportError as error:
            raise MissingPackageError(
                f"LAVIS is installed but does not import: {error}; "
                f"install it afresh in a new environment: pip install {compat.LAVIS}, "
                f"or beside newer libraries: {compat.LEAN_INSTALL}"
            ) from error


def register() -> None:
    """Add our model, processors, builders, task and runner to an imported LAVIS; may be repeated.

    Also makes `lavis.train` and `lavis.evaluate` importable, and lets LAVIS's model loaders be
    called without a model type.
    """
    host = sys.modules["lavis"]
    extension = paths.lavis_extension_path()
    if extension not in host.__path__:
        host.__path__.append(extension)  # at the end: a LAVIS that has its own train.py wins
    _forget_unloaded_classes()
    for name in REGISTERING_MODULES:
        importlib.import_module(name)
    _refresh_zoos()
    _make_model_type_optional()


def _forget_unloaded_classes() -> None:
    """Drop classes whose module was since unloaded, because LAVIS refuses a name twice."""
    from lavis.common.registry import registry

    for mapping in registry.mapping.values():
        for name, item in list(mapping.items()):
            module = getattr(item, "__module__", None) or ""
            if module.startswith("lavis_dynrefer.") and module not in sys.modules:
                del mapping[name]


def _refresh_zoos() -> None:
    """LAVIS lists its models and datasets once, while it is imported; list them again."""
    from lavis.datasets.builders import dataset_zoo
    from lavis.models import model_zoo

    for zoo in (model_zoo, dataset_zoo):
        type(zoo).__init__(zoo)


def _make_model_type_optional() -> None:
    """`load_model_and_preprocess("dynrefer")` means the default type.

    Other LAVIS models then answer a forgotten type with "Unknown model type None".
    """
    from lavis import models

    _prepend_default(models.load_model_and_preprocess, (False, "cpu"))
    _prepend_default(models.load_model, (False, "cpu", None))


def _prepend_default(function: Callable[..., Any], known: tuple[Any, ...]) -> None:
    """Give `model_type`, the parameter before the known defaults, the default None."""
    if function.__defaults__ == known:
        function.__defaults__ = (None, *known)
