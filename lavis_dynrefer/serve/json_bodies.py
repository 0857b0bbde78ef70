"""Requests and answers as pydantic models; the OpenAPI page shows their descriptions."""

# No `from __future__ import annotations`: FastAPI and pydantic evaluate them, also on Python 3.9.

from typing import Annotated, Any, Literal, Optional, TypeVar, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    Tag,
    WithJsonSchema,
)

from lavis_dynrefer.questions import TASKS, Questions
from lavis_dynrefer.views.policies import POLICIES

_REGIONS = {"boxes", "masks", "format", "normalised"}  # all other fields are questions


def _number(value: Any) -> Any:
    """Integers are kept as such: they are pixels, fractions may be normalised."""
    if type(value) not in (int, float) or not -1e30 < value < 1e30:
        raise ValueError(f"expected a finite number, got {value!r:.60}")
    return value


def _rows(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 4 and not isinstance(value[0], (list, tuple)):
        raise ValueError("expected a list of boxes; one box is [[x1, y1, x2, y2]]")
    return value


def _kind_of_mask(value: Any) -> str:
    return "rle" if isinstance(value, (dict, RunLengths)) else "polygons"


Item = TypeVar("Item")
# Stops at the first error: a body may have millions, and each takes memory.
List = Annotated[list[Item], Field(fail_fast=True)]
Number = Annotated[Any, AfterValidator(_number), WithJsonSchema({"type": "number"})]
Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Task = Annotated[str, WithJsonSchema({"type": "string", "enum": list(TASKS)})]  # see `Questions`


class Body(BaseModel):
    """Part of a request; "yes" is no boolean, and "1" no number."""

    model_config = ConfigDict(strict=True)


class RunLengths(Body):
    """A mask as COCO's run-length encoding: columns from left to right, each from top to bottom."""

    model_config = ConfigDict(extra="forbid")

    size: tuple[PositiveInt, PositiveInt] = Field(description="height and width of the image")
    counts: Union[str, List[NonNegativeInt]] = Field(description="compressed, or a list of runs")


Mask = Annotated[
    Union[Annotated[RunLengths, Tag("rle")], Annotated[List[List[Number]], Tag("polygons")]],
    Discriminator(_kind_of_mask),
]


class RegionFields(Body):
    """Regions and questions, as `RegionPredictor.predict` takes them."""

    boxes: Annotated[Optional[List[List[Number]]], BeforeValidator(_rows)] = Field(
        None, description="four numbers per region: x1, y1, x2, y2 in pixels"
    )
    masks: Optional[List[Mask]] = Field(
        None, description="instead of boxes: RLE, or polygons [[x1, y1, x2, y2, ...], ...]"
    )
    format: Literal["xyxy", "xywh"] = Field("xyxy", description="format of the boxes")
    normalised: Optional[bool] = Field(
        None,
        description="true: boxes in fractions of the sides; null refuses boxes that look like it",
    )
    attributes: Optional[List[Word]] = Field(
        None, description="words to score; null: the model's own"
    )
    categories: Optional[List[Word]] = Field(
        None, description="names to choose from; null: the model's own"
    )
    tags: Optional[List[Word]] = Field(
        None, description="words to tag with, which also steer the caption; null: the model's own"
    )
    controls: List[Word] = Field([], description="words that every caption should mention")
    tasks: List[Task] = Field(list(TASKS), min_length=1, description="what to answer")
    views: Optional[str] = Field(
        None,
        description=f"view policy: {', '.join(sorted({*POLICIES} - {'fixed'}))}, or scales as in "
        "fixed:0,0.5; null: the model's own",
    )

    def questions(self) -> Questions:
        """The questions about every region.

        Raises:
            InputError: invalid words, an unknown task, or an unknown view policy.
        """
        names = RegionFields.model_fields.keys() - _REGIONS
        return Questions(**{name: getattr(self, name) for name in names})


class RegionsBody(RegionFields):
    """Body of POST /v1/regions."""

    model_config = ConfigDict(extra="forbid")

    image: Optional[str] = Field(
        None, description="base64 or a data URL; omitted if the image is uploaded as a file"
    )


class ImageUrl(Body):
    """The image of a message."""

    url: str = Field(description="data URL of the image; the server fetches nothing")


class ContentPart(Body):
    """One part of a message."""

    type: str = Field(description="text or image_url")
    text: Optional[str] = None
    image_url: Optional[Union[ImageUrl, str]] = None


class Message(Body):
    """One message; only those of the user are read."""

    role: str
    content: Optional[Union[str, List[ContentPart]]] = None


class StreamOptions(Body):
    """End of a stream."""

    include_usage: bool = False


class ChatBody(RegionFields):
    """Body of POST /v1/chat/completions; OpenAI's other fields are accepted and ignored."""

    model: str = Field(description="a name from GET /v1/models, or dynrefer")
    messages: List[Message] = Field(
        min_length=1, description="the user's last image and last text are read"
    )
    stream: bool = Field(False, description="answer as server-sent events")
    stream_options: Optional[StreamOptions] = Field(None, description="usage at the stream's end")
    n: Optional[Literal[1]] = Field(None, description="number of answers; beam search has one")
    tasks: List[Task] = Field(
        ["caption"], min_length=1, description="what the text says: caption, tags or both"
    )


class Batch(BaseModel):
    """Requests and regions that were answered together."""

    requests: int
    regions: int


class Timings(BaseModel):
    """Milliseconds that a request took."""

    read_ms: float = Field(description="receiving, decoding, checking and cropping")
    queue_ms: float = Field(description="waiting for the model")
    model_ms: float = Field(description="answering the whole batch")
    total_ms: float


class Region(BaseModel):
    """`RegionPrediction.to_dict()`."""

    box: list[float] = Field(description="xyxy in pixels")
    caption: Optional[str]
    caption_score: Optional[float]
    tags: list[tuple[str, float]]
    attributes: list[tuple[str, float]]
    categories: list[tuple[str, float]]
    scales: dict[str, list[float]]


class ImageSize(BaseModel):
    """Pixels of the image, as stored."""

    width: int
    height: int


class RegionsAnswer(BaseModel):
    """Answer of POST /v1/regions."""

    regions: list[Region]
    image: ImageSize
    model: str
    timings: Timings
    batch: Batch


class Health(BaseModel):
    """Answer of GET /health."""

    status: Literal["ready", "shutting_down"]
    model: str
    device: str
    queue: int = Field(description="requests waiting for the model")
    answering: int = Field(description="requests in the batch that the model is answering")
    requests: int = Field(description="all requests in progress, including this one")


class ModelCard(BaseModel):
    """Answer of GET /v1/model."""

    model: str
    device: str
    dtype: str
    vocabularies: dict[str, int] = Field(description="sizes of the model's own vocabularies")
    tasks: list[str]
    views: list[str] = Field(description="view policies")
    num_views: int
    limits: dict[str, Any]
