"""Paths of the package's own files and of its cache, in a wheel, editable install or checkout."""

from __future__ import annotations

import codecs
import os
import sys
import time
from pathlib import Path

from lavis_dynrefer.errors import MissingFileError

_PACKAGE = Path(__file__).resolve().parent
_ON_WINDOWS = os.name == "nt"
CACHE_VARIABLE = "DYNREFER_CACHE"


def config_path(name: str) -> str:
    """Absolute path of a shipped LAVIS default yaml, such as "models/dynrefer_tiny.yaml".

    LAVIS joins its config paths to its own folder; an absolute path survives that.
    """
    return str(_beside_or_inside("configs") / name)


def project_path(name: str) -> str:
    """Absolute path of a shipped run file, such as "dynrefer/synthetic.yaml"."""
    return str(_beside_or_inside("projects") / name)


def lavis_extension_path() -> str:
    """Absolute path of the folder with the modules `lavis.train` and `lavis.evaluate`."""
    return str(_PACKAGE / "host" / "lavis_extension")


def cache_dir(*, create: bool = True) -> Path:
    """Folder for downloaded and derived files; created unless only its name is wanted.

    Default: ~/.cache/lavis_dynrefer; the environment variable DYNREFER_CACHE overrides it.

    Raises:
        MissingFileError: it cannot be created, or this user has no home.
    """
    folder = expand_home(os.environ.get(CACHE_VARIABLE) or "~/.cache/lavis_dynrefer")
    if folder.parts[0] == "~":
        raise MissingFileError(
            "this user has no home folder for the cache; set HOME, or set "
            f"{CACHE_VARIABLE} to a folder in which you may write"
        )
    if create:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MissingFileError(
                f"cannot create the cache {folder}: {error.strerror}; set {CACHE_VARIABLE} to "
                "a folder in which you may write"
            ) from error
    return folder


def expand_home(path: str | os.PathLike[str]) -> Path:
    """A path with the home folder in place of "~"; unchanged if there is no such user or home.

    "~backup" may also be a folder; `Path.expanduser` raises RuntimeError for it.
    """
    return Path(os.path.expanduser(path))


def find_resource(name: str | os.PathLike[str]) -> Path | None:
    """A file named in a config: as given (absolute or from the current folder), else shipped.

    So "assets/tiny/tokenizer.json" works from any folder. None if neither exists.
    """
    given = expand_home(name)
    for path in (given, _PACKAGE / given):
        if path.exists():
            return path.resolve()
    return None


def resource_path(name: str | os.PathLike[str], *, key: str) -> Path:
    """Like `find_resource`, for files that must exist.

    Raises:
        FileNotFoundError: names the file and the config key that asked for it.
    """
    path = find_resource(name)
    if path is None:
        raise MissingFileError(f"{key}: no file {str(name)!r}, here or in the package")
    return path


def warn_of_surroundings() -> None:
    """To be called by commands: warn on stderr where file names are not UTF-8, as in old locales.

    Raises:
        MissingFileError: the current folder has been deleted; libraries would end the process.
    """
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise MissingFileError("the current folder has been deleted; go to another one") from error
    encoding = codecs.lookup(sys.getfilesystemencoding()).name
    if encoding != "utf-8":
        sys.stderr.write(
            f"warning: this locale reads file names as {encoding}, so that names with other "
            "characters do not match those in annotation files; set PYTHONUTF8=1, or a locale "
            "such as LC_ALL=C.UTF-8\n"
        )


def replace_file(source: Path, target: Path) -> None:
    """Rename a file over another one, at once; on Windows wait until nobody reads that one.

    Raises:
        OSError: the folder may not be written, or the file is still open after six seconds.
    """
    for pause in (0.05, 0.2, 1, 2, 3, None):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if not _ON_WINDOWS or pause is None:
                raise
            time.sleep(pause)


def _beside_or_inside(folder: str) -> Path:
    """The folder inside the package, as in a wheel, or beside it, as in the source tree."""
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder
