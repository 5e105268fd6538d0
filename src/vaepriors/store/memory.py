"""A store in memory."""

import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from vaepriors.data import Dataset
from vaepriors.store.protocol import Tensors, check_data, check_settings

__all__ = ["Memory"]


class Memory:
    """A `Store` that ends with the process.

    >>> store = Memory()
    >>> store.has("last")
    False
    """

    private = True

    def __init__(self) -> None:
        self.checkpoints: dict[str, tuple[Tensors, dict[str, Any]]] = {}
        self.lines: list[dict[str, Any]] = []
        self.settings: dict[str, Any] = {}
        self.data_sha256 = ""

    def lock(self, mine: bool = True, create: bool = False) -> AbstractContextManager[None]:
        return nullcontext()

    def check(self, settings: dict[str, Any], data: Dataset) -> None:
        if self.checkpoints:
            check_settings("this store", self.settings, settings)
            check_data("this store", self.data_sha256, data)

    def begin(self, settings: dict[str, Any], data: Dataset, session: dict[str, Any], metrics: list[str]) -> None:
        self.settings, self.data_sha256 = settings, data.digest()
        self.lines = [json.loads(line) for line in metrics]

    def has(self, which: str) -> bool:
        return which in self.checkpoints

    def load_checkpoint(self, which: str) -> tuple[Tensors, dict[str, Any]]:
        if not self.has(which):
            raise ValueError(f"the store has no {which} model yet: train for at least one epoch")
        tensors, values = self.checkpoints[which]
        return {name: tensor.clone() for name, tensor in tensors.items()}, dict(values)  # an optimiser uses its own

    def save_checkpoint(self, which: str, tensors: Tensors, values: dict[str, Any]) -> None:
        self.checkpoints[which] = {name: tensor.detach().clone() for name, tensor in tensors.items()}, values

    def keep_previous(self) -> None:
        pass

    def add_metrics(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    def metrics(self) -> list[dict[str, Any]]:
        """The epochs so far."""
        return self.lines

    def remedy(self, which: str) -> str:
        return "train with another store"
