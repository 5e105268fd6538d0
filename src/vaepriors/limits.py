"""Limits of this machine, memory and processes, so that what cannot fit is refused before any work."""

import math
import os
from pathlib import Path
from typing import SupportsIndex

import torch

__all__ = ["available_memory", "check_processes", "check_size", "in_words", "memory_limit"]

VARIABLE = "VAEPRIORS_MEMORY"
REMEDY = f"the environment variable {VARIABLE} sets it, in GiB"
PROCESSES = 8  # on each processor; more would only wait for each other


def available_memory() -> float:
    """Bytes that a new process may use: free memory, at most the limit of its control group; infinity if unknown."""
    return min(_free_memory(), _group_limit())


def memory_limit(share: float = 1.0, device: torch.device | None = None) -> float:
    """Bytes that may be used: a share of the memory, or the number of GiB in VAEPRIORS_MEMORY.

    Args:
        share: Share of the memory that is available to this process, or of all memory of a CUDA device.
        device: The device; the CPU by default.

    Raises:
        ValueError: If the variable is not a positive number.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        on_cuda = device is not None and device.type == "cuda"
        return share * (torch.cuda.get_device_properties(device).total_memory if on_cuda else available_memory())
    try:
        gib = float(named)
    except ValueError:
        gib = math.nan
    if not gib > 0:
        raise ValueError(f"{VARIABLE} is {named!r}: give a number of GiB above 0, or unset it")
    return gib * 2**30


def check_size(what: str, size: int, device: torch.device | None = None) -> None:
    """Refuse work that needs more memory than there is.

    Args:
        what: The work, as the subject of a sentence.
        size: Bytes that it needs at least.
        device: The device; the CPU by default.

    Raises:
        ValueError: If it does not fit.
    """
    limit = memory_limit(device=device)
    if size > limit:
        raise ValueError(
            f"{what} needs at least {in_words(size)} of memory, more than the limit of {in_words(limit)}: choose less, "
            f"or raise the limit ({REMEDY})"
        )


def check_processes(devices: int) -> None:
    """Refuse more processes than the processors of this machine can serve.

    Raises:
        ValueError: If there are more than eight for each processor.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = PROCESSES * processors
    if devices > most:
        raise ValueError(
            f"devices is {devices}, each of them a process, but this machine has {processors} processors: choose at "
            f"most {most}"
        )


def in_words(size: float) -> str:
    """A number of bytes with a unit.

    >>> in_words(3 * 2**29), in_words(10**30)
    ('1.5 GiB', '8.67e+11 EiB')
    """
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    size = min(size, 10**300)  # a larger integer is no float
    power = min(int(math.log2(max(size, 1)) // 10), len(units) - 1)
    return f"{size / 1024**power:.3g} {units[power]}"


def _free_memory() -> float:
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    values = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    if values:
        return 1024 * int(values[0])
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # another system
        return math.inf


def _group_limit(process: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """The smallest limit of this process's control group (version 1 or 2) and its parents; infinity without one."""
    limits = [math.inf]
    for line in process.read_text().splitlines() if process.is_file() else []:
        _, kinds, group = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        folder = root / kinds
        name = "memory.limit_in_bytes" if kinds else "memory.max"
        path = folder / group.lstrip("/")
        for each in (path, *(parent for parent in path.parents if parent.is_relative_to(folder))):
            try:
                limits.append(int((each / name).read_text()))
            except (OSError, ValueError):  # invisible from a container, or "max"
                continue
    return min(limits)


def at_least_one(**sizes: int | None) -> None:
    """Refuse sizes of zero or less, and fractions; None is a size that is not given.

    Raises:
        ValueError: If a size is less than 1 or not a whole number.
    """
    for name, size in sizes.items():
        if size is not None and not isinstance(size, SupportsIndex):
            raise ValueError(f"{name} is {size!r}: give a whole number")
        if size is not None and size < 1:
            raise ValueError(f"{name} is {size}: at least 1 is needed")
