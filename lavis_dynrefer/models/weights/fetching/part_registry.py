"""Where the parts of a model type lie on this machine, as told once: `dynrefer weights set`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.weights.fetching.kept_parts import only_process, weights_folder
from lavis_dynrefer.paths import replace_file

_NAME = "places.json"
Places = dict[str, dict[str, str]]  # model type -> part -> path


def registered(model_type: str | None) -> dict[str, Path]:
    """Part -> its file or folder, of a model type.

    Raises:
        InputError: the registry is damaged.
    """
    places = _read(weights_folder(create=False) / _NAME).get(model_type or "", {})
    return {part: Path(path) for part, path in places.items()}


def register(model_type: str, part: str, path: Path) -> None:
    """Remember where a part lies, for every later call; replaces what was told before."""
    with _changed() as places:
        places.setdefault(model_type, {})[part] = str(path.absolute())


def unregister(model_type: str, part: str) -> bool:
    """Forget where a part lies; False if it was not known. Its file stays."""
    with _changed() as places:
        return places.get(model_type, {}).pop(part, None) is not None


@contextmanager
def _changed() -> Iterator[Places]:
    """The registry, written back on exit; others wait meanwhile."""
    folder = weights_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _NAME
    with only_process(folder / f".{_NAME}.lock"):
        places = _read(path)
        yield places
        partial = folder / f".{_NAME}.{os.getpid()}"
        partial.write_text(json.dumps(places, indent=1, sort_keys=True), encoding="utf-8")
        replace_file(partial, path)


def _read(path: Path) -> Places:
    try:
        places: Places = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(part, str) for kept in places.values() for part in kept.values()):
            return places
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, AttributeError):
        pass
    raise InputError(
        f"{path} is damaged; remove it, and repeat `dynrefer weights set` for your own files"
    )
