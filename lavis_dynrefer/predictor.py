"""RegionPredictor: images and regions in, answers out."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lavis.models import load_preprocess
from omegaconf import OmegaConf

from lavis_dynrefer.detectors.sam import load_segmenter
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images import FORMATS, boxes_of_masks, open_image, pixel_boxes
from lavis_dynrefer.images.opening import ImageInput
from lavis_dynrefer.models.answering import TASKS, Attribute, questions_to
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.views.policies import ViewPolicy, parse_policy
from lavis_dynrefer.views.samples import concat_samples
from lavis_dynrefer.views.view_processor import ViewProcessor
from lavis_dynrefer.vocab.word_lists import check_words

DTYPES = ("auto", "float32", "bfloat16")


class RegionPredictor:
    """Answers questions about regions of images; may be shared by threads.

    Args:
        model_type: "tiny" (embedded), "flant5xl", or another registered type.
        device: "auto" (CUDA where there is one, then Apple's MPS, then CPU), or any torch device.
        dtype: "float32"; "bfloat16" for matrix products, weights staying as they are; "auto" for
            bfloat16 on a GPU that has it, else float32.
        checkpoint: weights instead of the type's own, such as those of a run.
        chunk: most regions encoded at once; bounds the memory.

    Raises:
        ValueError: an unknown type, device or dtype, or a checkpoint that does not fit.
        FileNotFoundError: a file of weights that is not there.
    """

    def __init__(
        self,
        model_type: str = "tiny",
        *,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        checkpoint: str | None = None,
        chunk: int = 64,
    ) -> None:
        if dtype not in DTYPES:
            cure = "; T5 overflows in float16" if dtype == "float16" else ""
            raise InputError(f"dtype: expected one of {list(DTYPES)}, got {dtype!r}{cure}")
        self.device = choose_device(device)
        self.dtype = _dtype(dtype, self.device)
        self.chunk = chunk
        model = DynRefer.from_pretrained(model_type)
        if checkpoint is not None:
            model.load_checkpoint(checkpoint)
        self.model = model.eval().to(self.device)
        preprocess = OmegaConf.load(DynRefer.default_config_path(model_type)).preprocess
        self.processor: ViewProcessor = load_preprocess(preprocess)[0]["eval"]
        self._own_policy = preprocess.vis_processor.eval.get(
            "policy", self.processor.default_policy
        )
        self._lock = threading.Lock()

    def predict(
        self,
        image: ImageInput,
        boxes: Any = None,
        *,
        masks: Sequence[Any] | None = None,
        points: Any = None,
        sam: str | Path | None = None,
        **questions: Any,
    ) -> list[RegionPrediction]:
        """Describe regions of one image.

        Args:
            image: path, PIL image, or array (h, w, 3) RGB or (h, w) gray of uint8.
            boxes: (R, 4) list, array or tensor, xyxy in pixels.
            masks: in place of boxes, R masks as RLE, polygons or arrays; see
                `inputs.boxes_of_masks`. The model looks at the tight box of each, which is also
                the box of the answer.
            points: in place of boxes, (R, 2) x and y in pixels, each on a thing; SAM finds its box.
            sam: folder of SAM's weights, or their name on the Hugging Face hub; goes with points.
            questions: see `predict_iter`.

        Raises:
            ValueError, FileNotFoundError: see `predict_iter`.
            ImportError: points, and the installed transformers has no SAM.
        """
        if sum(regions is not None for regions in (boxes, masks, points)) != 1:
            raise InputError("expected either boxes or masks or points")
        if (points is None) != (sam is None):
            raise InputError("points need sam, a folder of SAM's weights, and sam needs points")
        if boxes is None:
            if {"format", "normalised"} & set(questions):
                raise InputError(
                    "format and normalised are about boxes; leave them out with masks and points"
                )
            image = open_image(image)
            if masks is not None:
                boxes = boxes_of_masks(masks, image.size)
            else:
                boxes = load_segmenter(os.fspath(sam), self.device)(image, points)
            questions["normalised"] = False
        return next(self.predict_iter([(image, boxes)], **questions))

    def predict_batch(
        self, pairs: Iterable[tuple[ImageInput, Any]], **questions: Any
    ) -> list[list[RegionPrediction]]:
        """Describe regions of several images; the list of `predict_iter`."""
        return list(self.predict_iter(pairs, **questions))

    def predict_iter(
        self,
        pairs: Iterable[tuple[ImageInput, Any]],
        *,
        format: str = "xyxy",
        normalised: bool | None = None,
        attributes: Sequence[Attribute] | None = None,
        categories: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        controls: Sequence[str] = (),
        tasks: Sequence[str] = TASKS,
        views: str | ViewPolicy | None = None,
    ) -> Iterator[list[RegionPrediction]]:
        """Describe regions of any number of images, a few of them in memory at a time.

        All but the images and boxes is checked at once, before any is asked for.

        Args:
            pairs: images, each with its boxes, as for `predict`.
            format: "xyxy", or "xywh" for upper left corner, width and height.
            normalised: True for boxes in shares of the image's sides; None refuses boxes that
                look like it.
            attributes: words or OVAD-style records to score; None means the model's own list.
            categories: names to choose from; None means the model's own list.
            tags: words to tag with; None means the model's own list. Those found also steer the
                caption.
            controls: words every caption should be about.
            tasks: questions to answer, out of "caption", "tags", "attributes", "categories".
            views: None for the model's own policy; "image", "joint", "task", "random", or scales
                as in "fixed:0,0.5"; or a policy object. The own policy keeps its settings when
                named.

        Returns:
            For each image one prediction per box, in order.

        Raises:
            ValueError: an image that cannot be read, boxes that cannot be looked at or are in
                another form, words that are none, an unknown task or policy.
            FileNotFoundError: an image that is not there.
        """
        asked: dict[str, Any] = {
            "attributes": attributes,
            "categories": categories,
            "tags": tags,
            "tasks": tasks,
        }
        questions_to(self.model, **asked)  # raises where something is wrong with them
        check_words("controls", controls)
        if format not in FORMATS:
            raise InputError(f"format: expected one of {list(FORMATS)}, got {format!r}")
        processor = self._processor(views)
        images = (self._cut(processor, image, boxes, format, normalised) for image, boxes in pairs)
        return self._answers(images, controls, asked)

    def _answers(
        self,
        images: Iterable[Iterator[dict[str, Any]]],
        controls: Sequence[str],
        asked: dict[str, Any],
    ) -> Iterator[list[RegionPrediction]]:
        """Answer each image's samples, about `chunk` regions at a time."""
        counts: deque[int] = deque()  # boxes of the images not yet yielded
        answers: deque[RegionPrediction] = deque()
        samples: list[dict[str, Any]] = []
        for image in images:
            count = 0
            for sample in image:
                samples.append(sample)
                count += len(sample["views"])
                if sum(len(waiting["views"]) for waiting in samples) >= self.chunk:
                    answers += self._answer(samples, controls, asked)
                    samples = []
            counts.append(count)
            yield from _finished(counts, answers)
        if samples:
            answers += self._answer(samples, controls, asked)
        yield from _finished(counts, answers)

    def look(
        self,
        image: ImageInput,
        boxes: Any,
        *,
        format: str = "xyxy",
        normalised: bool | None = None,
        views: str | ViewPolicy | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Cut the views of an image's regions; see `predict_iter` for the arguments.

        Returns:
            Samples of at most `chunk` regions, in order, as `ViewProcessor` makes them.
        """
        return self._cut(self._processor(views), image, boxes, format, normalised)

    def _cut(
        self,
        processor: ViewProcessor,
        image: ImageInput,
        boxes: Any,
        format: str,
        normalised: bool | None,
    ) -> Iterator[dict[str, Any]]:
        image = open_image(image)
        rows = pixel_boxes(boxes, image.size, format=format, normalised=normalised)
        for part in rows.split(self.chunk) if len(rows) else ():
            yield processor(image, part)

    @contextmanager
    def using_model(self) -> Iterator[DynRefer]:
        """The model for one thread at a time, without gradients, in the predictor's precision."""
        precision: AbstractContextManager[object] = nullcontext()
        if self.dtype is not None:
            precision = torch.autocast(self.device.type, dtype=self.dtype)
        # One at a time: language models keep state while they generate.
        with self._lock, torch.no_grad(), precision:
            yield self.model

    def _answer(
        self, samples: list[dict[str, Any]], controls: Sequence[str], asked: dict[str, Any]
    ) -> list[RegionPrediction]:
        batch = concat_samples(samples)
        words = [tuple(controls)] * len(batch["views"])
        with self.using_model() as model:
            return model.predict(batch, controls=words, chunk=self.chunk, **asked)

    def _processor(self, views: str | ViewPolicy | None) -> ViewProcessor:
        if views is None or views == self._own_policy:
            return self.processor
        if isinstance(views, str):
            views = parse_policy(views, num_views=self.model.region_encoder.num_views)
        if not hasattr(views, "plan"):
            raise InputError(f"views: expected a name or an object with `plan`, got {views!r}")
        return ViewProcessor(views, image_size=self.processor.image_size)


def _finished(
    counts: deque[int], answers: deque[RegionPrediction]
) -> Iterator[list[RegionPrediction]]:
    """Take the images off that have all their answers."""
    while counts and counts[0] <= len(answers):
        yield [answers.popleft() for _ in range(counts.popleft())]


def choose_device(name: str | torch.device) -> torch.device:
    """A device by its name; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises:
        ValueError: no such kind of device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        elif torch.backends.mps.is_available():
            name = "mps"
        else:
            name = "cpu"
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device: {error}") from error


def _dtype(name: str, device: torch.device) -> torch.dtype | None:
    """Type of autocast; None for plain float32."""
    if name == "auto":
        name = "float32"
        # Torch also supports it where it is only imitated; GPUs have it from Ampere (8.0) on.
        if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
            name = "bfloat16"
    if name == "float32":
        return None
    try:
        torch.autocast(device.type, dtype=torch.bfloat16)
    except RuntimeError as error:
        raise InputError(f"dtype: no bfloat16 on {device.type} in this torch: {error}") from error
    return torch.bfloat16
