"""The densities from q(z|x) to p(x, z), and the transitions of Hamiltonian Monte Carlo that leave them invariant."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaepriors.distributions import Shape, ShapedDistribution, auxiliary
from vaepriors.words import a_type

__all__ = ["AnnealingPath", "Chains", "unrolled"]

SPREAD_DRAWS = 64  # for the standard deviation of q(z|x) along each axis


class Chains(NamedTuple):
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


class AnnealingPath:
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
        self.prior, self.of_u = unrolled(prior)
        self.q = _with_auxiliary(q, prior)
        draws = self.q.sample(torch.Size((SPREAD_DRAWS,)))
        self.size = draws.shape[-1]
        self.spread = draws.std(0)
        _check_density("q(z|x)", self.q, draws[:2])
        _check_density("p(z)", self.prior, draws[:2])

    def log_likelihood(self, z: Tensor) -> Tensor:
        """log p(x|z)."""
        return self.decoder(z[..., self.of_u :]).log_prob(self.x)

    def start(self, n: int) -> Chains:
        """n draws of q(z|x) for each x."""
        return self.at(self.q.sample(torch.Size((n,))))

    @torch.enable_grad()
    def at(self, z: Tensor) -> Chains:
        """Chains at given z."""
        for_q, for_p = z.detach().requires_grad_(), z.detach().requires_grad_()
        log_q = self.q.log_prob(for_q)
        log_p = self.log_likelihood(for_p) + self.prior.log_prob(for_p)
        gradients = torch.autograd.grad(log_q.sum() + log_p.sum(), (for_q, for_p))
        return Chains(z.detach(), log_q.detach(), log_p.detach(), *gradients)

    def move(self, chain: Chains, beta: float, size: Tensor, leapfrogs: int) -> tuple[Chains, Tensor]:
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
        return Chains(*moved), probability.mean(0)


def unrolled(prior: Distribution) -> tuple[Distribution, int]:
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
    kind = f"the log-density of {name}, {a_type(distribution)},"
    remedy = "anneal cannot take it, but ImportanceSampling can (--method is or refined)"
    if not torch.allclose(first, second, rtol=1e-5, atol=1e-5, equal_nan=True):
        raise ValueError(f"{kind} is random, another one at each call: {remedy}")
    gradient = torch.autograd.grad(first.sum(), z, allow_unused=True)[0] if first.requires_grad else None
    if gradient is None:
        raise ValueError(f"{kind} has no gradient in z: {remedy}")
