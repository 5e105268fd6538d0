"""Devices: open them, name them, and measure the memory that they have used."""

import operator
import os
import platform
import sys
from typing import TYPE_CHECKING, Any

import torch

from vaepriors.limits import at_least_one, check_processes
from vaepriors.numerics import processor

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["hardware", "is_first", "open_devices", "peak_memory"]


def open_devices(accelerator: str, devices: int = 1, nodes: int = 1, precision: Any = "32-true") -> "Fabric":
    """Devices of a kind: `cpu`, `cuda`, or `auto`, which is cuda where there is one.

    Raises:
        ValueError: If the kind is another one, a number is less than 1, torch sees fewer devices of this kind, or there
            are too many processes for this machine.
    """
    at_least_one(devices=devices, nodes=nodes)
    devices, nodes = operator.index(devices), operator.index(nodes)  # of NumPy's numbers too
    if accelerator not in ("cpu", "cuda", "auto"):
        raise ValueError(f"unknown accelerator {accelerator!r}: choose one of cpu, cuda, auto")
    there = torch.cuda.is_available()
    if accelerator == "cuda" and not there:
        raise ValueError("accelerator is cuda, but torch sees no CUDA device: choose cpu or auto")
    kind = "cuda" if there and accelerator != "cpu" else "cpu"
    if kind == "cuda" and devices > torch.cuda.device_count():
        raise ValueError(f"devices is {devices}, but torch sees {torch.cuda.device_count()} CUDA devices")
    if kind == "cpu":
        check_processes(devices)
    from lightning_fabric import Fabric  # here, because it loads torch's compiler, which takes seconds

    strategy = "ddp" if devices * nodes > 1 else "auto"
    if precision == "64-true":  # model and data are float64 already; Fabric's own plugin would round the losses
        precision = "32-true"
    return Fabric(accelerator=kind, devices=devices, num_nodes=nodes, precision=precision, strategy=strategy)


def is_first() -> bool:
    """Whether this is the first process on its machine, which starts the others."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def hardware(device: torch.device) -> str:
    """The device in words, such as `Intel(R) Xeon(R), 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = processor("model name") or platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


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
