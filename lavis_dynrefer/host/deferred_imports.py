"""Slow packages that LAVIS imports and hardly uses are imported on first use instead.

They take half of the time of `import lavis`: torch._dynamo, of which torchvision wants the name of
one function, spacy and pandas. Only the import statements listed here are replaced, in the very
modules that hold them. Nothing else sees a difference, a module laid out in another way imports as
always, and whatever is used is the real thing.
"""

from __future__ import annotations

import builtins
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

# Module -> its import statement: the package, and the functions imported from it; without such,
# the statement is `import PACKAGE`.
DEFERRED = {
    "lavis.common.utils": ("pandas", ()),
    "lavis.models.img2prompt_models.img2prompt_vqa": ("spacy", ()),
    "torchvision.ops.roi_align": ("torch._dynamo.utils", ("is_compile_supported",)),
}


@contextmanager
def deferred_imports() -> Iterator[None]:
    """While entered, the listed import statements import nothing yet."""
    import_as_always = builtins.__import__

    def import_or_defer(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        functions = tuple(fromlist or ())
        importer = str((globals or {}).get("__name__"))
        if DEFERRED.get(importer) != (name, functions):
            return import_as_always(name, globals, locals, fromlist, level)
        if functions:
            return SimpleNamespace(**{item: _deferred(name, item) for item in functions})
        return _DeferredModule(name)

    builtins.__import__ = import_or_defer
    try:
        yield
    finally:
        if builtins.__import__ is import_or_defer:
            builtins.__import__ = import_as_always


class _DeferredModule(ModuleType):
    """What a module that imports a package sees of it: the package, once anything is used."""

    def __getattr__(self, item: str) -> Any:
        return getattr(importlib.import_module(self.__name__), item)


def _deferred(module: str, name: str) -> Callable[..., Any]:
    """The function of that name, whose module is imported when it is called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    return call
