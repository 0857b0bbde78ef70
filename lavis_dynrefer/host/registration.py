"""Registers the plugin with LAVIS: names at once, classes on first use.

LAVIS's registry maps names to classes. We enter names of modules, which are imported when LAVIS
looks a name up; each module registers its classes with LAVIS's own decorators. So `import lavis`
takes hardly longer, and no module of ours is imported in the middle of another import.
"""

from __future__ import annotations

import importlib
import sys
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lavis_dynrefer import paths

# LAVIS's mapping -> name -> module that registers it. A test compares it with the decorators.
MODULES = {
    "model_name_mapping": {
        "dynrefer": "lavis_dynrefer.models.dynrefer",
        "dynrefer_pretraining": "lavis_dynrefer.lab.pretraining",
    },
    "processor_name_mapping": {
        "dynrefer_train": "lavis_dynrefer.host.processors",
        "dynrefer_eval": "lavis_dynrefer.host.processors",
    },
    "builder_name_mapping": dict.fromkeys(
        (
            "vg_region",
            "ovad",
            "coco_region",
            "refcocog_region",
            "synthetic_region",
            "custom_region",
        ),
        "lavis_dynrefer.datasets.builders",
    ),
    "task_name_mapping": {"dynrefer": "lavis_dynrefer.training.region_task"},
    "runner_name_mapping": {"runner_dynrefer": "lavis_dynrefer.training.runner"},
}


class PendingNames(UserDict[str, Any]):
    """A mapping of LAVIS's registry in which some names are still to be registered.

    Lookups and iteration know them all. `name in mapping` is False for them, so that LAVIS's
    decorators, which refuse a name twice, take them: once, or again when a notebook reloads them.

    Args:
        registered: name -> class.
        modules: further name -> module that registers it.
    """

    def __init__(self, registered: Mapping[str, Any], modules: Mapping[str, str]) -> None:
        self._modules = modules
        super().__init__(registered)

    def __missing__(self, name: str) -> Any:
        importlib.import_module(self._modules[name])
        return self.data[name]

    def __contains__(self, name: object) -> bool:
        return name in self.data and name not in self._modules

    def __setitem__(self, name: str, item: Any) -> None:
        module = self._modules.get(name, item.__module__)
        if item.__module__ != module:
            raise KeyError(f"{name!r} is the name of something in {module}")
        super().__setitem__(name, item)

    def get(self, name: str, default: Any = None) -> Any:
        """The class, else `default`."""
        return self[name] if name in self.data or name in self._modules else default

    def __iter__(self) -> Iterator[str]:
        return iter({**self.data, **self._modules})

    def __len__(self) -> int:
        return len(self.data.keys() | self._modules.keys())


class TypesOf(Mapping[str, list[str]]):
    """Name -> model or dataset types, read from the class on first use, for LAVIS's zoos.

    Args:
        classes: name -> class.
        attribute: of each class, type -> yaml; a class registered later may have none.
    """

    def __init__(self, classes: Mapping[str, Any], attribute: str) -> None:
        self._classes = classes
        self._attribute = attribute

    def __getitem__(self, name: str) -> list[str]:
        return list(getattr(self._classes[name], self._attribute, ()))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        return len(self._classes)


def connect() -> None:
    """Register with LAVIS if it has been imported; else its import hook does, see `autoload`."""
    host = sys.modules.get("lavis")
    loader = getattr(getattr(host, "__spec__", None), "loader", None)
    if host is not None and not getattr(loader, "dynrefer_pending", False):
        register()


def register() -> None:
    """Add our model, processors, builders, task and runner to an imported LAVIS; may be repeated.

    Also makes `lavis.train`, `lavis.evaluate` and `lavis.models.DynRefer` importable, and lets
    LAVIS's model loaders be called without a model type.
    """
    import lavis  # noqa: F401  first: another thread may be importing it
    from lavis.common.registry import registry
    from lavis.datasets.builders import dataset_zoo
    from lavis.models import model_zoo

    for kind, modules in MODULES.items():
        if not isinstance(registry.mapping[kind], PendingNames):
            registry.mapping[kind] = PendingNames(registry.mapping[kind], modules)
    model_zoo.model_zoo = TypesOf(
        registry.mapping["model_name_mapping"], "PRETRAINED_MODEL_CONFIG_DICT"
    )
    dataset_zoo.dataset_zoo = TypesOf(
        registry.mapping["builder_name_mapping"], "DATASET_CONFIG_DICT"
    )
    _make_model_type_optional()
    vars(sys.modules["lavis.models"]).setdefault("__getattr__", _model_of_lavis)
    folders, extension = sys.modules["lavis"].__path__, paths.lavis_extension_path()
    if extension not in folders:
        folders.append(extension)  # at the end: a LAVIS that has its own train.py wins


def _model_of_lavis(name: str) -> Any:
    """`from lavis.models import DynRefer`, as for LAVIS's own models; imported on first use."""
    if name != "DynRefer":
        raise AttributeError(f"module 'lavis.models' has no attribute {name!r}")
    from lavis.common.registry import registry

    return registry.get_model_class("dynrefer")


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
