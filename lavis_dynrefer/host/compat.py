"""What LAVIS 1.0.2 needs in order to import beside newer or missing libraries."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from lavis_dynrefer.errors import MissingPackageError

OLDEST_PYTHON = (3, 9)
OLDEST_TRANSFORMERS = (4, 26)
REFUSED_TRANSFORMERS = (5, 0)  # T5Config forces tied embeddings, so Flan-T5 answers nonsense

LAVIS = "salesforce-lavis==1.0.2"
LEAN_INSTALL = f"pip install -r requirements-modern.txt && pip install --no-deps {LAVIS}"

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

# Tell every program that imports LAVIS what their own authors should change.
_WARN_ABOUT_THEMSELVES = (r"fairscale\.", r"torch\.jit\.")

# Moved between modules of transformers after LAVIS was written.
MOVED_NAMES = (
    "apply_chunking_to_forward",
    "find_pruneable_heads_and_indices",
    "prune_linear_layer",
)


def check_versions() -> None:
    """Refuse a Python or transformers on which the plugin would fail or answer wrongly.

    Raises:
        ImportError: names the version found, the range expected and the command that cures it.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise MissingPackageError(
            f"lavis_dynrefer needs Python >= {_dotted(OLDEST_PYTHON)}, "
            f"found {_dotted(sys.version_info[:3])}; make a virtual environment with a newer Python"
        )
    try:
        found = version("transformers")
    except PackageNotFoundError:
        return  # the layers below models do not need it
    if not OLDEST_TRANSFORMERS <= _parsed(found) < REFUSED_TRANSFORMERS:
        expected = f">={_dotted(OLDEST_TRANSFORMERS)},<{_dotted(REFUSED_TRANSFORMERS[:1])}"
        raise MissingPackageError(
            f"lavis_dynrefer needs transformers {expected}, found {found}; "
            f"pip install 'transformers{expected}'"
        )


@contextmanager
def lavis_importable() -> Iterator[None]:
    """While entered, `import lavis` works on transformers 4.26 to 4.57 and without unused packages.

    The stand-ins for packages that are not installed are taken away again on exit: LAVIS keeps the
    names it imported, while everybody else still sees that the package is missing.
    """
    check_versions()
    _restore_moved_names()
    absent = {name for name in UNUSED_PACKAGES if not _installed(name)}
    finder = _StandInFinder(absent)
    sys.meta_path.append(finder)
    try:
        with _without_warnings_about_themselves():
            yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] in absent]:
            if isinstance(sys.modules[name], _StandIn):
                del sys.modules[name]


@contextmanager
def _without_warnings_about_themselves() -> Iterator[None]:
    """Not `catch_warnings`: that would also undo the filters which libraries set for themselves."""
    before = list(warnings.filters)
    for module in _WARN_ABOUT_THEMSELVES:
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
    ours = [entry for entry in warnings.filters if entry not in before]
    try:
        yield
    finally:
        filters: Any = warnings.filters
        filters[:] = [entry for entry in filters if entry not in ours]


def _installed(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def _restore_moved_names() -> None:
    """Newer transformers took three functions out of the module where LAVIS looks for them."""
    if importlib.util.find_spec("transformers") is None:
        return
    old_home = importlib.import_module("transformers.modeling_utils")
    new_home = importlib.import_module("transformers.pytorch_utils")
    for name in MOVED_NAMES:
        if not hasattr(old_home, name):
            setattr(old_home, name, getattr(new_home, name))


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


def _parsed(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def _dotted(parts: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in parts)
