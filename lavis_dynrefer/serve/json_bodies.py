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
    RootModel,
    StringConstraints,
    Tag,
    WithJsonSchema,
    model_validator,
)
from typing_extensions import Self

from lavis_dynrefer.questions import TASKS, Questions
from lavis_dynrefer.views.policies import POLICIES
from lavis_dynrefer.views.regions import MASKS_AS

_NAMED = sorted({*POLICIES} - {"fixed"})
_VIEWS = {"type": "string", "pattern": f"^({'|'.join(_NAMED)}|fixed:[0-9.,]+)$"}
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
Tasks = Annotated[list[Task], Field(fail_fast=True, min_length=1)]


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


class MasksBody(RootModel[List[Optional[Mask]]]):
    """Masks alone."""

    model_config = ConfigDict(strict=True)


class RegionFields(Body):
    """Regions and questions, as `RegionPredictor.predict` takes them."""

    boxes: Annotated[Optional[List[List[Number]]], BeforeValidator(_rows)] = Field(
        None, description="four numbers per region: x1, y1, x2, y2 in pixels"
    )
    masks: Optional[List[Optional[Mask]]] = Field(
        None,
        description="RLE, or polygons [[x1, y1, x2, y2, ...], ...]; instead of boxes, or beside "
        "them, then null for a region without a mask",
    )
    format: Optional[Literal["xyxy", "xywh"]] = Field("xyxy", description="format of the boxes")
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
    controls: Optional[List[Word]] = Field(
        [], description="words that every caption should mention"
    )
    tasks: Optional[Tasks] = Field(list(TASKS), description="what to answer")
    views: Optional[Annotated[str, WithJsonSchema(_VIEWS)]] = Field(
        None,
        description=f"view policy: {', '.join(_NAMED)}, or scales as in "
        "fixed:0,0.5; null: the model's own",
    )
    masks_as: Optional[Literal[MASKS_AS]] = Field(
        None,
        description="masks as their boxes alone, on the cells of regions, or to dim what lies "
        "outside of them; null: what the model was trained for",
    )

    @model_validator(mode="after")
    def _null_means_the_default(self) -> Self:
        """Many clients write out the fields that nobody has set, as null."""
        for name, item in type(self).model_fields.items():
            if getattr(self, name) is None and not item.is_required():
                setattr(self, name, item.get_default())
        return self

    def questions(self) -> Questions:
        """The questions about every region.

        Raises:
            InputError: invalid words, an unknown task, or an unknown view policy.
        """
        names = RegionFields.model_fields.keys() - _REGIONS
        return Questions(**{name: getattr(self, name) for name in names})


_NULL = {"type": "null"}
_ARRAY = {"type": "array"}
_AS_STORED = {"enum": ["xyxy", None]}
_EITHER = [  # boxes, perhaps with masks, or masks without what is about boxes
    {"required": ["boxes"], "properties": {"boxes": _ARRAY}},
    {
        "required": ["masks"],
        "properties": {"masks": _ARRAY, "boxes": _NULL, "format": _AS_STORED, "normalised": _NULL},
    },
]


class RegionsBody(RegionFields):
    """Body of POST /v1/regions."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"oneOf": _EITHER})

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

    include_usage: Optional[bool] = False


_IMAGE_PART = {
    "properties": {"type": {"const": "image_url"}, "image_url": {"type": ["object", "string"]}},
    "required": ["type", "image_url"],
}
_WITH_IMAGE = {
    "properties": {
        "role": {"const": "user"},
        "content": {"type": "array", "contains": _IMAGE_PART},
    },
    "required": ["role", "content"],
}


class ChatBody(RegionFields):
    """Body of POST /v1/chat/completions; OpenAI's other fields are accepted and ignored."""

    model: str = Field(
        description="a name from GET /v1/models, or dynrefer, or the name that a client of "
        "describe-anything's server uses"
    )
    messages: List[Message] = Field(
        min_length=1,
        json_schema_extra={"contains": _WITH_IMAGE},
        description="the last images and the last text of the user are read",
    )
    stream: Optional[bool] = Field(False, description="answer as server-sent events")
    stream_options: Optional[StreamOptions] = Field(None, description="usage at the stream's end")
    n: Optional[Literal[1]] = Field(None, description="number of answers; beam search has one")
    tasks: Optional[Tasks] = Field(
        ["caption"], description="what the text says: caption, tags or both"
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
    familiarity: Optional[float] = Field(
        description="how like the training data the region looks, in [0, 1]; below 0.01 its "
        "answers mean little; null: the model is not calibrated for it"
    )
    caption: Optional[str]
    caption_score: Optional[float] = Field(description="probability of the caption")
    probabilities: dict[str, dict[str, float]] = Field(
        description="of tags, attributes and categories, by name"
    )
    none_of_these: Optional[float] = Field(
        description="probability that no category in question is right"
    )
    tags: list[tuple[str, float]] = Field(description="name and score in [0, 1]")
    attributes: list[tuple[str, float]] = Field(description="name and score in [0, 1]")
    categories: list[tuple[str, float]] = Field(description="name and logit")
    scales: dict[str, list[float]]


class ImageSize(BaseModel):
    """Pixels of the image, as stored."""

    width: int
    height: int


class RegionsAnswer(BaseModel):
    """Answer of POST /v1/regions."""

    regions: list[Region]
    remark: Optional[str] = Field(
        description="says so if regions are unlike anything the model was trained on"
    )
    image: ImageSize
    model: str
    timings: Timings
    batch: Batch


class ChatRegion(Region):
    """An answer in a chat."""

    image: Optional[int] = Field(None, description="which of several images, from 0")


class Usage(BaseModel):
    """Queries that the language model has read, and tokens that it has written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(BaseModel):
    """The answer as text."""

    role: Literal["assistant"]
    content: str = Field(description="one line per region")


class Choice(BaseModel):
    """The only answer."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop"]
    logprobs: None


class ChatAnswer(BaseModel):
    """Answer of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Optional[Usage]
    regions: list[ChatRegion] = Field(description="everything about the regions")
    remark: Optional[str] = Field(description="as of POST /v1/regions")


class OpenAIModel(BaseModel):
    """The model in OpenAI's format."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="when the service was started, in seconds since 1970")
    owned_by: str = "lavis_dynrefer"


class OpenAIModels(BaseModel):
    """Answer of GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]


class Health(BaseModel):
    """Answer of GET /health."""

    status: Literal["ready", "shutting_down", "unhealthy"]
    reason: Optional[str] = Field(description="why the service is unhealthy")
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
