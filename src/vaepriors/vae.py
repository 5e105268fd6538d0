r"""The variational autoencoder, from three conditional distributions.

Encoder $q(z|x)$, decoder $p(x|z)$ and prior $p(z)$ are modules whose call returns a distribution. Together they define
the log-weight of a draw $z_i \sim q(z|x)$,

$$\log w_i = \log p(x|z_i) - \big(\log q(z_i|x) - \log p(z_i)\big), \qquad \mathbb{E}[w_i] = p(x),$$

and all other quantities are averages of it:

    ELBO                       mean_i log w_i                         Kingma & Welling 2014, eq. 3
    importance-weighted bound  log mean_i w_i                         Burda, Grosse & Salakhutdinov 2016, eq. 8
    test likelihood            the same bound with thousands of draws
    rate, distortion           E[log q - log p(z)],  -E[log p(x|z)]   Alemi et al. 2018

The analytic KL is not used: mixtures have none, and weights must be per draw.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vaepriors.agreement import (
    check_distribution,
    check_dtype,
    check_event,
    check_log_prob,
    check_module,
    check_posterior,
    check_prior,
    leading,
)
from vaepriors.distributions import Auxiliary, Chain, Shape, ShapedDistribution, rsample_and_log_prob

__all__ = ["VAE", "Conditional", "Constant", "Marginal", "Parts", "Terms", "at_device_of", "eval_mode"]


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


class Conditional(nn.Module):
    """The type of encoder, decoder and prior: a module whose call returns a distribution. No need to inherit it."""

    __call__: Callable[..., Distribution]


class Parts(nn.Module):
    """Encoder, decoder and prior: what a `VAE` and a `vaepriors.ConditionalVAE` share."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, prior: nn.Module) -> None:
        super().__init__()
        self.encoder = cast(Conditional, check_module("encoder", encoder))
        self.decoder = cast(Conditional, check_module("decoder", decoder))
        self.prior = cast(Conditional, check_module("prior", prior))

    def prior_parameters(self) -> list[nn.Parameter]:
        """Parameters of the prior alone, without those that it shares, such as a VampPrior's encoder."""
        shared = {id(p) for part in (self.encoder, self.decoder) for p in part.parameters()}
        return [p for p in self.prior.parameters() if id(p) not in shared]


class VAE(Parts):
    """Variational autoencoder (Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014).

    A hierarchy of latent variables is not another model: its encoder and prior return a `Chain`, and z is the
    concatenation of the levels.

    Args:
        encoder: Module, x -> q(z|x), which must have `rsample`.
        decoder: Module, z -> p(x|z), for z with any leading dimensions.
        prior: Module, () -> p(z).

    >>> from vaepriors import networks, priors
    >>> encoder, decoder = networks.Encoder((1, 4, 4), [16], latent=2), networks.Decoder((1, 4, 4), [16], latent=2)
    >>> model = VAE(encoder, decoder, priors.StandardNormal(2))
    >>> model(torch.zeros(10, 1, 4, 4), n=5).bound.shape, model.sample((3,)).shape
    (torch.Size([10]), torch.Size([3, 1, 4, 4]))
    """

    __call__: Callable[..., Terms]

    def forward(self, x: Tensor, n: int = 1) -> Terms:
        r"""Weigh n draws of z for each x.

        Args:
            x: Data, of shape `(*batch, *event)`.
            n: Number of draws.

        Returns:
            `Terms` of shape `(n, *batch)`, in nats, differentiable in every parameter.

        Raises:
            ValueError: If x is not float32 or float64, if n < 1, if encoder and decoder disagree about the shape of x,
                or encoder and prior about that of z, if one of the three modules does not return a distribution or
                autocast rounds its log-densities, or if the decoder does not take leading dimensions.
        """
        check_dtype(x)
        if n < 1:
            raise ValueError(f"n is {n}: draw at least one z")
        posterior = check_posterior(self.encoder(x))
        z, log_q = rsample_and_log_prob(posterior, (n,))
        return self.weigh(x, z, log_q)

    def weigh(self, x: Tensor, z: Tensor, log_q: Tensor) -> Terms:
        """Weigh given draws.

        Args:
            x: Data, of shape `(*batch, *event)`.
            z: Draws, of shape `(n, *batch, latent)`.
            log_q: Their log-density, of shape `(n, *batch)`.

        Raises:
            ValueError: As in `forward`.
        """
        check_log_prob("encoder", log_q, log_q.shape)
        likelihood = self._decode(z)
        check_event(x, log_q.shape[1:], likelihood.event_shape)
        if likelihood.batch_shape != log_q.shape:
            raise ValueError(leading(z, f"returned batch shape {tuple(likelihood.batch_shape)}"))
        log_likelihood = check_log_prob("decoder", likelihood.log_prob(x), log_q.shape)
        log_p = check_log_prob("prior", check_prior(self.prior(), z).log_prob(z), log_q.shape)
        return Terms(log_likelihood, log_q, log_p, z, likelihood)

    def _decode(self, z: Tensor) -> Distribution:
        """p(x|z). If the decoder fails only because of z's leading dimensions, say so."""
        if torch.compiler.is_compiling():
            return self.decoder(z)
        try:
            likelihood = self.decoder(z)
        except (RuntimeError, ValueError, IndexError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and self._takes_only_one_dimension(z):
                raise ValueError(leading(z, f"failed: {error}")) from error
            raise
        return check_distribution("decoder", likelihood)

    @torch.no_grad()
    def _takes_only_one_dimension(self, z: Tensor) -> bool:
        try:
            self.decoder(z.detach().flatten(0, -2))
        except (RuntimeError, ValueError, IndexError):
            return False
        return True

    def given(self, posterior: Distribution | None = None, prior: Distribution | None = None) -> "VAE":
        """The same model with q(z|x), p(z), or both given: for many draws with the same parameters."""
        encoder = self.encoder if posterior is None else Constant(posterior)
        return VAE(encoder, self.decoder, self.prior if prior is None else Constant(prior))

    def hold_prior(self) -> "VAE":
        """The same model with p(z) computed now, for many calls with the same parameters."""
        return self.given(prior=self.prior())

    def without(self, rows: Tensor) -> "VAE":
        """The same model, under whose prior these training examples do not explain themselves.

        Only a prior made of training examples has the method `without`, which returns such a distribution; with any
        other, the model itself is returned. `fit` calls it for each batch. Validation and evaluation do not.

        Args:
            rows: Rows of the training set, whole numbers, of shape `batch`.
        """
        leave_out = getattr(self.prior, "without", None)
        return self if leave_out is None else self.given(prior=leave_out(rows))

    @torch.no_grad()
    def sample(self, shape: Shape = ()) -> Tensor:
        """Ancestral draws of x, of shape `(*shape, *event)`: z ~ p(z), then x ~ p(x|z).

        Raises:
            ValueError: If `shape` is a number.
        """
        if isinstance(shape, int):
            raise ValueError(f"shape is {shape}: give a tuple, such as sample(({shape},))")
        return self.decoder(self.prior().sample(torch.Size(shape))).sample()

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Distribution:
        """p(x|z) at one draw z ~ q(z|x)."""
        return self.decoder(self.encoder(x).sample())


class Constant(nn.Module):
    """Returns a given distribution for any input."""

    def __init__(self, distribution: Distribution) -> None:
        super().__init__()
        self.distribution = distribution

    def forward(self, *_: Tensor) -> Distribution:
        return self.distribution


class Marginal(ShapedDistribution):
    r"""The distribution of x under a VAE, $p(x) = \int p(x|z)\, p(z)\, dz$.

    `log_prob` is the importance-weighted bound, an estimate whose exponential is unbiased. Two calls differ: never
    subtract one from another, and never cache one. `sample` is exact. A VAE can therefore be used like any other
    distribution, for example as the prior of another VAE (Klushyn et al. 2019, eq. 8 to 10).

    Args:
        model: A `VAE`.
        n: Number of draws in the bound; the bias of `log_prob` (not of its exponential) vanishes with it.
        event_shape: Shape of one x.
    """

    def __init__(self, model: VAE, n: int, event_shape: Shape) -> None:
        self.model, self.n = model, n
        super().__init__((), event_shape)

    @property
    def support(self) -> constraints.Constraint | None:
        """The support of p(x|z), at one draw of z; torch's generators stay as they were."""
        devices = {p.device for p in self.model.parameters() if p.is_cuda}
        with torch.random.fork_rng(devices), torch.no_grad():
            return self.model.decoder(self.model.prior().sample()).support

    def posterior_and_prior(self, value: Tensor) -> tuple[Distribution, Distribution]:
        """The posterior q(z|x) of values x, and p(z)."""
        return self.model.encoder(value), self.model.prior()

    def auxiliary(self) -> Auxiliary:
        """The joint distribution of z and x, over [z, x], and q(z|x) (see `vaepriors.distributions.auxiliary`)."""
        prior = self.model.prior()
        (size,), (features,) = prior.event_shape, self.event_shape
        joint = Chain(prior, self.model.decoder, (size, features))
        return Auxiliary(joint.expand(self.batch_shape) if self.batch_shape else joint, self.model.encoder, size)

    def log_prob(self, value: Tensor) -> Tensor:
        if self.batch_shape:  # an estimate of its own for each place
            value = value.expand(torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape))
        return self.model(value, self.n).bound

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return self.model.sample(torch.Size(sample_shape) + self.batch_shape)


def at_device_of(module: nn.Module, x: Tensor) -> Tensor:
    """x on the device of the module's parameters; x itself if there are none."""
    return x.to(next(module.parameters(), x).device)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Set a module to evaluation mode for the block, and restore the mode of each of its parts after it."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode
