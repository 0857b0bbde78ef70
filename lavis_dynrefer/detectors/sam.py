"""Points on things: SAM finds what lies under each, and the model looks at its tight box."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor

from lavis_dynrefer.errors import InputError, MissingFileError, MissingPackageError
from lavis_dynrefer.images import boxes_of_masks

_CHUNK = 16  # points asked about at once; their masks are as large as the image


class PointSegmenter:
    """The mask SAM trusts most for each point, as a box.

    Args:
        sam: folder, or name on the Hugging Face hub, of weights for `SamModel`.
        device: where it runs.

    Raises:
        ImportError: the installed transformers has no SAM.
        FileNotFoundError: no such folder or name, or it has no such weights.
    """

    def __init__(self, sam: str | Path, *, device: str | torch.device = "cpu") -> None:
        try:
            from transformers import SamModel, SamProcessor
        except ImportError as error:
            raise MissingPackageError(
                "points need SamModel of transformers 4.29 or newer, found "
                f"{transformers.__version__}, as LAVIS pins it; install the lean set "
                "(pip install -r requirements-modern.txt), or give boxes or masks"
            ) from error
        try:
            self._processor = SamProcessor.from_pretrained(sam)
            self._model = SamModel.from_pretrained(sam).eval().to(device)
        except OSError as error:
            raise MissingFileError(f"sam: no weights of SAM in {sam}: {error}") from error

    @torch.no_grad()
    def __call__(self, image: Image.Image, points: Any) -> Tensor:
        """Find the boxes of what lies under points.

        Args:
            image: RGB.
            points: (R, 2) list, array or tensor of x and y in pixels.

        Returns:
            (R, 4) xyxy in pixels.

        Raises:
            ValueError: points of another shape or outside the image, or under which SAM finds
                nothing.
        """
        rows = _as_points(points, image.size)
        inputs = self._processor(image, return_tensors="pt")
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        shrunk = rows * (sizes[1][0].flip(0) / sizes[0][0].flip(0))
        device = self._model.device
        seen = self._model.get_image_embeddings(inputs["pixel_values"].to(device))
        boxes = []
        for start in range(0, len(rows), _CHUNK):
            part = shrunk[None, start : start + _CHUNK, None].float()  # (1, P, 1, 2)
            found = self._model(image_embeddings=seen, input_points=part.to(device))
            best = found.iou_scores.argmax(dim=-1)[0].cpu()  # of three: part, thing, all
            masks = found.pred_masks.cpu()[:, torch.arange(len(best)), best][:, :, None]
            masks = self._processor.image_processor.post_process_masks(masks, *sizes)[0][:, 0]
            boxes.append(_boxes(masks, rows[start : start + _CHUNK], image.size))
        return torch.cat(boxes) if boxes else torch.zeros(0, 4)


@lru_cache(maxsize=1)  # the weights are large
def load_segmenter(sam: str | Path, device: torch.device) -> PointSegmenter:
    """`PointSegmenter`, kept for the next call; see there."""
    return PointSegmenter(sam, device=device)


def _as_points(points: Any, image_size: tuple[int, int]) -> Tensor:
    try:
        rows = torch.as_tensor(np.asarray(points, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise InputError(f"points: expected rows of two numbers, got {points!r:.200}") from error
    if rows.numel() == 0:
        return rows.reshape(0, 2)
    if rows.ndim != 2 or rows.shape[1] != 2:
        cure = "; one point is a list of one row" if rows.shape == (2,) else ""
        raise InputError(f"points: expected shape (R, 2), got {tuple(rows.shape)}{cure}")
    inside = ((rows >= 0) & (rows < torch.tensor(image_size))).all(dim=1)  # nan is not inside
    if not inside.all():
        row = int((~inside).nonzero()[0])
        raise InputError(
            f"points: row {row} {rows[row].tolist()} is not inside the "
            f"{image_size[0]} x {image_size[1]} image; expected x, y in pixels"
        )
    return rows


def _boxes(masks: Tensor, points: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Tight boxes of masks (P, height, width), one for each point."""
    empty = ~masks.flatten(1).any(dim=1)
    if empty.any():
        point = points[int(empty.nonzero()[0])].tolist()
        raise InputError(f"points: SAM finds nothing at {point}; give a box instead")
    return boxes_of_masks(list(masks.numpy()), image_size)
