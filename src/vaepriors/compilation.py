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

Call = Callable[[], Tensor]


def compiled(module: nn.Module, mode: str = "default", compile: Callable[..., Any] | None = None) -> Any:
    """The module under torch.compile, or unchanged if that does not work here, which a compiled sum decides first.

    Args:
        module: The module.
        mode: The mode of torch.compile; `reduce-overhead` replays CUDA graphs.
        compile: The compiler; torch.compile unless given.
    """
    compile = torch.compile if compile is None else compile  # Fabric has replaced it by one that it can undo
    try:
        compile(torch.add)(torch.ones(1), torch.ones(1))
    except Exception as error:
        print(f"torch.compile does not work here ({type(error).__name__}): continuing without it", file=sys.stderr)
        return module
    return compile(module, mode=mode)


def aside(function: Call) -> Tensor:
    """Call a function on a separate CUDA stream."""
    here, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(here)
    with torch.cuda.stream(side):
        result = function()
    here.wait_stream(side)
    result.record_stream(here)
    return result


def record(function: Call) -> tuple[Callable[[], object], Tensor]:
    """Record a function as a CUDA graph without running it; return the call that runs it, and its result."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()
    return graph.replay, result


class Graphed:
    """A function from a tensor to a tensor on a CUDA device, which runs as one CUDA graph from its fourth call on.

    The first three calls run eagerly on a separate stream, as libraries initialise in them. Recording the graph does
    not run it, so each call is exactly one call of the function. The next call overwrites the result. Each call draws
    new random numbers from torch's generator.

    Args:
        function: The function. Its shapes are static, it does not read the device, and it changes all its state
            (parameters, buffers, the optimiser's state) in place.
        aside: What makes the first calls.
        record: What records the graph; it returns the call that runs it, and the tensor that holds its result.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        aside: Callable[[Call], Tensor] = aside,
        record: Callable[[Call], tuple[Callable[[], object], Tensor]] = record,
    ) -> None:
        self.function, self.aside, self.record, self.calls = function, aside, record, 0
        self.input: Tensor | None = None
        self.output: Tensor
        self.replay: Callable[[], object]

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls <= 3:
            return self.aside(lambda: self.function(x))
        if self.input is None:
            self.input = static = x.clone()
            self.replay, self.output = self.record(lambda: self.function(static))
        self.input.copy_(x)
        self.replay()
        return self.output
