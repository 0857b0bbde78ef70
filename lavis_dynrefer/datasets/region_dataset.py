"""The torch dataset behind every builder: regions of images, cropped into views.

A training sample is one region, or a few of one image. An evaluation sample is one image with all
its regions, so that each image is decoded once.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from lavis_dynrefer.datasets.region_sets import rows_by_image
from lavis_dynrefer.datasets.sources.region_collector import box_problem
from lavis_dynrefer.datasets.tables import TagTable
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.decoding import IMAGE_ERRORS
from lavis_dynrefer.images.opening import decode_image
from lavis_dynrefer.structures import ImageRecord, RegionRecord, RegionSet
from lavis_dynrefer.views.samples import Sample, concat_samples
from lavis_dynrefer.views.view_processor import ViewProcessor
from lavis_dynrefer.vocab.control_words import ControlSampler

logger = logging.getLogger(__name__)

_CURE = "replace the file, or set on_error: skip to go on without it"


class SampleError(InputError):
    """No views can be cropped from an image or a region.

    Args:
        reason: short machine name, as in `Rejection`; or the whole message, as torch gives it when
            it re-raises a worker's error.
        detail: the file, what was expected and what was found.
    """

    def __init__(self, reason: str, detail: str | None = None) -> None:
        super().__init__(reason if detail is None else f"{detail} ({reason}); {_CURE}")
        self.reason = reason
        self.detail = detail


class RegionTags:
    """Tags of regions as indices into one tag list.

    Args:
        names: the tag list.
        table: tags by row of the regions, if they were found ahead of time.
        tagger: caption -> tag names, if they were not. A region's own tags take precedence.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        *,
        table: TagTable | None = None,
        tagger: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        self.names = tuple(names)
        self.table = table
        self.tagger = tagger
        self._index = {name: index for index, name in enumerate(names)}

    def of(self, row: int, region: RegionRecord) -> list[int]:
        """Indices of one region's tags; `row` is its place among the regions.

        Raises:
            InputError: the region has a tag that is not in the list.
        """
        if region.tags:
            return self._indices(region.tags)
        if self.table is not None:
            return self.table[row]
        if self.tagger is None or not region.caption:
            return []
        return self._indices(self.tagger(region.caption))

    def _indices(self, names: Sequence[str]) -> list[int]:
        try:
            return [self._index[name] for name in names]
        except KeyError as error:
            raise InputError(f"tag {error} is not in the list of {len(self.names)} tags") from None


class RegionDataset(Dataset[dict[str, Any]]):
    """Regions with their views, as LAVIS's runner wants them.

    A batch is a dictionary. `views` (B, V, 3, S, S) uint8, `boxes` (B, V, 4), `scales` (B, V)
    and `image_boxes` (B, 4) are stacked over all regions of the batch; `routes` maps task -> (B, n)
    and may be empty. `region_ids`, `image_ids`, `datasets` (names) and `captions` are lists of
    length B; so are in training `tags`, lists of indices into `tag_names`, and `controls`, the
    control prompts.
    `regions_per_image` has one number per sample; `failed` lists the regions left out, each with
    its `region_id`, `reason` and `detail`.

    Args:
        region_set: the regions, their boxes checked.
        vis_processor: RGB image and boxes (R, 4), R may be 0 -> views, boxes, scales, image_boxes,
            routes; usually a `ViewProcessor`. If its attribute `asks_for_masks` is true, it gets
            masks=[...] as well, one `RegionRecord.mask` for each region, where any has one.
        text_processor: cleans captions in training; None if they are clean already.
        train: a sample is one region, or a few of one image, instead of one image.
        evaluator: what grades the answers, a name from `metrics.EVALUATORS`.
        tags: tags of the regions, for training.
        controls: samples control prompts, for training; by default from the tags alone.
        on_error: "raise" stops at an unreadable image; "skip" gives a sample without regions and
            lists them under `failed`.
        regions_per_image: maximum number of regions in a training sample, all of one image,
            which is decoded once for them; 1 in the released code.
        repeats: how often an epoch of training has each sample.
    """

    def __init__(
        self,
        region_set: RegionSet,
        vis_processor: Callable[..., Mapping[str, Any]],
        text_processor: Callable[[str], str] | None = None,
        *,
        train: bool,
        evaluator: str = "dense_caption",
        tags: RegionTags | None = None,
        controls: ControlSampler | None = None,
        on_error: str = "raise",
        regions_per_image: int = 1,
        repeats: int = 1,
    ) -> None:
        self.region_set = region_set
        self.name = region_set.name
        self.evaluator = evaluator
        self.train = train
        self.set_processors(vis_processor, text_processor)
        self.tags = tags or RegionTags()
        self.controls = controls or ControlSampler()
        self.on_error = on_error
        self._repeats = repeats if train else 1
        # By default a training sample is one region, and rows need no list.
        self._samples: Sequence[Sequence[int]] | None = None
        if not train:
            self._samples = rows_by_image(region_set)
        elif regions_per_image > 1:
            self._samples = rows_by_image(region_set, max_rows=regions_per_image)

    def set_processors(
        self,
        vis_processor: Callable[..., Mapping[str, Any]],
        text_processor: Callable[[str], str] | None = None,
    ) -> None:
        """Use other processors, such as those of a model; arguments as for the class."""
        self.vis_processor = vis_processor
        self.text_processor = text_processor
        self._crop = vis_processor
        self._asks_for_masks = bool(getattr(vis_processor, "asks_for_masks", False))
        if (
            isinstance(vis_processor, ViewProcessor)
            and type(vis_processor).__call__ is ViewProcessor.__call__
        ):
            self._crop = vis_processor.crop  # images and boxes of the dataset are checked

    @property
    def tag_names(self) -> tuple[str, ...] | None:
        """The list that the indices under `tags` point into; None if there are no tags."""
        return self.tags.names or None

    @property
    def fingerprint(self) -> str:
        """Tells the samples apart from those of other files or settings, by 64 of the regions."""
        regions = self.region_set.regions
        some = [regions[row] for row in range(0, len(regions), len(regions) // 64 + 1)]
        shown = [
            (int(item.region_id), [float(corner) for corner in item.box], item.caption)
            for item in some
        ]
        digest = hashlib.sha256(repr((len(self), shown)).encode("utf-8", "replace"))
        return f"{self.name} {digest.hexdigest()[:16]}"

    @property
    def sample_sizes(self) -> list[int]:
        """Number of regions of each sample; no image is read."""
        if self._samples is None:
            return [1] * len(self)
        return [len(rows) for rows in self._samples] * self._repeats

    def __len__(self) -> int:
        """Samples: regions or groups of them in training, images in evaluation."""
        return self._count() * self._repeats

    def _count(self) -> int:
        """Different samples."""
        return len(self.region_set.regions if self._samples is None else self._samples)

    def __getitem__(self, index: int) -> Sample:
        """One sample, shaped like a batch.

        Raises:
            SampleError: the image or one of its regions is unusable and `on_error` is "raise".
        """
        if index >= len(self):  # so that a loop over the samples ends
            raise IndexError(index)
        index %= self._count()
        rows = [index] if self._samples is None else self._samples[index]
        regions = {row: self.region_set.regions[row] for row in rows}
        failed: list[dict[str, Any]] = []
        try:
            views = self._views(regions, failed)
        except SampleError as error:
            if self.on_error == "raise":
                raise
            logger.warning("skipped: %s", error.detail)
            failed += [_failure(region, error) for region in regions.values()]
            regions, views = {}, self._no_views()
        sample = Sample(
            **views,
            region_ids=[region.region_id for region in regions.values()],
            image_ids=[region.image_id for region in regions.values()],
            datasets=[self.name] * len(regions),
            captions=[region.caption for region in regions.values()],
            failed=failed,
        )
        if self.train:
            sample.update(self._targets(regions))
        return sample

    def collater(self, samples: Sequence[Mapping[str, Any]]) -> Sample:
        """Join samples along the region axis.

        Raises:
            SampleError: a training batch without any region.
        """
        batch = concat_samples(samples)
        batch["regions_per_image"] = [len(sample["region_ids"]) for sample in samples]
        if self.train and not batch["region_ids"]:
            first = batch["failed"][0]
            raise SampleError(first["reason"], f"no sample of a batch is usable: {first['detail']}")
        return batch

    def _views(
        self, regions: dict[int, RegionRecord], failed: list[dict[str, Any]]
    ) -> Mapping[str, Any]:
        """Views of regions of one image; regions outside of it move to `failed`."""
        record = self.region_set.images[next(iter(regions.values())).image_id]
        image = read_image(record)
        if image.size != (record.width, record.height):  # boxes were checked with these
            for row, region in list(regions.items()):
                reason = box_problem(region.box, *image.size)
                if reason is None:
                    continue
                error = SampleError(
                    reason,
                    f"box {region.box} of region {region.region_id} in image {record.image_id}: "
                    f"{record.path} has {image.size} pixels, "
                    f"annotated {record.width, record.height}",
                )
                if self.on_error == "raise":
                    raise error
                failed.append(_failure(regions.pop(row), error))
        boxes = torch.tensor([region.box for region in regions.values()], dtype=torch.float32)
        masks = [region.mask for region in regions.values()] if self._asks_for_masks else []
        given = {} if all(mask is None for mask in masks) else {"masks": masks}
        try:
            return self._crop(image, boxes.reshape(-1, 4), **given)
        except ValueError as error:
            detail = f"image {record.image_id}, {record.path}: {error}"
            raise SampleError("unusable_view", detail) from error

    def _no_views(self) -> Mapping[str, Any]:
        return self._crop(Image.new("RGB", (1, 1)), torch.zeros(0, 4))

    def _targets(self, regions: Mapping[int, RegionRecord]) -> dict[str, list[Any]]:
        """Captions, tags and control prompts of training regions."""
        captions = [region.caption or "" for region in regions.values()]
        if self.text_processor is not None:
            captions = [self.text_processor(caption) for caption in captions]
        tags = [self.tags.of(row, region) for row, region in regions.items()]
        # Seeded by torch's generator, which the loader of a run seeds for each sample.
        rng = random.Random(int(torch.randint(2**31, ())))
        controls = [
            self.controls.prompt(caption, [self.tags.names[index] for index in indices], rng)
            for caption, indices in zip(captions, tags)
        ]
        return {"captions": captions, "tags": tags, "controls": controls}


def read_image(record: ImageRecord) -> Image.Image:
    """Decode an image to RGB, its pixels as stored: boxes were drawn without EXIF rotation.

    Raises:
        SampleError: the file is missing, truncated, too large or no image.
    """
    try:
        return decode_image(record.path)
    except IMAGE_ERRORS as error:
        missing = isinstance(error, FileNotFoundError)
        raise SampleError(
            "missing_image" if missing else "unreadable_image",
            f"image {record.image_id}, {record.path}: {error}",
        ) from error


def _failure(region: RegionRecord, error: SampleError) -> dict[str, Any]:
    return {"region_id": region.region_id, "reason": error.reason, "detail": error.detail}
