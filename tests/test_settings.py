"""How settings are declared and read."""

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any, Optional

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lavis_dynrefer.config import DynReferConfig, GenerationConfig
from lavis_dynrefer.settings import (
    Files,
    SettingsError,
    from_mapping,
    settings,
    validation_problems,
)


@settings
class Inner:
    size: int = Field(default=1, ge=1, le=9)
    names: tuple[str, ...] = ()


@settings
class Outer:
    inner: Inner = field(default_factory=Inner)
    maybe: Optional[Inner] = None
    share: float = Field(default=0.5, ge=0, le=1)
    switch: bool = False
    files: Optional[Files] = None
    free: Mapping[str, Any] = field(default_factory=dict)


def test_yaml_becomes_settings():
    read = from_mapping(
        Outer, {"inner": {"size": 2, "names": ["a"]}, "maybe": {}, "share": 1, "files": "x.pth"}
    )

    assert read == Outer(Inner(2, ("a",)), Inner(), 1.0, files=("x.pth",))
    assert replace(read, switch=True).inner is read.inner


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"inner": {"size": True}}, "run.inner.size: expected an integer, got True"),
        ({"inner": {"size": 2.0}}, "run.inner.size: expected an integer, got 2.0"),
        ({"inner": {"size": 0}}, "run.inner.size: expected at least 1, got 0"),
        ({"inner": {"size": 10}}, "run.inner.size: expected at most 9, got 10"),
        ({"inner": 3}, "run.inner: expected a mapping, got 3"),
        ({"inner": {"names": "ab"}}, "run.inner.names: expected a list, got 'ab'"),
        ({"inner": {"names": [3]}}, "run.inner.names[0]: expected a string, got 3"),
        ({"share": "0.5"}, "run.share: expected a number, got '0.5'"),
        ({"share": float("nan")}, "run.share: expected a finite number, got nan"),
        ({"switch": 1}, "run.switch: expected true or false, got 1"),
        ({"maybe": {"nam": 1}}, "run.maybe: unknown ['nam']; did you mean names?"),
        ({"frei": 1}, "run: unknown ['frei']; did you mean free?"),
        ({7: 1}, "run: unknown ['7']; expected some of ['inner', 'maybe', 'share', 'switch'"),
        ([], "run: expected a mapping, got []"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(values, problem):
    with pytest.raises(SettingsError) as raised:
        from_mapping(Outer, values, where="run")

    (found,) = raised.value.problems
    assert found.startswith(problem)


def test_all_problems_are_found_at_once():
    with pytest.raises(SettingsError) as raised:
        from_mapping(Outer, {"share": 2, "inner": {"size": 0}, "other": 1})

    assert len(raised.value.problems) == 3
    assert str(raised.value) == "; ".join(raised.value.problems)


def test_numbers_that_do_not_fit_together_are_named():
    with pytest.raises(SettingsError, match=r"model\.vision\.width: expected a multiple of heads"):
        from_mapping(DynReferConfig, {"vision": {"heads": 7}}, where="model")
    with pytest.raises(ValueError, match="num_beams"):
        GenerationConfig(num_beams=0)


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    boxes: list[int]


def test_problems_of_any_pydantic_model_have_one_form():
    with pytest.raises(ValidationError) as raised:
        Body.model_validate({"boxes": ["x"], "boxs": 1})

    assert validation_problems(raised.value, "body", Body) == [
        "body.boxes[0]: expected a valid integer, unable to parse string as an integer, got 'x'",
        "body: unknown ['boxs']; did you mean boxes?",
    ]
    assert len(validation_problems(raised.value, max_count=1)) == 1
