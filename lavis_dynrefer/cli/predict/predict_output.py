"""What `dynrefer predict` leaves behind: a folder that goes on, annotated images, tables."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image
from rich.table import Table
from rich.text import Text

from lavis_dynrefer import __version__
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats import FORMATS, ROWS, ImageResult, ResultLog
from lavis_dynrefer.formats.image_result import best_category
from lavis_dynrefer.images.opening import open_image
from lavis_dynrefer.pages.region_drawing import draw_regions
from lavis_dynrefer.structures import Box, NamedScore, RegionPrediction

logger = logging.getLogger(__name__)

SETTINGS = "run.json"
ANNOTATED = "annotated"
MOST_ROWS = 40  # regions in a table for people
_MOST_DRAWN = 100  # regions; each takes some lines below the image
_SIDES = (640, 1600)  # pixels, of the longer side of an annotated image
_COLUMNS = (  # in brackets what the numbers in brackets are, see docs/answers.md
    *("image", "#", "box", "caption (probability)", "category (share)", "attributes (score)"),
    "tags",
)
_SHOWN = 5  # best names of each kind
_LONGEST = 60  # characters of a file name; each may take four of the 255 bytes there are


def open_log(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> ResultLog:
    """The rows of a folder, to go on with or to begin.

    Args:
        folder: new, empty, or one of an earlier run.
        settings: what the answers depend on, beside images and regions; plain json.
        resume: go on with the rows that are there.

    Raises:
        ValueError: the folder holds something else, or answers of other settings.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: expected a folder, it is a file")
    known = folder / SETTINGS
    if folder.is_dir() and any(folder.iterdir()) and not known.is_file():
        raise InputError(f"--output {folder} holds other files; name a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps(settings))
    if not resume:
        for name in (name for files in FORMATS.values() for name in files):
            (folder / name).unlink(missing_ok=True)
    elif (folder / ROWS).is_file() and (folder / ROWS).stat().st_size:
        earlier = _read_settings(known)
        differ = [key for key in settings if earlier.get(key) != settings[key]]
        if differ:
            raise InputError(
                f"--output {folder} has answers of another run; different: "
                + "; ".join(
                    f"{key} was {earlier.get(key)!r:.60}, is {settings[key]!r:.60}"
                    for key in differ
                )
                + ". Name another folder, or begin anew with --no-resume"
            )
    about = {"lavis_dynrefer": __version__, "settings": settings}
    known.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return ResultLog(folder / ROWS)


def draw_results(
    results: Iterable[ImageResult], folder: Path, *, anew: Collection[str]
) -> Iterator[tuple[str, str | None]]:
    """Draw the regions of each image into `folder`; see `file_of_each`."""

    def draw(result: ImageResult, path: Path) -> None:
        annotated(open_image(result.path), result).save(path, "JPEG", quality=92)

    return file_of_each(results, folder, ".jpg", draw, cannot="cannot be drawn", anew=anew)


def file_of_each(
    results: Iterable[ImageResult],
    folder: Path,
    ending: str,
    make: Callable[[ImageResult, Path], None],
    *,
    cannot: str,
    anew: Collection[str],
) -> Iterator[tuple[str, str | None]]:
    """Make a file of each image in `folder`, or leave the one that is there.

    Args:
        results: of the images.
        folder: where to; made if need be.
        ending: of the files' names.
        make: writes the file.
        cannot: what to say of an image where that fails, before the reason.
        anew: names of images whose file is made even if there is one.

    Yields:
        Name of an image, and why it has no file, or None.
    """
    folder.mkdir(exist_ok=True)
    for result in results:
        path = folder / f"{file_stem(result.image)}{ending}"
        reason = None
        if result.image in anew or not path.exists():
            unfinished = path.with_suffix(".part")  # a file that is there is complete
            try:
                make(result, unfinished)
                unfinished.replace(path)
            except Exception as error:  # whatever is wrong with one image is not the others'
                logger.debug("%s", result.path, exc_info=True)
                reason = f"{cannot}: {error}"
            finally:
                unfinished.unlink(missing_ok=True)
        yield result.image, reason


def annotated(image: Image.Image, result: ImageResult) -> Image.Image:
    """The image with its regions, at a size at which words beside it can be read."""
    least, most = _SIDES
    factor = min(max(least / max(image.size), 1.0), most / max(image.size))
    size = (max(round(image.width * factor), 1), max(round(image.height * factor), 1))
    shown = result.regions[:_MOST_DRAWN]
    more = len(result.regions) - len(shown)
    return draw_regions(
        image.resize(size),
        [_scaled(region.box, factor) for region in shown],
        [_lines(region) for region in shown],
        remark=f"{more:,} more regions are not drawn" if more else "",
    )


def _scaled(box: Box, factor: float) -> Box:
    x1, y1, x2, y2 = box
    return x1 * factor, y1 * factor, x2 * factor, y2 * factor


def file_stem(name: str) -> str:
    """A file name for an image of any name: no folder, not too long, different for each.

    >>> file_stem("my house.png"), file_stem("../a.png").startswith("a.png-")
    ('my house.png', True)
    """
    stem = re.sub(r"[^\w. -]+", "_", name.encode("utf-8", "replace").decode()).strip("._ -")
    stem = stem[:_LONGEST]
    if stem == name:
        return stem
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{stem}-{digest}"


def table(results: Iterable[ImageResult]) -> Table:
    """A table for people, of at most `MOST_ROWS` regions; what was not asked has no column."""
    rows = []
    regions = (
        (result.image, number, region)
        for result in results
        for number, region in zip(result.ids, result.regions)
    )
    for image, number, region in islice(regions, MOST_ROWS):
        cells = (
            printable(image),
            printable(str(number)),
            " ".join(f"{value:.0f}" for value in region.box),
            "" if region.caption is None else f"{region.caption} ({region.caption_score:.2f})",
            _category(region),
            _best(region.attributes),
            _tags(region) or ("-" if "tags" in region.scales else ""),
        )
        rows.append([Text(cell) for cell in cells])  # not markup: names may hold brackets
    kept = [place for place in range(len(_COLUMNS)) if any(row[place] for row in rows)]
    view = Table(*(_COLUMNS[place] for place in kept))
    for row in rows:
        view.add_row(*(row[place] for place in kept))
    return view


def printable(text: str) -> str:
    """Text that does nothing to a terminal, and that any of them can show."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _lines(region: RegionPrediction) -> str:
    parts = (
        _category(region),
        _best(region.attributes),
        _tags(region),
    )
    return "\n".join(line for line in (region.caption, " · ".join(filter(None, parts))) if line)


def _category(region: RegionPrediction) -> str:
    name, share = best_category(region)
    if share is None:
        return name if region.categories else ""
    return f"{name} ({share:.2f})"


def _tags(region: RegionPrediction) -> str:
    return ", ".join(name for name, _ in region.tags[:_SHOWN])


def _best(scores: Iterable[NamedScore]) -> str:
    return ", ".join(f"{name} ({score:.2f})" for name, score in list(scores)[:3])


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (KeyError, TypeError, OSError, ValueError) as error:
        raise InputError(
            f"{path} is damaged; begin anew with --no-resume, or name another folder"
        ) from error
    return settings
