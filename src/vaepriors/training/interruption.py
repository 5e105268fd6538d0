"""Stop a training after its epoch: on Ctrl-C, on SIGTERM, or at its deadline."""

import signal
import sys
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Interruption"]


class Interruption:
    """The first Ctrl-C (or SIGTERM) ends the training after this epoch; a second one ends it at once."""

    def __init__(self) -> None:
        self.signalled = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._first)
        except ValueError:  # not in the main thread: whoever runs it handles signals
            pass
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _first(self, number: int, frame: object) -> None:
        self.signalled = True
        print("\nstopping after this epoch; press Ctrl-C again to stop at once", file=sys.stderr)
        for each, handler in self.before.items():
            signal.signal(each, handler)

    def asked(self, fabric: "Fabric", late: bool) -> str:
        """Why to stop: a process of any device got a signal or is out of time; empty to continue."""
        flags = torch.tensor([float(self.signalled), float(late)], device=fabric.device)
        signalled, late = (fabric.all_reduce(flags, reduce_op="sum") > 0).tolist()  # type: ignore
        return "interrupted" if signalled else "out of time" if late else ""
