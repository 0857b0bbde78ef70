"""Logits of the regions of a split, beside the labels that say which answers are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lavis_dynrefer.datasets.region_dataset import RegionDataset, read_image
from lavis_dynrefer.models.answering import Answerer
from lavis_dynrefer.models.probabilities.text_answers import contrast_logits
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.structures import RegionRecord, RegionSet
from lavis_dynrefer.views.samples import rows_of

_JITTER = 0.1  # of a box's sides, in half of the regions: users draw less exactly than annotators
_LOOKED_AT = 64  # regions, to find out which labels a split has


@dataclass(frozen=True)
class LabelledLogits:
    """Answers of one kind.

    Args:
        logits: (N, K) on the CPU.
        labels: (N, K) of 1, 0 and -1 for unknown; of categories (N,), which of the K is right.
        images: (N,) number of the image, in the order in which images were read.
    """

    logits: Tensor
    labels: Tensor
    images: Tensor

    @property
    def known(self) -> int:
        """Number of regions of which something is known."""
        known = self.labels >= 0
        return int((known if known.ndim == 1 else known.any(dim=1)).sum())

    def half(self, number: int) -> LabelledLogits:
        """Those of every other image: `number` 0 or 1."""
        rows = self.images % 2 == number
        return LabelledLogits(self.logits[rows], self.labels[rows], self.images[rows])


def labelled_kinds(region_set: RegionSet) -> list[str]:
    """Kinds of answers for which the regions of a split have labels."""
    regions = region_set.regions
    some = [regions[row] for row in range(0, len(regions), len(regions) // _LOOKED_AT + 1)]
    has = {
        "attributes": any(1 in (region.attributes or ()) for region in some),
        "categories": len(region_set.category_names) > 1
        and any(region.category is not None for region in some),
        "tags": any(region.tags or region.caption for region in some),
    }
    return [kind for kind, found in has.items() if found]


@torch.no_grad()
def read_logits(
    answerer: Answerer,
    dataset: RegionDataset,
    kinds: Sequence[str],
    *,
    tagger: Callable[[str], Sequence[str]],
    most: int,
) -> dict[str, LabelledLogits]:
    """Logits and labels of a split, kind by kind.

    Args:
        answerer: of the model.
        dataset: an evaluation split; its images are read in even steps.
        kinds: those wanted.
        tagger: caption -> tags, for regions without tags of their own.
        most: regions, about.
    """
    region_set, model = dataset.region_set, answerer.model
    questions = Questions(
        tasks=tuple(kinds),
        attributes=region_set.attributes or None,
        categories=region_set.category_names or None,
    )
    names = region_set.category_names
    parts: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {kind: [] for kind in kinds}
    for number, sample, regions in _images(dataset, most):
        for rows in _slices(len(regions), 64):
            own = regions[rows]
            part, features = answerer.look(rows_of(sample, rows), kinds)
            queries = answerer.queries_of(part, features, kinds)
            with answerer.computing("heads"):
                found = contrast_logits(model, questions, queries)
                logits = {kind: own_logits for kind, (own_logits, _) in found.items()}
                if "tags" in kinds:
                    texts = model.embed_texts(model.tagging.tags)
                    logits["tags"] = model.tagging(texts, queries["tags"]).float().cpu()
            labels = {
                "attributes": lambda one: list(one.attributes or [-1] * len(region_set.attributes)),
                "categories": lambda one: names.index(one.category) if one.category else -1,
                "tags": lambda one: _tag_labels(one, model.tagging.tags, tagger),
            }
            image = torch.full((len(own),), number)
            for kind in kinds:
                right = torch.tensor([labels[kind](region) for region in own])
                parts[kind].append((logits[kind], right, image))
    gathered = {
        kind: LabelledLogits(*(torch.cat(column) for column in zip(*rows)))
        for kind, rows in parts.items()
        if rows
    }
    if "categories" in gathered:
        all_rows = gathered["categories"]
        known = all_rows.labels >= 0
        gathered["categories"] = LabelledLogits(
            all_rows.logits[known], all_rows.labels[known], all_rows.images[known]
        )
    return gathered


@torch.no_grad()
def read_features(
    answerer: Answerer, region_set: RegionSet, crop: Callable[..., Mapping[str, Any]], *, most: int
) -> Tensor:
    """Class tokens (N, C) of the regions' own views; half of the boxes are moved a little.

    Args:
        answerer: of the model.
        region_set: its images are read in even steps.
        crop: RGB image and boxes (R, 4) -> sample, as in evaluation.
        most: regions, about.
    """
    by_image: dict[int, list[RegionRecord]] = {}
    for region in region_set.regions:
        by_image.setdefault(region.image_id, []).append(region)
    rng, found = torch.Generator().manual_seed(0), []
    count = len({(region.image_id, region.box) for region in region_set.regions})
    for image_id in _even_steps(list(by_image), count, most):
        image = read_image(region_set.images[image_id])
        boxes = torch.tensor([region.box for region in by_image[image_id]], dtype=torch.float32)
        boxes = boxes.unique(dim=0)  # a region may have several captions
        sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        moved = _JITTER * (2 * torch.rand(boxes.shape, generator=rng) - 1) * sides
        moved[torch.rand(len(boxes), generator=rng) < 0.5] = 0
        limits = torch.tensor(image.size * 2, dtype=torch.float32)
        sample = crop(image, (boxes + moved).clamp(min=torch.zeros(4), max=limits))
        for rows in _slices(len(boxes), 64):
            features = answerer.encode(rows_of(sample, rows))
            found.append(features.summary[:, 0].float().cpu())
    return torch.cat(found)


def _images(dataset: RegionDataset, most: int) -> Iterator[tuple[int, Any, list[RegionRecord]]]:
    by_id = {region.region_id: region for region in dataset.region_set.regions}
    chosen = _even_steps(range(len(dataset)), len(by_id), most)
    for number, index in enumerate(chosen):
        sample = dataset[index]
        yield number, sample, [by_id[region_id] for region_id in sample["region_ids"]]


def _even_steps(items: Sequence[Any], regions: int, most: int) -> Sequence[Any]:
    """So many of the images that they have about `most` of the regions."""
    return items[:: max(1, round(regions / most))]


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _tag_labels(
    region: RegionRecord, tags: Sequence[str], tagger: Callable[[str], Sequence[str]]
) -> list[int]:
    if not region.tags and not region.caption:
        return [-1] * len(tags)
    own = set(region.tags or tagger(region.caption or ""))
    return [int(tag in own) for tag in tags]
