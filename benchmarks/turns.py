"""What the workers of the benchmark have in common, ours and the peer's: words in, JSON out."""

import json
import resource
import sys
import time
from collections.abc import Callable

import torch


def seconds(call: Callable[[], object], times: int) -> float:
    """Seconds of one call, on average over some."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / times


def peak() -> float:
    """The most memory used so far, in GiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def serve(
    step: Callable[[], object], image: Callable[[], object], steps: int, images: int, facts: dict[str, float]
) -> None:
    """Answer each word on standard input: seconds of a step or an image, facts, or the memory used."""
    torch.set_flush_denormal(True)
    for _ in range(5):  # the first ones compile, allocate and record
        step()
    memory = {"step": peak()}
    answer, sys.stdout = sys.stdout, sys.stderr  # a library may print
    answers = {
        "step": lambda: seconds(step, steps),
        "image": lambda: seconds(image, images),
        "facts": lambda: facts,
        "memory": lambda: memory,
    }
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), file=answer, flush=True)
