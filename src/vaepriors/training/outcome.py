"""What a training reports: to a callback as it goes on, and as its outcome at the end."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor, nn

from vaepriors import checkpoint

__all__ = ["Callback", "Diverged", "Outcome"]

Trained = TypeVar("Trained", bound=nn.Module)


class Diverged(RuntimeError):
    """The loss, or a parameter of a distribution, is no longer a number."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    epoch: int
    best_epoch: int
    best_loss: float
    reason: str  # "finished", "stopped early", "interrupted" or "out of time"
    metrics: list[dict[str, Any]] = field(default_factory=list, repr=False, compare=False)
    best: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)  # the weights of the best epoch

    def load_best(self, model: Trained) -> Trained:
        """Load the weights of the best epoch into the model that was trained; return it in evaluation mode.

        Raises:
            ValueError: If no epoch could give the best model yet, or the model is another one.
        """
        if not self.best:
            raise ValueError(
                f"no epoch up to {self.epoch} could give the best model ({self.reason}): resume the training, or use "
                "the model as it is"
            )
        checkpoint.load_module(model, self.best)
        return model.eval()


class Callback:
    """Called as a training goes on; does nothing. Derive from it for a progress bar or a custom log.

    Before and after an epoch, it may call the model, and draw from torch's generator: the numbers of the training stay
    the same.
    """

    def start(self, epoch: int, epochs: int, steps: int) -> None:
        """Training starts after `epoch`, for at most `epochs` of `steps` steps."""

    def steps(self, n: int) -> None:
        """n more steps were issued."""

    def epoch(self, line: dict[str, Any]) -> None:
        """An epoch ended with this line of metrics."""
