"""A split in numbers: box sizes, caption lengths, frequent words, what was dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lavis_dynrefer.datasets.prepared import IMAGE_REASONS
from lavis_dynrefer.datasets.tables import columns_of
from lavis_dynrefer.paths import resource_path
from lavis_dynrefer.structures import RegionSet, Rejection
from lavis_dynrefer.vocab import load_names
from lavis_dynrefer.vocab.english_words import split_words

SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)  # of the values below each quantile
SMALL_SIDE = 8  # pixels
WHOLE_IMAGE = 0.99  # of its area
BEYOND_EDGE = 1.0  # pixels; boxes of COCO itself cross the edge by fractions of one
BEYOND_IMAGE = "beyond the image's edge"
SOURCE = "in the source: "  # prefix of oddities that the reader of the files counted
TOP = 40  # words, tags, attributes and categories kept
PIXEL_EDGES = (*(0, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128), *(192, 256, 384, 512, 768, 1024))
_WORD_BINS = 20
_COUNTED_HERE = frozenset({"crowd", "non_ascii_caption"})  # of `RegionSet.noted`


@dataclass(frozen=True)
class Histogram:
    """Counts between edges; the last bin is open."""

    edges: tuple[float, ...]  # lower edge of each bin
    counts: tuple[int, ...]
    median: float  # of the values


@dataclass(frozen=True)
class Drop:
    """What was left out for one reason."""

    reason: str  # as in `Rejection`
    count: int
    example: str  # one sentence about the first
    is_region: bool  # single regions were dropped, not whole images


@dataclass(frozen=True)
class Names:
    """How often names occur."""

    total: int  # occurrences of all names
    distinct: int
    top: tuple[tuple[str, int], ...]  # the most frequent with their counts, at most `TOP`
    unseen: tuple[str, ...] = ()  # names of the closed list that never occur


@dataclass(frozen=True)
class SplitStatistics:
    """One split in numbers."""

    name: str  # protocol id
    split: str
    images: int
    bare_images: int  # those of them without a region
    regions_read: int  # kept and dropped
    regions_kept: int
    graded_on: int  # regions that answers are graded on, if those are other ones; else 0
    captions: int
    longest_caption: str  # the one with most words
    drops: tuple[Drop, ...]  # most frequent reason first
    counts: Mapping[str, tuple[int, int]]  # kind of box, caption or label -> how many of how many
    quantiles: Mapping[str, tuple[float, ...]]  # measure -> values at `SHARES`; never empty
    histograms: Mapping[str, Histogram]  # "relative_size", "pixel_size": sqrt of area; "words"
    names: Mapping[str, Names]  # "words", "categories", "tags", and "attributes" that are present


def describe_split(region_set: RegionSet) -> SplitStatistics:
    """Count everything; takes some seconds for millions of regions in a table."""
    regions = columns_of(region_set.regions)
    sizes, per_image = _image_sizes(region_set, regions["image_id"].to_numpy())
    boxes = pc.list_flatten(regions["box"]).to_numpy().reshape(-1, 4)
    measures, box_counts = _measure_boxes(boxes, sizes)
    drops = _drops(region_set.rejected)
    captions, words = regions["caption"].drop_null(), _word_counts(regions["caption"])
    positives, labels = _attributes(
        regions["attributes"], [item.name for item in region_set.attributes]
    )
    noted = {
        f"{SOURCE}{name.replace('_', ' ')}": count
        for name, count in region_set.noted.items()
        if name not in _COUNTED_HERE
    }
    of_regions = {"crowds": pc.sum(regions["iscrowd"]).as_py() or 0, **box_counts, **noted}
    of_captions = {
        "empty captions": int((words == 0).sum()),
        "non-ASCII captions": len(captions) - (pc.sum(pc.string_is_ascii(captions)).as_py() or 0),
    }
    wholes = (
        (of_regions, len(boxes)),
        (of_captions, len(captions)),
        (labels, sum(labels.values())),
    )
    measured = {
        "regions per image": per_image,
        **measures,
        "words per caption": words,
        "score": regions["score"].drop_null().to_numpy(),
    }
    return SplitStatistics(
        name=region_set.name,
        split=region_set.split,
        images=len(region_set.images),
        bare_images=int((per_image == 0).sum()),
        regions_read=len(boxes) + sum(drop.count for drop in drops if drop.is_region),
        regions_kept=len(boxes),
        graded_on=len(region_set.truth_regions),
        captions=len(captions),
        longest_caption=captions[int(words.argmax())].as_py() if len(words) else "",
        drops=drops,
        counts={name: (count, whole) for counts, whole in wholes for name, count in counts.items()},
        quantiles={
            name: tuple(np.quantile(values, SHARES).tolist())
            for name, values in measured.items()
            if len(values)
        },
        histograms=_histograms(measures, words),
        names={
            "words": _names(frequent_words(regions["caption"])),
            "categories": _names(_value_counts(regions["category"]), region_set.category_names),
            "tags": _names(_value_counts(pc.list_flatten(regions["tags"].drop_null()))),
            "attributes": _names(positives, positives),
        },
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


def _image_sizes(region_set: RegionSet, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R, 2) annotated width and height of each region's image; (images,) number of regions."""
    ids = np.array(list(region_set.images), dtype=np.int64)
    sides = [(image.width, image.height) for image in region_set.images.values()]
    order = np.argsort(ids, kind="stable")
    rows = order[np.searchsorted(ids, image_ids, sorter=order)]
    return np.array(sides).reshape(-1, 2)[rows], np.bincount(rows, minlength=len(ids))


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


def _measure_boxes(
    boxes: np.ndarray, sizes: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Measures of every box, each (R,), and how many boxes are notable."""
    sides = boxes[:, 2:] - boxes[:, :2]  # (R, 2)
    inside = np.minimum(boxes[:, 2:], sizes) - np.maximum(boxes[:, :2], 0)
    share = inside.clip(0).prod(axis=1) / sizes.prod(axis=1)
    beyond = (boxes[:, :2] < -BEYOND_EDGE) | (boxes[:, 2:] > sizes + BEYOND_EDGE)
    measures = {
        "width, px": sides[:, 0],
        "height, px": sides[:, 1],
        "\u221aarea, px": np.sqrt(sides.prod(axis=1)),
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
    relative = np.sqrt(measures["share of image"])
    values = {
        "relative_size": (relative, np.arange(20) / 20),
        "pixel_size": (measures["\u221aarea, px"], np.array(PIXEL_EDGES, dtype=float)),
        "words": (words, np.arange(0, (_WORD_BINS + 1) * step, step)),
    }
    return {name: _histogram(*pair) for name, pair in values.items() if len(pair[0])}


def _histogram(values: np.ndarray, edges: np.ndarray) -> Histogram:
    counts = np.bincount(np.searchsorted(edges, values, side="right") - 1, minlength=len(edges))
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()), float(np.median(values)))


def _word_counts(captions: pa.ChunkedArray) -> np.ndarray:
    """Number of words of every caption."""
    parts = [np.zeros(0, dtype=np.int32)]
    for chunk in captions.chunks:
        trimmed = pc.utf8_trim_whitespace(chunk.drop_null())
        words = pc.list_value_length(pc.utf8_split_whitespace(trimmed)).to_numpy()
        parts.append(np.where(pc.equal(trimmed, "").to_numpy(zero_copy_only=False), 0, words))
    return np.concatenate(parts)


def _attributes(
    values: pa.ChunkedArray, names: Sequence[str]
) -> tuple[Counter[str], dict[str, int]]:
    """Attribute -> regions where it is present; label -> how often it occurs."""
    flat = pc.list_flatten(values.drop_null()).to_numpy()
    if not names or not len(flat):
        return Counter(), {}
    present = (flat.reshape(-1, len(names)) == 1).sum(axis=0)
    meanings = {"attributes present": 1, "attributes absent": 0, "attributes unknown": -1}
    return (
        Counter(dict(zip(names, present.tolist()))),
        {meaning: int((flat == value).sum()) for meaning, value in meanings.items()},
    )


def _value_counts(values: pa.Array | pa.ChunkedArray) -> Counter[str]:
    pairs = pc.value_counts(values.drop_null())
    return Counter(dict(zip(pairs.field("values").to_pylist(), pairs.field("counts").to_pylist())))


def _names(counts: Counter[str], closed_list: Iterable[str] = ()) -> Names:
    seen = {name: count for name, count in counts.items() if count}
    ranked = sorted(seen.items(), key=lambda item: (-item[1], item[0]))
    return Names(
        total=sum(seen.values()),
        distinct=len(seen),
        top=tuple(ranked[:TOP]),
        unseen=tuple(name for name in closed_list if name not in seen),
    )
