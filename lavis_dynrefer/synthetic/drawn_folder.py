"""Folders of drawn files, which appear when they are complete."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.paths import replace_file

logger = logging.getLogger(__name__)

_PATIENCE = 1.0  # seconds until it is said that another process is waited for


@dataclass(frozen=True)
class Drawing:
    """What is to be drawn, and where.

    Args:
        root: the folder.
        file: name of its file with the manifest, which whoever draws writes.
        manifest: what determines the files, ready for json.
        what: the same in words, for messages.
        cure: end of the message where it cannot be written.
    """

    root: Path
    file: str
    manifest: Mapping[str, Any]
    what: str
    cure: str = ""

    @property
    def is_there(self) -> bool:
        """Whether the folder holds it; False if it is new or empty.

        Raises:
            InputError: the folder holds something else.
        """
        root = self.root
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            return False
        path = root / self.file
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else "other files"
        if found != self.manifest:
            raise InputError(
                f"{root} holds {found}, not {self.what} {self.manifest}; choose another folder or "
                "remove it"
            )
        return True

    @contextmanager
    def begin(self, folders: Sequence[str]) -> Iterator[Path | None]:
        """A folder to write into, which takes the place of `root` at the end.

        None if everything is there, perhaps drawn by another process, which has been waited for.
        After an error, or when interrupted, nothing is left but a lock file.

        Args:
            folders: to make in it.

        Raises:
            InputError: it cannot be written, or holds something else.
        """
        if self.is_there:
            yield None
            return
        lock = self._lock()
        try:
            if self.is_there:
                yield None
                return
            partial = self._empty(folders)
            try:
                yield partial
            except BaseException:  # also when interrupted
                shutil.rmtree(partial, ignore_errors=True)
                raise
            if self.root.exists():
                self.root.rmdir()  # empty, see `is_there`
            replace_file(partial, self.root)
        finally:
            lock.release()

    def _lock(self) -> FileLock:
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root.with_name(f".{self.root.name}.lock"))
            try:
                lock.acquire(timeout=_PATIENCE)
            except Timeout:
                logger.info("Another process is drawing %s; waiting for it", self.root)
                lock.acquire()
        except (OSError, NotImplementedError) as error:  # the latter on a share without locks
            raise self._unwritable(error) from error
        return lock

    def _empty(self, folders: Sequence[str]) -> Path:
        partial = self.root.with_name(self.root.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)  # of an interrupted run
        try:
            for folder in folders:
                (partial / folder).mkdir(parents=True)
        except OSError as error:
            raise self._unwritable(error) from error
        return partial

    def _unwritable(self, error: Exception) -> InputError:
        reason = getattr(error, "strerror", None) or error
        return InputError(f"{self.root} cannot be written ({reason}){self.cure}")
