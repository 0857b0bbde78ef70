"""Parts of a model that wait in main memory while a GPU has no use for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lavis_dynrefer.models.dynrefer import DynRefer

Place = tuple[dict[str, Any], str, Tensor]  # where a module keeps a tensor, its name there, it


def move_with_idle_parts_away(model: DynRefer, device: torch.device) -> DynRefer:
    """Move a model, but its text tower and language model only for as long as each is at work.

    They keep their weights in main memory, mapped if they were, and are copied each time: the
    language model for every chunk of regions that gets captions, or each time it scores them.

    Args:
        model: in eval mode; it cannot be trained so.
        device: of the other parts.
    """
    waiting = (model.text_encoder, model.captioning.llm)
    inside = {id(part) for module in waiting for part in module.modules()}
    for module in model.modules():
        if id(module) not in inside:
            _replace(_tensors_of([module]), device)
    model.embed_texts.at_work = partial(at_work, model.text_encoder, device)
    model.captioning.at_work = partial(at_work, model.captioning.llm, device)
    return model


@contextmanager
def at_work(part: nn.Module, device: torch.device) -> Iterator[None]:
    """A part on a device; afterwards it has its own tensors again."""
    own = list(_tensors_of(part.modules()))
    try:
        with torch.inference_mode(False):
            _replace(own, device)
        yield
    finally:
        for store, name, tensor in own:
            store[name] = tensor
        if hasattr(part, "forget"):  # what it derived from the weights on the device
            part.forget()


def _tensors_of(modules: Iterable[nn.Module]) -> Iterator[Place]:
    for module in modules:
        for store in (module._parameters, module._buffers):
            yield from ((store, name, one) for name, one in store.items() if one is not None)


def _replace(places: Iterable[Place], device: torch.device) -> None:
    """Put copies on the device in place of tensors; what is shared stays shared."""
    copies: dict[int, Tensor] = {}
    for store, name, tensor in list(places):
        if id(tensor) not in copies:
            copy = tensor.detach().to(device)
            if isinstance(tensor, nn.Parameter):
                copy = nn.Parameter(copy, requires_grad=tensor.requires_grad)
            copies[id(tensor)] = copy
        store[name] = copies[id(tensor)]
