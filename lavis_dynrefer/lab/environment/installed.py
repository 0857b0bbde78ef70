"""What is installed, by its metadata: nothing is imported, so nothing broken is met."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import lavis_dynrefer

OURS, LAVIS = "lavis_dynrefer", "salesforce-lavis"
SWITCH, HOOK = "LAVIS_DYNREFER_AUTOLOAD", "lavis_dynrefer_autoload"
LIBRARIES = (
    *("torchvision", "transformers", "tokenizers", "numpy", "pillow", "pyarrow", "pydantic"),
    *("omegaconf", "safetensors", "timm", "pycocoevalcap", "pycocotools", "opencv-python-headless"),
)
_SECONDS = 10  # for git


def package() -> dict[str, Any]:
    """Version and place of this package, and the commit it was installed from, if git knows it."""
    folder = Path(lavis_dynrefer.__file__).resolve().parent
    found: dict[str, Any] = {"version": lavis_dynrefer.__version__, "folder": str(folder)}
    own = _distribution(OURS)
    found["installed"] = own is not None
    text = own.read_text("direct_url.json") if own is not None else None
    origin = json.loads(text) if text else {}
    if origin.get("vcs_info"):
        found["commit"] = origin["vcs_info"]["commit_id"]
    elif (folder.parent / ".git").exists():  # not the repository of somebody else around it
        found["commit"] = _described_by_git(folder.parent)
    if origin.get("dir_info", {}).get("editable"):
        found["editable"] = True
    return found


def libraries() -> dict[str, Any]:
    """Versions of the libraries that matter; `refused`: why this transformers is not used."""
    found: dict[str, Any] = {name: _version(name) for name in LIBRARIES}
    try:
        importlib.import_module("lavis_dynrefer.models")  # which refuses some
    except ImportError as error:
        found["refused"] = str(error)
    return found


def lavis() -> dict[str, Any]:
    """Whether LAVIS is installed and where, whether its hook is in place, and its unmet pins."""
    own = _distribution(LAVIS)
    spec = importlib.util.find_spec("lavis")
    return {
        "version": None if own is None else own.version,
        "folder": None if spec is None or spec.origin is None else str(Path(spec.origin).parent),
        "hook_read_at_start_up": HOOK in sys.modules,
        "unmet_pins": [] if own is None else list(unmet(own.requires or ())),
    }


def extras() -> dict[str, list[str]]:
    """Extra of this package -> its requirements that are not met; "" for those of everybody."""
    own = _distribution(OURS)
    if own is None:
        return {}
    wanted = own.requires or ()
    names = own.metadata.get_all("Provides-Extra") or ()
    return {name: list(unmet(wanted, extra=name)) for name in ("", *names)}


def unmet(requirements: Iterable[str], *, extra: str = "") -> Iterator[str]:
    """Those of a package's requirements that this environment does not meet, with what it has.

    Args:
        requirements: as in the metadata of a package.
        extra: only what this extra adds; "": only what everybody needs.
    """
    from packaging.requirements import Requirement

    for text in requirements:
        one = Requirement(text)
        with_extra = one.marker is None or one.marker.evaluate({"extra": extra})
        without = one.marker is None or one.marker.evaluate({"extra": ""})
        if not with_extra or (extra and without):
            continue
        found = _version(one.name)
        if found is None:
            yield f"{one.name} is missing"
        elif not one.specifier.contains(found, prereleases=True):
            yield f"{one.name} {found} ({one.specifier})"


def _described_by_git(folder: Path) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    words = [git, "--no-optional-locks", "-C", str(folder), "describe", "--always", "--dirty"]
    done = subprocess.run(
        [*words, "--exclude=*"], capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS
    )
    return done.stdout.decode("utf-8", "replace").strip() or None


def _distribution(name: str) -> metadata.Distribution | None:
    """The one whose code is used: an old one may lie behind it on the path."""
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _version(name: str) -> str | None:
    found = _distribution(name)
    if found is None and re.match("opencv-python", name):  # one module, four packages
        others = ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
        found = next(filter(None, map(_distribution, others)), None)
    return None if found is None else found.version
