r"""Objectives: maps from `Terms` to a scalar loss in nats per data point.

An objective keeps whatever it needs over time in buffers, so that it checkpoints itself, runs without reading
the device, and can be tested with two hand-written tensors. In evaluation mode an objective holds still and is
the plain bound it trains towards.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from vaepriors.vae import Terms

__all__ = ["ELBO", "Objective"]


class Objective(nn.Module, ABC):
    """A loss on `samples` draws of z for each x: `objective(model(x, objective.samples))`."""

    samples: int

    @abstractmethod
    def forward(self, terms: Terms) -> Tensor:
        """The loss, a scalar, in nats per data point."""

    @abstractmethod
    def metrics(self) -> dict[str, Tensor]:
        """Scalars worth a line in the log, on the device; read once an epoch."""


class ELBO(Objective):
    r"""Negative evidence lower bound, with linear warm-up of the divergence (Bowman et al. 2016; Sonderby et al. 2016).

    $$\text{loss} = \text{mean}\big[ -\log p(x|z) + \beta\, (\log q(z|x) - \log p(z)) \big],
      \qquad \beta = \min(1, \text{epoch} / \text{warmup})$$

    with epochs counted from 1, as in Tomczak & Welling 2018. In evaluation mode $\beta = 1$.

    Args:
        warmup: Epochs until $\beta = 1$; none for 0.
        steps_per_epoch: Calls in training mode that make an epoch.
        samples: Draws of z for each x.

    >>> objective = ELBO(warmup=2)
    >>> terms = Terms(torch.tensor([[-3.0]]), torch.tensor([[1.0]]))
    >>> [objective(terms).item() for _ in range(3)]
    [3.5, 4.0, 4.0]
    """

    def __init__(self, warmup: int = 0, steps_per_epoch: int = 1, samples: int = 1) -> None:
        super().__init__()
        self.warmup, self.steps_per_epoch, self.samples = warmup, steps_per_epoch, samples
        self.step: Tensor
        self.beta: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("beta", torch.ones(()))

    def forward(self, terms: Terms) -> Tensor:
        if not self.training:
            return -terms.log_weight.mean()
        epoch = self.step // self.steps_per_epoch + 1
        beta = (epoch / max(self.warmup, 1)).clamp(max=1)
        self.step += 1
        self.beta.copy_(beta)
        return (beta * terms.kl - terms.log_likelihood).mean()

    def metrics(self) -> dict[str, Tensor]:
        return {"beta": self.beta}
