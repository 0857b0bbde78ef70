"""Declares settings, each number with its bounds, and reads them strictly from any mapping."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from types import GenericAlias
from typing import (
    Annotated,
    Any,
    Optional,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BeforeValidator, ConfigDict, Field, Strict, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import CoreSchema, core_schema
from typing_extensions import dataclass_transform, get_annotations

from lavis_dynrefer.errors import InputError, did_you_mean

T = TypeVar("T")
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass_transform(frozen_default=True, field_specifiers=(field, Field))
def settings(cls: type[T]) -> type[T]:
    """Make a frozen dataclass that checks its values by its annotations.

    Unknown names are refused. Nothing is converted but an int to a float, a list to a tuple, and a
    mapping to the settings that it stands for.
    """
    hints = get_type_hints(cls, include_extras=True)
    own = get_annotations(cls)  # without those of its bases
    cls.__annotations__ = {name: _from_yaml(hints[name]) for name in own}
    return pydantic_dataclass(frozen=True, config=_STRICT)(cls)  # type: ignore[return-value]


def _from_yaml(hint: Any) -> Any:
    """The annotation, also for what yaml has instead of a tuple or of settings, at any depth."""
    if is_dataclass(hint):
        return Annotated[hint, _FromMapping()]
    origin = get_origin(hint)
    if origin not in (tuple, Union, Mapping):
        return hint
    kinds = tuple(_from_yaml(kind) for kind in get_args(hint))
    if origin is Union:
        return Union[kinds]
    if origin is Mapping:
        return GenericAlias(Mapping, kinds)
    return Annotated[GenericAlias(tuple, kinds), Strict(False)]


class _FromMapping:
    """Builds nested settings from a mapping, which pydantic's strict mode does not."""

    def __get_pydantic_core_schema__(
        self, source: type[Any], handler: Callable[[Any], CoreSchema]
    ) -> CoreSchema:
        def build(value: Any) -> Any:
            return _build(source, value) if isinstance(value, Mapping) else value

        return core_schema.no_info_before_validator_function(build, handler(source))


# One file, or several of which a later one wins.
Files = Annotated[
    tuple[str, ...],
    Strict(False),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
]
Size = Annotated[int, Field(ge=1, le=1_000_000)]
Depth = Annotated[int, Field(ge=1, le=1_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=0, le=1_000)]


class SettingsError(InputError):
    """Settings that cannot be used; `problems` has a sentence for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def from_mapping(cls: type[T], values: Mapping[str, Any], *, where: str = "") -> T:
    """Build the dataclass `cls` from a mapping, refusing every key it does not have.

    Args:
        cls: declared with `settings`.
        values: plain nested mapping, e.g. `OmegaConf.to_container(node, resolve=True)`.
        where: name of the place the mapping came from, for the error text.

    Raises:
        SettingsError: unknown keys, or values of the wrong type or out of bounds; names them all.

    >>> from lavis_dynrefer.config import VisionConfig
    >>> from_mapping(VisionConfig, {"image_size": 64, "patch_size": 8}).grid
    8
    """
    where = where or cls.__name__
    if not isinstance(values, Mapping):
        raise SettingsError([f"{where}: expected a mapping, got {values!r}"])
    try:
        return cast(T, _build(cls, values))
    except ValidationError as error:
        raise SettingsError(validation_problems(error, where, cls)) from None


def _build(cls: Any, values: Mapping[Any, Any]) -> Any:
    named = {str(name): value for name, value in values.items()}
    if "__pydantic_validator__" in vars(cls):
        return cls(**named)
    raise TypeError(f"{cls.__name__} is not declared with @settings")


def validation_problems(
    error: ValidationError, where: str = "", model: Any = None, *, max_count: Optional[int] = None
) -> list[str]:
    """What pydantic found, a sentence for each: the place, what was expected and what came.

    Args:
        error: raised by a pydantic model or dataclass.
        where: name of the place the values came from.
        model: the model or dataclass; it tells which name a wrong one may have meant.
        max_count: only the first ones; None means all.
    """
    return [_problem(item, where, model) for item in error.errors(include_url=False)[:max_count]]


# Pydantic's type of error -> what it expected.
_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "dataclass_type": "a mapping",
    "dataclass_exact_type": "a mapping",
    "model_type": "a mapping",
    "finite_number": "a finite number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "too_short": "at least {min_length} items",
    "string_too_short": "at least {min_length} characters",
}


def _problem(item: Mapping[str, Any], where: str, model: Any) -> str:
    *parents, name = item["loc"] or [""]
    place, outer = _place(where, item["loc"]), _place(where, parents)
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _names_at(model, parents)
        hint = did_you_mean(str(name), known) or (f"; expected some of {known}" if known else "")
        return f"{outer}: unknown {[name]}{hint}".removeprefix(": ")
    if item["type"] == "missing":
        return f"{place}: is missing"
    if item["type"] == "value_error":  # of our own validators, most of which begin with a name
        text = str(item["ctx"]["error"])
        joint = "." if place and re.match(r"[\w.]+: ", text) else ": "
        return f"{place}{joint}{text}".removeprefix(": ")
    expected = item["msg"].removeprefix("Input should be ")
    if item["type"] in _EXPECTED:
        bounds = {
            name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
            for name, bound in item.get("ctx", {}).items()
        }
        expected = _EXPECTED[item["type"]].format(**bounds)
    text = f"{place}: expected {expected}, got {item['input']!r:.200}"
    return text.removeprefix(": ")


def _place(where: str, steps: Sequence[Union[str, int]]) -> str:
    """As one writes it: "run.test_splits[0]"."""
    parts = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps]
    return (where + "".join(parts)).lstrip(".")


def _names_at(model: Any, steps: Sequence[Union[str, int]]) -> list[str]:
    """Names of the fields at a place below `model`; none where that is not known."""
    for step in steps:
        if not _field_names(model):
            return []  # a place that only pydantic names, such as the kind of a mask
        if isinstance(step, str):
            model = get_type_hints(model).get(step)
        # As a value, in `Optional`, or in a list.
        model = next((kind for kind in (model, *get_args(model)) if _field_names(kind)), None)
    return _field_names(model)


def _field_names(kind: Any) -> list[str]:
    if is_dataclass(kind):
        return [item.name for item in fields(kind)]
    return list(getattr(kind, "model_fields", ()))
