"""Answers for people: annotated images, a table, and what `dynrefer predict` prints."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lavis_dynrefer.formats import ImageResult, ResultLog
from lavis_dynrefer.formats.image_result import top_category
from lavis_dynrefer.pages.region_drawing import draw_regions
from lavis_dynrefer.structures import RegionPrediction, ScoredName, familiarity_remark

MAX_ROWS = 40  # regions in a table
_MAX_DRAWN = 100  # regions; each takes some lines below the image
_SIDES = (640, 1600)  # min and max pixels of the longer side of an annotated image
_COLUMNS = (  # docs/answers.md explains the numbers in brackets
    *("image", "#", "box", "caption (probability)", "category (probability)"),
    *("attributes (probability)", "tags"),
)
_MAX_TAGS = 5
_MAX_ATTRIBUTES = 3
_MAX_LISTED = 20  # failures


def resize_for_drawing(image: Image.Image) -> Image.Image:
    """The image at a size at which the words beside it can be read."""
    low, high = _SIDES
    factor = min(max(low / max(image.size), 1.0), high / max(image.size))
    if factor == 1.0:
        return image
    return image.resize([max(round(side * factor), 1) for side in image.size])


def annotated_jpeg(image: Image.Image, result: ImageResult) -> bytes:
    """The image with its regions and answers.

    Args:
        image: of any size.
        result: its answers; boxes in pixels of the original.
    """
    image = resize_for_drawing(image)
    across, down = image.width / result.width, image.height / result.height
    shown = result.regions[:_MAX_DRAWN]
    more = len(result.regions) - len(shown)
    corners = [region.box for region in shown]
    boxes = [(x1 * across, y1 * down, x2 * across, y2 * down) for x1, y1, x2, y2 in corners]
    drawing = draw_regions(
        image,
        boxes,
        [_lines(region) for region in shown],
        remark=f"{more:,} more regions are not drawn" if more else "",
    )
    file = io.BytesIO()
    drawing.save(file, "JPEG", quality=92)
    return file.getvalue()


def table(results: Iterable[ImageResult]) -> Table:
    """A table of the first `MAX_ROWS` regions, without empty columns."""
    rows = []
    regions = (
        (result.image, number, region)
        for result in results
        for number, region in zip(result.ids, result.regions)
    )
    for image, number, region in islice(regions, MAX_ROWS):
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
    """Text that any terminal can show and that does not control it."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def print_results(log: ResultLog, written: Sequence[Path]) -> None:
    """Print the results: the file written, else a table."""
    for path in written:
        _print_file(path)
    if not written:
        more = _print_table(log) - MAX_ROWS
        if more > 0:
            note(f"{more:,} more regions; --output FOLDER keeps them")


def print_summary(log: ResultLog, folder: Path, written: Iterable[Path]) -> None:
    """Print how many images and regions were answered, and the files written in a folder."""
    count = _print_table(log, only_whole=True)
    names = dict.fromkeys(path.relative_to(folder).as_posix() for path in written)
    print(f"images: {len(log):,}, regions: {count:,}")
    print(f"in {printable(str(folder))}: {', '.join(names)}")


def list_failures(failures: Mapping[str, str]) -> None:
    """Print the first failures to stderr."""
    if failures:
        note(f"images without an answer, drawing or page: {len(failures):,}")
    for name, reason in islice(failures.items(), _MAX_LISTED):
        note(f"  {name}: {reason}")
    if len(failures) > _MAX_LISTED:
        note(f"  and {len(failures) - _MAX_LISTED:,} more")


def note(text: str) -> None:
    """Print a line to stderr."""
    sys.stderr.write(printable(text) + "\n")


def note_lines(text: str) -> None:
    """Print lines to stderr, at once: other processes may print as well."""
    sys.stderr.write("".join(f"{printable(line)}\n" for line in text.splitlines()))


def _print_file(path: Path) -> None:
    """Print a text file as it is, in UTF-8 whatever the encoding of the console."""
    bytes_out = getattr(sys.stdout, "buffer", None)
    if bytes_out is None:  # a stream of another program's own
        sys.stdout.write(path.read_text(encoding="utf-8"))
        return
    sys.stdout.flush()
    with path.open("rb") as file:
        shutil.copyfileobj(file, bytes_out)
    bytes_out.flush()


def _print_table(log: ResultLog, *, only_whole: bool = False) -> int:
    """Print the table unless it is empty or, if `only_whole`, truncated; returns the regions."""
    count = sum(len(result.regions) for result in log)
    if count and not (only_whole and count > MAX_ROWS):
        Console().print(table(log))
    remark = familiarity_remark([region for result in log for region in result.regions])
    if remark is not None:
        note(remark)
    return count


def _lines(region: RegionPrediction) -> str:
    parts = (_category(region), _best(region.attributes), _tags(region))
    return "\n".join(line for line in (region.caption, " · ".join(filter(None, parts))) if line)


def _category(region: RegionPrediction) -> str:
    name, share = top_category(region)
    if share is None:
        return name if region.categories else ""
    return f"{name} ({share:.2f})"


def _tags(region: RegionPrediction) -> str:
    return ", ".join(name for name, _ in region.tags[:_MAX_TAGS])


def _best(scores: Sequence[ScoredName]) -> str:
    return ", ".join(
        one.name if one.probability is None else f"{one.name} ({one.probability:.2f})"
        for one in scores[:_MAX_ATTRIBUTES]
    )
