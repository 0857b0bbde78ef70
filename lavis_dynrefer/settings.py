"""How settings are declared, each number with its bounds, and read strictly from any mapping.

@settings
class ViewSettings:
    num_views: int = Field(default=3, ge=1)
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from typing import Annotated, Any, TypeVar, Union, get_args, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, Strict, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import CoreSchema, core_schema
from typing_extensions import dataclass_transform

from lavis_dynrefer.errors import InputError, did_you_mean

T = TypeVar("T")
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass_transform(frozen_default=True, field_specifiers=(field, Field))
def settings(cls: type[T]) -> type[T]:
    """Make a frozen dataclass that checks its values by its annotations.

    Nothing is converted but an int to a float and a list to a tuple; unknown names are refused.
    """
    return pydantic_dataclass(frozen=True, config=_STRICT)(cls)  # type: ignore[return-value]


class _FromMapping:
    """Lets a mapping stand for settings inside settings, which pydantic's strict mode does not."""

    def __get_pydantic_core_schema__(
        self, source: type[Any], handler: Callable[[Any], CoreSchema]
    ) -> CoreSchema:
        def build(value: Any) -> Any:
            named = isinstance(value, Mapping)
            return source(**{str(name): item for name, item in value.items()}) if named else value

        return core_schema.no_info_before_validator_function(build, handler(source))


Section = Annotated[T, _FromMapping()]
Listed = Annotated[tuple[T, ...], Strict(False)]  # also from a list
# One file, or several of which a later one wins.
Files = Annotated[
    Listed[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
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
        cls: made by `settings`, or a plain dataclass.
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
        return _checked(cls)(**{str(name): value for name, value in values.items()})
    except ValidationError as error:
        raise SettingsError(validation_problems(error, where, cls)) from None


def _checked(cls: type[T]) -> type[T]:
    """The class itself where it checks its values, else a subclass that does."""
    if "__pydantic_validator__" in vars(cls):
        return cls
    frozen = cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    child = type(cls.__name__, (cls,), {"__module__": cls.__module__})
    return pydantic_dataclass(frozen=frozen, config=_STRICT)(child)  # type: ignore[return-value]


def validation_message(error: ValidationError, where: str = "", model: Any = None) -> str:
    """`validation_problems` as one line."""
    return "; ".join(validation_problems(error, where, model))


def validation_problems(error: ValidationError, where: str = "", model: Any = None) -> list[str]:
    """What pydantic found, a sentence for each: the place, what was expected and what came.

    Args:
        error: raised by a pydantic model or dataclass.
        where: name of the place the values came from.
        model: the model or dataclass; it tells which name a wrong one may have meant.
    """
    return [_problem(item, where, model) for item in error.errors(include_url=False)]


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
    expected = _EXPECTED.get(item["type"])
    if expected is None:
        expected = item["msg"].removeprefix("Input should be ").replace("{", "{{")
    bounds = {
        name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
        for name, bound in item.get("ctx", {}).items()
    }
    return f"{place}: expected {expected.format(**bounds)}, got {item['input']!r:.200}"


def _place(where: str, steps: Sequence[Union[str, int]]) -> str:
    """As one writes it: "run.test_splits[0]"."""
    parts = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps]
    return (where + "".join(parts)).lstrip(".")


def _names_at(model: Any, steps: Sequence[Union[str, int]]) -> list[str]:
    """Names of the fields at a place below `model`; none where that is not known."""
    for step in steps:
        if isinstance(step, str):
            model = get_type_hints(model).get(step)
        # As a value, in `Optional`, or in a list.
        model = next((kind for kind in (model, *get_args(model)) if _field_names(kind)), None)
    return _field_names(model)


def _field_names(kind: Any) -> list[str]:
    if is_dataclass(kind):
        return [item.name for item in fields(kind)]
    return list(getattr(kind, "model_fields", ()))
