"""A device simulated on the CPU. It shows two faults that only a GPU would show: operations on tensors of two devices,
and reads of a tensor by Python, for which a GPU must finish all its work. Copies to and from the CPU count as reads.

Its tensors say that they are on `sim:0`, and are computed on the CPU, with random numbers of the CPU. So every number
is that of the CPU, bit for bit. torch cannot undo the registration of a device: use it in a process that ends, and
enter the block before the first gradient, because torch counts the devices then.
"""

import contextlib
import traceback
from pathlib import Path
from unittest import mock

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

import vaepriors

AVAILABLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")  # not in old torch
SOURCES = str(Path(vaepriors.__file__).parent)
TENSOR, AS_TENSOR = torch.tensor, torch.as_tensor
CPU = torch.device("cpu")
SELECT = ("aten::index", "aten::index_put_")
READS = (
    "aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::_unique2",
    "aten::bincount",
)  # fmt: skip


class Mixed(RuntimeError):
    """Tensors of two devices in one operation."""


class Simulated(torch.Tensor):
    """A tensor on the simulated device, of a tensor on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, real):
        size, strides, offset = real.size(), real.stride(), real.storage_offset()
        new = torch.Tensor._make_wrapper_subclass(
            cls, size, strides=strides, storage_offset=offset, dtype=real.dtype, device=torch.device("sim:0")
        )
        new.held = real
        return new

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return STATE.call(function, args, kwargs or {})

    def __repr__(self, **options):
        return f"Simulated({self.held!r})"

    def tolist(self):
        STATE.read("tolist")
        return self.held.tolist()

    def numpy(self, **options):
        raise TypeError("NumPy cannot have a tensor of the simulated device: copy it to the CPU first")

    def new_tensor(self, data, **options):
        return TENSOR(data, **{"dtype": self.dtype} | options).to(self.device)

    __array__ = numpy


class _State(TorchDispatchMode):
    """Calls all operations while the device is in use, and knows where one waited for it."""

    def __init__(self):
        super().__init__()
        self.reads = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return self.call(function, args, kwargs or {})

    def read(self, what):
        lines = [line for line in traceback.extract_stack() if line.filename.startswith(SOURCES)]
        self.reads.append(f"{what} at {lines[-1].filename}:{lines[-1].lineno}" if lines else what)

    def call(self, function, args, kwargs):
        name, leaves = function._schema.name, tree_leaves((args, kwargs))
        simulated = [x for x in leaves if isinstance(x, Simulated)]
        others = [x for x in leaves if isinstance(x, torch.Tensor) and not isinstance(x, Simulated)]
        asked = kwargs.get("device")
        there = bool(simulated) if asked is None else torch.device(asked).type == "sim"
        if simulated:
            self.check(name, args, others, there)
        if there and others and name in ("aten::_to_copy", "aten::copy_"):
            self.read("copy from the CPU")
        result = function(*tree_map(_held, args), **tree_map(_held, kwargs))
        if name == "aten::copy_":
            return args[0]
        if not there:
            return result
        same = {id(x.held): x for x in simulated}  # what an operation in place returns
        return tree_map_only(torch.Tensor, lambda x: same[id(x)] if id(x) in same else Simulated(x), result)

    def check(self, name, args, others, there):
        """Refuse tensors of two devices as CUDA does, and note what waits for the device."""
        on_device = isinstance(args[0], Simulated)
        if name in READS or not there or (name == "aten::copy_" and not on_device):
            self.read(name)
        if name in SELECT and on_device:
            rows = [x for x in args[1] if x is not None]
            if any(x.dtype == torch.bool or not isinstance(x, Simulated) for x in rows):
                self.read(name)
            others = [x for x in args[2:3] if not isinstance(x, Simulated)]
        if name != "aten::copy_" and any(x.dim() for x in others):
            raise Mixed(f"{name} of tensors on the simulated device and of shapes {[tuple(x.shape) for x in others]}")


STATE = _State()


def _held(x):
    return x.held if isinstance(x, Simulated) else CPU if isinstance(x, torch.device) else x


def _tensor(data, *, dtype=None, device=None, **options):
    there = device is not None and torch.device(device).type == "sim"
    new = TENSOR(data, dtype=dtype, device=None if there else device, **options)
    return new.to(device) if there else new


def _as_tensor(data, dtype=None, device=None):
    return AS_TENSOR(data, dtype=dtype).to(device) if device is not None else AS_TENSOR(data, dtype=dtype)


@contextlib.contextmanager
def simulated_device():
    """Let the device exist for the block; returns the list of the reads, which grows."""
    if not hasattr(torch, "sim"):
        backend_registration._setup_privateuseone_for_python_backend("sim")
        torch.sim.get_amp_supported_dtype = lambda: [torch.bfloat16]
    # a conversion of a module gives it new parameters: data of a parameter cannot be exchanged here
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with STATE, mock.patch.multiple(torch, tensor=_tensor, as_tensor=_as_tensor):
            STATE.reads.clear()
            yield STATE.reads
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
