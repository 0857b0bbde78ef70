"""What a split holds, in numbers: box sizes, caption lengths, frequent words, what was dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lavis_dynrefer.cli.inspect.region_columns import RegionColumns
from lavis_dynrefer.datasets.prepared import IMAGE_REASONS
from lavis_dynrefer.paths import resource_path
from lavis_dynrefer.structures import RegionSet, Rejection
from lavis_dynrefer.vocab import load_names
from lavis_dynrefer.vocab.words import split_words

SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)  # of the values that lie below each quantile
SMALL_SIDE = 8  # pixels
WHOLE_IMAGE = 0.99  # of its area
BEYOND_EDGE = 1.0  # pixels; COCO's own boxes pass the edge by fractions of one
BEYOND_IMAGE = "beyond the image's edge"
TOP = 40  # words, tags, attributes and categories kept
PIXEL_EDGES = (*(0, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128), *(192, 256, 384, 512, 768, 1024))
_WORD_BINS = 20
_COUNTED_HERE = frozenset({"crowd", "non_ascii_caption"})  # of `RegionSet.noted`


@dataclass(frozen=True)
class Histogram:
    """Counts between edges.

    Args:
        edges: lower edge of each bin; the last bin is open.
        counts: values in each bin.
        median: of the values.
        is_whole: each bin but the last holds a single whole number.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    median: float
    is_whole: bool = False


@dataclass(frozen=True)
class Drop:
    """What was left out for one reason.

    Args:
        reason: as in `Rejection`.
        count: how often.
        example: one sentence about the first.
        is_region: a region each, and not a whole image.
    """

    reason: str
    count: int
    example: str
    is_region: bool


@dataclass(frozen=True)
class Captions:
    """What the captions are like.

    Args:
        count: regions that have one.
        empty: without a word.
        non_ascii: with letters or signs beyond ASCII.
        longest: the one of most words.
    """

    count: int
    empty: int
    non_ascii: int
    longest: str


@dataclass(frozen=True)
class Names:
    """How often names occur.

    Args:
        total: occurrences of all names.
        distinct: different names that occur.
        top: the most frequent with their counts, at most `TOP`.
        unseen: names of the closed list that never occur.
    """

    total: int
    distinct: int
    top: tuple[tuple[str, int], ...]
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitStatistics:
    """One split in numbers.

    Args:
        name: protocol id.
        split: its name.
        images: images that are used.
        bare_images: those of them without a region to ask about.
        regions_read: kept and dropped ones.
        regions_kept: usable ones.
        graded_on: truth that answers are graded on where that is not the regions; else 0.
        crowds: kept regions that are crowds.
        drops: what was left out, the most frequent reason first.
        noted: what is odd about kept regions as the source has them -> how many.
        box_counts: what is notable about kept boxes -> how many.
        quantiles: measure -> its values at `SHARES`; a measure without a value is left out.
        histograms: "relative_size" and "pixel_size", both of the square root of the area, and
            "words".
        captions: of all regions.
        words, tags, categories, attributes: how often each occurs; attributes where present.
        labels: attribute labels "present", "absent" and "unknown" -> how many.
    """

    name: str
    split: str
    images: int
    bare_images: int
    regions_read: int
    regions_kept: int
    graded_on: int
    crowds: int
    drops: tuple[Drop, ...]
    noted: Mapping[str, int]
    box_counts: Mapping[str, int]
    quantiles: Mapping[str, tuple[float, ...]]
    histograms: Mapping[str, Histogram]
    captions: Captions
    words: Names
    tags: Names
    categories: Names
    attributes: Names
    labels: Mapping[str, int]


def describe_split(region_set: RegionSet) -> SplitStatistics:
    """Count everything; some seconds for millions of regions that lie in a table."""
    columns = RegionColumns(region_set)
    drops = _drops(region_set.rejected)
    kept = len(region_set.regions)
    measures, box_counts = _measure_boxes(columns)
    words = _word_counts(columns.column("caption"))
    positives, labels = _attributes(columns, [item.name for item in region_set.attributes])
    return SplitStatistics(
        name=region_set.name,
        split=region_set.split,
        images=len(region_set.images),
        bare_images=int((columns.per_image == 0).sum()),
        regions_read=kept + sum(drop.count for drop in drops if drop.is_region),
        regions_kept=kept,
        graded_on=len(region_set.truth_regions),
        crowds=pc.sum(columns.column("iscrowd")).as_py() or 0,
        drops=drops,
        noted={name: n for name, n in region_set.noted.items() if name not in _COUNTED_HERE},
        box_counts=box_counts,
        quantiles={
            name: tuple(np.quantile(values, SHARES).tolist())
            for name, values in {
                "regions per image": columns.per_image,
                **measures,
                "words per caption": words,
                "score": columns.column("score").drop_null().to_numpy(),
            }.items()
            if len(values)
        },
        histograms=_histograms(measures, words),
        captions=_captions(columns.column("caption"), words),
        words=_names(frequent_words(columns.column("caption"))),
        tags=_names(columns.tag_counts()),
        categories=_names(_value_counts(columns.column("category")), region_set.category_names),
        attributes=_names(positives, positives),
        labels=labels,
    )


def frequent_words(captions: pa.ChunkedArray) -> Counter[str]:
    """Content words -> how often they occur; words as the tagger splits them, no stop words."""
    counts: Counter[str] = Counter()
    for chunk in captions.chunks:  # a part at a time: the words of all captions take gigabytes
        tokens = pc.list_flatten(pc.utf8_split_whitespace(chunk.drop_null()))
        counts.update(_value_counts(tokens))
    words: Counter[str] = Counter()
    for token, count in counts.items():
        for word in split_words(token):
            words[word] += count
    for word in load_names(resource_path("vocab/data/stop_words.txt", key="stop_words")):
        words.pop(word, None)
    return words


def _drops(rejected: Iterable[Rejection]) -> tuple[Drop, ...]:
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for item in rejected:
        counts[item.reason] += 1
        examples.setdefault(item.reason, item.detail)
    return tuple(
        Drop(reason, count, examples[reason], reason not in IMAGE_REASONS)
        for reason, count in counts.most_common()
    )


def _measure_boxes(columns: RegionColumns) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Measures of every kept box, each (R,), and how many are notable."""
    boxes, sizes = columns.boxes, columns.image_sizes
    sides = boxes[:, 2:] - boxes[:, :2]  # (R, 2)
    area = sides.prod(axis=1)
    inside = np.minimum(boxes[:, 2:], sizes) - np.maximum(boxes[:, :2], 0)
    share = inside.clip(0).prod(axis=1) / sizes.prod(axis=1)
    beyond = (boxes[:, :2] < -BEYOND_EDGE) | (boxes[:, 2:] > sizes + BEYOND_EDGE)
    measures = {
        "width, px": sides[:, 0],
        "height, px": sides[:, 1],
        "\u221aarea, px": np.sqrt(area),
        "share of image": share,
        "width / height": sides[:, 0] / sides[:, 1],
    }
    counts = {
        f"a side under {SMALL_SIDE} pixels": sides.min(axis=1) < SMALL_SIDE,
        "the whole image": share >= WHOLE_IMAGE,
        BEYOND_IMAGE: beyond.any(axis=1),
    }
    return measures, {name: int(applies.sum()) for name, applies in counts.items()}


def _histograms(measures: Mapping[str, np.ndarray], words: np.ndarray) -> dict[str, Histogram]:
    step = max(1, int(np.ceil(np.quantile(words, 0.99) / _WORD_BINS))) if len(words) else 1
    values = {
        "relative_size": (
            np.sqrt(measures["share of image"]),
            np.arange(20) / 20,
        ),
        "pixel_size": (measures["\u221aarea, px"], np.array(PIXEL_EDGES, dtype=float)),
        "words": (words, np.arange(0, (_WORD_BINS + 1) * step, step)),
    }
    return {name: _histogram(*pair) for name, pair in values.items() if len(pair[0])}


def _histogram(values: np.ndarray, edges: np.ndarray) -> Histogram:
    counts = np.bincount(np.searchsorted(edges, values, side="right") - 1, minlength=len(edges))
    is_whole = edges.dtype.kind == "i" and int(edges[1] - edges[0]) == 1
    return Histogram(
        tuple(edges.tolist()), tuple(counts.tolist()), float(np.median(values)), is_whole
    )


def _word_counts(captions: pa.ChunkedArray) -> np.ndarray:
    """Number of words of every caption there is."""
    parts = []
    for chunk in captions.chunks:
        trimmed = pc.utf8_trim_whitespace(chunk.drop_null())
        words = pc.list_value_length(pc.utf8_split_whitespace(trimmed)).to_numpy()
        parts.append(np.where(pc.equal(trimmed, "").to_numpy(zero_copy_only=False), 0, words))
    return np.concatenate([np.zeros(0, dtype=np.int32), *parts])


def _captions(captions: pa.ChunkedArray, words: np.ndarray) -> Captions:
    present = captions.drop_null()
    longest = present[int(words.argmax())].as_py() if len(words) else ""
    ascii_ones = pc.sum(pc.string_is_ascii(present)).as_py() or 0
    return Captions(
        count=len(present),
        empty=int((words == 0).sum()),
        non_ascii=len(present) - ascii_ones,
        longest=longest,
    )


def _attributes(
    columns: RegionColumns, names: Sequence[str]
) -> tuple[Counter[str], dict[str, int]]:
    """Attribute -> regions where it is present; label -> how often it was given."""
    values = columns.column("attributes").drop_null()
    flat = pc.list_flatten(values).to_numpy()
    if not names or not len(flat):
        return Counter(), {}
    labels = flat.reshape(-1, len(names))
    present = (labels == 1).sum(axis=0)
    meanings = {"present": 1, "absent": 0, "unknown": -1}
    return (
        Counter(dict(zip(names, present.tolist()))),
        {meaning: int((flat == value).sum()) for meaning, value in meanings.items()},
    )


def _value_counts(values: pa.Array | pa.ChunkedArray) -> Counter[str]:
    found = pc.value_counts(values.drop_null())
    return Counter(dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist())))


def _names(counts: Counter[str], closed_list: Iterable[str] = ()) -> Names:
    seen = {name: count for name, count in counts.items() if count}
    ranked = sorted(seen.items(), key=lambda item: (-item[1], item[0]))
    return Names(
        total=sum(seen.values()),
        distinct=len(seen),
        top=tuple(ranked[:TOP]),
        unseen=tuple(name for name in closed_list if name not in seen),
    )
