"""Numbers of the service: how much it takes, how long it waits, how it batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.box_checks import MAX_PIXELS


@dataclass(frozen=True)
class ServeSettings:
    """Limits of a request, of the service, and of a batch.

    Images waiting for the model are held decoded: the service may take up to
    max_requests * (max_body + 4 * max_pixels) bytes; Pillow keeps RGB in four.

    Args:
        max_body: bytes of a request.
        max_pixels: of an image, width times height.
        max_boxes: boxes or masks of a request.
        max_words: words in each list of attributes, categories, tags or controls.
        max_word_length: characters of a word.
        max_requests: requests at once, those still being received included.
        max_queue: requests waiting for the model.
        timeout: seconds until a request has its answer, its receiving included.
        grace: seconds that running requests have to finish after a signal to stop.
        batch_regions: most regions answered together; requests are never split, so 1 answers each
            request alone.
        batch_wait: most seconds a request waits for others, which are being received, to be
            answered with.

    Raises:
        ValueError: a number that makes no sense; names it.
    """

    max_body: int = 32 * 2**20
    max_pixels: int = 40_000_000
    max_boxes: int = 1000
    max_words: int = 1000
    max_word_length: int = 100
    max_requests: int = 64
    max_queue: int = 32
    timeout: float = 60.0
    grace: float = 30.0
    batch_regions: int = 64
    batch_wait: float = 0.005

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            lowest = 1 if isinstance(field.default, int) else 0
            if not (math.isfinite(value) and value >= lowest):
                raise InputError(f"{field.name}: expected at least {lowest}, got {value}")
        if self.timeout == 0:
            raise InputError("timeout: expected more than 0 seconds, got 0")
        if self.max_pixels > MAX_PIXELS:
            raise InputError(
                f"max_pixels: expected at most {MAX_PIXELS:,}, what Pillow opens, "
                f"got {self.max_pixels:,}"
            )
