"""From a request's body to what the model is asked, checked before it waits for the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image
from pydantic import BaseModel, ValidationError
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images import boxes_of_masks, pixel_boxes
from lavis_dynrefer.serve.bodies import RegionFields, RegionsBody, RunLengths
from lavis_dynrefer.serve.errors import RequestError, error_of_body
from lavis_dynrefer.serve.sent_images import decode_base64, open_sent_image
from lavis_dynrefer.serve.service_limits import ServeSettings
from lavis_dynrefer.views.policies import parse_policy
from lavis_dynrefer.vocab.prompts import plain_attribute
from lavis_dynrefer.vocab.word_lists import check_words

Body = TypeVar("Body", bound=BaseModel)
_LISTS = ("attributes", "categories", "tags", "controls")
_MOST_COMMAS = 200_000  # of a body; base64 has none


@dataclass(frozen=True)
class Asked:
    """The questions about every region; requests that ask the same can be answered together.

    Args:
        tasks: see `RegionPredictor.predict_iter`, also for the others.
        attributes: see there.
        categories: see there.
        tags: see there.
        controls: see there.
        views: see there.
    """

    tasks: tuple[str, ...]
    attributes: tuple[str, ...] | None
    categories: tuple[str, ...] | None
    tags: tuple[str, ...] | None
    controls: tuple[str, ...]
    views: str | None

    def arguments(self) -> dict[str, Any]:
        """Arguments of `RegionPredictor.predict_batch`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclass(frozen=True, eq=False)
class Work:
    """One request, ready for the model.

    Args:
        image: RGB.
        boxes: (R, 4) xyxy in pixels.
        asked: the questions.
    """

    image: Image.Image
    boxes: Tensor
    asked: Asked


def parse_body(model: type[Body], data: bytes) -> Body:
    """A body as its model.

    Raises:
        RequestError: no json, fields that are wrong (names the first of them), or more values than
            can be read without much memory.
    """
    commas = data.count(b",")
    if commas > _MOST_COMMAS:
        raise RequestError(
            "too_large",
            f"expected json of at most {_MOST_COMMAS:,} commas, got {commas:,}; send several "
            "requests, run-lengths compressed",
        )
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise error_of_body(error, model.model_fields) from error


class WorkReader:
    """Reads requests within the limits of the service.

    Args:
        settings: the limits.
        num_views: views of a region that the model takes.
    """

    def __init__(self, settings: ServeSettings, *, num_views: int) -> None:
        self.settings = settings
        self._num_views = num_views

    def regions(self, data: bytes, uploaded: bytes | None = None) -> Work:
        """Work of POST /v1/regions.

        Args:
            data: the json.
            uploaded: file of the image, where it is not in the json.

        Raises:
            RequestError: anything that cannot be answered.
        """
        body = parse_body(RegionsBody, data)
        self.check_limits(body)
        if (body.boxes is None) == (body.masks is None):
            raise RequestError("unprocessable", "expected either boxes or masks")
        if (body.image is None) == (uploaded is None):
            raise RequestError(
                "unprocessable",
                "expected one image: in the json as image (base64 or data URL), or uploaded as "
                "the file `image` of a multipart form",
            )
        asked = self.asked(body)
        content = decode_base64(body.image or "") if uploaded is None else uploaded
        image = open_sent_image(content, max_pixels=self.settings.max_pixels).image
        return Work(image, self.boxes(body, image), asked)

    def check_limits(self, body: RegionFields) -> None:
        """Refuse too many regions or words.

        Raises:
            RequestError: names the limit.
        """
        limits = self.settings
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
                    "too_large",
                    f"{name}: expected at most {limits.max_words:,} words, got {count:,}",
                )
            long = next((word for word in words if len(word) > limits.max_word_length), None)
            if long is not None:
                raise RequestError(
                    "too_large",
                    f"{name}: expected words of at most {limits.max_word_length} characters, got "
                    f"{len(long):,}: {long[:20]!r}...",
                )

    def asked(self, body: RegionFields) -> Asked:
        """The questions of a body.

        Raises:
            RequestError: words that are none, or no such view policy.
        """
        try:
            for name in _LISTS:
                check_words(name, getattr(body, name))
            for attribute in body.attributes or ():
                plain_attribute(attribute)
            if body.views is not None:
                parse_policy(body.views, num_views=self._num_views)
        except ValueError as error:
            raise RequestError("unprocessable", str(error)) from error
        return Asked(
            tasks=tuple(dict.fromkeys(body.tasks)),
            attributes=None if body.attributes is None else tuple(body.attributes),
            categories=None if body.categories is None else tuple(body.categories),
            tags=None if body.tags is None else tuple(body.tags),
            controls=tuple(body.controls),
            views=body.views,
        )

    def boxes(self, body: RegionFields, image: Image.Image) -> Tensor:
        """The regions (R, 4) of a body, xyxy in pixels.

        Raises:
            RequestError: boxes or masks that cannot be looked at.
        """
        try:
            if body.masks is None:
                return pixel_boxes(
                    body.boxes, image.size, format=body.format, normalised=body.normalised
                )
            if {"format", "normalised"} & body.model_fields_set:
                raise InputError("format and normalised are about boxes; leave them out with masks")
            masks = [
                mask.model_dump() if isinstance(mask, RunLengths) else mask for mask in body.masks
            ]
            return pixel_boxes(boxes_of_masks(masks, image.size), image.size, normalised=False)
        except ValueError as error:
            raise RequestError("unprocessable", str(error)) from error
