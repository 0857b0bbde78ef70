"""Samples: what a view processor returns, joined and taken apart along the region axis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.images.mask_cover import FULL

PER_REGION = ("views", "boxes", "scales", "image_boxes")
MASKS = "masks"  # per region, too, but only there if a mask is used
DIMMED = "dimmed"  # (R, V) bool, only there if views were dimmed outside of masks
_OPTIONAL = {MASKS: FULL, DIMMED: 0}  # key -> its value for the regions of samples without it
CHOICE = "choice"  # chooser -> (B, W, n), only there if the model chooses views; see `ModelChoice`
_JOINING = (torch.stack, torch.cat, torch.concat)


class Sample(dict[str, Any]):
    """Regions and their views, one row per region; see `ViewProcessor` for the keys.

    It can be treated like the image tensor that other processors of LAVIS return: the rows are its
    batch axis, so `unsqueeze(0)` changes nothing, and `torch.stack`, `torch.cat` and torch's
    default collation put the regions of several samples below each other.
    """

    @property
    def shape(self) -> torch.Size:
        """Of the views: (R, V, 3, S, S)."""
        shape: torch.Size = self["views"].shape
        return shape

    def size(self, dim: int | None = None) -> torch.Size | int:
        """Of the views, or of one of their axes."""
        return self.shape if dim is None else self.shape[dim]

    @property
    def device(self) -> torch.device:
        """Where the views are."""
        device: torch.device = self["views"].device
        return device

    def unsqueeze(self, dim: int) -> Sample:
        """The sample itself, whose first axis is a batch axis already.

        Raises:
            InputError: another axis than the first.
        """
        if dim != 0:
            raise InputError(f"unsqueeze: a sample has one batch axis, 0; got {dim}")
        return self

    def __missing__(self, key: object) -> Sample:
        """`sample[None]` means `unsqueeze(0)`, as for a tensor."""
        if key is None:
            return self
        raise KeyError(key)

    def to(self, device: str | int | torch.device, *, non_blocking: bool = False) -> Sample:
        """The sample with all tensors on a device.

        Raises:
            InputError: a number format, which would change what the views mean.
        """
        if isinstance(device, torch.dtype):
            raise InputError(
                f"to: expected a device, got {device}; views stay uint8, and the model chooses its "
                "number formats: predict(samples, dtype=...)"
            )

        def move(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {name: move(item) for name, item in value.items()}
            is_tensor = isinstance(value, Tensor)
            return value.to(device, non_blocking=non_blocking) if is_tensor else value

        return Sample(move(self))

    def cuda(self) -> Sample:
        """On the current GPU."""
        return self.to("cuda")

    def cpu(self) -> Sample:
        """In main memory."""
        return self.to("cpu")

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """torch.stack and torch.cat of samples; torch calls this."""
        del types
        dim = dict(kwargs or {}).get("dim", args[1] if len(args) > 1 else 0)
        if function not in _JOINING or dim != 0 or any(type(one) is not cls for one in args[0]):
            name = getattr(function, "__name__", function)
            raise InputError(
                f"torch.{name}: samples can only be stacked along their first axis, with samples"
            )
        return concat_samples(args[0])


def concat_samples(samples: Sequence[Mapping[str, Any]]) -> Sample:
    """Join samples along the region axis.

    Args:
        samples: at least one, each with views, boxes, scales, image_boxes and routes; lists under
            further keys are joined, too. Where only some have masks, those of the other regions
            are their whole boxes, and their views are not dimmed.
    """
    first = samples[0]
    if len(samples) == 1:
        return Sample(first)
    batch = Sample({key: torch.cat([sample[key] for sample in samples]) for key in PER_REGION})
    batch["routes"] = {
        task: torch.cat([sample["routes"][task] for sample in samples]) for task in first["routes"]
    }
    for key, value in _OPTIONAL.items():
        given = [sample[key] for sample in samples if key in sample]
        if given:
            batch[key] = torch.cat(
                [
                    sample[key]
                    if key in sample
                    else given[0].new_full((len(sample["views"]), *given[0].shape[1:]), value)
                    for sample in samples
                ]
            )
    if CHOICE in first:
        batch[CHOICE] = {
            chooser: torch.cat([sample[CHOICE][chooser] for sample in samples])
            for chooser in first[CHOICE]
        }
    for key in (key for key, value in first.items() if isinstance(value, list)):
        batch[key] = [item for sample in samples for item in sample[key]]
    return batch


def _collate(samples: Sequence[Sample], *, collate_fn_map: Any = None) -> Sample:
    del collate_fn_map
    return concat_samples(samples)


default_collate_fn_map[Sample] = _collate  # else `DataLoader` would stack key by key


def regions_of(samples: Mapping[str, Any]) -> Mapping[str, Any]:
    """The regions in what a model is given.

    Args:
        samples: a sample, a batch of a dataset, or as in LAVIS a mapping that has a sample, or a
            list of them, under "image".

    Raises:
        InputError: anything else.
    """
    image = samples.get("image") if isinstance(samples, Mapping) else samples
    if isinstance(samples, Mapping) and "views" in samples:
        return samples
    if isinstance(image, Mapping) and "views" in image:
        return image
    if isinstance(image, (list, tuple)) and image and all(isinstance(one, Sample) for one in image):
        return concat_samples(image)
    if image is None:
        found = f"the keys {sorted(map(str, samples))}"
    else:
        shape = f" {tuple(image.shape)}" if isinstance(image, Tensor) else ""
        found = f"{type(image).__name__}{shape}"
    raise InputError(
        "samples: expected what vis_processors['eval'](image, boxes) of this model returns, by "
        f"itself or under 'image', got {found}"
    )


def count_regions(samples: Iterable[Mapping[str, Any]]) -> int:
    """Number of regions in all samples."""
    return sum(len(sample["views"]) for sample in samples)


def batches(samples: Iterable[Sample], size: int) -> Iterator[Sample]:
    """Join neighbouring samples, up to `size` regions in each batch; none is split."""
    waiting: list[Sample] = []
    for sample in samples:
        if waiting and count_regions([*waiting, sample]) > size:
            yield concat_samples(waiting)
            waiting = []
        waiting.append(sample)
        if count_regions(waiting) == size:  # without waiting for the next one
            yield concat_samples(waiting)
            waiting = []
    if waiting:
        yield concat_samples(waiting)


def rows_of(sample: Mapping[str, Any], rows: slice) -> Sample:
    """Some regions of a sample."""
    keys = (*PER_REGION, *(key for key in _OPTIONAL if key in sample))
    part = Sample({key: sample[key][rows] for key in keys})
    routes = sample.get("routes") or {}
    part["routes"] = {task: route[rows] for task, route in routes.items()}
    if CHOICE in sample:
        part[CHOICE] = {chooser: choices[rows] for chooser, choices in sample[CHOICE].items()}
    return part
