"""What decides the numbers of a training, beside model, objective and data."""

import dataclasses
import math
import numbers
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch

from vaepriors.limits import at_least_one

__all__ = ["PRECISIONS", "Settings"]

PRECISIONS = ("32-true", "64-true", "bf16-mixed")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the numbers of a training, beside model, objective and data; see `fit`.

    Raises:
        ValueError: If a value is out of its range.
    """

    epochs: int = 100
    batch_size: int = 100
    lr: float = 5e-4
    lr_stages: int = 1
    adam_eps: float = 1e-8
    normalize: bool = True
    warmup: int = 0
    patience: int = 50
    best_from: str = "start"
    seed: int = 0
    epoch_steps: int | None = None
    precision: str = "32-true"
    compile: bool = False
    graph: bool = False

    def __post_init__(self) -> None:
        self._convert(("epochs", "batch_size", "lr_stages", "seed"), SupportsIndex, "give a whole number")
        if self.epoch_steps is not None:
            self._convert(("epoch_steps",), SupportsIndex, "give a whole number")
        at_least_one(epochs=self.epochs, epoch_steps=self.epoch_steps)
        at_least_one(batch_size=self.batch_size, lr_stages=self.lr_stages)
        self._convert(("warmup", "patience"), numbers.Real, "give a number of epochs")
        for name in ("warmup", "patience", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it cannot be negative")
        self._convert(("lr", "adam_eps"), numbers.Real, "a positive number is needed")
        for name in ("lr", "adam_eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: a positive number is needed")
        for name, choices in (("precision", PRECISIONS), ("best_from", ("start", "warmup"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        for name in ("normalize", "compile", "graph"):
            if (value := getattr(self, name)) not in (True, False):  # any text would be true, "no" included
                raise ValueError(f"{name} is {value!r}: give True or False")
            object.__setattr__(self, name, bool(value))  # that of NumPy is no JSON
        if self.best_from == "warmup" and self.epochs < self.warmup:
            raise ValueError(
                f"epochs is {self.epochs}, fewer than the {self.warmup} of the warm-up, and best_from is warmup, so "
                "no epoch could give the best model: give more epochs, or best_from start"
            )

    def _convert(self, names: Iterable[str], kind: Any, remedy: str) -> None:
        """Make Python's own numbers of NumPy's, which are no JSON, and refuse anything else."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise ValueError(f"{name} is {value!r}: {remedy}")
            object.__setattr__(self, name, operator.index(value) if isinstance(value, SupportsIndex) else float(value))

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.precision == "64-true" else torch.float32

    def fixed(self) -> dict[str, Any]:
        """The settings that may not change when a training is resumed."""
        may_change = {"epochs", "patience", "compile", "graph"}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in may_change}
