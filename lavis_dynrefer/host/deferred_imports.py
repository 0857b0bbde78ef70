"""Packages that LAVIS imports and nothing here uses are imported on first use.

LAVIS imports them at the top of its modules, for video, augmentation, captions of whole images and
other models. Some may be missing; others take most of the time of `import lavis`. Import statements
are replaced only in LAVIS's own modules. Other code imports as usual, and whatever is used is the
original object.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from lavis_dynrefer.errors import MissingPackageError
from lavis_dynrefer.host.moved_names import found_again

# Import name -> what to install to use the parts of LAVIS that need it.
UNUSED_PACKAGES = {
    "cv2": "opencv-python-headless",
    "decord": "decord",
    "fairscale": "fairscale",
    "iopath": "iopath",
    "pandas": "pandas",
    "pycocoevalcap": "pycocoevalcap",
    "spacy": "spacy",
}


@contextmanager
def deferred_imports() -> Iterator[None]:
    """While entered, those import statements import nothing yet."""
    import_now = builtins.__import__

    def import_or_defer(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        importer = str((globals or {}).get("__name__"))
        if importer.startswith("lavis.") and name.partition(".")[0] in UNUSED_PACKAGES:
            if fromlist:
                return SimpleNamespace(**{item: Deferred(name, item) for item in fromlist})
            return Deferred(name.partition(".")[0])
        if importer.startswith("lavis.") and (found := found_again(name, fromlist or ())):
            return found
        return import_now(name, globals, locals, fromlist, level)

    builtins.__import__ = import_or_defer
    try:
        yield
    finally:
        if builtins.__import__ is import_or_defer:
            builtins.__import__ = import_now


class Deferred:
    """Stands for a package, or a name in it, until it is used.

    Args:
        module: full name of the module.
        names: attributes from there on.
    """

    def __init__(self, module: str, *names: str) -> None:
        self._module = module
        self._names = names

    def __repr__(self) -> str:
        return f"<{'.'.join([self._module, *self._names])}, imported on first use>"

    def __getattr__(self, item: str) -> Any:
        if self._is_installed():
            return getattr(self._import(), item)
        if item.startswith("__"):
            raise AttributeError(item)
        return Deferred(self._module, *self._names, item)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the original object."""
        if (self._module, *self._names) == ("decord", "bridge", "set_bridge"):
            return None  # LAVIS calls it while it is imported
        return self._import()(*args, **kwargs)

    def _import(self) -> Any:
        if not self._is_installed():
            package = UNUSED_PACKAGES[self._package]
            full = ".".join([self._module, *self._names])
            raise MissingPackageError(f"{full} is not installed; pip install {package}")
        found = importlib.import_module(self._module)
        for name in self._names:
            found = getattr(found, name)
        return found

    @property
    def _package(self) -> str:
        return self._module.partition(".")[0]

    def _is_installed(self) -> bool:
        return self._package in sys.modules or importlib.util.find_spec(self._package) is not None
