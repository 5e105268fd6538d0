"""The evidence lower bound."""

import torch
from torch import Tensor

from vaepriors.limits import at_least_one
from vaepriors.objectives.base import Objective
from vaepriors.vae import VAE, Terms

__all__ = ["ELBO"]


class ELBO(Objective):
    r"""Negative evidence lower bound, with linear warm-up of the divergence (Bowman et al. 2016; Sonderby et al. 2016).

    $$\text{loss} = \text{mean}\big[ -\log p(x|z) + \beta\, (\log q(z|x) - \log p(z)) \big],
      \qquad \beta = \min(1, \text{epoch} / \text{warmup})$$

    with epochs counted from 1, as in Tomczak & Welling 2018. In evaluation mode $\beta = 1$.

    Args:
        warmup: Epochs until $\beta = 1$; 0 for no warm-up.
        steps_per_epoch: Calls in training mode that make an epoch. `fit` sets it unless it is given; in a custom loop
            without it, the warm-up counts calls.
        samples: Draws of z for each x.

    Raises:
        ValueError: If `warmup` < 0, `steps_per_epoch` < 1 or `samples` < 1.

    >>> from vaepriors import networks, priors
    >>> model = VAE(networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2), priors.StandardNormal(2))
    >>> objective, x = ELBO(warmup=100, steps_per_epoch=500), torch.ones(10, 4)
    >>> loss, terms = objective(model, x)
    >>> bool(loss.isclose((0.01 * terms.rate + terms.distortion).mean()))
    True
    """

    def __init__(self, warmup: int = 0, steps_per_epoch: int | None = None, samples: int = 1) -> None:
        super().__init__(samples)
        at_least_one(steps_per_epoch=steps_per_epoch)
        if warmup < 0:
            raise ValueError(f"warmup is {warmup}: it cannot be negative; give 0 for none")
        self.warmup, self.steps_per_epoch, self.counts = warmup, steps_per_epoch, steps_per_epoch is None
        self.step: Tensor
        self.beta: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("beta", torch.ones(()))

    def forward(self, model: VAE, x: Tensor) -> tuple[Tensor, Terms]:
        terms = self.check_first(x, model(x, self.samples))
        if not self.training:
            return -terms.log_weight.mean(), terms
        epoch = self.step // (self.steps_per_epoch or 1) + 1
        beta = (epoch / max(self.warmup, 1)).clamp(max=1)
        self.step += 1
        self.beta.copy_(beta)
        return (beta * terms.log_ratio - terms.log_likelihood).mean(), terms

    def extra_repr(self) -> str:
        given = "" if self.counts else f"steps_per_epoch={self.steps_per_epoch}, "
        return f"warmup={self.warmup}, {given}samples={self.samples}"

    def count_epochs(self, steps: int) -> None:
        if self.counts:
            self.steps_per_epoch = steps

    def metrics(self) -> dict[str, Tensor]:
        return {"beta": self.beta}
