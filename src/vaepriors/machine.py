"""Devices, what they are, and two ways to launch a training step faster.

    --compile   torch.compile; needs a C++ compiler on a CPU
    --graph     the training step as one CUDA graph; needs a CUDA device

If one of them is unavailable, one line says so and the step runs without it. Neither changes results beyond rounding.
"""

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from vaepriors.limits import check_processes

__all__ = [
    "Graphed",
    "compiled",
    "hardware",
    "open_devices",
    "peak_memory",
]


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
    if kind == "cpu":
        check_processes(devices)
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


def compiled(module: nn.Module, mode: str = "default") -> Any:
    """The module under torch.compile, or as it is where that does not work: found out on a sum, before any work.

    Args:
        module: The module.
        mode: Of torch.compile; `reduce-overhead` replays CUDA graphs.
    """
    try:
        torch.compile(torch.add)(torch.ones(1), torch.ones(1))
    except Exception as error:
        print(f"torch.compile does not work here ({type(error).__name__}): going on without", file=sys.stderr)
        return module
    return torch.compile(module, mode=mode)


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
