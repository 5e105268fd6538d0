r"""Annealed importance sampling from q(z|x) to p(z|x), and bounds on log p(x) from both sides.

A chain of draws follows a path of T + 1 densities from the posterior to the model (Neal 2001; Wu, Burda, Salakhutdinov
& Grosse 2017),

$$f_k(z) = q(z|x)^{1 - \beta_k}\, p(x, z)^{\beta_k}, \qquad 0 = \beta_0 < \dots < \beta_T = 1, \qquad
  \log w = \sum_{k=1}^T (\beta_k - \beta_{k-1}) \log \frac{p(x, z_{k-1})}{q(z_{k-1}|x)},$$

where $z_0 \sim q(z|x)$ and $z_k$ is drawn from $z_{k-1}$ by a transition that leaves $f_k$ invariant: Hamiltonian Monte
Carlo. Then $\mathbb{E}[w] = p(x)$, for any number of chains and any T; with T = 1 it is importance sampling.

The step sizes of each x and each temperature are adapted in chains of a preliminary run with draws of their own. The
chains that are weighed take them as they are, so the estimate stays unbiased.

If z is an exact draw from p(z|x), the same path from T to 0 gives a weight with $\mathbb{E}[1/w] = 1/p(x)$. Such draws
are known for data that the model has drawn itself, and there log p(x) lies between the two estimates on average
(bidirectional Monte Carlo; Grosse, Ghahramani & Adams 2015).

Where the prior is a VAE over z, with the latent u, its density is only estimated. The chains are then in [u, z], from
q(u|z) q(z|x) to p(x|z) p(z|u) p(u), which has the same p(x).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaepriors.distributions import Shape, ShapedDistribution, auxiliary
from vaepriors.likelihood import Estimate, Posterior, check_sizes
from vaepriors.limits import at_least_one
from vaepriors.numerics import fixed_numerics
from vaepriors.vae import VAE, eval_mode

__all__ = ["Annealing", "Bounds", "bidirectional", "simulate"]

SPREAD_DRAWS = 64  # for the standard deviation of q(z|x) along each axis
ACCEPTANCE = 0.7  # that the step sizes are adapted to


class Bounds(NamedTuple):
    """Two estimates of log p(x) for each x, of shape `(n,)`, in nats: `lower <= log p(x) <= upper` on average."""

    lower: Tensor
    upper: Tensor

    @property
    def gap(self) -> float:
        """The mean of upper - lower: at least how far the mean of either is from the mean of log p(x)."""
        return (self.upper - self.lower).mean().item()


@dataclass(frozen=True)
class Annealing:
    """Annealed importance sampling, as a method for `vaepriors.estimate` (see the module).

    The estimate's ELBO, rate and distortion are those of the draws at which the chains start. With a prior that is a
    VAE over z, they are of [u, z].

    Args:
        chains: Independent chains for each x.
        temperatures: T, the steps from q(z|x) to p(z|x).
        leapfrogs: Steps of the integrator in a transition.
        posterior: Where the chains start: what returns the posterior, called with the model and some x; the encoder
            unless given.

    Raises:
        ValueError: If a number is less than 1.
    """

    chains: int = 16
    temperatures: int = 300
    leapfrogs: int = 5
    posterior: Posterior | None = None

    def __post_init__(self) -> None:
        at_least_one(chains=self.chains, temperatures=self.temperatures, leapfrogs=self.leapfrogs)

    @property
    def draws(self) -> int:
        """Pairs of x and z for each x, at a time."""
        return self.chains

    def weigh(
        self, model: VAE, prior: Distribution, x: Tensor, chunk: int, progress: Callable[[int], None]
    ) -> Estimate:
        """The estimates of each x under a given prior distribution, with `chunk` chains at a time.

        Raises:
            ValueError: If a density of the model is random, or has no gradient in z.
        """
        parts = []
        for batch in x.split(max(1, chunk // self.chains)):
            path = self._path(model, prior, batch)
            step_sizes = self._tune(path)
            runs = [self._forward(path, step_sizes, n) for n in _portions(self.chains, chunk)]
            parts.append(_estimate(*(torch.cat(each) for each in zip(*runs, strict=True))))
            progress(len(batch))
        return Estimate(*map(torch.cat, zip(*parts, strict=True)))

    def bounds(self, model: VAE, prior: Distribution, x: Tensor, z: Tensor, chunk: int) -> Bounds:
        """Bounds on log p(x) from both sides, where `simulate` has drawn x and z.

        Raises:
            ValueError: As in `weigh`.
        """
        parts = []
        for batch, start in zip(*(each.split(max(1, chunk // self.chains)) for each in (x, z)), strict=True):
            path = self._path(model, prior, batch)
            step_sizes, portions = self._tune(path), _portions(self.chains, chunk)
            up = torch.cat([self._forward(path, step_sizes, n)[0] for n in portions])
            down = torch.cat([self._backward(path, step_sizes, start, n) for n in portions])
            log_chains = math.log(self.chains)
            parts.append(Bounds(up.logsumexp(0) - log_chains, log_chains - (-down).logsumexp(0)))
        return Bounds(*map(torch.cat, zip(*parts, strict=True)))

    def _path(self, model: VAE, prior: Distribution, x: Tensor) -> "_Path":
        q = model.encoder(x) if self.posterior is None else self.posterior(model.given(prior=prior), x)
        return _Path(model.decoder, q, prior, x)

    def _betas(self) -> list[float]:
        return [k / self.temperatures for k in range(self.temperatures + 1)]

    def _tune(self, path: "_Path") -> list[Tensor]:
        """Step sizes of each x at the temperatures 1 to T - 1, adapted in a preliminary run with fewer chains."""
        log_size = path.x.new_full((len(path.x), 1), math.log(0.5 / path.size**0.25))
        chain, sizes = path.start(-(-self.chains // 4)), []
        for k, beta in enumerate(self._betas()[1:-1]):
            sizes.append(log_size.exp())
            chain, accepted = path.move(chain, beta, sizes[-1], self.leapfrogs)
            log_size = log_size + (accepted - ACCEPTANCE)[:, None] / (1 + k / 10) ** 0.5
        return sizes

    def _forward(self, path: "_Path", step_sizes: list[Tensor], n: int) -> tuple[Tensor, ...]:
        """log w of n chains for each x, and log p(x|z) and log q - log p of their first draws: `(n, batch)` each."""
        chain, betas = path.start(n), self._betas()
        first, log_w = chain, torch.zeros_like(chain.log_w)
        for k in range(1, self.temperatures + 1):
            log_w = log_w + (betas[k] - betas[k - 1]) * chain.log_w
            if k < self.temperatures:
                chain, _ = path.move(chain, betas[k], step_sizes[k - 1], self.leapfrogs)
        log_likelihood = path.log_likelihood(first.z).double()
        return log_w, log_likelihood, log_likelihood - first.log_w

    def _backward(self, path: "_Path", step_sizes: list[Tensor], z: Tensor, n: int) -> Tensor:
        """log w of n chains for each x that start at an exact draw, of shape `(n, batch)`."""
        chain, betas = path.at(z.expand(n, *z.shape)), self._betas()
        log_w = torch.zeros_like(chain.log_w)
        for k in range(self.temperatures, 0, -1):
            if k < self.temperatures:
                chain, _ = path.move(chain, betas[k], step_sizes[k - 1], self.leapfrogs)
            log_w = log_w + (betas[k] - betas[k - 1]) * chain.log_w
        return log_w


@fixed_numerics()
@torch.no_grad()
def bidirectional(model: VAE, n: int = 100, annealing: Annealing | None = None, *, chunk: int | None = None) -> Bounds:
    """Bounds on log p(x) from both sides, on data that the model draws.

    Args:
        model: The model, in evaluation mode during the call.
        n: How many x to draw.
        annealing: The method; `Annealing()` unless given.
        chunk: Chains at a time; by default, what suits the model and the device.

    Raises:
        ValueError: If `n` < 1, or the method cannot be used with the model.

    >>> from vaepriors import networks, priors
    >>> encoder, decoder = networks.Encoder((1, 4, 4), [16], latent=2), networks.Decoder((1, 4, 4), [16], latent=2)
    >>> model = VAE(encoder, decoder, priors.StandardNormal(2))
    >>> bidirectional(model, 20, Annealing(temperatures=100)).gap < 0.1
    True
    """
    annealing = annealing or Annealing()
    with eval_mode(model):
        prior = model.prior()
        x, z = simulate(model, prior, n)
        chunk = check_sizes(model, x, annealing.draws, chunk)
        return annealing.bounds(model, prior, x, z, chunk)


def simulate(model: VAE, prior: Distribution, n: int) -> tuple[Tensor, Tensor]:
    """n draws of x from a model, each with an exact draw of p(z|x): the z, or [u, z], that it was drawn from.

    Raises:
        ValueError: If `n` < 1.
    """
    at_least_one(n=n)
    joint, size = _unrolled(prior)
    z = joint.sample(torch.Size((n,)))
    return model.decoder(z[..., size:]).sample(), z


def _portions(number: int, chunk: int) -> list[int]:
    """A number in parts of at most `chunk`."""
    return [min(chunk, number - start) for start in range(0, number, chunk)]


def _estimate(log_w: Tensor, log_likelihood: Tensor, log_ratio: Tensor) -> Estimate:
    rate, distortion = log_ratio.mean(0), -log_likelihood.mean(0)
    return Estimate(
        log_likelihood=log_w.logsumexp(0) - math.log(len(log_w)),
        elbo=-distortion - rate,
        rate=rate,
        distortion=distortion,
        effective_samples=torch.exp(2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)),
    )


class _Chain(NamedTuple):
    """The state of n chains for each x: z, and the log-densities at the ends of the path with their gradients."""

    z: Tensor  # (n, batch, d)
    log_q: Tensor  # (n, batch)
    log_p: Tensor
    gradient_q: Tensor  # (n, batch, d)
    gradient_p: Tensor

    @property
    def log_w(self) -> Tensor:
        """log p(x, z) - log q(z|x) in float64."""
        return self.log_p.double() - self.log_q.double()

    def log_density(self, beta: float) -> Tensor:
        return (1 - beta) * self.log_q + beta * self.log_p

    def gradient(self, beta: float) -> Tensor:
        return (1 - beta) * self.gradient_q + beta * self.gradient_p


class _Path:
    """The densities from q(z|x) to p(x, z), and the transitions that leave them invariant.

    Args:
        decoder: z -> p(x|z).
        q: q(z|x).
        prior: p(z).
        x: Data, of shape `(batch, *event)`.

    Raises:
        ValueError: If one of them is random or has no gradient in z.
    """

    def __init__(self, decoder: Callable[[Tensor], Distribution], q: Distribution, prior: Distribution, x: Tensor):
        self.decoder, self.x = decoder, x
        self.prior, self.of_u = _unrolled(prior)
        self.q = _with_auxiliary(q, prior)
        draws = self.q.sample(torch.Size((SPREAD_DRAWS,)))
        self.size = draws.shape[-1]
        self.spread = draws.std(0)
        _check_density("q(z|x)", self.q, draws[:2])
        _check_density("p(z)", self.prior, draws[:2])

    def log_likelihood(self, z: Tensor) -> Tensor:
        """log p(x|z)."""
        return self.decoder(z[..., self.of_u :]).log_prob(self.x)

    def start(self, n: int) -> _Chain:
        """n draws of q(z|x) for each x."""
        return self.at(self.q.sample(torch.Size((n,))))

    @torch.enable_grad()
    def at(self, z: Tensor) -> _Chain:
        """Chains at given z."""
        for_q, for_p = z.detach().requires_grad_(), z.detach().requires_grad_()
        log_q = self.q.log_prob(for_q)
        log_p = self.log_likelihood(for_p) + self.prior.log_prob(for_p)
        gradients = torch.autograd.grad(log_q.sum() + log_p.sum(), (for_q, for_p))
        return _Chain(z.detach(), log_q.detach(), log_p.detach(), *gradients)

    def move(self, chain: _Chain, beta: float, size: Tensor, leapfrogs: int) -> tuple[_Chain, Tensor]:
        """A transition of Hamiltonian Monte Carlo, and the mean probability of its acceptance for each x.

        Masses are the inverse variances of q(z|x). A random factor on the step size, the same for all chains of an x,
        avoids periodic trajectories.

        Args:
            chain: Where it starts.
            beta: The temperature.
            size: Step size, of shape `(batch, 1)`.
            leapfrogs: Steps of the integrator.
        """
        step = size * (0.8 + 0.4 * torch.rand_like(size)) * self.spread
        start = momentum = torch.randn_like(chain.z)
        end = chain
        for _ in range(leapfrogs):
            momentum = momentum + 0.5 * step * end.gradient(beta)
            end = self.at(end.z + step * momentum)
            momentum = momentum + 0.5 * step * end.gradient(beta)
        kinetic = 0.5 * (start.square() - momentum.square()).sum(-1)
        log_ratio = end.log_density(beta) - chain.log_density(beta) + kinetic
        probability = log_ratio.exp().clamp(max=1).nan_to_num(0)  # not a number: the trajectory left the finite floats
        accepted = torch.rand_like(probability) < probability
        moved = [
            torch.where(accepted[..., None] if a.dim() > accepted.dim() else accepted, b, a)
            for a, b in zip(chain, end, strict=True)
        ]
        return _Chain(*moved), probability.mean(0)


def _unrolled(prior: Distribution) -> tuple[Distribution, int]:
    """p(u, z), whose marginal the prior is, and the size of u; the prior itself and 0 without a u."""
    size = 0
    while (parts := auxiliary(prior)) is not None:
        prior, size = parts.joint, size + parts.size
    return prior, size


def _with_auxiliary(q: Distribution, prior: Distribution) -> Distribution:
    """q(u|z) q(z|x), for the u of the prior."""
    while (parts := auxiliary(prior)) is not None:
        q, prior = _Reversed(q, parts.posterior, parts.size), parts.joint
    return q


class _Reversed(ShapedDistribution):
    """q(z) q(u|z) over [u, z]: a `Chain` whose second part comes first."""

    support = constraints.real_vector

    def __init__(self, first: Distribution, then: Callable[[Tensor], Distribution], size: int) -> None:
        self.first, self.then, self.size = first, then, size
        super().__init__(first.batch_shape, (size + first.event_shape[0],))

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "_Reversed":
        return _Reversed(self.first.expand(torch.Size(batch_shape)), self.then, self.size)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        z = self.first.sample(torch.Size(sample_shape))
        return torch.cat([self.then(z).sample(), z], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        u, z = value[..., : self.size], value[..., self.size :]
        return self.first.log_prob(z) + self.then(z).log_prob(u)


@torch.enable_grad()
def _check_density(name: str, distribution: Distribution, z: Tensor) -> None:
    """Refuse a density that Hamiltonian Monte Carlo cannot take.

    Raises:
        ValueError: If two calls of it differ, or it has no gradient in z.
    """
    z = z.detach().requires_grad_()
    first, second = distribution.log_prob(z), distribution.log_prob(z)
    kind = f"the log-density of {name}, a {type(distribution).__name__},"
    remedy = "anneal cannot take it, but ImportanceSampling can (--method is or refined)"
    if not torch.allclose(first, second, rtol=1e-5, atol=1e-5, equal_nan=True):
        raise ValueError(f"{kind} is random, another one at each call: {remedy}")
    gradient = torch.autograd.grad(first.sum(), z, allow_unused=True)[0] if first.requires_grad else None
    if gradient is None:
        raise ValueError(f"{kind} has no gradient in z: {remedy}")
