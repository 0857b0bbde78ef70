"""BulkPredictor: batches of rows with images and boxes in, the same rows with answers out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lavis_dynrefer.bulk.answer_columns import RowAnswer, answer_schema
from lavis_dynrefer.bulk.batch_forms import (
    Batch,
    column,
    column_names,
    holds_files,
    with_answers,
)
from lavis_dynrefer.bulk.row_jobs import WHOLE_IMAGE, RowJob, answer_jobs
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images import check_format
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.views.policies import RandomScales

if TYPE_CHECKING:
    from lavis_dynrefer.predictor import RegionPredictor

IMAGE_COLUMNS = ("image", "bytes", "path", "url", "file_name")  # the first of them that is there
DRAWN_ON = "image_size"

_loading = threading.Lock()


@dataclass(frozen=True)
class BulkPredictor:
    """Answers the same questions about the regions of many rows, a batch of a table at a time.

    It is a callable for `map_batches` of Ray Data and `datasets.map(batched=True)`; `frames` is for
    Spark's `mapInPandas`. It holds settings only, so it can be pickled; the model is loaded with
    the first batch, once per process.

    Args:
        questions: what to answer; or a mapping of the fields of `Questions`.
        model_type: see `RegionPredictor`.
        device: see `RegionPredictor`.
        dtype: see `RegionPredictor`.
        checkpoint: see `RegionPredictor`.
        chunk: see `RegionPredictor`.
        offload: see `RegionPredictor`.
        image: column of the images; None: the first of `IMAGE_COLUMNS`. A cell has the bytes of a
            file, a struct {bytes, path}, a path, an address, or what `RegionPredictor` takes.
        boxes: column of the boxes, (R, 4) lists; not needed with `whole_image`.
        masks: column of the masks: lists of R, each COCO's RLE, polygons, one of them as json text,
            or null for a region without one. Beside boxes, or instead of a cell that is null.
        whole_image: one region, the whole image.
        format: of the boxes, "xyxy" or "xywh".
        normalised: see `RegionPredictor.predict`.
        root: folder or address that relative paths of images begin at.
        across_images: fill chunks with regions of several images. Faster where images have few
            regions; but scores then depend in their last digits on the rows of a batch. False:
            each row has exactly the answers of `RegionPredictor.predict`.
        keep_images: let images that are not paths pass through, too.

    Raises:
        InputError: invalid questions, an unknown format, or random views, with which a row that is
            answered again after a failure would have other answers.
    """

    questions: Questions | Mapping[str, Any] = field(default_factory=Questions)
    model_type: str = "tiny"
    device: str = "auto"
    dtype: str = "auto"
    checkpoint: str | None = None
    chunk: int = 64
    offload: bool = False
    image: str | None = None
    boxes: str = "boxes"
    whole_image: bool = False
    format: str = "xyxy"
    normalised: bool | None = None
    root: str | None = None
    across_images: bool = False
    keep_images: bool = False
    masks: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.questions, Questions):
            object.__setattr__(self, "questions", Questions.from_arguments(**self.questions))
        check_format(self.format)
        views = self.asked.views
        if views == "random" or isinstance(views, RandomScales):
            raise InputError(
                "views: random views differ each time; in bulk expected a policy that always "
                'chooses the same, such as "fixed:0,0.5"'
            )

    @property
    def asked(self) -> Questions:
        """The questions."""
        assert isinstance(self.questions, Questions)
        return self.questions

    def __call__(self, batch: Batch) -> Batch:
        """Answer about a batch.

        Args:
            batch: a pyarrow table, a pandas frame, or a mapping of columns. An optional column
                "image_size" says the width and height of the image that the boxes were drawn on;
                another size is an error of the row.

        Returns:
            The batch in the same form with the columns of `ANSWER_SCHEMA`. Other columns pass
            through, but for the images themselves.

        Raises:
            InputError: a missing column, two of one name, or one with the name of an answer.
            RuntimeError: the GPU failed.
        """
        names = column_names(batch)
        image = self.image_column(names)
        images = column(batch, image)
        self._check_boxes(names)
        boxes = self.boxes_of(images if self.whole_image else column(batch, self.boxes))
        sizes = column(batch, DRAWN_ON) if DRAWN_ON in names else None
        masks = None if self.masks is None else column(batch, self.masks)
        answers = self.answer(images, boxes, sizes, masks)
        dropped = [] if self.keep_images or not holds_files(batch, image) else [image]
        return with_answers(batch, answers, without=dropped)

    def frames(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Answer about pandas frames one after the other, as Spark's `mapInPandas` hands them."""
        return map(self, frames)

    def answer(
        self,
        images: Sequence[Any],
        boxes: Sequence[Any],
        sizes: Sequence[Any] | None = None,
        masks: Sequence[Any] | None = None,
    ) -> list[RowAnswer]:
        """Answer about rows.

        Args:
            images: one per row, see the column `image`.
            boxes: one per row, see the column `boxes`; an exception is the error of its row.
            sizes: of the images that the boxes were drawn on, or None where it is not known.
            masks: one list per row, see the column `masks`, or None.

        Raises:
            InputError: not as many boxes, sizes or masks as images.
        """
        sizes = [None] * len(images) if sizes is None else sizes
        masks = [None] * len(images) if masks is None else masks
        if not len(images) == len(boxes) == len(sizes) == len(masks):
            raise InputError(
                f"expected columns of one length, got {len(images)} images, {len(boxes)} lists of "
                f"boxes, {len(sizes)} sizes and {len(masks)} lists of masks"
            )
        jobs = [
            RowJob(image, of_image, self.format, self.normalised, size, self.root, of_regions)
            for image, of_image, size, of_regions in zip(images, boxes, sizes, masks)
        ]
        predictor = self.predictor()
        questions = predictor.check(self.asked)
        return answer_jobs(predictor, jobs, questions, across_images=self.across_images)

    def predictor(self) -> RegionPredictor:
        """The model of this process, loaded on the first call."""
        with _loading:
            return _load(
                *(self.model_type, self.device, self.dtype),
                *(self.checkpoint, self.chunk, self.offload),
            )

    def image_column(self, names: Sequence[str]) -> str:
        """The name of the column of images.

        Raises:
            InputError: it is not there.
        """
        wanted = IMAGE_COLUMNS if self.image is None else (self.image,)
        for name in wanted:
            if name in names:
                return name
        raise InputError(f"expected a column of images {' or '.join(wanted)}, got {list(names)}")

    def schema(self, given: pa.Schema) -> pa.Schema:
        """The schema of the answers about tables of a schema, without loading the model.

        Raises:
            InputError: as of a call.
        """
        table = given.empty_table()
        names = column_names(table)
        image = self.image_column(names)
        self._check_boxes(names)
        is_dropped = not self.keep_images and holds_files(table, image)
        return answer_schema(given, without=[image] if is_dropped else [])

    def boxes_of(self, boxes: Sequence[Any]) -> list[Any]:
        """Boxes as `answer` takes them: those given, or the whole image."""
        return [WHOLE_IMAGE] * len(boxes) if self.whole_image else list(boxes)

    def _check_boxes(self, names: Sequence[str]) -> None:
        if not self.whole_image and self.boxes not in names:
            raise InputError(f"expected a column {self.boxes!r} of boxes, got {list(names)}")
        if self.masks is not None and self.masks not in names:
            raise InputError(f"expected a column {self.masks!r} of masks, got {list(names)}")
        if self.masks is not None and self.whole_image:
            raise InputError("masks: a region that is the whole image has none")


@lru_cache(maxsize=1)
def _load(
    model_type: str, device: str, dtype: str, checkpoint: str | None, chunk: int, offload: bool
) -> RegionPredictor:
    from lavis_dynrefer.predictor import RegionPredictor  # imports LAVIS: slow

    return RegionPredictor(
        model_type,
        device=device,
        dtype=dtype,
        checkpoint=checkpoint,
        chunk=chunk,
        offload=offload,
    )
