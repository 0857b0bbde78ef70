"""RegionPredictor: pictures and regions in, answers out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lavis.models import load_preprocess
from omegaconf import OmegaConf

from lavis_dynrefer.datasets.region_dataset import concat_samples
from lavis_dynrefer.inputs import boxes_of_masks, open_picture, pixel_boxes
from lavis_dynrefer.inputs.pictures import Picture
from lavis_dynrefer.inputs.words import check_words
from lavis_dynrefer.models.answers import TASKS, Attribute
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.processors import ViewProcessor
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.views.policies import ViewPolicy, parse_policy

DTYPES = ("auto", "float32", "bfloat16")  # T5 overflows in float16


class RegionPredictor:
    """Answers questions about regions of pictures; may be shared by threads.

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
            raise ValueError(f"dtype: expected one of {list(DTYPES)}, got {dtype!r}")
        self.device = _device(device)
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
        image: Picture,
        boxes: Any = None,
        *,
        masks: Sequence[Any] | None = None,
        **questions: Any,
    ) -> list[RegionPrediction]:
        """Describe regions of one picture.

        Args:
            image: path, PIL picture, or array (h, w, 3) RGB or (h, w) gray of uint8.
            boxes: (R, 4) list, array or tensor, xyxy in pixels.
            masks: in place of boxes, R masks as RLE, polygons or arrays; see
                `inputs.boxes_of_masks`. The model looks at the tight box of each, which is also
                the box of the answer.
            questions: see `predict_iter`.

        Raises:
            ValueError, FileNotFoundError: see `predict_iter`.
        """
        if (boxes is None) == (masks is None):
            raise ValueError("expected either boxes or masks")
        if masks is not None:
            if {"format", "normalised"} & set(questions):
                raise ValueError("format and normalised are about boxes; leave them out with masks")
            image = open_picture(image)
            boxes = boxes_of_masks(masks, image.size)
            questions["normalised"] = False
        return next(self.predict_iter([(image, boxes)], **questions))

    def predict_batch(
        self, pairs: Iterable[tuple[Picture, Any]], **questions: Any
    ) -> list[list[RegionPrediction]]:
        """Describe regions of several pictures; the list of `predict_iter`."""
        return list(self.predict_iter(pairs, **questions))

    def predict_iter(
        self,
        pairs: Iterable[tuple[Picture, Any]],
        *,
        format: str = "xyxy",
        normalised: bool | None = None,
        attributes: Sequence[Attribute] | None = None,
        categories: Sequence[str] | None = None,
        controls: Sequence[str] = (),
        tasks: Sequence[str] = TASKS,
        views: str | ViewPolicy | None = None,
    ) -> Iterator[list[RegionPrediction]]:
        """Describe regions of any number of pictures, a few of them in memory at a time.

        Args:
            pairs: pictures, each with its boxes, as for `predict`.
            format: "xyxy", or "xywh" for upper left corner, width and height.
            normalised: True for boxes in shares of the picture's sides; None refuses boxes that
                look like it.
            attributes: words or OVAD-style records to score; None means the model's own list.
            categories: names to choose from; None means the model's own list.
            controls: words every caption should be about.
            tasks: questions to answer, out of "caption", "tags", "attributes", "categories".
            views: None for the model's own policy; "image", "joint", "task", "random", or scales
                as in "fixed:0,0.5"; or a policy object. The own policy keeps its settings when
                named.

        Yields:
            For each picture one prediction per box, in order.

        Raises:
            ValueError: a picture that cannot be read, boxes that cannot be looked at or are in
                another form, words that are none, an unknown task or policy.
            FileNotFoundError: a picture that is not there.
        """
        asked = {"attributes": attributes, "categories": categories, "tasks": tasks}
        for name, words in {**asked, "controls": controls}.items():
            check_words(name, words)
        counts: deque[int] = deque()  # boxes of the pictures not yet yielded
        answers: deque[RegionPrediction] = deque()
        samples: list[dict[str, Any]] = []
        for image, boxes in pairs:
            count = 0
            for sample in self.look(
                image, boxes, format=format, normalised=normalised, views=views
            ):
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
        image: Picture,
        boxes: Any,
        *,
        format: str = "xyxy",
        normalised: bool | None = None,
        views: str | ViewPolicy | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Cut the views of a picture's regions; see `predict_iter` for the arguments.

        Yields:
            Samples of at most `chunk` regions, in order, as `ViewProcessor` makes them.
        """
        processor = self._processor(views)
        picture = open_picture(image)
        rows = pixel_boxes(boxes, picture.size, format=format, normalised=normalised)
        for part in rows.split(self.chunk) if len(rows) else ():
            yield processor(picture, part)

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
            raise ValueError(f"views: expected a name or an object with `plan`, got {views!r}")
        return ViewProcessor(views, image_size=self.processor.image_size)


def _finished(
    counts: deque[int], answers: deque[RegionPrediction]
) -> Iterator[list[RegionPrediction]]:
    """Take the pictures off that have all their answers."""
    while counts and counts[0] <= len(answers):
        yield [answers.popleft() for _ in range(counts.popleft())]


def _device(name: str | torch.device) -> torch.device:
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
        raise ValueError(f"device: {error}") from error


def _dtype(name: str, device: torch.device) -> torch.dtype | None:
    """Type of autocast; None for plain float32."""
    if name == "auto":
        name = "float32"
        if device.type == "cuda" and torch.cuda.is_bf16_supported():
            name = "bfloat16"
    return torch.bfloat16 if name == "bfloat16" else None
