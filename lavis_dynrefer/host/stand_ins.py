"""Stand-ins for packages that LAVIS imports, that nothing here uses, and that are not installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from lavis_dynrefer.errors import MissingPackageError

# Imported by LAVIS at the top of its modules, used there only for video, captions of whole
# images, augmentation and other models: import name -> what to install to use those parts.
UNUSED_PACKAGES = {
    "cv2": "opencv-python-headless",
    "decord": "decord",
    "fairscale": "fairscale",
    "iopath": "iopath",
    "pycocoevalcap": "pycocoevalcap",
    "spacy": "spacy",
}


@contextmanager
def stand_ins() -> Iterator[None]:
    """While entered, packages that are not installed can be imported from.

    Their stand-ins are removed on exit: LAVIS keeps the names it imported, while everybody else
    still sees that the package is missing.
    """
    absent = {name for name in UNUSED_PACKAGES if not _installed(name)}
    finder = _StandInFinder(absent)
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] in absent]:
            if isinstance(sys.modules[name], _StandIn):
                del sys.modules[name]


def _installed(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


class _Absent:
    """Takes the place of a name from a package that is not installed; using it says so."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, item: str) -> _Absent:
        if item.startswith("__"):
            raise AttributeError(item)
        return _Absent(f"{self._name}.{item}")

    def __repr__(self) -> str:
        return f"{self._name} (not installed)"

    def __call__(self, *args: object, **kwargs: object) -> Any:
        if self._name == "decord.bridge.set_bridge":
            return None  # LAVIS calls it while it is imported
        package = UNUSED_PACKAGES[self._name.split(".")[0]]
        raise MissingPackageError(f"{self._name} is not installed; pip install {package}")


class _StandIn(ModuleType):
    """A module of a package that is not installed; every name in it is an `_Absent`."""

    def __getattr__(self, item: str) -> _Absent:
        if item.startswith("__"):
            raise AttributeError(item)
        return _Absent(f"{self.__name__}.{item}")


class _StandInFinder(MetaPathFinder, Loader):
    """Finds a `_StandIn` for each absent package and anything below it."""

    def __init__(self, absent: set[str]) -> None:
        self._absent = absent

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name.split(".")[0] not in self._absent:
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        return None
