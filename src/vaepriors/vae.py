r"""The variational autoencoder, from three conditional distributions.

Encoder $q(z|x)$, decoder $p(x|z)$ and prior $p(z)$ are modules whose call returns a distribution. Their one
joint quantity is the log-weight of a draw $z_i \sim q(z|x)$,

$$\log w_i = \log p(x|z_i) - \big(\log q(z_i|x) - \log p(z_i)\big), \qquad \mathbb{E}[w_i] = p(x),$$

and everything else is a way to average it:

    ELBO                       mean_i log w_i                         Kingma & Welling 2014, eq. 3
    importance-weighted bound  log mean_i w_i                         Burda, Grosse & Salakhutdinov 2016, eq. 8
    test likelihood            the same bound with thousands of draws
    rate, distortion           E[log q - log p(z)],  -E[log p(x|z)]   Alemi et al. 2018

The analytic KL is left out on purpose: mixtures have none, and weights must be per draw.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.distributions import Shape, rsample_and_log_prob

__all__ = ["VAE", "Marginal", "Terms"]


class Terms(NamedTuple):
    """The parts of the log-weights of n draws, in nats, each of shape `(n, *batch)`, with the draws and p(x|z).

    >>> terms = Terms(torch.tensor([[-2.0], [-4.0]]), torch.tensor([[3.0], [3.0]]), torch.tensor([[2.0], [2.0]]))
    >>> terms.log_weight.flatten().tolist(), terms.elbo.item(), round(terms.bound.item(), 3)
    ([-3.0, -5.0], -4.0, -3.566)
    """

    log_likelihood: Tensor  # log p(x|z)
    log_q: Tensor  # log q(z|x)
    log_p: Tensor  # log p(z)
    z: Tensor | None = None  # the draws, of shape (n, *batch, latent)
    likelihood: Distribution | None = None  # p(x|z), of batch shape (n, *batch)

    @property
    def log_ratio(self) -> Tensor:
        """log q(z|x) - log p(z), of shape `(n, *batch)`: one draw's share of the divergence."""
        return self.log_q - self.log_p

    @property
    def log_weight(self) -> Tensor:
        """log w, of shape `(n, *batch)`."""
        return self.log_likelihood - self.log_ratio

    @property
    def elbo(self) -> Tensor:
        """Evidence lower bound, of shape `batch`."""
        return self.log_weight.mean(0)

    @property
    def bound(self) -> Tensor:
        """Importance-weighted bound, of shape `batch`; its exponential is an unbiased estimate of p(x)."""
        return self.log_weight.logsumexp(0) - math.log(len(self.log_likelihood))

    @property
    def rate(self) -> Tensor:
        """Mean of log q(z|x) - log p(z), of shape `batch`."""
        return self.log_ratio.mean(0)

    @property
    def distortion(self) -> Tensor:
        """Mean of -log p(x|z), of shape `batch`."""
        return -self.log_likelihood.mean(0)


class VAE(nn.Module):
    """Variational autoencoder (Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014).

    A hierarchy of latent variables is not another model: its encoder and prior return a `Chain`, and z is the
    concatenation of the levels.

    Args:
        encoder: Module, x -> q(z|x); it must be reparametrised (`rsample`).
        decoder: Module, z -> p(x|z), for z with any leading dimensions.
        prior: Module, () -> p(z).

    >>> from vaepriors import networks, priors
    >>> encoder, decoder = networks.Encoder((1, 4, 4), [16], latent=2), networks.Decoder((1, 4, 4), [16], latent=2)
    >>> model = VAE(encoder, decoder, priors.StandardNormal(2))
    >>> model(torch.zeros(10, 1, 4, 4), n=5).bound.shape, model.sample((3,)).shape
    (torch.Size([10]), torch.Size([3, 1, 4, 4]))
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, prior: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.prior = encoder, decoder, prior

    def forward(self, x: Tensor, n: int = 1) -> Terms:
        r"""Weigh n draws of z for each x.

        Args:
            x: Data, of shape `(*batch, *event)`.
            n: Number of draws.

        Returns:
            `Terms` of shape `(n, *batch)`, in nats, differentiable in every parameter.

        Raises:
            ValueError: If x is not float32 or float64, or encoder and decoder disagree about its shape.
        """
        check_dtype(x)
        z, log_q = rsample_and_log_prob(self.encoder(x), (n,))
        return self.weigh(x, z, log_q)

    def weigh(self, x: Tensor, z: Tensor, log_q: Tensor) -> Terms:
        """Weigh draws that were made already.

        Args:
            x: Data, of shape `(*batch, *event)`.
            z: Draws, of shape `(n, *batch, latent)`.
            log_q: Their log-density, of shape `(n, *batch)`.
        """
        likelihood = self.decoder(z)
        _check_shapes(x, log_q.shape[1:], likelihood.event_shape)
        return Terms(likelihood.log_prob(x), log_q, self.prior().log_prob(z), z, likelihood)

    def given(self, posterior: Distribution | None = None, prior: Distribution | None = None) -> "VAE":
        """The same model with q(z|x), p(z), or both computed once: for many draws while the parameters stand still."""
        encoder = self.encoder if posterior is None else _Given(posterior)
        return VAE(encoder, self.decoder, self.prior if prior is None else _Given(prior))

    def prior_parameters(self) -> list[nn.Parameter]:
        """The prior's own parameters: not those that it shares, as a VampPrior does its encoder."""
        shared = {id(p) for part in (self.encoder, self.decoder) for p in part.parameters()}
        return [p for p in self.prior.parameters() if id(p) not in shared]

    @torch.no_grad()
    def sample(self, shape: Shape = ()) -> Tensor:
        """Ancestral draws of x, of shape `(*shape, *event)`: z ~ p(z), then x ~ p(x|z)."""
        return self.decoder(self.prior().sample(torch.Size(shape))).sample()

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Distribution:
        """p(x|z) at one draw z ~ q(z|x)."""
        return self.decoder(self.encoder(x).sample())


def check_dtype(x: Tensor) -> None:
    """Refuse data in which a likelihood cannot be computed.

    Raises:
        ValueError: If x is not float32 or float64.
    """
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x is {x.dtype}: convert it with x.float(), or with x.double() for a model in float64")


def _check_shapes(x: Tensor, batch: torch.Size, event: torch.Size) -> None:
    """Another shape would broadcast to a wrong density."""
    if x.shape != batch + event:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, but the encoder returns batch shape {tuple(batch)} and the decoder event "
            f"shape {tuple(event)}: reshape x to (..., {', '.join(map(str, event))}), or change the networks"
        )


class _Given(nn.Module):
    """Returns a distribution that is known, whatever it is called with."""

    def __init__(self, distribution: Distribution) -> None:
        super().__init__()
        self.distribution = distribution

    def forward(self, *_: Tensor) -> Distribution:
        return self.distribution


class Marginal(Distribution):
    r"""The distribution over x that a VAE is, $p(x) = \int p(x|z)\, p(z)\, dz$.

    `log_prob` is the importance-weighted bound, an estimate whose exponential is unbiased; two calls of it
    differ, so never subtract one from another or keep it. `sample` is exact. A VAE can therefore stand
    wherever a distribution can: as the prior of another VAE (Klushyn et al. 2019, eq. 8 to 10), say.

    Args:
        model: A `VAE`.
        n: Number of draws in the bound; the bias of `log_prob` (not of its exponential) vanishes with it.
        event_shape: Shape of one x.
    """

    arg_constraints = {}
    has_rsample = False

    def __init__(self, model: VAE, n: int, event_shape: Shape) -> None:
        self.model, self.n = model, n
        super().__init__(torch.Size(), torch.Size(event_shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.model(value, self.n).bound

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return self.model.sample(sample_shape)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put the module in evaluation mode, and every part of it back as it was afterwards."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode
