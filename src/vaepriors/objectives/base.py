"""What every objective is."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.distributions import check_support, outside
from vaepriors.limits import at_least_one
from vaepriors.vae import VAE, Parts, Terms

__all__ = ["Objective"]


class Objective(nn.Module, ABC):
    """A loss on `samples` draws of z for each x.

    Attributes:
        samples: Draws of z for each x.
    """

    __call__: Callable[..., tuple[Tensor, Terms]]

    def __init__(self, samples: int) -> None:
        super().__init__()
        at_least_one(samples=samples)
        self.samples = samples
        self.checked = False
        self.initial: dict[str, Tensor] | None = None

    def extra_repr(self) -> str:
        """The options of this objective. A training that is resumed must have the same `repr`."""
        return f"samples={self.samples}"

    def check_first(self, x: Tensor, terms: Terms) -> Terms:
        """The same terms; in the first call x and p(x|z) are checked, which reads their values from the device."""
        if not self.checked and terms.likelihood is not None and not torch.compiler.is_compiling():
            self.checked = True
            self._check(x, terms.likelihood)
        return terms

    def _check(self, x: Tensor, likelihood: Distribution) -> None:
        """Refuse x outside of the support of p(x|z). A fraction between two of its values passes: a probability.

        Raises:
            ValueError: If one of these x is outside of the support.
        """
        wrong = outside(likelihood, x.floor()) | outside(likelihood, x.ceil())
        check_support(likelihood, x, outside(likelihood, x) & wrong)

    @abstractmethod
    def forward(self, model: VAE, x: Tensor) -> tuple[Tensor, Terms]:
        """The loss, a scalar, in nats per data point, and the terms that it was computed from."""

    def restart(self) -> None:
        """Go back to the state before the first training, so that an objective may train several models."""
        self.checked = False
        if self.initial is None:
            self.initial = {name: x.clone() for name, x in self.state_dict().items()}
        self.load_state_dict(self.initial)

    def count_epochs(self, steps: int) -> None:
        """Set the number of calls in training mode that make an epoch, unless it was given."""

    def metrics(self) -> dict[str, Tensor]:
        """Scalars for the log, on the device; read once an epoch."""
        return {}

    def prior_gate(self) -> Tensor | None:
        """1 if the prior's own parameters are trained in this step, otherwise 0, on the device; None if always."""
        return None

    def fixed(self, model: Parts) -> tuple[nn.Module, ...]:
        """The parts of the model that stand still: not trained, and in evaluation mode during the training."""
        return ()

    def trained(self, model: Parts) -> list[nn.Parameter]:
        """The parameters that are trained: those of no fixed part."""
        fixed = {id(p) for part in self.fixed(model) for p in part.parameters()}
        return [p for p in model.parameters() if id(p) not in fixed]
