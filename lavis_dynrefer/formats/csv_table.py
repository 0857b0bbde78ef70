"""CSV, for spreadsheets and data frames: a header, then one line per region."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TextIO

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.image_names import ANY_SUFFIX
from lavis_dynrefer.formats.image_result import ImageResult, RegionId, top_category
from lavis_dynrefer.formats.reading.records import CORNERS, KeyedRow, image_size, plain_key
from lavis_dynrefer.formats.reading.strict_values import finite_number
from lavis_dynrefer.formats.region_boxes import DEFAULT_FORMAT, Grouping, ImageBoxes
from lavis_dynrefer.structures import RegionPrediction

_PLACE = ("image", "path", "width", "height", "image_id", "region", *CORNERS)
_ANSWERS = (
    *("caption", "caption_score", "category", "category_probability", "none_of_these"),
    *("tags", "tag_probabilities", "tag_scores", "familiarity"),
)

# What spreadsheets take for a formula, wide signs included; apostrophes before it, so that the one
# that is added can be told from those of the text.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_WHOLE = re.compile("0|-?[1-9][0-9]{0,17}")


def write_csv(results: Collection[ImageResult], file: TextIO) -> None:
    """Write the table; an image without regions has no line.

    A text that a spreadsheet would take for a formula has an apostrophe before it, which
    `read_csv_boxes` removes. The character of code 0 becomes U+FFFD. Tags with their probabilities
    and scores are lists separated by semicolons. Each attribute and category has a column of
    probabilities, "attribute_probability:NAME" and "category_probability:NAME", and one of scores,
    "attribute:NAME" (in [0, 1]) and "category:NAME" (logits), and each task a column with the
    scales of its views.
    """
    attributes: set[str] = set()
    categories: set[str] = set()
    tasks: dict[str, None] = {}  # in order
    for region in (region for result in results for region in result.regions):
        attributes.update(name for name, _ in region.attributes)
        categories.update(name for name, _ in region.categories)
        tasks.update(dict.fromkeys(region.scales))
    columns = [
        *(*_PLACE, *_ANSWERS),
        *(f"attribute_probability:{name}" for name in sorted(attributes)),
        *(f"category_probability:{name}" for name in sorted(categories)),
        *(f"attribute:{name}" for name in sorted(attributes)),
        *(f"category:{name}" for name in sorted(categories)),
        *(f"scales:{task}" for task in tasks),
    ]
    table = csv.DictWriter(_UnixLines(file), list(map(_without_nul, columns)))
    table.writeheader()
    for result in results:
        for number, region in zip(result.ids, result.regions):
            row = {**_place(result, number, region), **_answers(region)}
            table.writerow(
                {_without_nul(key): _guarded(_without_nul(value)) for key, value in row.items()}
            )


def write_excel_csv(results: Collection[ImageResult], file: TextIO) -> None:
    """Write the table with the mark by which Excel knows UTF-8."""
    file.write("\ufeff")
    write_csv(results, file)


def read_csv_boxes(text: str) -> tuple[dict[str, ImageBoxes], str]:
    """Read the boxes of a table with a header; cells are separated by comma, semicolon or tab.

    Rows without any number are images without regions, and blank rows are skipped. Columns such as
    width and height are the size of the image, unless they belong to the box.

    Returns:
        Image name -> boxes, and their format, "xyxy" or "xywh".

    Raises:
        InputError: no header with known columns, or an invalid line; names it.
    """
    file = io.StringIO(text, newline="")
    first = file.readline()
    said = re.fullmatch(r'\s*"?sep=([^"\r\n])"?\s*', first, re.IGNORECASE)  # of Excel
    if not said:
        file.seek(0)
    delimiter = said[1] if said else max(",;\t", key=first.count)
    rows = csv.reader(file, delimiter=delimiter, strict=True)
    grouping = Grouping()
    try:
        header = [cell.strip() for cell in next(rows, [])]
        columns = _columns(header)
        clean = _unguarded if tuple(header[: len(_PLACE)]) == _PLACE else str.strip
        for cells in rows:
            if any(cell.strip() for cell in cells):
                try:
                    _add_row(header, list(map(clean, cells)), columns, grouping)
                except InputError as error:
                    raise InputError(f"line {rows.line_num + bool(said)}: {error}") from error
    except csv.Error as error:
        raise InputError(f"line {rows.line_num + bool(said)}: {error}") from error
    return grouping.images, columns.format or DEFAULT_FORMAT


class _UnixLines:
    """Ends lines with a line feed; with that as its terminator, csv would not quote a return."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line[:-2] + "\n")


def _without_nul(value: Any) -> Any:
    """Python 3.10 does not write the character of code 0, and older ones do not read it."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _guarded(value: Any) -> Any:
    is_formula = isinstance(value, str) and _FORMULA.match(value)
    return f"'{value}" if is_formula else value


def _unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _place(result: ImageResult, number: RegionId, region: RegionPrediction) -> dict[str, Any]:
    return {
        "image": result.image,
        "path": result.path,
        "width": result.width,
        "height": result.height,
        "image_id": result.image_id,
        "region": number,
        **dict(zip(CORNERS, region.box)),
    }


def _answers(region: RegionPrediction) -> dict[str, Any]:
    return {
        "caption": region.caption,
        "caption_score": region.caption_score,
        "category": top_category(region)[0] if region.categories else None,
        "category_probability": region.categories[0].probability if region.categories else None,
        "none_of_these": region.none_of_these,
        "tags": _joined(_guarded(name) for name, _ in region.tags),
        "tag_probabilities": _joined(tag.probability for tag in region.tags),
        "tag_scores": _joined(score for _, score in region.tags),
        "familiarity": region.familiarity,
        **{f"attribute_probability:{one.name}": one.probability for one in region.attributes},
        **{f"category_probability:{one.name}": one.probability for one in region.categories},
        **{f"attribute:{name}": score for name, score in region.attributes},
        **{f"category:{name}": score for name, score in region.categories},
        **{f"scales:{task}": _joined(scales) for task, scales in region.scales.items()},
    }


def _joined(values: Iterable[Any]) -> str:
    """Write several values into a cell, as csv, so that a value may contain a semicolon."""
    line = io.StringIO()
    csv.writer(line, delimiter=";", lineterminator="").writerow(map(_without_nul, values))
    return line.getvalue()


def _columns(header: Sequence[str]) -> KeyedRow:
    """The columns of image, box, size and id, as the file spells them."""
    columns = KeyedRow(header)
    if columns.image is None or columns.format is None:
        cure = f"; write the numbers of {columns.box} in four columns" if columns.box else ""
        raise InputError(
            "expected json, or csv with a header line such as "
            f"image,x1,y1,x2,y2 or image,x,y,w,h; got {', '.join(header):.120}{cure}"
        )
    for name in (columns.image, columns.id, *columns.corners):
        if header.count(name) > 1:
            raise InputError(f"two columns are called {name}")
    return columns


def _add_row(
    header: Sequence[str], cells: Sequence[str], columns: KeyedRow, grouping: Grouping
) -> None:
    if any(cell.strip() for cell in cells[len(header) :]):
        raise InputError(
            f"expected {len(header)} cells, got {len(cells)}; if commas separate cells, write "
            "numbers with a point"
        )
    row = dict(zip(header, cells))
    name = row.get(columns.image, "")
    if not name:
        raise InputError(f"no {columns.image}")
    if plain_key(columns.image) == "imageid" and "." not in name:
        name += ANY_SUFFIX
    entry = grouping.entry(name, "a line")
    numbers = [row.get(column, "") for column in columns.corners]
    columns.check_turn(row)
    box = columns.box_of(_box(numbers, columns.corners)) if any(numbers) else None
    entry.set_size(image_size(row, columns, box))
    if box is not None:
        entry.add(box, _id(row.get(columns.id)))


def _box(cells: Sequence[str], corners: Sequence[str]) -> list[float]:
    try:
        return [finite_number(cell) for cell in cells]
    except InputError as error:
        cure = "; write numbers with a point" if any("," in cell for cell in cells) else ""
        raise InputError(
            f"expected numbers in {', '.join(corners)}, got {list(cells)}{cure}"
        ) from error


def _id(text: str | None) -> RegionId | None:
    if not text:
        return None
    return int(text) if _WHOLE.fullmatch(text) else text
