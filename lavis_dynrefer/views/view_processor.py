"""The view processor: an image and its boxes in, nested views out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Union

import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from lavis_dynrefer.errors import InputError, choice_problem
from lavis_dynrefer.images import ImageInput, as_boxes, open_image
from lavis_dynrefer.images.mask_cover import RegionMask, checked_masks, mask_grids, tight_boxes
from lavis_dynrefer.views.dimming import dim_outside, dim_own_views
from lavis_dynrefer.views.mask_growth import grow_masks
from lavis_dynrefer.views.nesting import crop_views, nest_boxes, whole_pixels
from lavis_dynrefer.views.policies import RandomScales, ViewPolicy, build_policy
from lavis_dynrefer.views.samples import CHOICE, DIMMED, MASKS, Sample

# Name in LAVIS's registry -> the policy of a processor whose yaml names none.
DEFAULT_POLICIES = {"dynrefer_train": "random", "dynrefer_eval": "image"}
MASK_OPTIONS = ("mask_share", "mask_noise", "use_masks", "mask_views")
MASK_VIEWS = ("none", "dim", "dim_own")
MAX_NOISE = 100  # pixels
Boxes = Union[Tensor, Sequence[Sequence[float]]]


class ViewProcessor:
    """Chooses scales by a policy and crops the views.

    Args:
        policy: chooses the scales.
        image_size: side of a view in pixels.
        mask_share: share of the regions, drawn at random, whose mask is used; datasets then give
            the masks that they have. 0: all masks that are given, and datasets give none.
        mask_noise: largest number of pixels by which the used masks of a training sample grow or
            shrink at random, as those of a segmentation model do; "dim" goes without it.
        use_masks: datasets give the masks that they have, and all of them are used.
        mask_views: "dim" dims what lies outside of a region's mask in all its views, "dim_own" in
            that of the region itself (scale 0); "none" leaves views as they are, as the released
            code does.
        mask_cells: samples have masks, by which a model can weigh the cells of a region.
        rng: draws the regions; None means torch's default generator, which a data loader seeds per
            worker.

    Raises:
        InputError: a value that is not possible.
    """

    default_policy = DEFAULT_POLICIES["dynrefer_eval"]

    def __init__(
        self,
        policy: ViewPolicy,
        *,
        image_size: int,
        mask_share: float = 0.0,
        mask_noise: int = 0,
        use_masks: bool = False,
        mask_views: str = "none",
        mask_cells: bool = True,
        rng: torch.Generator | None = None,
    ) -> None:
        if type(image_size) is not int or image_size < 1:
            raise InputError(
                f"image_size: expected a whole number of at least 1, got {image_size!r}"
            )
        if type(mask_share) not in (int, float) or not 0 <= mask_share <= 1:
            raise InputError(f"mask_share: expected a number from 0 to 1, got {mask_share!r}")
        if type(mask_noise) is not int or not 0 <= mask_noise <= MAX_NOISE:
            raise InputError(
                f"mask_noise: expected whole pixels from 0 to {MAX_NOISE}, got {mask_noise!r}"
            )
        if mask_noise and not mask_share:
            raise InputError("mask_noise: set mask_share, the share of regions whose mask is used")
        if type(use_masks) is not bool:
            raise InputError(f"use_masks: expected true or false, got {use_masks!r}")
        if use_masks and mask_share:
            raise InputError("expected mask_share, a share of all masks, or use_masks, not both")
        problem = choice_problem("mask_views", mask_views, MASK_VIEWS)
        if problem is not None:
            raise InputError(problem)
        self.policy = policy
        self.image_size = image_size
        self.mask_share = mask_share
        self.mask_noise = mask_noise
        self.use_masks = use_masks
        self.mask_views = mask_views
        self.mask_cells = mask_cells
        self.rng = rng

    @property
    def asks_for_masks(self) -> bool:
        """Whether a dataset that has masks should give them."""
        return self.use_masks or self.mask_share > 0

    @property
    def draws(self) -> bool:
        """Whether a generator is used, so that samples depend on the order of the calls."""
        return isinstance(self.policy, RandomScales) or self.mask_share > 0

    def __call__(
        self,
        image: ImageInput,
        boxes: Boxes | None = None,
        masks: Sequence[Any] | None = None,
    ) -> Sample:
        """Crop the views of every region of one image.

        Args:
            image: PIL image of any mode, path or array; see `images.open_image`.
            boxes: (R, 4) xyxy in pixels; each must overlap the image. None: the tight boxes of the
                masks, or without masks the whole image.
            masks: R masks as RLE, polygons or arrays, see `images.boxes_of_masks`; with boxes, None
                for a region without one. A mask must have a part in its box.

        Returns:
            views (R, V, 3, S, S) uint8; boxes (R, V, 4) the region in pixels of each view;
            scales (R, V); image_boxes (R, 4) as given; routes: task -> (R, n) indices into V,
            empty where all tasks use all views. If any mask is used, masks (R, 28, 28) uint8: how
            much of each cell of a grid over the region's box is mask, 255 for all of it, and
            for regions without a mask; and with `mask_views`, dimmed (R, V) bool: which views were
            dimmed. If the model is to choose views, choice: how it chooses -> (R, W, n) indices
            into V, of n views that belong together.

        Raises:
            InputError: no image; boxes or masks of another shape, not finite, or outside the image.
            MissingFileError: there is no such file.
        """
        opened = open_image(image)
        checked = None if masks is None else checked_masks(masks, opened.size)
        if boxes is None:
            boxes = [(0, 0, *opened.size)] if checked is None else tight_boxes(checked)
        return self.crop(opened, as_boxes(boxes, image_size=opened.size), checked)

    def crop(self, image: Image.Image, boxes: Tensor, masks: Sequence[Any] | None = None) -> Sample:
        """As a call, for an RGB image and boxes (R, 4) that were checked before."""
        plan = self.policy.plan(image, boxes)
        sizes = torch.tensor([image.size], dtype=torch.float32).expand(len(boxes), 2)
        frames = nest_boxes(boxes, sizes, plan.scales)
        views, inside = crop_views(image, boxes, frames, self.image_size)
        routes = {
            task: torch.tensor(route).repeat(len(boxes), 1) for task, route in plan.routes.items()
        }
        sample = Sample(
            views=views,
            boxes=inside,
            scales=plan.scales,
            image_boxes=boxes,
            routes=routes,
        )
        if plan.choice is not None:
            choices = torch.tensor(plan.choice.choices)
            sample[CHOICE] = {plan.choice.chooser: choices.repeat(len(boxes), 1, 1)}
        used = self._used_masks(masks, image, len(boxes))
        is_used = torch.tensor([mask is not None for mask in used], dtype=torch.bool)
        if is_used.any():
            grids = mask_grids(used, whole_pixels(boxes, *image.size))
            if self.mask_noise:
                bounds = (-self.mask_noise, self.mask_noise + 1)
                pixels = torch.randint(*bounds, (len(boxes),), generator=self.rng)
                grids = grow_masks(grids, boxes, pixels * is_used)
            if self.mask_cells:
                sample[MASKS] = grids
            if self.mask_views == "dim":
                sample["views"] = dim_outside(views, whole_pixels(frames, *image.size), used)
                # Not expanded: a loader that pins memory refuses elements that share a place.
                sample[DIMMED] = is_used[:, None].repeat(1, plan.scales.shape[1])
            elif self.mask_views == "dim_own":
                sample["views"] = dim_own_views(views, plan.scales, grids)
                sample[DIMMED] = is_used[:, None] & (plan.scales == 0)
        return sample

    def _used_masks(
        self, masks: Sequence[Any] | None, image: Image.Image, count: int
    ) -> list[RegionMask | None]:
        """The masks of those regions that use theirs; empty without any."""
        if masks is None or not (self.mask_cells or self.mask_views != "none"):
            return []
        if len(masks) != count:
            raise InputError(f"masks: expected one for each of {count} boxes, got {len(masks)}")
        checked = checked_masks(masks, image.size)
        if not self.mask_share:
            return checked
        drawn = torch.rand(count, generator=self.rng) < self.mask_share
        return [mask if used else None for mask, used in zip(checked, drawn.tolist())]

    @classmethod
    def from_config(cls, cfg: Any = None) -> ViewProcessor:
        """Build from a yaml node: image_size, policy, its own options, and those about masks.

        `defaults`, the processor of the model in the yaml of a dataset, has values for options that
        are left out. Those of its policy count only where no other policy is named.

        Raises:
            InputError: an unknown policy or option, or an invalid value.
        """
        options: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else {}
        options = _with_defaults(options, options.pop("defaults", None) or {})
        options.pop("name", None)
        image_size = options.pop("image_size", 224)
        masks = {name: options.pop(name) for name in MASK_OPTIONS if name in options}
        policy = options.pop("policy", cls.default_policy)
        if policy == "fixed":  # num_views follows from the scales
            options.pop("num_views", None)
        return cls(build_policy(policy, options), image_size=image_size, **masks)


def _with_defaults(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    if defaults.get("name", options.get("name")) != options.get("name"):
        return dict(options)  # made for another processor
    taken = MASK_OPTIONS if "policy" in options else defaults
    return {**{name: defaults[name] for name in taken if name in defaults}, **options}
