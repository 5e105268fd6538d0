"""The machine at hand: what it is, and the fast paths it has.

A fast path that is missing is told in a line and gone without; none of them changes results beyond rounding.

    --compile   torch.compile; needs a C++ compiler on a CPU
    --graph     the training step as one CUDA graph; needs a CUDA device
    oneDNN      float32 matrix products on AMD processors, where MKL leaves the wide registers unused
    memory      freed memory kept by the C library, instead of given back and cleared page by page when asked for again

The command line sets up the last two for every run (`prepare`); a program of your own may do the same.
"""

import ctypes
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

__all__ = [
    "Graphed",
    "compiled",
    "hardware",
    "keep_memory",
    "open_devices",
    "peak_memory",
    "prepare",
    "route_products",
]


def prepare() -> None:
    """Set up this process for fast work on a CPU: before the first of torch's work, as threads take settings over.

    Besides `keep_memory` and `route_products`, denormal numbers are flushed to zero: mixture components far from every
    z get gradients too small for normal floats, on which a CPU is slow.
    """
    torch.set_flush_denormal(True)
    keep_memory()
    route_products()


def open_devices(accelerator: str, devices: int = 1, nodes: int = 1, precision: Any = "32-true") -> Fabric:
    """Devices of a kind: `cpu`, `cuda`, or `auto`, which is cuda where there is one.

    Raises:
        ValueError: If they are not there.
    """
    there = torch.cuda.is_available()
    if accelerator == "cuda" and not there:
        raise ValueError("accelerator is cuda, but torch sees no CUDA device: choose cpu or auto")
    kind = "cuda" if there and accelerator != "cpu" else "cpu"
    if kind == "cuda" and devices > torch.cuda.device_count():
        raise ValueError(f"devices is {devices}, but torch sees {torch.cuda.device_count()} CUDA devices")
    strategy = "ddp" if devices * nodes > 1 else "auto"
    return Fabric(accelerator=kind, devices=devices, num_nodes=nodes, precision=precision, strategy=strategy)


def hardware(device: torch.device) -> str:
    """The device in words, such as `Intel(R) Xeon(R), 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = _cpu("model name") or platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def _cpu(key: str) -> str:
    """A value of the first processor in /proc/cpuinfo; nothing where there is none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def peak_memory(device: torch.device) -> float:
    """The most memory used so far, in GiB: tensors on a CUDA device, else all of this process (0 where unknown)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # not a POSIX system
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes there, KiB elsewhere


def keep_memory() -> bool:
    """Have glibc keep freed memory for the next tensors; whether that was done. Only the peak of memory stays taken."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another system or C library
        return False
    mmap_threshold, trim_threshold = -3, -1  # of malloc.h; 32 MiB is the most that the first may be
    return bool(mallopt(mmap_threshold, 32 * 2**20)) and bool(mallopt(trim_threshold, 2**31 - 1))


def route_products() -> bool:
    """On an AMD processor, hand float32 matrix products to oneDNN; whether that was done.

    The switch allows oneDNN to compute in bfloat16 where the processor has instructions for it. Whether it does is
    tried on a product, and then the switch is put back.
    """
    matmul: Any = torch.backends.mkldnn.matmul if hasattr(torch.backends.mkldnn, "matmul") else None  # torch >= 2.9
    if _cpu("vendor_id") != "AuthenticAMD" or matmul is None or not torch.backends.mkldnn.is_available():
        return False
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    if _error_of_products() < 1e-5:
        return True
    matmul.fp32_precision = before
    return False


def _error_of_products() -> float:
    """The largest error of a float32 product, relative to its largest entry: about 1e-7, in bfloat16 1e-3."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(128, 784, generator=generator) for _ in range(2))
    exact = a.double() @ b.double().T
    return ((a @ b.T - exact).abs().max() / exact.abs().max()).item()


def compiled(module: nn.Module) -> Any:
    """The module under torch.compile, or as it is where that does not work: found out on a sum, before any work."""
    try:
        torch.compile(torch.add)(torch.ones(1), torch.ones(1))
    except Exception as error:
        print(f"torch.compile does not work here ({type(error).__name__}): going on without", file=sys.stderr)
        return module
    return torch.compile(module)


class Graphed:
    """A function from a tensor to a tensor on a CUDA device, from its fourth call on as one CUDA graph.

    The first three calls run as they are, on a stream of their own, as libraries set themselves up in them. The graph
    is recorded without being run, so each call is one call of the function and no more. The result is overwritten by
    the next call. Random numbers follow torch's generator, anew in each call.

    Args:
        function: What to call: of static shapes, without a look at the device, and with all that it keeps (parameters,
            buffers, the optimiser's state) in tensors that are changed in place.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function, self.calls = function, 0
        self.input: Tensor | None = None
        self.output: Tensor
        self.replay: Callable[[], object]

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls <= 3:
            return aside(lambda: self.function(x))
        if self.input is None:
            self.input = static = x.clone()
            self.replay, self.output = recorded(lambda: self.function(static))
        self.input.copy_(x)
        self.replay()
        return self.output


def aside(function: Callable[[], Tensor]) -> Tensor:
    """Call a function on a CUDA stream of its own."""
    here, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(here)
    with torch.cuda.stream(side):
        result = function()
    here.wait_stream(side)
    result.record_stream(here)
    return result


def recorded(function: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
    """Record a function as a CUDA graph, without running it: what runs it, and where its result will be."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()
    return graph.replay, result
