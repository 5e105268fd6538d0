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
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call

from vaepriors.distributions import Shape, rsample_and_log_prob

__all__ = ["VAE", "Marginal", "Terms"]


class Terms(NamedTuple):
    """The two halves of the log-weights of n draws, in nats, both of shape `(n, *batch)`, and what only some ask for.

    >>> terms = Terms(torch.tensor([[-2.0], [-4.0]]), torch.tensor([[1.0], [1.0]]))
    >>> terms.log_weight.flatten().tolist(), terms.elbo.item(), round(terms.bound.item(), 3)
    ([-3.0, -5.0], -4.0, -3.566)
    """

    log_likelihood: Tensor  # log p(x|z)
    kl: Tensor  # log q(z|x) - log p(z): one draw's share of the divergence
    error: Tensor | None = None  # (x - E[x|z])^2, its mean over the dimensions of x; of the same shape
    z: Tensor | None = None  # the draws, of shape (n, *batch, latent)

    @property
    def log_weight(self) -> Tensor:
        """log w, of shape `(n, *batch)`."""
        return self.log_likelihood - self.kl

    @property
    def elbo(self) -> Tensor:
        """Evidence lower bound, of shape `batch`."""
        return self.log_weight.mean(0)

    @property
    def bound(self) -> Tensor:
        """Importance-weighted bound, of shape `batch`; its exponential is an unbiased estimate of p(x)."""
        return self.log_weight.logsumexp(0) - math.log(len(self.log_likelihood))


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

    def forward(self, x: Tensor, n: int = 1, score: bool = True, error: bool = False) -> Terms:
        r"""Weigh n draws of z for each x.

        Args:
            x: Data, of shape `(*batch, *event)`.
            n: Number of draws.
            score: Whether the gradient of log q(z|x) has its score term, the one with z held still. Its mean is zero:
                without it the value is the same, and the gradient reaches the encoder through the draws alone
                (Roeder, Wu & Duvenaud 2017). This costs another pass of the encoder.
            error: Whether the squared error of the reconstruction is asked for.

        Returns:
            `Terms` of shape `(n, *batch)`, in nats, differentiable in every parameter.

        Raises:
            ValueError: If x is not float32 or float64, or encoder and decoder disagree about its shape.
        """
        check_dtype(x)
        posterior = self.encoder(x)
        if score:
            return self.weigh(x, posterior, self.prior(), n, error)
        z = posterior.rsample((n,))
        log_q = functional_call(_LogProb(self.encoder), _held(self.encoder), (x, z))
        return self._terms(x, z, log_q, self.prior(), error)

    def weigh(self, x: Tensor, posterior: Distribution, prior: Distribution, n: int, error: bool = False) -> Terms:
        """As `forward`, with q(z|x) and p(z) at hand: an evaluation computes them once, not once a chunk."""
        z, log_q = rsample_and_log_prob(posterior, (n,))
        return self._terms(x, z, log_q, prior, error)

    def _terms(self, x: Tensor, z: Tensor, log_q: Tensor, prior: Distribution, error: bool) -> Terms:
        likelihood = self.decoder(z)
        _check_shapes(x, log_q.shape[1:], likelihood.event_shape)
        log_likelihood = likelihood.log_prob(x)
        squares = (x - likelihood.mean).square().flatten(log_q.dim()).mean(-1) if error else None
        return Terms(log_likelihood, log_q - prior.log_prob(z), squares, z)

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


class _LogProb(nn.Module):
    """(x, z) -> log q(z|x): all of it in one call, for a chain calls its encoder again for the lower level."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.encoder(x).log_prob(z)


def _held(encoder: nn.Module) -> dict[str, Tensor]:
    """The parameters of the encoder, by their names in `_LogProb`, without gradients."""
    return {f"encoder.{name}": parameter.detach() for name, parameter in encoder.named_parameters()}


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
