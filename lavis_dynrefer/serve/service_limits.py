"""Settings of the service: what it accepts, how long it waits, how it batches."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images import MAX_PIXELS
from lavis_dynrefer.settings import validation_message

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]


class ServeSettings(BaseModel):
    """Limits of a request, of the service, and of a batch.

    Waiting requests hold their body and their cropped views. The service may take up to
    max_requests * max_body + (max_queue + 5) * max_boxes * V * 3 * S * S bytes, and 4 * max_pixels
    for each of at most 4 images being read: V views of S x S pixels per region.

    Raises:
        InputError: an invalid value; names the setting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    max_body: Count = Field(32 * 2**20, description="bytes of a request")
    max_pixels: Count = Field(40_000_000, le=MAX_PIXELS, description="of an image")
    max_boxes: Count = Field(1000, description="boxes or masks of a request")
    max_words: Count = Field(1000, description="in each list of a request")
    max_word_length: Count = Field(100, description="characters")
    max_requests: Count = Field(64, description="at once, those being received included")
    max_queue: Count = Field(32, description="requests waiting for the model")
    timeout: Seconds = Field(60.0, gt=0, description="seconds until a request has its answer")
    grace: Seconds = Field(30.0, description="seconds for running requests when stopped")
    batch_regions: Count = Field(
        64, description="most regions answered together; 1 answers each request alone"
    )
    batch_wait: Seconds = Field(0.005, description="most seconds a request waits for others")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(validation_message(error, model=type(self))) from error
