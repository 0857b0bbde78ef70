"""Text files of other systems: UTF-8, or another encoding that they name themselves."""

from __future__ import annotations

import codecs
from pathlib import Path

from lavis_dynrefer.errors import InputError, MissingFileError

_MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b")
_CURE = 'save it as UTF-8 (Excel: "CSV UTF-8"; Notepad: "Save as", Encoding)'


def read_text(path: str | Path, what: str = "a text file") -> str:
    """The text of a file.

    Args:
        path: the file.
        what: the file should be, for errors.

    Raises:
        InputError: not text, or in an encoding that the file does not name.
        MissingFileError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no file {path}")
    try:
        return decode_text(path.read_bytes(), what)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def decode_text(data: bytes, what: str = "a text file") -> str:
    """Decode UTF-8, or UTF-16 and UTF-32 that begin with their mark.

    Raises:
        InputError: anything else; says what it seems to be, and the cure.
    """
    if data.startswith(_ARCHIVES):
        raise InputError(f"expected {what}, got an archive or a spreadsheet; unpack or export it")
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise InputError(f"expected {what}, this is not text ({error})") from error
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"expected {what} in UTF-8, line {line} has the byte {data[error.start]:#x} of another "
            f"encoding, perhaps Windows-1252; {_CURE}"
        ) from error
    if "\0" in text:
        raise InputError(
            f"expected {what}, got zero bytes; if it is UTF-16 without a mark, {_CURE}"
        )
    return text
