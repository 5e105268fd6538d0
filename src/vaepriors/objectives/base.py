"""What every objective is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Number

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.distributions import check_support, outside
from vaepriors.limits import at_least_one
from vaepriors.vae import VAE, Parts, Terms

__all__ = ["Objective"]


class Objective(nn.Module, ABC):
    """A loss on `samples` draws of z for each x.

    Derive a custom objective from it, and write `forward`. `fit` minimises the loss, and chooses the best model by that
    of the validation set, in evaluation mode. It trains the parameters of the objective, too, and keeps parameters and
    buffers in its checkpoints. `metrics` returns further numbers for the log. Numbers and texts among its attributes
    are options, which a training that is resumed may not change; a class derived from another objective adds its
    options in `extra_repr`.

    Attributes:
        samples: Draws of z for each x.

    >>> from vaepriors import networks, priors
    >>> class BetaVAE(Objective):
    ...     def __init__(self, beta):
    ...         super().__init__(samples=1)
    ...         self.beta = beta
    ...
    ...     def forward(self, model, x):
    ...         terms = model(x, self.samples)  # its rate and distortion have the shape of the batch
    ...         return (terms.distortion + self.beta * terms.rate).mean(), terms
    >>> model = VAE(networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2), priors.StandardNormal(2))
    >>> loss, terms = BetaVAE(4.0)(model, torch.ones(10, 4))
    >>> BetaVAE(4.0)
    BetaVAE(samples=1, beta=4.0)
    """

    __call__: Callable[..., tuple[Tensor, Terms]]

    def __init__(self, samples: int) -> None:
        super().__init__()
        at_least_one(samples=samples)
        self.samples = samples
        self.checked = False
        self.initial: dict[str, Tensor] | None = None

    def extra_repr(self) -> str:
        """The options, all numbers and texts. A training that is resumed must have the same `repr`."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, (Number, str))}
        return ", ".join(f"{name}={value}" for name, value in plain.items() if name not in ("training", "checked"))

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
        """The parameters that are trained: those of no fixed part of the model, and the objective's own."""
        fixed = {id(p) for part in self.fixed(model) for p in part.parameters()}
        return [p for p in (*model.parameters(), *self.parameters()) if id(p) not in fixed]
