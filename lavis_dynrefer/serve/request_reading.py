"""From the bytes of a request to cropped views and questions, before it waits for the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image
from pydantic import BaseModel, ValidationError

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images import boxes_of_masks, pixel_boxes
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.serve.json_bodies import RegionFields, RegionsBody, RunLengths
from lavis_dynrefer.serve.request_errors import RequestError, error_of_body
from lavis_dynrefer.serve.sent_images import decode_base64, open_sent_image
from lavis_dynrefer.serve.service_limits import ServeSettings

Body = TypeVar("Body", bound=BaseModel)
_LISTS = ("attributes", "categories", "tags", "controls")
_MOST_COMMAS = 200_000  # of a body; base64 has none


@dataclass(frozen=True, eq=False)
class CroppedRequest:
    """A request that is ready for the model.

    Args:
        questions: what to answer; requests that ask the same can be answered together.
        samples: cropped views of the regions, as `RegionPredictor.crop` returns them.
        image_size: width and height of the image in pixels.
    """

    questions: Questions
    samples: Sequence[dict[str, Any]]
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return sum(len(sample["views"]) for sample in self.samples)


def parse_body(model: type[Body], data: bytes) -> Body:
    """A body as its model.

    Raises:
        RequestError: invalid json, invalid fields (names the first), or more values than can be
            parsed in little memory.
    """
    commas = data.count(b",")
    if commas > _MOST_COMMAS:
        raise RequestError(
            "too_large",
            f"expected json of at most {_MOST_COMMAS:,} commas, got {commas:,}; send several "
            "requests, and compressed run lengths",
        )
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise error_of_body(error, model) from error


def check_limits(body: RegionFields, limits: ServeSettings) -> None:
    """Refuse too many regions or words.

    Raises:
        RequestError: names the limit.
    """
    regions = body.boxes if body.masks is None else body.masks
    if regions is not None and len(regions) > limits.max_boxes:
        raise RequestError(
            "too_large",
            f"expected at most {limits.max_boxes:,} regions, got {len(regions):,}; "
            "send several requests",
        )
    for name in _LISTS:
        words: Sequence[str] = getattr(body, name) or ()
        count = len(words)
        if name == "attributes":  # "color:red/crimson": every synonym is asked about
            count += sum(word.count("/") for word in words)
        if count > limits.max_words:
            raise RequestError(
                "too_large", f"{name}: expected at most {limits.max_words:,} words, got {count:,}"
            )
        long = next((word for word in words if len(word) > limits.max_word_length), None)
        if long is not None:
            raise RequestError(
                "too_large",
                f"{name}: expected words of at most {limits.max_word_length} characters, got "
                f"{len(long):,}: {long[:20]!r}...",
            )


class RequestReader:
    """Reads requests within the limits of the service; called by several threads.

    Args:
        predictor: crops the views.
        limits: of a request.
    """

    def __init__(self, predictor: RegionPredictor, limits: ServeSettings) -> None:
        self._predictor = predictor
        self.limits = limits

    def read_regions(self, data: bytes, uploaded: bytes | None = None) -> CroppedRequest:
        """Read POST /v1/regions.

        Args:
            data: the json.
            uploaded: the image file, unless it is in the json.

        Raises:
            RequestError, InputError: anything that cannot be answered.
        """
        body = parse_body(RegionsBody, data)
        check_limits(body, self.limits)
        questions = body.questions()
        if (body.boxes is None) == (body.masks is None):
            raise InputError("expected either boxes or masks")
        if (body.image is None) == (uploaded is None):
            raise InputError(
                "expected one image: in the json as image (base64 or data URL), or uploaded as "
                "the file `image` of a multipart form"
            )
        content = decode_base64(body.image or "") if uploaded is None else uploaded
        image = open_sent_image(content, max_pixels=self.limits.max_pixels).image
        return self.crop(body, image, questions)

    def crop(self, body: RegionFields, image: Image.Image, questions: Questions) -> CroppedRequest:
        """Check the boxes or masks of a body and crop their views.

        Raises:
            InputError: invalid boxes or masks, or a view policy that the model cannot use.
        """
        if body.masks is None:
            boxes = pixel_boxes(
                body.boxes, image.size, format=body.format, normalised=body.normalised
            )
        elif {"format", "normalised"} & body.model_fields_set:
            raise InputError("format and normalised are about boxes; leave them out with masks")
        else:
            masks = [
                mask.model_dump() if isinstance(mask, RunLengths) else mask for mask in body.masks
            ]
            boxes = pixel_boxes(boxes_of_masks(masks, image.size), image.size, normalised=False)
        samples = self._predictor.crop(image, boxes, questions.views)
        return CroppedRequest(questions, samples, image.size)
