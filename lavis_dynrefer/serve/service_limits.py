"""Settings of the service: what it accepts, how long it waits, how it batches."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lavis_dynrefer.images import MAX_PIXELS
from lavis_dynrefer.settings import settings

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]


@settings
class ServeSettings:
    """Limits of a request, of the service, and of a batch.

    With V views of S x S pixels per region, requests take at most max_requests * max_body bytes,
    the cropped views (max_queue_regions + 5 * max_boxes) * V * 3 * S * S bytes, and images being
    read 4 * max_pixels bytes each; at most 4 are read at once.
    """

    max_body: Count = Field(default=32 * 2**20, description="bytes of a request")
    max_pixels: Count = Field(default=40_000_000, le=MAX_PIXELS, description="of an image")
    max_boxes: Count = Field(default=1000, description="boxes or masks of a request")
    max_words: Count = Field(default=1000, description="in each list of a request")
    max_word_length: Count = Field(default=100, description="characters")
    max_requests: Count = Field(default=64, description="at once, including those being received")
    max_queue: Count = Field(default=32, description="requests waiting for the model")
    max_queue_regions: Count = Field(
        default=2000, description="regions of all waiting requests; a single request may have more"
    )
    timeout: Seconds = Field(
        default=60.0, gt=0, description="seconds until a request has its answer"
    )
    grace: Seconds = Field(default=30.0, description="seconds for running requests when stopped")
    batch_regions: Count = Field(
        default=64, description="max regions answered together; 1 answers each request alone"
    )
    batch_wait: Seconds = Field(default=0.005, description="max seconds a request waits for others")


# Setting -> description, for the help of the commands.
DESCRIPTIONS: dict[str, str] = {
    name: item.description for name, item in vars(ServeSettings)["__pydantic_fields__"].items()
}
