"""Points on objects: SAM segments what lies under each."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavis_dynrefer.errors import InputError, MissingFileError, MissingPackageError
from lavis_dynrefer.images.box_input import as_rows
from lavis_dynrefer.images.mask_encoding import encode_mask
from lavis_dynrefer.models.device_errors import in_parts
from lavis_dynrefer.models.precision import choose_device

_CHUNK = 16  # points segmented at once; each mask is as large as the image


class PointSegmenter:
    """The mask that SAM scores best for each point.

    Args:
        sam: folder with weights for `SamModel`, or their name on the Hugging Face hub.
        device: where SAM runs.

    Raises:
        InputError: a device that is not there.
        MissingPackageError: the installed transformers has no SAM.
        MissingFileError: no such folder or name, or it has no such weights.
    """

    def __init__(self, sam: str | Path, *, device: str | torch.device = "cpu") -> None:
        import transformers

        try:
            from transformers import SamModel, SamProcessor
        except ImportError as error:
            raise MissingPackageError(
                "points need SamModel of transformers 4.29 or newer, found "
                f"{transformers.__version__}, as LAVIS pins it; pip install -U transformers, or "
                "give boxes or masks"
            ) from error
        try:
            self._processor = SamProcessor.from_pretrained(sam)
            self._model = SamModel.from_pretrained(sam).eval().to(choose_device(device))
        except OSError as error:
            raise MissingFileError(f"sam: no weights of SAM in {sam}: {error}") from error
        self._lock = threading.Lock()

    @torch.no_grad()
    def __call__(self, image: Image.Image, points: Any) -> list[dict[str, Any]]:
        """Segment the object under each point.

        Args:
            image: RGB.
            points: (R, 2) list, array or tensor of x and y in pixels.

        Returns:
            R masks as COCO's RLE, none of them empty.

        Raises:
            InputError: points of another shape or outside the image, or SAM finds nothing there.
        """
        rows = _as_points(points, image.size)
        if not len(rows):
            return []
        with self._lock:  # one image's embeddings at a time in memory
            return self._segment(image, rows)

    def _segment(self, image: Image.Image, rows: Tensor) -> list[dict[str, Any]]:
        inputs = self._processor(image, return_tensors="pt")
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        scaled = rows * (sizes[1][0].flip(0) / sizes[0][0].flip(0))
        device = self._model.device
        embeddings = self._model.get_image_embeddings(inputs["pixel_values"].to(device))

        def segment(some: slice) -> list[dict[str, Any]]:
            prompts = scaled[None, some, None].float().to(device)  # (1, P, 1, 2)
            found = self._model(image_embeddings=embeddings, input_points=prompts)
            best = found.iou_scores.argmax(dim=-1)[0].cpu()  # of three: part, object, all
            masks = found.pred_masks.cpu()[:, torch.arange(len(best)), best][:, :, None]
            masks = self._processor.image_processor.post_process_masks(masks, *sizes)[0][:, 0]
            return [_encoded(mask, point) for mask, point in zip(masks, rows[some])]

        return in_parts(segment, len(rows), _CHUNK, lambda row: f"point {rows[row].tolist()}")[0]


_LOADING = threading.Lock()


def load_segmenter(sam: str | Path, device: torch.device) -> PointSegmenter:
    """`PointSegmenter`, kept for the next call; threads that need it at once load it once."""
    with _LOADING:
        return _load(sam, device)


@lru_cache(maxsize=1)  # the weights are large
def _load(sam: str | Path, device: torch.device) -> PointSegmenter:
    return PointSegmenter(sam, device=device)


def _as_points(points: Any, image_size: tuple[int, int]) -> Tensor:
    rows = as_rows(points, "points", 2)
    inside = ((rows >= 0) & (rows < torch.tensor(image_size))).all(dim=1)  # False for nan
    if not inside.all():
        row = int((~inside).nonzero()[0])
        raise InputError(
            f"points: row {row} {rows[row].tolist()} is not inside the "
            f"{image_size[0]} x {image_size[1]} image; expected x, y in pixels"
        )
    return rows


def _encoded(mask: Tensor, point: Tensor) -> dict[str, Any]:
    """A mask (height, width) as RLE, which takes much less memory."""
    if not mask.any():
        raise InputError(f"points: SAM finds nothing at {point.tolist()}; give a box instead")
    return encode_mask(mask.numpy())
