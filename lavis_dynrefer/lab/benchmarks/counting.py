"""What a computation costs, found without doing it: operators, bytes, floating point operations.

Tensors are fake: they have shapes and number formats, but no values and no memory, so the released
model of 4.1 billion weights is counted in seconds on any machine.

    model = model_without_weights("full")  # see `model_sizes`
    with Counting() as counting:
        counting.adopt(model)
        batch = example_batch("full", 64)
        with torch.inference_mode(), counting.stage("views"):
            model.encode_views(batch["views"], batch["boxes"])
    print(counting.stages["views"].kernels)

Fake tensors are on the CPU, so attention is counted as torch's fused kernel for a CPU. On a GPU it
is one kernel, too, if its mask and number format allow it. `like_gpu` adds what differs there. What
a GPU copies from and to the CPU is not counted: `tests/gpu` and `tests/imitated_device` do that.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

# Operators that make no kernel although torch does not mark them as views.
_FREE = ("aten::_unsafe_view", "aten::detach", "aten::empty", "aten::lift_fresh", "aten::alias")
_FREE += ("prim::", "aten::sym_", "aten::_local_scalar_dense", "aten::is_same_size", "aten::set_")
_READS = {  # methods that bring values to Python, with what a fake tensor answers
    torch.Tensor.tolist: lambda tensor: _zeros(tuple(tensor.shape), tensor),
    torch.Tensor.item: lambda tensor: _zeros((), tensor),
    torch.Tensor.__bool__: lambda tensor: False,
    torch.Tensor.__int__: lambda tensor: 0,
    torch.Tensor.__index__: lambda tensor: 0,
    torch.Tensor.__float__: lambda tensor: 0.0,
}
# Operators whose results, or their shapes, depend on values.
_DEPENDENT = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero")
_DEPENDENT += ("aten::repeat_interleave.Tensor",)


@dataclass(eq=False)  # two that have counted the same are two
class Stage:
    """The cost of one stage.

    Args:
        operators: name -> how often it ran; each is a kernel at least.
        peak: most bytes of tensors that existed at once during the stage.
        live: bytes of tensors at its end.
        moved: bytes that its operators read and wrote.
        flops: of its products, by number format.
        saved: bytes kept for the backward pass, beside weights.
        reads: of values by Python; each makes the CPU wait for a GPU.
        milliseconds: at least, by `Roofline`.
    """

    operators: Counter[str] = field(default_factory=Counter)
    peak: int = 0
    live: int = 0
    moved: int = 0
    flops: Counter[str] = field(default_factory=Counter)
    saved: int = 0
    reads: int = 0
    milliseconds: float = 0.0

    @property
    def kernels(self) -> int:
        """Number of operators."""
        return sum(self.operators.values())


@dataclass(frozen=True)
class Roofline:
    """The least time of an operator: by its products, its bytes, or what any kernel takes.

    Args:
        flops: per second, of products in 16 bits.
        float32_flops: per second, of products in float32 (TF32 off).
        bytes_moved: per second.
        kernel: seconds that a kernel takes at least.
    """

    flops: float = 480e12  # an H100 reached this in the blocks of ViT-g
    float32_flops: float = 50e12
    bytes_moved: float = 2.8e12
    kernel: float = 2e-6

    def seconds(self, flops: int, moved: int, dtype: torch.dtype) -> float:
        """At least."""
        rate = self.flops if dtype in (torch.float16, torch.bfloat16) else self.float32_flops
        return max(flops / rate, moved / self.bytes_moved, self.kernel)


class Counting(TorchDispatchMode):
    """Makes all tensors fake while entered, and counts.

    Args:
        roofline: of the machine that `milliseconds` are about.

    Attributes:
        stages: name -> cost of `stage(name)`; several of one name are added up.
        live: bytes of tensors that exist now.
        total: of all operators since it was entered.
    """

    def __init__(self, roofline: Roofline = Roofline()) -> None:
        super().__init__()
        self.stages: dict[str, Stage] = {}
        self.total = Stage()
        self.live = 0
        self.truth = False
        self._roofline = roofline
        self._open: list[Stage] = []
        self._known: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._exits: list[ExitStack] = []

    def __enter__(self) -> Counting:
        exits = ExitStack()
        exits.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        exits.enter_context(Reads(self))
        exits.enter_context(_read_lists_at_once(self))
        self._exits.append(exits)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._exits.pop().__exit__(*error)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Count what happens inside under a name; inside of another stage, under both."""
        stage = self.stages.setdefault(name, Stage())
        stage.peak = max(stage.peak, self.live)
        self._open.append(stage)
        try:
            yield stage
        finally:
            self._open.remove(stage)
            stage.live = self.live

    @contextmanager
    def saving(self, weights: Mapping[str, Tensor] | None = None) -> Iterator[Stage]:
        """Also count the bytes kept for a backward pass, each storage once, without the weights."""
        known = {_key(weight) for weight in (weights or {}).values()}

        def pack(tensor: Tensor) -> Tensor:
            key = _key(tensor)
            if key not in known:
                known.add(key)
                for stage in (self.total, *self._open):
                    stage.saved += tensor.untyped_storage().nbytes()
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            yield self.total

    def adopt(self, model: nn.Module, formats: Mapping[str, torch.dtype] | None = None) -> None:
        """Give a model of the meta device fake weights and buffers on the CPU, tied ones tied.

        Args:
            model: is changed.
            formats: beginning of a weight's name -> its number format; others keep theirs.
        """
        made: dict[int, Tensor] = {}
        for path, module in model.named_modules():
            for owned in (module._parameters, module._buffers):
                for key, value in owned.items():
                    if value is not None:
                        dtype = _format(f"{path}.{key}", value.dtype, formats or {})
                        made.setdefault(id(value), _like(value, dtype))
                        owned[key] = made[id(value)]

    @contextmanager
    def ending_loops(self) -> Iterator[None]:
        """Loops that run until a value is true end at their first look."""
        self.truth = True
        try:
            yield
        finally:
            self.truth = False

    def note_read(self) -> None:
        """A value was brought to Python."""
        for stage in (self.total, *self._open):
            stage.reads += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name()
        if name.startswith(_DEPENDENT) or _by_mask(name, args):
            self.note_read()
            return _answer(name, args)
        if _is_composite(name):  # in inference mode, products and attention arrive in one piece
            super().__enter__()
            try:
                return func.decompose(*args, **kwargs)
            finally:
                super().__exit__(None, None, None)
        result = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for tensor in made:
            self._take(tensor)
        for stage in (self.total, *self._open):
            stage.peak = max(stage.peak, self.live)
        if not (getattr(func, "is_view", False) or name.startswith(_FREE)):
            self._charge(func, name, args, kwargs, result, made)
        return result

    def _charge(
        self, func: Any, name: str, args: Any, kwargs: Any, result: Any, made: list[Tensor]
    ) -> None:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        moved = sum(tensor.numel() * tensor.element_size() for tensor in (*tensors, *made))
        packet = getattr(func, "_overloadpacket", None)
        count = flop_registry.get(packet)
        flops = int(count(*args, **kwargs, out_val=result)) if count else 0
        dtype = made[0].dtype if made else torch.float32
        seconds = self._roofline.seconds(flops, moved, dtype)
        for stage in (self.total, *self._open):
            stage.operators[name.removeprefix("aten::").split(".")[0]] += 1
            stage.moved += moved
            stage.milliseconds += 1000 * seconds
            if flops:
                stage.flops[str(dtype).removeprefix("torch.")] += flops

    def _take(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if self._known.get(storage._cdata) is storage:
            return
        self._known[storage._cdata] = storage
        size = storage.nbytes()
        self.live += size
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.live -= size


class Reads(TorchFunctionMode):
    """Answers reads of values of fake and meta tensors with zeros."""

    def __init__(self, counting: Counting | None = None) -> None:
        super().__init__()
        self._counting = counting

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.data_ptr:
            return _key(args[0]) + args[0].storage_offset() * args[0].element_size()
        answer = _READS.get(func)
        if answer is None:
            return func(*args, **(kwargs or {}))
        if self._counting is not None:
            self._counting.note_read()
            if func is torch.Tensor.__bool__:
                return self._counting.truth
        return answer(args[0])


@contextmanager
def _read_lists_at_once(counting: Counting) -> Iterator[None]:
    """Fake tensors would read lists value by value."""
    known = FakeTensor.__dict__.get("tolist")

    def tolist(tensor: Tensor) -> Any:
        counting.note_read()
        return _zeros(tuple(tensor.shape), tensor)

    FakeTensor.tolist = tolist
    try:
        yield
    finally:
        if known is None:
            del FakeTensor.tolist
        else:
            FakeTensor.tolist = known


def _by_mask(name: str, args: Any) -> bool:
    masks = (torch.bool, torch.uint8)
    return name == "aten::index.Tensor" and any(
        index is not None and index.dtype in masks for index in args[1]
    )


def _answer(name: str, args: Any) -> Any:
    """Of an operator whose result depends on values: zero, nothing found, every row once."""
    tensor: Tensor = args[0]
    if name.startswith("aten::_local_scalar_dense"):
        return _zeros((), tensor)
    if name == "aten::nonzero":
        return tensor.new_empty((0, tensor.dim()), dtype=torch.long)
    if name == "aten::index.Tensor":
        mask = next(index for index in args[1] if index is not None)
        return tensor.new_empty((0, *tensor.shape[mask.dim() :]))
    if name == "aten::repeat_interleave.Tensor":
        return torch.arange(len(tensor))
    return False


@cache
def _is_composite(name: str) -> bool:
    key = "CompositeImplicitAutograd"
    return not name.startswith("prim::") and bool(
        torch._C._dispatch_has_kernel_for_dispatch_key(name, key)
    )


def _format(name: str, own: torch.dtype, formats: Mapping[str, torch.dtype]) -> torch.dtype:
    if own.is_floating_point:
        for beginning, dtype in formats.items():
            if name.startswith(beginning):
                return dtype
    return own


def _like(value: Tensor, dtype: torch.dtype) -> Tensor:
    empty = torch.empty_strided(value.shape, value.stride(), dtype=dtype, device="cpu")
    if isinstance(value, nn.Parameter):
        return nn.Parameter(empty, requires_grad=value.requires_grad)
    return empty


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _zeros(shape: tuple[int, ...], tensor: Tensor) -> Any:
    if shape:
        return [_zeros(shape[1:], tensor) for _ in range(shape[0])]
    if tensor.dtype == torch.bool:
        return False
    return 0.0 if tensor.dtype.is_floating_point else 0
