"""The view processor: an image and its boxes in, nested views out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images import ImageInput, as_boxes, open_image
from lavis_dynrefer.views.nesting import crop_views, nest_boxes
from lavis_dynrefer.views.policies import ViewPolicy, build_policy
from lavis_dynrefer.views.samples import Sample

# Name in LAVIS's registry -> the policy of a processor whose yaml names none.
DEFAULT_POLICIES = {"dynrefer_train": "random", "dynrefer_eval": "image"}
Boxes = Union[Tensor, Sequence[Sequence[float]]]


class ViewProcessor:
    """Chooses scales by a policy and crops the views.

    Args:
        policy: chooses the scales.
        image_size: side of a view in pixels.

    Raises:
        InputError: the side is not a positive whole number.
    """

    default_policy = DEFAULT_POLICIES["dynrefer_eval"]

    def __init__(self, policy: ViewPolicy, *, image_size: int) -> None:
        if type(image_size) is not int or image_size < 1:
            raise InputError(
                f"image_size: expected a whole number of at least 1, got {image_size!r}"
            )
        self.policy = policy
        self.image_size = image_size

    def __call__(self, image: ImageInput, boxes: Boxes | None = None) -> Sample:
        """Crop the views of every region of one image.

        Args:
            image: PIL image of any mode, path or array; see `images.open_image`.
            boxes: (R, 4) xyxy in pixels; each must overlap the image. None: the whole image.

        Returns:
            views (R, V, 3, S, S) uint8; boxes (R, V, 4) the region in pixels of each view;
            scales (R, V); image_boxes (R, 4) as given; routes: task -> (R, n) indices into V,
            empty where all tasks use all views.

        Raises:
            InputError: no image; boxes of another shape, not finite, or outside the image.
            MissingFileError: there is no such file.
        """
        opened = open_image(image)
        regions = [(0, 0, *opened.size)] if boxes is None else boxes
        return self.crop(opened, as_boxes(regions, image_size=opened.size))

    def crop(self, image: Image.Image, boxes: Tensor) -> Sample:
        """As a call, for an RGB image and boxes (R, 4) that were checked before."""
        plan = self.policy.plan(image, boxes)
        sizes = torch.tensor([image.size], dtype=torch.float32).expand(len(boxes), 2)
        frames = nest_boxes(boxes, sizes, plan.scales)
        views, inside = crop_views(image, boxes, frames, self.image_size)
        routes = {
            task: torch.tensor(route).repeat(len(boxes), 1) for task, route in plan.routes.items()
        }
        return Sample(
            views=views,
            boxes=inside,
            scales=plan.scales,
            image_boxes=boxes,
            routes=routes,
        )

    @classmethod
    def from_config(cls, cfg: Any = None) -> ViewProcessor:
        """Build from a yaml node: image_size, policy, and the policy's own options.

        Raises:
            InputError: an unknown policy or option, or an invalid value.
        """
        options: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else {}
        options.pop("name", None)
        image_size = options.pop("image_size", 224)
        policy = options.pop("policy", cls.default_policy)
        if policy == "fixed":  # num_views follows from the scales
            options.pop("num_views", None)
        return cls(build_policy(policy, options), image_size=image_size)
