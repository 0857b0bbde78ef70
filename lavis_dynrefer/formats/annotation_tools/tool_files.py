"""Finds out which annotation tool wrote a file or a folder, and reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.formats.annotation_tools import labelme, sa1b, voc_xml, yolo_txt
from lavis_dynrefer.formats.annotation_tools.hf_metadata import is_metadata, read_metadata
from lavis_dynrefer.formats.annotation_tools.layout import Layout, LayoutBuilder, distinct_names
from lavis_dynrefer.formats.annotation_tools.unread_tools import (
    refuse_unread,
    refuse_unread_table,
    unread_text,
)
from lavis_dynrefer.formats.image_names import ANY_SUFFIX
from lavis_dynrefer.formats.jsonl import ROWS
from lavis_dynrefer.formats.label_studio import is_label_studio, read_label_studio
from lavis_dynrefer.formats.reading.json_text import parse_json
from lavis_dynrefer.formats.reading.text_file import read_text

READ = (
    "COCO or LVIS json, SA-1B's json, Label Studio's json, labelme's json, VOC's xml, YOLO's txt "
    "or its yaml, Hugging Face's metadata.jsonl, or a folder of the files of labelme, SA-1B, VOC "
    "or YOLO"
)
_TOOLS = {  # of one file for each image, by its suffix
    ".json": (labelme.TOOL, sa1b.TOOL),
    ".xml": (voc_xml.TOOL,),
    ".txt": (yolo_txt.TOOL,),
}
_YOLO = ".txt"
_UNREADABLE = "files that cannot be read"
_LOOKED_AT = 20  # files of a folder without any annotations
_ONE_FILE = ("coco", "instances")  # in names of files that hold a whole dataset


def is_coco(document: Any) -> bool:
    """Whether a json document has COCO's layout."""
    return isinstance(document, Mapping) and {"images", "annotations"} <= set(document)


def read_layout(path: str | Path) -> Layout:
    """Read the annotations of any tool.

    Args:
        path: a file; or a folder of the files of labelme, SA-1B, VOC or YOLO, one per image, and
            its subfolders.

    Raises:
        InputError: of no known tool, or nothing in it can be used.
        MissingFileError: there is no such file or folder.
    """
    path = Path(path)
    layout = layout_without_text(path)
    if layout is not None:
        return layout
    text = read_text(path, "json")
    layout = layout_of_text(path, text)
    if layout is None and text.lstrip()[:1] in ("[", "{"):
        document = parse_json(text)
        refuse_unread(document)
        layout = layout_of_json(document)
    if layout is None:
        refuse_unread_table(text)
        raise InputError(
            f"unknown annotation format, the file begins with {text[:60]!r}; expected {READ}"
        )
    return layout


def files_of(path: Path) -> list[Path]:
    """The files that `read_layout` reads, or may read: a folder changes when one of them does."""
    is_yaml = path.suffix.lower() in yolo_txt.YAML_SUFFIXES
    if not path.is_dir() and not is_yaml:
        return [path]
    folder = path if path.is_dir() else path.parent
    return [*([path] if is_yaml else []), *filter(_is_read, _walk(folder))]


def _is_read(path: Path) -> bool:
    return path.suffix.lower() in _TOOLS


def layout_without_text(path: Path) -> Layout | None:
    """Read what is no text file: a folder, or xml, which names its own encoding; else None.

    Also the yaml of a YOLO dataset, which stands for its folder. Errors as of `read_layout`.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise MissingFileError(f"no file {path}")
    if path.suffix.lower() in yolo_txt.YAML_SUFFIXES:
        return _read_folder(path.parent, (_YOLO,))
    with path.open("rb") as file:
        start = file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t")
    is_xml = path.suffix.lower() == ".xml" or start.startswith(b"<")
    return _read_files(voc_xml.TOOL, path.parent, [path]) if is_xml else None


def layout_of_text(path: Path, text: str) -> Layout | None:
    """Read a single txt of YOLO; None if the text is something else."""
    if path.suffix.lower() == _YOLO and yolo_txt.is_yolo(text):
        return _read_files(yolo_txt.TOOL, path.parent, [path])
    return None


def layout_of_json(document: Any) -> Layout | None:
    """The annotations in a json document; None if no known tool wrote it."""
    if is_coco(document):
        return Layout("COCO", document)
    if labelme.is_labelme(document):
        layout = LayoutBuilder(labelme.TOOL, "pixels")
        labelme.add_labelme(document, labelme.image_of(document), "the file", layout)
        return layout.finish()
    if is_label_studio(document):
        return read_label_studio(document)
    if sa1b.is_sa1b(document):
        return sa1b.read_sa1b(document)
    return read_metadata(document) if is_metadata(document) else None


def _read_folder(folder: Path, suffixes: tuple[str, ...] = tuple(_TOOLS)) -> Layout:
    if (folder / ROWS).is_file():
        raise InputError(f"a folder of dynrefer predict; name the file {folder / ROWS}")
    files = {
        path: _tools_of(path)
        for path in _walk(folder)
        if path.suffix.lower() in suffixes and not yolo_txt.is_list_of_classes(path)
    }
    labels = [path for path, tools in files.items() if yolo_txt.TOOL in tools]
    if len(labels) < sum(map(bool, files.values())) and not any(
        path.stat().st_size for path in labels
    ):
        for path in labels:  # empty txt files of something else
            del files[path]
    sure = list(dict.fromkeys(tools[0] for tools in files.values() if len(tools) == 1))
    if len(sure) > 1:
        both = " and ".join(sure)
        raise InputError(f"the folder has files of {both}; name a folder or a file of one")
    tool = next(iter(sure), None) or next((tools[0] for tools in files.values() if tools), None)
    if tool is None:
        raise _nothing_found(folder, list(files))
    layout = _read_files(tool, folder, [path for path, tools in files.items() if tool in tools])
    for path, tools in files.items():
        if tool not in tools and tool in _TOOLS[path.suffix.lower()]:
            layout.faults.add(f"files that are not of {layout.tool}", path.relative_to(folder))
    return layout


def _nothing_found(folder: Path, others: list[Path]) -> InputError:
    """The error about a folder without files of a tool; says what its files are, if that is known.

    Args:
        folder: it.
        others: files with the suffix of a tool.
    """
    whole = next((path for path in _walk(folder) if _may_be_whole(path)), None)
    what = f"; name the file {whole}" if whole else ""
    for path in [] if whole else others[:_LOOKED_AT]:
        try:
            found = _what_is(path)
        except InputError as error:
            what = f": {path}: {error}"
            break
        what = what or f"; {path} is none of these{found}"
    return InputError(f"no annotations in the folder{what}; expected {READ}")


def _what_is(path: Path) -> str:
    """What a file of a folder may be, in brackets; empty if it is not known.

    Raises:
        InputError: of a known program that is not read, or a file that has to be named.
    """
    text = read_text(path)
    if path.suffix.lower() == _YOLO:
        return unread_text(text)
    document = parse_json(text)
    refuse_unread(document)
    if is_label_studio(document):
        raise InputError("it covers all images; name the file instead of its folder")
    return ""


def _walk(folder: Path) -> Iterator[Path]:
    """The files of a folder and its subfolders, without hidden ones and a Mac's copies."""
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name != "__MACOSX"
        )
        yield from (Path(here, name) for name in sorted(files) if not name.startswith("."))


def _may_be_whole(path: Path) -> bool:
    name = path.name.lower()
    return name == "metadata.jsonl" or (
        name.endswith(".json") and any(word in name for word in _ONE_FILE)
    )


def _tools_of(path: Path) -> tuple[str, ...]:
    """The tool that wrote a file of a folder; all that may have written a damaged one, or none."""
    tools = _TOOLS[path.suffix.lower()]
    try:
        if yolo_txt.TOOL in tools:
            text = read_text(path)
            return tools if not text.strip() or yolo_txt.is_yolo(text) else ()
        if labelme.TOOL in tools:
            document = parse_json(read_text(path))
            if labelme.is_labelme(document):
                return (labelme.TOOL,)
            return (sa1b.TOOL,) if sa1b.is_sa1b(document) else ()
    except InputError:
        return () if yolo_txt.TOOL in tools else tools
    return tools


def _read_files(tool: str, folder: Path, paths: list[Path]) -> Layout:
    """Read files of one image each."""
    units = "fraction" if tool == yolo_txt.TOOL else "pixels"
    layout = LayoutBuilder(tool, units)
    classes = yolo_txt.Classes(folder) if tool == yolo_txt.TOOL else None
    named: list[tuple[str, str]] = []
    contents: list[tuple[Path, Any]] = []
    for path in paths:
        where = path.relative_to(folder).as_posix()
        try:
            content, name = _content(tool, path)
        except InputError as error:
            if len(paths) == 1:
                raise
            layout.faults.add(_UNREADABLE, f"{where}: {error}")
            continue
        place = os.path.dirname(where)
        if tool == yolo_txt.TOOL:  # labels/train/1.txt is about images/train/1.jpg
            place = "/".join("images" if part == "labels" else part for part in place.split("/"))
        named.append((place, name or path.stem + ANY_SUFFIX))
        contents.append((path, content))
    stems = [path.stem for path, _ in contents]
    names = distinct_names(named, stems)
    for (path, content), name, (place, _) in zip(contents, names, named):
        where = path.relative_to(folder).as_posix()
        try:
            if tool == labelme.TOOL:
                labelme.add_labelme(content, name, where, layout, place)
            elif tool == sa1b.TOOL:
                sa1b.add_sa1b(content, name, where, layout, place)
            elif tool == voc_xml.TOOL:
                voc_xml.add_voc(content, name, where, layout, place)
            elif classes is not None:
                yolo_txt.add_yolo(content, name, where, classes, layout, place)
        except InputError as error:
            layout.faults.add(_UNREADABLE, f"{where}: {error}")
    return layout.finish()


def _content(tool: str, path: Path) -> tuple[Any, str | None]:
    """What is in a file, and the name that it gives to its image."""
    if tool == voc_xml.TOOL:
        root = voc_xml.parse_voc(path.read_bytes())
        return root, voc_xml.image_of(root)
    text = read_text(path)
    if tool == yolo_txt.TOOL:
        return text, None
    document = parse_json(text)
    if tool == sa1b.TOOL and sa1b.is_sa1b(document):
        return document, sa1b.image_of(document)
    if not labelme.is_labelme(document):
        raise InputError("no shapes and imagePath")
    return document, labelme.image_of(document)
