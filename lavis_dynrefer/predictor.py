"""RegionPredictor: images and regions in, answers out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lavis_dynrefer.detectors.region_reading import read_regions
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images import ImageInput, check_format
from lavis_dynrefer.models.answering import Answerer, EncodedRegions
from lavis_dynrefer.models.choosing.scale_choice import trained_prior
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.idle_parts import move_with_idle_parts_away
from lavis_dynrefer.models.precision import choose_device, formats_on, without_gradients
from lavis_dynrefer.models.region_encoder import ViewFeatures
from lavis_dynrefer.models.weights.places import model_config
from lavis_dynrefer.questions import TASKS, Questions
from lavis_dynrefer.structures import RegionPrediction
from lavis_dynrefer.views.policies import ViewPolicy, check_policy_name, parse_policy
from lavis_dynrefer.views.processor_choice import ProcessorChoice
from lavis_dynrefer.views.reading_ahead import ReadImage, crop_ahead, read_ahead
from lavis_dynrefer.views.regions import BoxesOrRegions, Regions, check_masks_as
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
        encoder = self.model.region_encoder
        self.processor.mask_cells = encoder.masks == "cells"
        self._processors = ProcessorChoice(
            self.processor,
            own_policy=own.get("policy", ViewProcessor.default_policy),
            num_views=encoder.num_views,
            parse=self._parse_policy,
            tasks=TASKS,
        )
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
            masks: R masks as RLE, polygons or arrays; see `images.boxes_of_masks`. Instead of
                boxes: the tight box of each is that of the answer. Or beside boxes, then None for a
                region without a mask. `masks_as` of the questions says what they are used as.
            points: instead of boxes, (R, 2) x and y in pixels, each on an object; SAM finds its
                mask.
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
        image, regions = self.read(
            image,
            boxes,
            masks=masks,
            points=points,
            sam=sam,
            format=format,
            normalised=normalised,
        )
        processor = self._processor(questions)
        with closing(crop_ahead(image, regions, processor, self.chunk)) as samples:
            parts = (self.answer_samples([sample], questions) for sample in samples)
            return [prediction for part in parts for prediction in part]

    def predict_batch(
        self, pairs: Iterable[Sequence[Any]], **arguments: Any
    ) -> list[list[RegionPrediction]]:
        """Describe regions of several images; the list of `predict_iter`."""
        return list(self.predict_iter(pairs, **arguments))

    def predict_iter(
        self,
        pairs: Iterable[Sequence[Any]],
        *,
        format: str = "xyxy",
        normalised: bool | None = None,
        questions: Questions | None = None,
        **asked: Any,
    ) -> Iterator[list[RegionPrediction]]:
        """Describe regions of any number of images, a few of them in memory at a time.

        Questions are checked immediately; images and boxes when they are read.

        Args:
            pairs: images with their boxes, or images with boxes and masks, as for `predict`.
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
            partial(
                self.read,
                image,
                boxes,
                masks=next(iter(masks), None),
                format=format,
                normalised=normalised,
            )
            for image, boxes, *masks in pairs
        )
        return self.answer_iter(jobs, questions)

    def answer_iter(
        self, jobs: Iterable[ReadImage], questions: Questions, *, across_images: bool = True
    ) -> Iterator[list[RegionPrediction]]:
        """Answer about images that reader threads open and crop while the model is at work.

        Args:
            jobs: each returns an RGB image and its regions, or checked boxes (R, 4). The calling
                thread takes them in order; reader threads call them, ahead of the answers by a few
                images and by those that fill a chunk.
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
        with closing(read_ahead(jobs, self._processor(questions), self.chunk)) as reading:
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
        masks_as: str | None = None,
        **regions: Any,
    ) -> EncodedRegions:
        """Encode regions of one image once, to ask many questions about them with `answer`.

        The features of all regions stay on the device: V * C * roi_size ** 2 numbers a region.

        Args:
            image: see `predict`.
            boxes: see `predict`.
            views: view policy, see `Questions`.
            masks_as: see `Questions`.
            regions: masks, points, sam, format and normalised, see `predict`.

        Raises:
            InputError, MissingFileError, MissingPackageError: see `predict`.
        """
        check_policy_name(views)
        check_masks_as(masks_as)
        self._processors.of(views, masks_as)
        found, of_image = self.read(image, boxes, **regions)
        return self.encode_regions(found, of_image, views=views, masks_as=masks_as)

    def encode_regions(
        self,
        image: Image.Image,
        regions: BoxesOrRegions,
        *,
        views: str | ViewPolicy | None = None,
        masks_as: str | None = None,
    ) -> EncodedRegions:
        """As `encode`, for an RGB image and regions that were checked before."""
        parts: list[tuple[Mapping[str, Any], ViewFeatures]] = []
        processor = self._processors.of(views, masks_as)
        with self.using_model():
            for sample in crop_ahead(image, regions, processor, self.chunk):
                parts += self.answerer.encode_in_parts(sample, self.chunk)
        samples, features = zip(*parts) if parts else ((), ())
        policy = self._processors.own_policy if views is None else views
        return EncodedRegions(image.size, samples, features, policy, self.model, masks_as)

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
        self, image: ImageInput, boxes: Any = None, **regions: Any
    ) -> tuple[Image.Image, Regions]:
        """Open an image and check its regions; any number of threads may do so at once.

        Args:
            image: see `predict`.
            boxes: see `predict`.
            regions: masks, points, sam, format and normalised, see `predict`.

        Returns:
            The image as RGB, and its regions.

        Raises:
            InputError, MissingFileError, MissingPackageError: see `predict`.
        """
        return read_regions(image, boxes, device=self.device, **regions)

    def crop(
        self,
        image: Image.Image,
        regions: BoxesOrRegions,
        views: str | ViewPolicy | None = None,
        masks_as: str | None = None,
    ) -> list[Sample]:
        """Crop the nested views of an image's regions; needs no model and no lock.

        Args:
            image: RGB.
            regions: as `read` returns them, or checked boxes (R, 4).
            views: view policy, see `Questions`.
            masks_as: see `Questions`.

        Returns:
            Samples of at most `chunk` regions, in order, as `ViewProcessor` makes them.
        """
        return list(crop_ahead(image, regions, self._processors.of(views, masks_as), self.chunk))

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
        self._processor(questions)
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

    def _processor(self, questions: Questions) -> ViewProcessor:
        return self._processors.of(questions.views, questions.masks_as, tuple(questions.tasks))

    def _parse_policy(self, name: str) -> ViewPolicy:
        known = trained_prior(self.model).candidates if name == "learned" else None
        wanted = self.model.region_encoder.num_views
        return parse_policy(name, num_views=wanted, own=self.processor.policy, candidates=known)


def _complete(
    counts: deque[int], answers: deque[RegionPrediction]
) -> Iterator[list[RegionPrediction]]:
    """Yield every image whose answers are complete."""
    while counts and counts[0] <= len(answers):
        yield [answers.popleft() for _ in range(counts.popleft())]
