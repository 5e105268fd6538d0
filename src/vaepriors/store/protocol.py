"""What `fit` needs of a store, and the checks that any store makes before a training is resumed."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor

from vaepriors.data import Dataset

__all__ = ["Store", "Tensors", "check_data", "check_settings"]

Tensors = dict[str, Tensor]


class Store(Protocol):
    """What `fit` needs of the place where it keeps its checkpoints and metrics.

    One process of several devices writes there, and all read; with an attribute `private` that is true, each process
    has a store of its own, and writes there.
    """

    def lock(self, mine: bool = True, create: bool = False) -> AbstractContextManager[None]:
        """Keep other processes from writing there."""

    def check(self, settings: dict[str, Any], data: Dataset) -> None:
        """Refuse a training other than the one that is there."""

    def begin(self, settings: dict[str, Any], data: Dataset, session: dict[str, Any], metrics: list[str]) -> None:
        """Record a session, when all is restored, and the metrics of the epochs so far."""

    def has(self, which: str) -> bool:
        """Whether there is a checkpoint of this name."""

    def load_checkpoint(self, which: str) -> tuple[Tensors, dict[str, Any]]:
        """The tensors and values of a checkpoint: `last`, `best`, or `epoch-N`."""

    def save_checkpoint(self, which: str, tensors: Tensors, values: dict[str, Any]) -> None: ...

    def keep_previous(self) -> None:
        """Keep the last checkpoint before another one replaces it."""

    def add_metrics(self, line: dict[str, Any]) -> None: ...

    def remedy(self, which: str) -> str:
        """What to do about a damaged checkpoint."""


def check_settings(where: str, stored: dict[str, Any], settings: dict[str, Any], other: str = "another store") -> None:
    """Refuse to resume with other settings; `other` is where these can be trained."""
    differ = [name for name in stored.keys() | settings.keys() if stored.get(name) != settings.get(name)]
    if differ:  # an option that only one of them has follows from another one
        name = min(differ, key=lambda name: (stored.get(name) is None or settings.get(name) is None, name))
        was, given = stored.get(name), settings.get(name)
        raise ValueError(f"{where} was trained with {name} {was}, not {given}: choose {other} for that")


def check_data(where: str, data_sha256: str, data: Dataset) -> None:
    """Refuse to resume with other data."""
    if data.digest() != data_sha256:
        raise ValueError(
            f"{data.name} is not the data set that {where} was trained on (its digest differs): restore it, or train "
            "on the new one in another folder"
        )
