"""The checkpoints of a training: the last one, which it resumes from, and models alone.

    last       model, objective, optimiser, best weights, lines of metrics, and the state
    best       the model of the best epoch, with its epoch and loss
    epoch-N    the model of an epoch that was asked for

Tensors are named `PART.NAME`, with the parts `model`, `best`, `objective`, `optimizer` and `metrics`.
"""

import math
from typing import Any

from torch import Tensor, nn

from vaepriors import checkpoint
from vaepriors.store import Store
from vaepriors.training.rates import Rates
from vaepriors.training.state import State

__all__ = ["Checkpoints"]

PARTS = ("model", "best", "objective", "optimizer", "metrics")  # of the last checkpoint


class Checkpoints:
    """Writes a training to its store, and resumes it from there.

    Args:
        store: Where checkpoints are kept.
        model, objective: What is trained.
        rates: The learning rates, and their optimiser.
        writes: Whether this process is the one that writes: what it holds is the same on all devices.
    """

    def __init__(self, store: Store, model: nn.Module, objective: nn.Module, rates: Rates, writes: bool) -> None:
        self.store, self.writes = store, writes
        self.model, self.objective, self.rates = model, objective, rates
        self.saved = 0  # the epoch of the last checkpoint

    def save(self, state: State) -> None:
        """Write the checkpoints, the best model first: a last.ckpt that ends the run is never without it."""
        self.save_best(state)
        if not self.writes:
            return
        tensors = {
            "model": checkpoint.module_tensors(self.model),
            "best": state.best,
            "objective": checkpoint.module_tensors(self.objective),
            "optimizer": checkpoint.optimizer_tensors(self.rates.optimizer),
            "metrics": {"lines": checkpoint.text_tensor("".join(state.metrics))},
        }
        flat = {f"{part}.{name}": tensor for part, named in tensors.items() for name, tensor in named.items()}
        if self.saved < state.epoch:
            self.store.keep_previous()
        self.store.save_checkpoint("last", flat, state.values())
        self.saved = state.epoch

    def save_best(self, state: State) -> None:
        """Write the model of the best epoch, if there is one."""
        if state.best:
            self._save_model("best", state.best, state.best_epoch, state.best_loss)

    def save_snapshot(self, epoch: int, loss: float) -> None:
        """Write the model of this epoch as `epoch-N`."""
        self._save_model(f"epoch-{epoch}", checkpoint.module_tensors(self.model), epoch, loss)

    def _save_model(self, which: str, tensors: dict[str, Tensor], epoch: int, loss: float) -> None:
        if self.writes:
            named = {f"model.{name}": tensor for name, tensor in tensors.items()}
            self.store.save_checkpoint(which, named, {"epoch": epoch, "loss": loss})

    def restore(self) -> State:
        """Load the last checkpoint into model, objective and optimiser; return where it left off."""
        if not self.store.has("last"):
            return State()
        flat, values = self.store.load_checkpoint("last")
        try:
            parts = _parts(flat)
            checkpoint.load_module(self.model, parts["model"])
            checkpoint.load_module(self.objective, parts["objective"])
            metrics = _lines(parts["metrics"])
            self.rates.follow(metrics)
            checkpoint.load_optimizer(self.rates.optimizer, parts["optimizer"])
            if parts["best"] and parts["best"].keys() != parts["model"].keys():
                raise ValueError("its best model has other tensors than its last one")
        except ValueError as error:
            raise ValueError(f"the last checkpoint cannot be used: {error}; {self._remedy(flat)}") from error
        self.saved = values["epoch"]
        return _state(values, parts["best"], metrics)

    def _remedy(self, flat: dict[str, Tensor]) -> str:
        """What to do: where both models of the checkpoint are alike, it is whole, and the given model is another."""
        last, best = (
            {name.removeprefix(part): (x.shape, x.dtype) for name, x in flat.items() if name.startswith(part)}
            for part in ("model.", "best.")
        )
        own = {name: (x.shape, x.dtype) for name, x in checkpoint.module_tensors(self.model).items()}
        if last and last == best != own:
            return "give the model that was trained, or another store"
        return self.store.remedy("last")


def _parts(flat: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors of each part of the last checkpoint."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, tensor in flat.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise ValueError(f"the tensor {name} is unknown")
        parts[part][rest] = tensor
    return parts


def _state(values: dict[str, Any], best: dict[str, Tensor], metrics: list[str]) -> State:
    """What `State.values` gave, with the rest."""
    best_loss = math.inf if values["best_loss"] is None else values["best_loss"]
    return State(**values | {"best_loss": best_loss}, best=best, metrics=metrics)


def _lines(tensors: dict[str, Tensor]) -> list[str]:
    """The lines of metrics.jsonl, from the bytes of a checkpoint."""
    if tensors.keys() != {"lines"}:
        raise ValueError("it has no metrics of its epochs")
    return checkpoint.tensor_text(tensors["lines"]).splitlines(keepends=True)
