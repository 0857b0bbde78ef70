"""RegionPredictor: images and regions in, answers out."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavis_dynrefer.detectors.sam import load_segmenter
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images import ImageInput, boxes_of_masks, check_format, open_image, pixel_boxes
from lavis_dynrefer.models.answering import Answerer, EncodedRegions
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.idle_parts import move_with_idle_parts_away
from lavis_dynrefer.models.precision import choose_device, formats_on, without_gradients
from lavis_dynrefer.models.region_encoder import ViewFeatures
from lavis_dynrefer.models.weights.places import model_config
from lavis_dynrefer.questions import TASKS, Questions
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.views.policies import ViewPolicy, check_policy_name, parse_policy, views_by_task
from lavis_dynrefer.views.reading_ahead import ReadImage, crop_ahead, read_ahead
from lavis_dynrefer.views.samples import Sample, batches, count_regions
from lavis_dynrefer.views.view_processor import ViewProcessor


class RegionPredictor:
    """Answers questions about regions of images; may be shared by threads.

    Args:
        model_type: "tiny" (embedded), "flant5xl", "vicuna7b", or the yaml of a model.
        device: "auto" (CUDA where there is one, else the CPU), or any of torch's; mps is untried.
        dtype: "auto", "released", "float32", "bfloat16" or "float16": the number formats of
            `models.precision.NumberFormats`.
        checkpoint: weights instead of the type's own, such as those of a run.
        chunk: most regions encoded at once; fewer where the memory does not suffice.
        offload: keep the text tower and the language model in main memory, and copy each to the
            device only while it is at work. Takes longer; see `models.idle_parts`.

    Raises:
        InputError: an unknown type, or a device, dtype or checkpoint that cannot be used.
        MissingFileError: a weight file that does not exist.
    """

    def __init__(
        self,
        model_type: str = "tiny",
        *,
        device: str | int | torch.device = "auto",
        dtype: str = "auto",
        checkpoint: str | None = None,
        chunk: int = 64,
        offload: bool = False,
    ) -> None:
        if chunk < 1:
            raise InputError(f"chunk: expected at least 1 region, got {chunk}")
        self.device = choose_device(device)
        self.formats = formats_on(dtype, self.device)
        self.dtype = self.formats.name  # what "auto" has become
        self.chunk = chunk
        config = model_config(model_type)
        if checkpoint is not None:
            config.model.update(load_finetuned=True, finetuned=str(checkpoint))
        model = DynRefer.from_config(config.model).eval()
        away = offload and self.device.type != "cpu"
        move = move_with_idle_parts_away if away else DynRefer.to
        self.model = move(model, self.device)
        self.model.backbone.store_for(self.formats.vit)
        self.answerer = Answerer(self.model, self.formats)
        own = config.preprocess.vis_processor.eval
        self.processor = ViewProcessor.from_config(own)
        self._own_policy = own.get("policy", ViewProcessor.default_policy)
        self._named_processor = lru_cache(maxsize=32)(self._make_processor)
        self._lock = threading.RLock()

    def predict(
        self,
        image: ImageInput,
        boxes: Any = None,
        *,
        masks: Sequence[Any] | None = None,
        points: Any = None,
        sam: str | Path | None = None,
        format: str = "xyxy",
        normalised: bool | None = None,
        questions: Questions | None = None,
        **asked: Any,
    ) -> list[RegionPrediction]:
        """Describe regions of one image.

        Args:
            image: path, PIL image, or array (h, w, 3) RGB or (h, w) gray of uint8.
            boxes: (R, 4) list, array or tensor.
            masks: instead of boxes, R masks as RLE, polygons or arrays; see
                `images.boxes_of_masks`. The model looks at the tight box of each, which is also
                the box of the answer.
            points: instead of boxes, (R, 2) x and y in pixels, each on an object; SAM finds its
                box.
            sam: folder of SAM's weights, or their name on the Hugging Face hub; goes with points.
            format: of the boxes: "xyxy", or "xywh" for upper left corner, width and height.
            normalised: True for boxes in fractions of the image's sides; None refuses boxes that
                look like it.
            questions: what to answer; or name the fields of `Questions` as keyword arguments.

        Returns:
            One prediction per region, in order.

        Raises:
            InputError: an unreadable image, invalid boxes, masks or points, or invalid questions.
            MissingFileError: the image does not exist.
            MissingPackageError: points, and the installed transformers has no SAM.
            TooLittleMemoryError: the memory does not suffice for one region.
        """
        questions = self.check(Questions.from_arguments(questions, **asked))
        image, checked = self.read(
            image,
            boxes,
            masks=masks,
            points=points,
            sam=sam,
            format=format,
            normalised=normalised,
        )
        processor = self._processor(questions.views, questions.tasks)
        with closing(crop_ahead(image, checked, processor, self.chunk)) as samples:
            parts = (self.answer_samples([sample], questions) for sample in samples)
            return [prediction for part in parts for prediction in part]

    def predict_batch(
        self, pairs: Iterable[tuple[ImageInput, Any]], **arguments: Any
    ) -> list[list[RegionPrediction]]:
        """Describe regions of several images; the list of `predict_iter`."""
        return list(self.predict_iter(pairs, **arguments))

    def predict_iter(
        self,
        pairs: Iterable[tuple[ImageInput, Any]],
        *,
        format: str = "xyxy",
        normalised: bool | None = None,
        questions: Questions | None = None,
        **asked: Any,
    ) -> Iterator[list[RegionPrediction]]:
        """Describe regions of any number of images, a few of them in memory at a time.

        Questions are checked immediately; images and boxes when they are read.

        Args:
            pairs: images with their boxes, as for `predict`.
            format: see `predict`.
            normalised: see `predict`.
            questions: see `predict`.

        Returns:
            For each image one prediction per box, in order.

        Raises:
            InputError, MissingFileError: see `predict`.
        """
        questions = self.check(Questions.from_arguments(questions, **asked))
        check_format(format)
        jobs = (
            partial(self.read, image, boxes, format=format, normalised=normalised)
            for image, boxes in pairs
        )
        return self.answer_iter(jobs, questions)

    def answer_iter(
        self, jobs: Iterable[ReadImage], questions: Questions, *, across_images: bool = True
    ) -> Iterator[list[RegionPrediction]]:
        """Answer about images that reader threads open and crop while the model is at work.

        Args:
            jobs: each returns an RGB image and its checked boxes (R, 4). The calling thread takes
                them in order; reader threads call them, ahead of the answers by a few images and
                by those that fill a chunk.
            questions: what `check` returned.
            across_images: fill chunks with several images; False: compute each as `predict` does.

        Returns:
            For each job one prediction per box, in order. An exception in a job is raised again
            when its image is due, after the answers before it.
        """
        counts: deque[int] = deque()  # boxes of the images not yet yielded
        answers: deque[RegionPrediction] = deque()
        waiting: list[Sample] = []
        failure: Exception | None = None
        size = self.chunk if across_images else 1
        with closing(
            read_ahead(jobs, self._processor(questions.views, questions.tasks), self.chunk)
        ) as reading:
            while True:
                try:
                    count, samples = next(reading)
                except StopIteration:
                    break
                except Exception as error:
                    failure = error
                    break
                counts.append(count)
                for sample in samples:
                    if count_regions([*waiting, sample]) > size:
                        answers += self.answer_samples(waiting, questions)
                        waiting = []
                    waiting.append(sample)
                if count_regions(waiting) >= size:
                    answers += self.answer_samples(waiting, questions)
                    waiting = []
                yield from _complete(counts, answers)
        answers += self.answer_samples(waiting, questions)
        yield from _complete(counts, answers)
        if failure is not None:
            raise failure

    def encode(
        self,
        image: ImageInput,
        boxes: Any = None,
        *,
        views: str | ViewPolicy | None = None,
        **regions: Any,
    ) -> EncodedRegions:
        """Encode regions of one image once, to ask many questions about them with `answer`.

        The features of all regions stay on the device: V * C * roi_size ** 2 numbers a region.

        Args:
            image: see `predict`.
            boxes: see `predict`.
            views: view policy, see `Questions`.
            regions: masks, points, sam, format and normalised, see `predict`.

        Raises:
            InputError, MissingFileError, MissingPackageError: see `predict`.
        """
        check_policy_name(views)
        self._processor(views)
        return self.encode_boxes(*self.read(image, boxes, **regions), views=views)

    def encode_boxes(
        self, image: Image.Image, boxes: Tensor, *, views: str | ViewPolicy | None = None
    ) -> EncodedRegions:
        """As `encode`, for an RGB image and boxes (R, 4) that were checked before."""
        parts: list[tuple[Sample, ViewFeatures]] = []
        with self.using_model():
            for sample in crop_ahead(image, boxes, self._processor(views), self.chunk):
                parts += self.answerer.encode_in_parts(sample, self.chunk)
        samples, features = zip(*parts) if parts else ((), ())
        policy = self._own_policy if views is None else views
        return EncodedRegions(image.size, samples, features, policy, self.model)

    def answer(
        self, encoded: EncodedRegions, questions: Questions | None = None, **asked: Any
    ) -> list[RegionPrediction]:
        """Answer questions about encoded regions.

        Args:
            encoded: what `encode` returned.
            questions: what to answer; or name the fields of `Questions` as keyword arguments.

        Raises:
            InputError: invalid questions, other views than those encoded, or regions that another
                model has encoded.
            TooLittleMemoryError: see `predict`.
        """
        questions = encoded.check(Questions.from_arguments(questions, **asked), self.model)
        answers: list[RegionPrediction] = []
        with self.using_model():
            for sample, features in zip(encoded.samples, encoded.features):
                answers += self.answerer.answer_in_parts(sample, questions, self.chunk, features)
        return answers

    def read(
        self,
        image: ImageInput,
        boxes: Any = None,
        *,
        masks: Sequence[Any] | None = None,
        points: Any = None,
        sam: str | Path | None = None,
        format: str = "xyxy",
        normalised: bool | None = None,
    ) -> tuple[Image.Image, Tensor]:
        """Open an image and check its regions; any number of threads may do so at once.

        Args:
            image: see `predict`, also for the other arguments.

        Returns:
            The image as RGB, and (R, 4) float32 xyxy boxes in pixels.

        Raises:
            InputError, MissingFileError, MissingPackageError: see `predict`.
        """
        if sum(regions is not None for regions in (boxes, masks, points)) != 1:
            raise InputError("expected either boxes or masks or points")
        if (points is None) != (sam is None):
            raise InputError("points need sam, a folder of SAM's weights, and sam needs points")
        if boxes is None and (format != "xyxy" or normalised is not None):
            raise InputError(
                "format and normalised are about boxes; leave them out with masks and points"
            )
        opened = open_image(image)
        if boxes is not None:
            return opened, pixel_boxes(boxes, opened.size, format=format, normalised=normalised)
        if masks is not None:
            found = boxes_of_masks(masks, opened.size)
        else:
            found = load_segmenter(os.fspath(sam or ""), self.device)(opened, points)
        return opened, pixel_boxes(found, opened.size, normalised=False)

    def crop(
        self, image: Image.Image, boxes: Tensor, views: str | ViewPolicy | None = None
    ) -> list[Sample]:
        """Crop the nested views of an image's regions; needs no model and no lock.

        Args:
            image: RGB.
            boxes: (R, 4) checked boxes, as `images.pixel_boxes` returns them.
            views: view policy, see `Questions`.

        Returns:
            Samples of at most `chunk` regions, in order, as `ViewProcessor` makes them.
        """
        return list(crop_ahead(image, boxes, self._processor(views), self.chunk))

    def answer_samples(
        self, samples: Sequence[Sample], questions: Questions
    ) -> list[RegionPrediction]:
        """Encode cropped views and answer; one prediction per region, in order.

        Args:
            samples: what `crop` returned, for one image or several, with the same view policy.
            questions: what `check` returned.
        """
        answers: list[RegionPrediction] = []
        with self.using_model():
            for batch in batches(samples, self.chunk):
                answers += self.answerer.answer_in_parts(batch, questions, self.chunk)
        return answers

    def check(self, questions: Questions) -> Questions:
        """The questions, if this model can answer them.

        Raises:
            InputError: the view policy gives another number of views than the model fuses.
        """
        self._processor(questions.views, questions.tasks)
        return questions

    @contextmanager
    def using_model(self) -> Iterator[DynRefer]:
        """The model for one thread at a time, without gradients.

        `answerer` computes in the predictor's number formats; what the caller asks of the model
        itself is computed in float32.
        """
        # One at a time: language models keep state while they generate.
        with self._lock, without_gradients(self.device):
            yield self.model

    def _processor(
        self, views: str | ViewPolicy | None, tasks: Sequence[str] = ()
    ) -> ViewProcessor:
        """The processor of a view policy; the views must fit the tasks, if any are named."""
        if views is None or views == self._own_policy:
            return self.processor
        if isinstance(views, str):
            return self._named_processor(views, tuple(tasks))
        return self._make_processor(views, tasks)

    def _make_processor(self, views: str | ViewPolicy, tasks: Sequence[str]) -> ViewProcessor:
        wanted = self.model.region_encoder.num_views
        policy = views
        if isinstance(policy, str):
            known = getattr(self.model.scale_prior, "candidates", None)
            own = self.processor.policy
            policy = parse_policy(policy, num_views=wanted, own=own, candidates=known)
        found = views_by_task(policy, tasks or TASKS)
        if wanted not in found or (tasks and len(found) > 1):
            other = max(found - {wanted})
            raise InputError(f"views: the model fuses {wanted} views, got {other} per region")
        return ViewProcessor(policy, image_size=self.processor.image_size)


def _complete(
    counts: deque[int], answers: deque[RegionPrediction]
) -> Iterator[list[RegionPrediction]]:
    """Yield every image whose answers are complete."""
    while counts and counts[0] <= len(answers):
        yield [answers.popleft() for _ in range(counts.popleft())]
