"""The torch dataset behind every builder: regions of images, cut into views.

Training draws one region per sample, or a few of one image. Evaluation draws one image per
sample with all its regions, so that an image is decoded once however many regions it has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lavis_dynrefer.datasets.sources.collector import box_problem
from lavis_dynrefer.datasets.tables import rows_by_image
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.opening import IMAGE_ERRORS, decode_image
from lavis_dynrefer.structures import ImageRecord, RegionRecord, RegionSet
from lavis_dynrefer.views.samples import concat_samples

logger = logging.getLogger(__name__)

EVALUATORS = ("dense_caption", "reg", "attributes", "categories")
ON_ERROR = ("raise", "skip")
_CURE = "replace the file, or set on_error: skip to go on without it"
_LISTED = ("region_ids", "image_ids", "captions", "tags", "failed")


class SampleError(InputError):
    """An image or region that cannot be turned into views.

    Args:
        reason: short machine name, as in `Rejection`; or the whole message, as torch gives it when
            it raises a loader process's error again.
        detail: the file, what was expected of it and what came.
    """

    def __init__(self, reason: str, detail: str | None = None) -> None:
        super().__init__(reason if detail is None else f"{detail} ({reason}); {_CURE}")
        self.reason = reason
        self.detail = detail


class RegionDataset(Dataset[dict[str, Any]]):
    """Regions with their views, as LAVIS's runner wants them.

    A batch is a plain dictionary. `views` (B, V, 3, S, S) uint8, `boxes` (B, V, 4), `scales` (B, V)
    and `image_boxes` (B, 4) are stacked over all regions of the batch; `routes` maps task -> (B, n)
    and may be empty. `region_ids`, `image_ids`, `captions` and `tags` are lists of length B.
    `regions_per_image` has one number per sample; `failed` lists the regions left out, each with
    its `region_id`, `reason` and `detail`.

    Args:
        region_set: the regions.
        vis_processor: RGB image and boxes (R, 4), R may be 0 -> views, boxes, scales.
        text_processor: prepares captions; used in training only.
        train: one region per sample, or a few of one image, instead of one image.
        evaluator: what grades the answers: one of `EVALUATORS`.
        tagger: caption -> tags, for regions that come without.
        on_error: "raise" stops at an image that cannot be read; "skip" gives a sample without
            regions and lists them under `failed`.
        regions_per_image: most regions per sample in training, all of one image, which is decoded
            once for them; the released code has 1.

    Raises:
        ValueError: an unknown evaluator or way of handling errors, or no region per image.
    """

    def __init__(
        self,
        region_set: RegionSet,
        vis_processor: Callable[[Image.Image, Tensor], Mapping[str, Any]],
        text_processor: Callable[[str], str],
        *,
        train: bool,
        evaluator: str = "dense_caption",
        tagger: Callable[[str], Sequence[str]] | None = None,
        on_error: str = "raise",
        regions_per_image: int = 1,
    ) -> None:
        if evaluator not in EVALUATORS:
            raise InputError(f"evaluator: expected one of {list(EVALUATORS)}, got {evaluator!r}")
        if on_error not in ON_ERROR:
            raise InputError(f"on_error: expected one of {list(ON_ERROR)}, got {on_error!r}")
        if regions_per_image < 1:
            raise InputError(f"regions_per_image: expected at least 1, got {regions_per_image}")
        self.region_set = region_set
        self.name = region_set.name
        self.evaluator = evaluator
        self.train = train
        self.vis_processor = vis_processor
        self.text_processor = text_processor
        self.tagger = tagger
        self.on_error = on_error
        # In training by default one sample is one region, and rows need no list.
        self._samples: Sequence[Sequence[int]] | None = None
        if not train:
            self._samples = rows_by_image(region_set)
        elif regions_per_image > 1:
            self._samples = rows_by_image(region_set, most=regions_per_image)

    def __len__(self) -> int:
        """Samples: regions or groups of them in training, images in evaluation."""
        return len(self.region_set.regions if self._samples is None else self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample, shaped like a batch.

        Raises:
            SampleError: the image or one of its regions is unusable and `on_error` is "raise".
        """
        rows = [index] if self._samples is None else self._samples[index]
        regions = [self.region_set.regions[row] for row in rows]
        try:
            return self._sample(regions)
        except SampleError as error:
            if self.on_error == "raise":
                raise
            logger.warning("skipped: %s", error.detail)
            return self._describe([], self._no_views(), _failures(regions, error))

    def collater(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Join samples along the region axis.

        Raises:
            SampleError: a training batch without a single region.
        """
        batch = concat_samples(samples)
        for key in _LISTED:
            batch[key] = [item for sample in samples for item in sample[key]]
        batch["regions_per_image"] = [len(sample["region_ids"]) for sample in samples]
        if self.train and not batch["region_ids"]:
            first = batch["failed"][0]
            raise SampleError(first["reason"], f"no sample of a batch is usable: {first['detail']}")
        return batch

    def _sample(self, regions: Sequence[RegionRecord]) -> dict[str, Any]:
        record = self.region_set.images[regions[0].image_id]
        image = read_image(record)
        usable, failed = [], []
        for region in regions:
            reason = box_problem(region.box, *image.size)
            if reason is None:
                usable.append(region)
                continue
            error = SampleError(
                reason,
                f"box {region.box} of region {region.region_id} in image {record.image_id}: "
                f"{record.path} has {image.size} pixels, annotated {record.width, record.height}",
            )
            if self.on_error == "raise":
                raise error
            failed += _failures([region], error)
        if not usable:
            return self._describe([], self._no_views(), failed)
        boxes = torch.tensor([region.box for region in usable], dtype=torch.float32)
        try:
            views = self.vis_processor(image, boxes)
        except ValueError as error:
            detail = f"image {record.image_id}, {record.path}: {error}"
            raise SampleError("unusable_view", detail) from error
        return self._describe(usable, views, failed)

    def _describe(
        self,
        regions: Sequence[RegionRecord],
        views: Mapping[str, Any],
        failed: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        captions = [region.caption for region in regions]
        if self.train:
            captions = [self.text_processor(caption or "") for caption in captions]
        boxes = torch.tensor([region.box for region in regions], dtype=torch.float32)
        return {
            "views": views["views"],
            "boxes": views["boxes"],
            "scales": views["scales"],
            "routes": dict(views.get("routes") or {}),
            "image_boxes": boxes.reshape(-1, 4),
            "region_ids": [region.region_id for region in regions],
            "image_ids": [region.image_id for region in regions],
            "captions": captions,
            "tags": [self._tags(region) for region in regions],
            "failed": list(failed),
        }

    def _tags(self, region: RegionRecord) -> list[str]:
        if region.tags or self.tagger is None or not region.caption:
            return list(region.tags)
        return list(self.tagger(region.caption))

    def _no_views(self) -> Mapping[str, Any]:
        return self.vis_processor(Image.new("RGB", (1, 1)), torch.zeros(0, 4))


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


def _failures(regions: Sequence[RegionRecord], error: SampleError) -> list[dict[str, Any]]:
    return [
        {"region_id": region.region_id, "reason": error.reason, "detail": error.detail}
        for region in regions
    ]
