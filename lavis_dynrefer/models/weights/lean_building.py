"""Modules without start values, which are then filled from mapped files without a second copy."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

_building = threading.local()


def _to_meta(_module: nn.Module, _name: str, parameter: nn.Parameter) -> nn.Parameter | None:
    if parameter.is_meta or not getattr(_building, "without_values", False):
        return None
    return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)


# For good: torch walks over these hooks while other threads build, and they must not change then.
register_module_parameter_registration_hook(_to_meta)


@contextmanager
def without_values() -> Iterator[None]:
    """Parameters of modules that this thread builds meanwhile get no memory and no values.

    They are on the meta device; buffers are as usual.
    """
    before = getattr(_building, "without_values", False)
    _building.without_values = True
    try:
        with _NothingDrawn():
            yield
    finally:
        _building.without_values = before


class _NothingDrawn(TorchFunctionMode):
    """Leaves out what would fill tensors without memory: torch imports its compiler for it."""

    _FILLING = frozenset(("normal_", "uniform_", "fill_", "zero_", "copy_", "mul_", "div_", "add_"))

    def __torch_function__(
        self, function: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name in self._FILLING or getattr(function, "__module__", "") == "torch.nn.init":
            target = args[0] if args else kwargs.get("tensor")
            if isinstance(target, Tensor) and target.is_meta:
                return target
        return function(*args, **kwargs)


def fill(model: nn.Module, values: Mapping[str, Tensor], *, copy: bool = True) -> None:
    """Give values to parameters and buffers, under any of their names; shapes are checked before.

    Where there are values, they are overwritten in their own format. Elsewhere a parameter gets a
    copy in float32.

    Args:
        model: target.
        values: by name.
        copy: False: a frozen parameter without values takes the tensor as it is, mapped or not.
    """
    entries = model.state_dict(keep_vars=True)  # the same object under each name of a tied tensor
    places = _places(model)
    filled: dict[int, nn.Parameter] = {}
    with torch.no_grad():
        for name, value in values.items():
            entry = filled.get(id(entries[name]), entries[name])
            if not entry.is_meta:
                _overwrite(entry, value)
                continue
            if copy or entry.requires_grad:
                value = value.to(torch.float32, copy=True)
            new = nn.Parameter(value, requires_grad=entry.requires_grad)
            filled[id(entry)] = new
            for parameters, own_name in places[id(entry)]:
                parameters[own_name] = new


def _places(model: nn.Module) -> dict[int, list[tuple[dict[str, Any], str]]]:
    """Where each parameter is kept: a tied one in several modules."""
    places: dict[int, list[tuple[dict[str, Any], str]]] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((module._parameters, name))
    return places


def _overwrite(entry: Tensor, value: Tensor) -> None:
    narrowed = value.to(entry.device, entry.dtype)
    if torch.equal(entry, narrowed):
        return  # writing would copy the pages of a mapped file
    exact = narrowed.dtype != torch.float16 or torch.equal(narrowed.to(value.dtype), value)
    if exact or entry.requires_grad:
        entry.copy_(narrowed)
    else:  # float16 is what published files are stored in; this one has more digits
        entry.data = value.to(entry.device, copy=True)
