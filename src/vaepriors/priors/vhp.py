"""The variational hierarchical prior: a VAE over z."""

from collections.abc import Callable

from torch import nn

from vaepriors.limits import at_least_one
from vaepriors.numerics import keep_generators
from vaepriors.vae import VAE, Marginal, eval_mode

__all__ = ["VHP"]


class VHP(nn.Module):
    r"""Variational hierarchical prior, a VAE over z (Klushyn et al. 2019, eq. 8 to 10).

    $$\log p_K(z) = \log \frac1K \sum_k \frac{p(z|u_k)\, p(u_k)}{q(u_k|z)}, \qquad u_k \sim q(u|z)$$

    is at most $\log p(z)$ on average, and $p_K$ equals $p$ on average. So the loss is a bound, and the
    importance-sampled likelihood is unbiased, for any K. Two calls of `log_prob` differ. Samples are exact: u from
    N(0, I), z from p(z|u). With K = 1 and an `IWAE` objective, the model is the IWAE of two levels.

    Args:
        vae: A VAE whose data are z.
        samples: K.

    Raises:
        ValueError: If `samples` < 1, or the data of the VAE are not vectors.

    >>> import torch
    >>> from vaepriors import networks, priors
    >>> inner = VAE(networks.Encoder((2,), [8], 2), networks.conditional(2, [8], 2), priors.StandardNormal(2))
    >>> VHP(inner, samples=16)().log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    __call__: Callable[..., Marginal]

    def __init__(self, vae: VAE, samples: int) -> None:
        super().__init__()
        at_least_one(samples=samples)
        self.vae, self.samples = vae, samples
        with keep_generators(vae), eval_mode(vae):
            self.event_shape = vae.sample().shape
        if len(self.event_shape) != 1:
            raise ValueError(f"the VAE draws events of shape {tuple(self.event_shape)}: a prior is over vectors z")

    def forward(self) -> Marginal:
        return Marginal(self.vae, self.samples, self.event_shape)
