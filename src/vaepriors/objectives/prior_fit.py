"""The objective of a new prior for a trained encoder and decoder."""

import torch
from torch import Tensor, nn

from vaepriors.numerics import keep_generators
from vaepriors.objectives.base import Objective
from vaepriors.vae import VAE, Parts, Terms

__all__ = ["PriorFit"]


class PriorFit(Objective):
    r"""The rate, in the prior's own parameters: a new prior for an encoder and a decoder that stand still.

    $$\text{loss} = \text{mean}\big[ \log q(z|x) - \log p(z) \big], \qquad
      \mathbb{E}[\text{loss}] = I(n; z) + KL(q(z) \,\|\, p(z))$$

    The mutual information of an example's number and its code does not depend on p (see `analysis.elbo_surgery`), and
    neither does the distortion. So this minimises the divergence of the prior from the aggregated posterior, and the
    ELBO rises by as much as the divergence falls. For two levels both p(z2) and p(z1|z2) are trained.

    No gradient reaches the parameters of encoder and decoder, also where a prior shares them: of a VampPrior the
    pseudo-inputs and the weights are trained. (`model.without(rows)` encodes the examples of its prior before the call,
    so a hand-written loop over it steps the parameters of `trained(model)` alone, as `fit` does.) The decoder is called
    only for the distortion in the log.

    In evaluation mode the loss is the same, with the same noise in each call: the losses of two epochs differ by their
    priors alone.

    Args:
        samples: Draws of z for each x.

    Raises:
        ValueError: If `samples` < 1.

    >>> from vaepriors import networks, priors
    >>> encoder, decoder = networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2)
    >>> model = VAE(encoder, decoder, priors.MixtureOfGaussians(2, components=3))
    >>> loss, terms = PriorFit()(model, torch.ones(10, 4))
    >>> loss.backward()
    >>> model.prior.loc.grad is None, any(p.grad is not None for p in encoder.parameters())
    (False, False)
    """

    def __init__(self, samples: int = 1) -> None:
        super().__init__(samples)

    def forward(self, model: VAE, x: Tensor) -> tuple[Tensor, Terms]:
        if self.training:
            return self._rate(model, x)
        with keep_generators(x):
            torch.manual_seed(0)
            return self._rate(model, x)

    def _rate(self, model: VAE, x: Tensor) -> tuple[Tensor, Terms]:
        fixed = [p for part in self.fixed(model) for p in part.parameters() if p.requires_grad]  # none within `fit`
        try:
            for p in fixed:
                p.requires_grad_(False)
            terms = model(x, self.samples)
        finally:
            for p in fixed:
                p.requires_grad_(True)
        return terms.log_ratio.mean(), terms

    def fixed(self, model: Parts) -> tuple[nn.Module, ...]:
        return (model.encoder, model.decoder)
