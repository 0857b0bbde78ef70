"""RegionPredictor: pictures and boxes in, answers out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from lavis.models import load_preprocess
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from lavis_dynrefer.datasets.region_dataset import (
    PICTURE_ERRORS,
    concat_samples,
    decode_picture,
    to_rgb,
)
from lavis_dynrefer.models.answers import TASKS, Attribute
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.processors import ViewProcessor
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.views.policies import ViewPolicy

Picture = Union[str, "os.PathLike[str]", Image.Image, np.ndarray]
Boxes = Union[Tensor, np.ndarray, Sequence[Sequence[float]]]


class RegionPredictor:
    """Answers questions about regions of pictures.

    Args:
        model_type: "tiny" (embedded), "flant5xl", or another registered type.
        device: "auto" (CUDA where there is one), or any torch device.
        checkpoint: weights instead of the type's own, such as those of a run.
    """

    def __init__(
        self,
        model_type: str = "tiny",
        *,
        device: str | torch.device = "auto",
        checkpoint: str | None = None,
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model = DynRefer.from_pretrained(model_type)
        if checkpoint is not None:
            model.load_checkpoint(checkpoint)
        self.model = model.eval().to(device)
        preprocess = OmegaConf.load(DynRefer.default_config_path(model_type)).preprocess
        self.processor: ViewProcessor = load_preprocess(preprocess)[0]["eval"]

    def predict(self, image: Picture, boxes: Boxes, **questions: Any) -> list[RegionPrediction]:
        """Describe regions of one picture; see `predict_batch` for the questions."""
        return self.predict_batch([(image, boxes)], **questions)[0]

    def predict_batch(
        self,
        pairs: Iterable[tuple[Picture, Boxes]],
        *,
        attributes: Sequence[Attribute] | None = None,
        categories: Sequence[str] | None = None,
        controls: Sequence[str] = (),
        tasks: Sequence[str] = TASKS,
        views: ViewPolicy | None = None,
    ) -> list[list[RegionPrediction]]:
        """Describe regions of several pictures.

        Args:
            pairs: pictures (path, PIL or RGB array (h, w, 3) uint8), each with its boxes (R, 4),
                xyxy in pixels.
            attributes: words or OVAD-style records to score; None means the model's own list.
            categories: names to choose from; None means the model's own list.
            controls: words every caption should be about.
            tasks: questions to answer, out of "caption", "tags", "attributes", "categories".
            views: None for the model's own policy, or a policy object.

        Returns:
            One list per picture, one prediction per box, in order.

        Raises:
            ValueError: boxes that cannot be looked at, an empty picture, or an unknown task.
            FileNotFoundError: a picture that is not there.
        """
        processor = self.processor
        if views is not None:
            processor = ViewProcessor(views, image_size=processor.image_size)
        if isinstance(controls, str):
            raise ValueError(f"controls: expected a list of words, got {controls!r}")
        samples = [processor(_open(image), boxes) for image, boxes in pairs]
        counts = [len(sample["views"]) for sample in samples]
        if not sum(counts):
            return [[] for _ in counts]
        answers = iter(
            self.model.predict(
                concat_samples(samples),
                attributes=attributes,
                categories=categories,
                controls=[tuple(controls)] * sum(counts),
                tasks=tasks,
            )
        )
        return [[next(answers) for _ in range(count)] for count in counts]


def _open(image: Picture) -> Image.Image:
    """Any accepted picture as PIL RGB."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"picture: expected an array (h, w, 3) of uint8, got {image.shape} {image.dtype}"
            )
        return Image.fromarray(image)
    path = Path(image)
    if not path.is_file():
        raise FileNotFoundError(f"no picture {path}")
    try:
        return decode_picture(path)
    except PICTURE_ERRORS as error:  # not a picture, or a truncated one
        raise ValueError(f"cannot read picture {path}: {error}") from error
