"""What decides the last bits and the speed of float32 work, set for the time of a call and put back afterwards.

    products    float32 matrix products are exact to rounding, whatever the process allowed before. On AMD processors
                they go to oneDNN, because MKL leaves the wide registers unused there.
    denormals   flushed to zero on every thread: mixture components far from every z get gradients too small for normal
                floats, on which a CPU is slow.
    memory      glibc keeps freed memory for the next tensors, instead of clearing pages anew in each step.
    gradients   inference mode becomes no_grad, in which refined posteriors and annealing can take gradients in z.

`fit` and the evaluations use `fixed_numerics` themselves. So the command line, a program and a test compute the same
numbers, and nothing that ran before in the process matters. The number of threads is the caller's choice and also
decides bits; `describe` names it with the rest, and a run records that.
"""

import ctypes
import functools
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

__all__ = ["describe", "fixed_numerics", "keep_generators", "one_at_a_time", "seed_of"]

_fixed: ContextVar[bool] = ContextVar("fixed", default=False)
_lock = threading.RLock()
Function = TypeVar("Function", bound=Callable[..., Any])


def one_at_a_time(function: Function) -> Function:
    """Let threads that call these functions take turns: all share torch's random generator and its settings.

    Meanwhile torch's default device is the CPU.
    """

    @functools.wraps(function)
    def locked(*args: Any, **kwargs: Any) -> Any:
        other = torch.empty(0).device.type != "cpu"  # naming a device makes each operation slower
        with _lock, torch.device("cpu") if other else nullcontext():
            return function(*args, **kwargs)

    return cast(Function, locked)


@contextmanager
def fixed_numerics() -> Iterator[None]:
    """Within this block, use the settings above. Also a decorator; an inner block changes nothing.

    >>> with fixed_numerics():
    ...     bool(torch.tensor([1e-39]) * 1 == 0)  # a denormal number
    True
    """
    if _fixed.get():
        yield
        return
    token = _fixed.set(True)
    try:
        with ExitStack() as stack:
            for part in (_exact_products, _flushed_denormals, _kept_memory, _no_inference_mode):
                stack.enter_context(part())
            yield
    finally:
        _fixed.reset(token)


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from any numbers and words, without the correlations that neighbouring seeds may have.

    >>> seed_of(0, "epoch", 1) != seed_of(0, "epoch", 2)
    True
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@contextmanager
def keep_generators(*where: nn.Module | Tensor | torch.device) -> Iterator[None]:
    """Leave torch's generators, of the CPU and of the devices of these modules and tensors, as they were.

    >>> before = torch.get_rng_state()
    >>> with keep_generators():
    ...     _ = torch.randn(3)
    >>> torch.equal(torch.get_rng_state(), before)
    True
    """
    parts = [each.parameters() if isinstance(each, nn.Module) else [each] for each in where]
    devices = {each if isinstance(each, torch.device) else each.device for part in parts for each in part}
    with torch.random.fork_rng([device for device in devices if device.type == "cuda"]):
        yield


def describe() -> dict[str, Any]:
    """The settings of `fixed_numerics` on this machine, and the number of threads.

    >>> describe()["denormals"]
    'flushed'
    """
    products = "oneDNN" if _prefers_onednn() else "default"
    return {"products": products, "denormals": "flushed", "threads": torch.get_num_threads()}


@contextmanager
def _exact_products() -> Iterator[None]:
    switches: list[tuple[Any, str, Any]] = [
        (torch.backends.cuda.matmul, "allow_tf32", False),
        (torch.backends.cudnn, "allow_tf32", False),
    ]
    if hasattr(torch.backends.mkldnn, "matmul"):  # torch >= 2.9
        switches.append((torch.backends.mkldnn.matmul, "fp32_precision", "bf16" if _prefers_onednn() else "ieee"))
    before = [getattr(place, name) for place, name, _ in switches]
    for place, name, value in switches:
        setattr(place, name, value)
    try:
        yield
    finally:
        for (place, name, _), value in zip(switches, before, strict=True):
            setattr(place, name, value)


@cache
def _prefers_onednn() -> bool:
    """Whether float32 products go to oneDNN on this machine: the same answer for each process."""
    return prefers_onednn(processor("vendor_id"), error_of_products)


def prefers_onednn(vendor: str, error: Callable[[], float]) -> bool:
    """Whether float32 products go to oneDNN: on AMD processors, if they stay exact to rounding there.

    The only switch allows oneDNN to compute in bfloat16 where the processor has instructions for it, so a product is
    tried.

    Args:
        vendor: The maker of the processor.
        error: Returns the relative error of a product.
    """
    matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)  # torch >= 2.9
    if vendor != "AuthenticAMD" or matmul is None or not torch.backends.mkldnn.is_available():
        return False
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        return error() < 1e-5
    finally:
        matmul.fp32_precision = before


def error_of_products() -> float:
    """The largest error of a float32 product, relative to its largest entry: about 1e-7, in bfloat16 1e-3."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(128, 784, generator=generator) for _ in range(2))
    exact = a.double() @ b.double().T
    return ((a @ b.T - exact).abs().max() / exact.abs().max()).item()


def processor(key: str) -> str:
    """A value of the first processor in /proc/cpuinfo; empty where that file is missing."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


@contextmanager
def _flushed_denormals() -> Iterator[None]:
    before = bool(torch.tensor([1e-39], device="cpu") * 1 == 0)
    _on_every_thread(lambda: torch.set_flush_denormal(True))
    try:
        yield
    finally:
        _on_every_thread(lambda: torch.set_flush_denormal(before))


def _on_every_thread(function: Callable[[], object]) -> None:
    """Call a function here and on each thread of torch's OpenMP pool, for a processor has this setting by thread.

    Without GNU's OpenMP only this thread is reached, and the threads that it starts later.
    """
    function()
    pool = next(Path(torch.__file__).parent.glob("lib/libgomp*.so*"), None)
    if pool is None or torch.get_num_threads() == 1:
        return
    body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: function() and None)
    ctypes.CDLL(str(pool)).GOMP_parallel(body, None, torch.get_num_threads(), 0)


@contextmanager
def _kept_memory() -> Iterator[None]:
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):  # another system or C library
        yield
        return
    mmap_threshold, trim_threshold = -3, -1  # of malloc.h
    mallopt(mmap_threshold, 32 * 2**20)  # the largest value, which glibc itself reaches in a long process
    mallopt(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        mallopt(trim_threshold, 64 * 2**20)  # twice the other threshold, as glibc itself keeps it
        trim(0)


@contextmanager
def _no_inference_mode() -> Iterator[None]:
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield
