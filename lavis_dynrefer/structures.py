"""The plain data that all layers share, and the legend of dimension letters.

Legend, used in every docstring of the package:

    B regions in the batch      R regions of one image   V views per region
    C ViT width                 N tokens, 1 + h * w        S side of a view in pixels
    Q queries                   D Q-Former width           T text tokens
    K texts (tags, attributes, categories, captions)       E width of a text embedding

Boxes are xyxy, float32, absolute pixels of the image as decoded; other formats exist
only inside converters. Captions are stored as the source wrote them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Box = tuple[float, float, float, float]
NamedScore = tuple[str, float]
UNFAMILIAR = 0.01  # a familiarity below it: as rare as one region in a hundred of validation


@dataclass(frozen=True)
class ImageRecord:
    """One image of a dataset.

    Args:
        image_id: the id the source gave it.
        path: absolute path of the file.
        width: pixels, as the annotation file says.
        height: pixels, as the annotation file says.
    """

    image_id: int
    path: str
    width: int
    height: int


@dataclass(frozen=True)
class RegionRecord:
    """One annotated region: the box and its labels.

    Args:
        region_id: unique within the dataset split.
        image_id: key of `RegionSet.images`.
        box: (x1, y1, x2, y2) in pixels of the image; positive size, overlaps the image.
        caption: reference text, None where the source has none.
        tags: names of the tags the caption mentions, all from the tag vocabulary in use.
        attributes: one of 1 (present), 0 (absent), -1 (unknown) per `RegionSet.attributes`.
        category: one of `RegionSet.category_names`.
        score: confidence of the box where a detector proposed it, else None.
        iscrowd: the region is a crowd of its category, which COCO keeps apart from single objects.
        mask: pixels of the region, where the source has them: COCO's run lengths {"size": [height,
            width], "counts": compressed text}, or polygons [[x1, y1, x2, y2, ...], ...] in pixels.
    """

    region_id: int
    image_id: int
    box: Box
    caption: str | None = None
    tags: tuple[str, ...] = ()
    attributes: tuple[int, ...] | None = None
    category: str | None = None
    score: float | None = None
    iscrowd: bool = False
    mask: Any = field(default=None, hash=False)


@dataclass(frozen=True)
class Rejection:
    """A region, image or file that cannot be used, and why.

    Args:
        reason: short machine name, counted in reports: "empty_box", "missing_image", ...
        detail: one sentence for users: what was expected and what was found.
        image_id: the image concerned, None for a whole file.
        region: the region as far as it could be read; in evaluation it still counts as truth, so a
            rejected region is a wrong answer and never leaves the metric.
    """

    reason: str
    detail: str
    image_id: int | None = None
    region: RegionRecord | None = None


@dataclass(frozen=True)
class AttributeInfo:
    """One attribute of an OVAD-style vocabulary, fields as in its json.

    Args:
        name: "type:synonym/synonym".
        type: "clothes color".
        parent_type: "color".
        is_has: "is" or "has": which prompt templates apply.
        frequency: "head", "medium" or "tail".
    """

    name: str
    type: str
    parent_type: str
    is_has: str
    frequency: str


@dataclass(frozen=True)
class RegionSet:
    """Everything a converter read from one split of one raw dataset.

    Args:
        name: protocol id such as "vg1.2-densecap-gt"; it labels every report.
        split: "train", "val", "test", ...
        images: image id -> image; images without usable regions are left out.
        regions: usable regions, in file order.
        rejected: everything that was dropped, each with its reason.
        attributes: vocabulary of `RegionRecord.attributes`, in vector order.
        category_names: closed list of categories, in the order of the source file.
        truth_regions: usable regions of the annotation file, where `regions` are others, such as
            boxes from a detector.
        noted: oddities of regions that were kept -> number of regions.
    """

    name: str
    split: str
    images: Mapping[int, ImageRecord]
    regions: Sequence[RegionRecord]
    rejected: Sequence[Rejection] = ()
    attributes: tuple[AttributeInfo, ...] = ()
    category_names: tuple[str, ...] = ()
    truth_regions: Sequence[RegionRecord] = ()
    noted: Mapping[str, int] = field(default_factory=dict)

    def rejection_counts(self) -> dict[str, int]:
        """Number of rejections per reason, most frequent first."""
        return dict(Counter(item.reason for item in self.rejected).most_common())

    def truth(self) -> list[RegionRecord]:
        """What an evaluation grades: `truth_regions`, else `regions`; then the rejected ones."""
        usable = self.truth_regions or self.regions
        return [*usable, *(item.region for item in self.rejected if item.region)]


class ScoredName(tuple[str, float]):
    """A tag, an attribute or a category of a region: a pair (name, score) with a probability.

    It unpacks, compares and hashes as the pair alone.

    Args:
        name: as asked.
        score: as the released code gives it; it ranks names.
        probability: that the name is right, in [0, 1]; None in files of earlier versions.

    >>> red = ScoredName("red", 0.65, 0.99)
    >>> name, score = red
    >>> name, score, red.probability
    ('red', 0.65, 0.99)
    """

    probability: float | None

    def __new__(cls, name: str, score: float, probability: float | None = None) -> ScoredName:
        """A pair with a probability."""
        entry = super().__new__(cls, (name, score))
        entry.probability = probability
        return entry

    def __getnewargs__(self) -> tuple[str, float, float | None]:
        return (*self, self.probability)

    def __repr__(self) -> str:
        return f"ScoredName({self[0]!r}, {self[1]!r}, {self.probability!r})"

    @property
    def name(self) -> str:
        """As asked."""
        return self[0]

    @property
    def score(self) -> float:
        """As the released code gives it."""
        return self[1]


_SCORED = ("tags", "attributes", "categories")


@dataclass(frozen=True)
class RegionPrediction:
    """What the model says about one region.

    Args:
        box: (x1, y1, x2, y2) in pixels, as asked.
        caption: generated sentence; None without the task "caption".
        caption_score: probability of the generated token sequence, in [0, 1].
        tags: those above the tag threshold, best first; the score is in [0, 1].
        attributes: the whole vocabulary, best first; the score is in [0, 1].
        categories: the whole vocabulary, best first; the score is a logit. Their probabilities
            and `none_of_these` add up to 1.
        scales: task name -> scales of the views that task used, first always 0.
        familiarity: share of validation regions that are as far from the training regions as this
            one, or farther, in [0, 1]; None where the model was not calibrated for it.
    """

    box: Box
    caption: str | None = None
    caption_score: float | None = None
    tags: tuple[ScoredName, ...] = ()
    attributes: tuple[ScoredName, ...] = ()
    categories: tuple[ScoredName, ...] = ()
    scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    familiarity: float | None = None

    def __post_init__(self) -> None:
        for key in _SCORED:  # plain pairs are taken, too
            pairs = getattr(self, key)
            if not all(isinstance(pair, ScoredName) for pair in pairs):
                object.__setattr__(self, key, tuple(map(_scored, pairs)))

    @property
    def none_of_these(self) -> float | None:
        """Probability that no category in question is right; None where it is not known."""
        given = [category.probability for category in self.categories]
        known = [value for value in given if value is not None]
        if not given or len(known) < len(given):
            return None
        return max(0.0, 1.0 - sum(known))

    @property
    def is_unfamiliar(self) -> bool:
        """Whether the region is unlike anything that the model was trained on."""
        return self.familiarity is not None and self.familiarity < UNFAMILIAR

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for json.

        "probabilities" has those of each kind by name.
        """
        known = {
            key: {one.name: one.probability for one in entries if one.probability is not None}
            for key, entries in ((key, getattr(self, key)) for key in _SCORED)
        }
        return {
            "box": list(self.box),
            "familiarity": self.familiarity,
            "caption": self.caption,
            "caption_score": self.caption_score,
            "probabilities": {key: values for key, values in known.items() if values},
            "none_of_these": self.none_of_these,
            "tags": [list(pair) for pair in self.tags],
            "attributes": [list(pair) for pair in self.attributes],
            "categories": [list(pair) for pair in self.categories],
            "scales": {task: list(scales) for task, scales in self.scales.items()},
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> RegionPrediction:
        """Inverse of `to_dict`; also reads regions of results.jsonl and of earlier versions."""
        known = row.get("probabilities") or {}

        def pairs(key: str) -> tuple[ScoredName, ...]:
            values = known.get(key) or {}
            return tuple(
                ScoredName(pair["name"], pair["score"], pair.get("probability"))
                if isinstance(pair, Mapping)
                else ScoredName(pair[0], pair[1], values.get(pair[0]))
                for pair in row[key]
            )

        x1, y1, x2, y2 = row["box"]
        return cls(
            box=(x1, y1, x2, y2),
            caption=row["caption"],
            caption_score=row["caption_score"],
            tags=pairs("tags"),
            attributes=pairs("attributes"),
            categories=pairs("categories"),
            scales={task: tuple(scales) for task, scales in row["scales"].items()},
            familiarity=row.get("familiarity"),
        )


def _scored(pair: NamedScore) -> ScoredName:
    return pair if isinstance(pair, ScoredName) else ScoredName(*pair)


def familiarity_remark(regions: Sequence[RegionPrediction]) -> str | None:
    """A sentence about the regions that are unlike all training data; None without any.

    >>> familiarity_remark([RegionPrediction((0, 0, 9, 9), familiarity=0.0)])
    'The region looks unlike anything this model was trained on; its answers mean little.'
    """
    strange = sum(region.is_unfamiliar for region in regions)
    if not strange:
        return None
    if len(regions) == 1:
        which, whose = "The region looks", "its"
    elif strange == len(regions):
        which, whose = "Both" if strange == 2 else f"All {strange:,}", "their"
        which += " regions look"
    else:
        which = f"{strange:,} of {len(regions):,} regions {'looks' if strange == 1 else 'look'}"
        whose = "its" if strange == 1 else "their"
    return f"{which} unlike anything this model was trained on; {whose} answers mean little."


@dataclass(frozen=True)
class MetricReport:
    """One evaluation, labelled so that two numbers are never compared by mistake.

    Args:
        evaluator: "dense_caption", "reg", "attributes" or "categories".
        protocol: which regions were graded, e.g. "ovad-14300".
        mode: "strict" (a missing answer is a wrong answer) or "official" (as the released code).
        primary: the key of `metrics` that ranks checkpoints.
        metrics: metric name -> value; percent or fraction as the name's docstring says.
        counts: how many regions were graded, missing, rejected, ...
    """

    evaluator: str
    protocol: str
    mode: str
    primary: str
    metrics: Mapping[str, float]
    counts: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and numbers, ready for json."""
        return {
            "evaluator": self.evaluator,
            "protocol": self.protocol,
            "mode": self.mode,
            "primary": self.primary,
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "counts": dict(self.counts),
        }
