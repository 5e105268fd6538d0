"""Where a training stands: the best epoch so far, and how long it has waited for a better one."""

import json
import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vaepriors import checkpoint
from vaepriors.training.outcome import Outcome
from vaepriors.training.settings import Settings

__all__ = ["State"]


@dataclass
class State:
    """Where a training stands, apart from the tensors of model, optimiser and objective."""

    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    waited: int = 0  # epochs since the best one, for early stopping
    best: dict[str, Tensor] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)  # the lines of metrics.jsonl

    def values(self) -> dict[str, Any]:
        # JSON has no infinity
        best_loss = self.best_loss if math.isfinite(self.best_loss) else None
        return {"epoch": self.epoch, "best_loss": best_loss, "best_epoch": self.best_epoch, "waited": self.waited}

    def judge(self, epoch: int, valid_loss: float, model: nn.Module, settings: Settings) -> None:
        """Decide whether the model of this epoch is the best one, and count the epochs since the best."""
        self.epoch = epoch
        counts = settings.best_from == "start" or epoch >= settings.warmup
        if counts and valid_loss < self.best_loss:
            self.best_loss, self.best_epoch, self.waited = valid_loss, epoch, 0
            self.best = {name: tensor.clone() for name, tensor in checkpoint.module_tensors(model).items()}
        else:
            self.waited = self.waited + 1 if epoch >= settings.warmup else 0

    def stopped_early(self, patience: int) -> str:
        """Why to stop: the best epoch is too long ago; empty to continue."""
        return "stopped early" if self.waited > patience else ""

    def outcome(self, reason: str) -> Outcome:
        """How a training that ends here ended."""
        metrics = [json.loads(line) for line in self.metrics]
        return Outcome(self.epoch, self.best_epoch, self.best_loss, reason, metrics, self.best)
