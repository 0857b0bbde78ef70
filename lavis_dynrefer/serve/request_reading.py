"""From the bytes of a request to questions and cropped views, before it waits for the model."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, TypeVar

from PIL import Image
from pydantic import BaseModel, ValidationError

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.predictor import RegionPredictor
from lavis_dynrefer.questions import Questions
from lavis_dynrefer.serve.json_bodies import RegionFields, RegionsBody
from lavis_dynrefer.serve.request_batching import CroppedRequest
from lavis_dynrefer.serve.request_errors import RequestError, error_of_body
from lavis_dynrefer.serve.sent_images import decode_base64, open_sent_image
from lavis_dynrefer.serve.service_limits import ServeSettings

Body = TypeVar("Body", bound=BaseModel)
WORD_LISTS = ("attributes", "categories", "tags", "controls")
_MAX_COMMAS = 200_000  # in a body; base64 has none


def parse_body(model: type[Body], data: bytes) -> Body:
    """Parse a body as its model.

    Raises:
        RequestError: invalid json, invalid fields, or more values than can be parsed in little
            memory.
    """
    commas = data.count(b",")
    if commas > _MAX_COMMAS:
        raise RequestError(
            "too_large",
            f"expected json of at most {_MAX_COMMAS:,} commas, got {commas:,}; send several "
            "requests, and compressed run lengths",
        )
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise error_of_body(error, model) from error


def check_limits(questions: Questions, regions: Sized | None, limits: ServeSettings) -> None:
    """Refuse too many words or regions.

    Args:
        questions: their words are counted.
        regions: boxes or masks.
        limits: of a request.

    Raises:
        RequestError: names the limit.
    """
    if regions is not None and len(regions) > limits.max_boxes:
        raise RequestError(
            "too_large",
            f"expected at most {limits.max_boxes:,} regions, got {len(regions):,}; "
            "send several requests",
        )
    for name in WORD_LISTS:
        words = [str(word) for word in getattr(questions, name) or ()]
        count = len(words)
        if name == "attributes":  # each synonym counts: "color:red/crimson"
            count += sum(word.count("/") for word in words)
        if count > limits.max_words:
            raise RequestError(
                "too_large", f"{name}: expected at most {limits.max_words:,} words, got {count:,}"
            )
        longest = max(words, key=len, default="")
        if len(longest) > limits.max_word_length:
            raise RequestError(
                "too_large",
                f"{name}: expected words of at most {limits.max_word_length} characters, got "
                f"{len(longest):,}: {longest[:20]!r}...",
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
            RequestError, InputError: the request cannot be answered.
        """
        body = parse_body(RegionsBody, data)
        questions = self.check(body)
        if body.boxes is None and body.masks is None:
            raise InputError("expected boxes or masks, or both")
        if (body.image is None) == (uploaded is None):
            raise InputError(
                "expected one image: in the json as image (base64 or data URL), or uploaded as "
                "the file `image` of a multipart form"
            )
        content = decode_base64(body.image or "") if uploaded is None else uploaded
        image = open_sent_image(content, max_pixels=self.limits.max_pixels).image
        return self.crop(body, image, questions)

    def check(self, body: RegionFields) -> Questions:
        """The questions of a body; reads no image.

        Raises:
            RequestError, InputError: invalid questions, or more words or regions than allowed.
        """
        questions = body.questions()
        for regions in (body.boxes, body.masks):
            check_limits(questions, regions, self.limits)
        return self._predictor.check(questions)

    def crop(
        self, body: RegionFields, image: Image.Image, questions: Questions, *, mask: Any = None
    ) -> CroppedRequest:
        """Check the regions of a body and crop their views.

        Args:
            body: its regions.
            image: RGB.
            questions: about them.
            mask: of the only region, if the image itself has it.

        Raises:
            InputError: invalid boxes or masks.
        """
        image, regions = self._predictor.read(
            image,
            body.boxes,
            masks=body.model_dump(include={"masks"})["masks"] if mask is None else [mask],
            format=body.format,
            normalised=body.normalised,
        )
        samples = self._predictor.crop(image, regions, questions.views, questions.masks_as)
        return CroppedRequest(questions, samples, image.size)
