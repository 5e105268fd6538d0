"""Two ways to launch a training step faster.

    --compile   torch.compile; needs a C++ compiler on a CPU
    --graph     the training step as one CUDA graph; needs a CUDA device

If one of them is unavailable, one line says so and the step runs without it. Neither changes results beyond rounding.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Graphed", "compiled"]


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
