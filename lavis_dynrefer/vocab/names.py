"""Vocabulary files with one name per line: tags, categories."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lavis_dynrefer.errors import InputError, MissingFileError


def load_names(path: str | Path) -> list[str]:
    """Read a list of names, one per line, in order; blank lines are skipped.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: the file is no text, holds no name, or holds one twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise MissingFileError(f"no vocabulary {path}; name a file with one name per line") from (
            error
        )
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"vocabulary {path}: expected text, one name per line: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f"vocabulary {path}: expected one name per line, found none")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"vocabulary {path}: {repeated[:5]} occur more than once")
    return names
