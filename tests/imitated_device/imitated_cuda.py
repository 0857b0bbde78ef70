"""A CUDA device that is not there: tensors claim to be on it and hold real numbers in main memory.

While `ImitatedCuda` is entered, torch, LAVIS and this package see one GPU. An operator that mixes
its tensors with those of the CPU raises, as on a GPU, and every operation that would make the CPU
wait for the GPU is noted with the line that caused it. Loops and branches that depend on values run
to the end, so whole answers and training steps can be compared with the CPU's.

Not imitated: rounding, speed, memory, streams, NCCL, and kernels that CUDA lacks. CUDA graphs play
their operators again, and refuse to record what would make the CPU wait.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from imitated_graph import Graph, Recording
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

import lavis_dynrefer

PACKAGE = Path(lavis_dynrefer.__file__).parent
TORCH = Path(torch.__file__).parent
CPU, META, CUDA = torch.device("cpu"), torch.device("meta"), torch.device("cuda", 0)

VALUE_READS = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal")
SIZE_READS = ("aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::bincount")
SIZE_READS += ("aten::repeat_interleave.Tensor",)
INDEXING = ("aten::index.Tensor", "aten::index_put", "aten::_index_put_impl_")
# The second argument's type is a fused cast that only CUDA has.
SOFTMAX = ("aten::_softmax", "aten::_log_softmax")
SOFTMAX_BACKWARD = ("aten::_softmax_backward_data", "aten::_log_softmax_backward_data")


class MixedDevicesError(RuntimeError):
    """Tensors of the CPU and of the device in one operator."""


@dataclass(frozen=True)
class Wait:
    """One operation that makes the CPU wait for the GPU.

    Args:
        kind: "read" of values, copy "to device", copy "to host", or result of unknown "size".
        place: file and line in this package that caused it, or else the nearest one that is not
            torch's.
    """

    kind: str
    place: str


class DeviceTensor(torch.Tensor):
    """Claims to be on the device; `stored` on the CPU holds its numbers."""

    @staticmethod
    def __new__(cls, stored):
        new = torch.Tensor._make_wrapper_subclass(
            cls,
            stored.shape,
            strides=stored.stride(),
            storage_offset=stored.storage_offset(),
            dtype=stored.dtype,
            device=ImitatedCuda.current.core,
            requires_grad=stored.requires_grad,
        )
        new.stored = stored
        return new

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    # With these two, `module.to` takes the wrapper for a tensor that parameters may become.
    def __tensor_flatten__(self):
        return ["stored"], None

    @staticmethod
    def __tensor_unflatten__(stored, context, size, stride):
        return DeviceTensor(stored["stored"])

    def __repr__(self, **kwargs):
        return f"DeviceTensor({self.stored!r})"

    def __reduce_ex__(self, protocol):
        return self.stored.detach().__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return ImitatedCuda.current.run(func, args, kwargs or {})


class ImitatedCuda(TorchDispatchMode):
    """Makes torch believe in one GPU while entered.

    Args:
        backward: allow it. Autocast then does nothing: what torch needs in order to cast for CUDA
            makes its backward ask for a real GPU.
        numbers: whether its tensors hold any. Without them, models of any size take no memory, and
            reading a value gives 0.

    Attributes:
        waits: everything that made the CPU wait, in order.
        dtypes: operator -> types of its results.
        largest: bytes of the largest result.
        limit: bytes that no result may exceed; stands for the size of the memory.
    """

    current: ClassVar[ImitatedCuda]

    def __init__(self, *, backward=False, numbers=True):
        super().__init__()
        self.core = META if backward else CUDA
        self.numbers = numbers
        self.holder = CPU if numbers else META  # where the stored tensors are
        self.largest = 0
        self.limit = None
        self.waits = []
        self.recording = None  # operators of a `Graph`
        self.dtypes = {}

    def __enter__(self):
        ImitatedCuda.current = self
        torch._C._ensureCUDADeviceGuardSet()  # for good; without a GPU it changes nothing else
        _device_constructors()  # torch remembers them: not with ours among them
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) then copies visibly
        self._patch = pytest.MonkeyPatch()
        self._pretend()
        return super().__enter__()

    def __exit__(self, *error):
        result = super().__exit__(*error)
        self._patch.undo()
        torch._C._set_only_lift_cpu_tensors(False)
        return result

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.run(func, args, kwargs or {})

    def take(self):
        """Waits since the last call, counted by kind and place."""
        counts = Counter(self.waits)
        self.waits.clear()
        return counts

    def note(self, kind):
        if self.recording is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing ({_place()})")
        self.waits.append(Wait(kind, _place()))

    def run(self, func, args, kwargs):
        """Run an operator on the CPU; its results are on the device if it would be."""
        name = func.name()
        tensors = _tensors((args, kwargs))
        ours = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
        wanted = kwargs.get("device")
        target = (CUDA if ours else CPU) if wanted is None else torch.device(wanted)
        if target.type == self.core.type:
            target = CUDA
        if name.startswith("aten::_to_copy"):
            return self._copy(func, args[0], target, kwargs)
        if name == "aten::copy_":
            return self._copy_into(*args, **kwargs)
        if not ours and target.type != "cuda":
            return func(*args, **kwargs)
        if ours and name.startswith(VALUE_READS):
            self.note("read")
            return func(*_stored(args), **_stored(kwargs)) if self.numbers else _zero(ours[0])
        if name.startswith("aten::record_stream"):
            return None
        if ours and name.startswith(SIZE_READS):
            self.note("size")
        if ours and name.startswith("aten::index_put") and args[2].dim() == 0:
            self.note("to device")  # `x[places] = 1`, as a real one does
        _check_devices(name, args, tensors, self)
        args_inside, kwargs_inside = self._inside(args), self._inside(kwargs)
        if "device" in kwargs_inside:
            kwargs_inside["device"] = self.holder
        kwargs_inside.pop("pin_memory", None)
        result = self._compute(func, name, args_inside, kwargs_inside)
        if target.type != "cuda":
            return result
        result = _map(_wrapped, result)
        for tensor in _tensors(result):
            self.dtypes.setdefault(name, set()).add(tensor.dtype)
            self._take_memory(tensor)
        return return_and_correct_aliasing(func, args, kwargs, result)

    def _compute(self, func, name, args, kwargs):
        result = _on_cpu(func, name, args, kwargs)
        if self.recording is not None:
            self.recording.append((func, name, args, kwargs, result))
        return result

    def _take_memory(self, tensor):
        size = tensor.numel() * tensor.element_size()
        self.largest = max(self.largest, size)
        if self.limit is not None and size > self.limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (imitated)")

    def _copy(self, func, source, target, kwargs):
        """`to` of any kind: it makes a new tensor."""
        to_device = target.type == "cuda"
        if to_device != isinstance(source, DeviceTensor) and not kwargs.get("non_blocking"):
            self.note("to device" if to_device else "to host")
        plain = {
            key: value
            for key, value in kwargs.items()
            if key in ("dtype", "layout", "memory_format")
        }
        copied = self._compute(func, func.name(), (_stored(source),), plain)
        if to_device:
            return _wrapped(copied if self.numbers else copied.to(META))
        return torch.zeros_like(copied, device=CPU) if copied.is_meta else copied

    def _copy_into(self, target, source, non_blocking=False):
        if (
            isinstance(target, DeviceTensor) != isinstance(source, DeviceTensor)
            and not non_blocking
        ):
            self.note("to device" if isinstance(target, DeviceTensor) else "to host")
        if self.numbers:
            copy = torch.ops.aten.copy_.default
            self._compute(copy, copy.name(), (_stored(target), _stored(source)), {})
        return target

    def _inside(self, values):
        """The stored tensors, and what may come from the CPU where they are."""
        values = _stored(values)
        return values if self.numbers else _map(_to_meta, values)

    def _pretend(self):
        """What torch and its users ask of a GPU, beside operators."""
        if self.core is META:  # meta tensors stand for the GPU's: models are built with values
            for module in ("model_parts", "llms.flan_t5", "llms.causal_lm"):
                place = f"lavis_dynrefer.models.{module}.without_values"
                self._patch.setattr(place, contextlib.nullcontext)
        for name, answer in {
            "is_available": True,
            "device_count": 1,
            "current_device": 0,
            "get_device_capability": (9, 0),
            "get_device_name": "imitated",
            "is_bf16_supported": True,
            "memory_allocated": 0,
            "max_memory_allocated": 0,
            "memory_reserved": 0,
            "mem_get_info": (2**40, 2**40),
            "is_initialized": False,
            "is_current_stream_capturing": False,
            **dict.fromkeys(("_lazy_init", "set_device", "empty_cache", "synchronize")),
            **dict.fromkeys(("manual_seed_all", "reset_peak_memory_stats", "set_sync_debug_mode")),
            "set_per_process_memory_fraction": None,
        }.items():
            self._set(torch.cuda, name, lambda *_, _answer=answer, **__: _answer)
        self._set(torch.cuda, "Stream", _Stream)
        self._set(torch.cuda, "Event", _Event)
        self._set(torch.cuda, "current_stream", _Stream)
        for name in ("stream", "device"):
            self._set(torch.cuda, name, contextlib.nullcontext)
        self._set(torch.cuda, "CUDAGraph", lambda: Graph(_on_cpu))
        self._set(torch.cuda, "graph", lambda graph, **_: Recording(self, graph))
        self._set(torch.Tensor, "pin_memory", lambda tensor, *_: tensor)
        self._set(torch.Tensor, "record_stream", lambda tensor, stream: None)
        tolist, numpy, tensor = torch.Tensor.tolist, torch.Tensor.numpy, torch.tensor

        def read_list(tensor):
            if isinstance(tensor, DeviceTensor):
                self.note("read")
                tensor = (
                    tensor.stored if self.numbers else torch.zeros(tensor.shape, dtype=tensor.dtype)
                )
            return tolist(tensor)

        def read_numpy(tensor, **kwargs):
            if isinstance(tensor, DeviceTensor):
                raise TypeError("can't convert a tensor of the device to numpy; use Tensor.cpu()")
            return numpy(tensor, **kwargs)

        def from_values(data, **kwargs):
            return tensor(_map(read_list, data), **kwargs)

        self._set(torch.Tensor, "tolist", read_list)
        self._set(torch.Tensor, "numpy", read_numpy)
        self._set(torch, "tensor", from_values)

    def _set(self, owner, name, value):
        self._patch.setattr(owner, name, value, raising=False)


class _Stream:
    def __init__(self, *args, **kwargs):
        pass

    def wait_stream(self, other):
        pass


class _Event:
    def record(self, stream):
        pass

    def synchronize(self):
        pass


def problem():
    """Why this torch cannot be made to believe in a GPU; empty if it can."""
    if torch.cuda.is_available():
        return "there is a real GPU: tests/gpu runs these checks on it"
    names = ("_ensureCUDADeviceGuardSet", "_set_only_lift_cpu_tensors")
    if not all(hasattr(torch._C, name) for name in names):
        return f"torch {torch.__version__} cannot be made to believe in a GPU"
    return ""


def _map(convert, values):
    """Nested values with every tensor converted; torch's own `tree_map` takes twice as long."""
    if isinstance(values, torch.Tensor):
        return convert(values)
    if type(values) in (list, tuple):
        return type(values)([_map(convert, value) for value in values])
    if type(values) is dict:
        return {key: _map(convert, value) for key, value in values.items()}
    return values


def _tensors(values):
    found = []
    _map(found.append, values)
    return found


def _stored(values):
    return _map(lambda tensor: getattr(tensor, "stored", tensor), values)


def _wrapped(tensor):
    return tensor if isinstance(tensor, DeviceTensor) else DeviceTensor(tensor)


def _to_meta(tensor):
    return tensor if tensor.is_meta or tensor.dim() == 0 else tensor.to(META)


def _zero(tensor):
    return torch.zeros((), dtype=tensor.dtype).item()


def _check_devices(name, args, tensors, machine):
    """Refuse what CUDA refuses; numbers without a dimension may come from the CPU, indices too."""
    if name.startswith(INDEXING):
        indices = [index for index in args[1] if index is not None]
        on_device = [isinstance(index, DeviceTensor) for index in indices]
        if any(on_device) and not isinstance(args[0], DeviceTensor):
            raise MixedDevicesError(f"{name}: a tensor on the CPU, indices on cuda ({_place()})")
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            machine.note("size")
        elif not all(on_device):
            machine.note("to device")
        tensors = [args[0], *(value for value in args[2:] if isinstance(value, torch.Tensor))]
    strangers = [
        tuple(tensor.shape)
        for tensor in tensors
        if not isinstance(tensor, DeviceTensor) and tensor.dim() > 0
    ]
    if strangers:
        raise MixedDevicesError(
            f"{name}: expected all tensors on cuda, got shapes {strangers} on the CPU ({_place()})"
        )


def _on_cpu(func, name, args, kwargs):
    if name in SOFTMAX and args[2]:
        return func(args[0].float(), args[1], False)
    if name in SOFTMAX_BACKWARD and args[3] != args[0].dtype:
        return func(args[0], args[1], args[2], args[0].dtype).to(args[3])
    return func(*args, **kwargs)


def _place():
    """File and line of the innermost frame in this package, else outside of torch."""
    frame, outside = sys._getframe(1), None
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            return f"{path.relative_to(PACKAGE).as_posix()}:{frame.f_lineno}"
        if outside is None and path != Path(__file__) and not path.is_relative_to(TORCH):
            outside = f"{path.name}:{frame.f_lineno}"
        frame = frame.f_back
    return str(outside)
