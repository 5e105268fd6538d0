"""The estimates that chains along the path give."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.annealing.path import AnnealingPath
from vaepriors.annealing.simulation import Simulated, simulate
from vaepriors.conditional import AnyVAE, batches
from vaepriors.distributions import as_drawn
from vaepriors.likelihood import Estimate, Posterior, check_sizes
from vaepriors.limits import at_least_one
from vaepriors.numerics import fixed_numerics
from vaepriors.vae import VAE, eval_mode

__all__ = ["Annealing", "Bounds", "bidirectional"]

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

    def bounds(self, model: AnyVAE, simulated: Simulated, chunk: int) -> Bounds:
        """Bounds on log p(x), or log p(x|y), from both sides, with `chunk` chains at a time.

        Args:
            model: The model that has drawn them, with its prior held (see `VAE.hold_prior`).
            simulated: The draws, by `simulate`.
            chunk: Chains at a time.

        Raises:
            ValueError: As in `weigh`.
        """
        (x, z, y), size, parts = simulated, max(1, chunk // self.chains), []
        for (at, batch), start in zip(batches(model, x, y, size), z.split(size), strict=True):
            path = self._path(VAE(at.encoder, _AsDrawn(at.decoder), at.prior), at.prior(), batch)
            step_sizes, portions = self._tune(path), _portions(self.chains, chunk)
            up = torch.cat([self._forward(path, step_sizes, n)[0] for n in portions])
            down = torch.cat([self._backward(path, step_sizes, start, n) for n in portions])
            log_chains = math.log(self.chains)
            parts.append(Bounds(up.logsumexp(0) - log_chains, log_chains - (-down).logsumexp(0)))
        return Bounds(*map(torch.cat, zip(*parts, strict=True)))

    def _path(self, model: VAE, prior: Distribution, x: Tensor) -> AnnealingPath:
        q = model.encoder(x) if self.posterior is None else self.posterior(model.given(prior=prior), x)
        return AnnealingPath(model.decoder, q, prior, x)

    def _betas(self) -> list[float]:
        return [k / self.temperatures for k in range(self.temperatures + 1)]

    def _tune(self, path: AnnealingPath) -> list[Tensor]:
        """Step sizes of each x at the temperatures 1 to T - 1, adapted in a preliminary run with fewer chains."""
        log_size = path.x.new_full((len(path.x), 1), math.log(0.5 / path.size**0.25))
        chain, sizes = path.start(-(-self.chains // 4)), []
        for k, beta in enumerate(self._betas()[1:-1]):
            sizes.append(log_size.exp())
            chain, accepted = path.move(chain, beta, sizes[-1], self.leapfrogs)
            log_size = log_size + (accepted - ACCEPTANCE)[:, None] / (1 + k / 10) ** 0.5
        return sizes

    def _forward(self, path: AnnealingPath, step_sizes: list[Tensor], n: int) -> tuple[Tensor, ...]:
        """log w of n chains for each x, and log p(x|z) and log q - log p of their first draws: `(n, batch)` each."""
        chain, betas = path.start(n), self._betas()
        first, log_w = chain, torch.zeros_like(chain.log_w)
        for k in range(1, self.temperatures + 1):
            log_w = log_w + (betas[k] - betas[k - 1]) * chain.log_w
            if k < self.temperatures:
                chain, _ = path.move(chain, betas[k], step_sizes[k - 1], self.leapfrogs)
        log_likelihood = path.log_likelihood(first.z).double()
        return log_w, log_likelihood, log_likelihood - first.log_w

    def _backward(self, path: AnnealingPath, step_sizes: list[Tensor], z: Tensor, n: int) -> Tensor:
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
def bidirectional(
    model: AnyVAE,
    n: int = 100,
    annealing: Annealing | None = None,
    *,
    chunk: int | None = None,
    condition: Tensor | None = None,
) -> Bounds:
    """Bounds on log p(x) from both sides, on data that the model draws.

    Args:
        model: The model, in evaluation mode during the call.
        n: How many x to draw.
        annealing: The method; `Annealing()` unless given.
        chunk: Chains at a time; by default, what suits the model and the device.
        condition: The y that the x are drawn given, of shape `(N, c)`, for a `ConditionalVAE`: in their order, and from
            the first again where n is larger than N. The bounds are on log p(x|y).

    Raises:
        ValueError: If `n` < 1, conditions are missing or not those of the model, or the method cannot be used with the
            model.

    >>> from vaepriors import networks, priors
    >>> encoder, decoder = networks.Encoder((1, 4, 4), [16], latent=2), networks.Decoder((1, 4, 4), [16], latent=2)
    >>> model = VAE(encoder, decoder, priors.StandardNormal(2))
    >>> bidirectional(model, 20, Annealing(temperatures=100)).gap < 0.1
    True
    """
    annealing = annealing or Annealing()
    with eval_mode(model):
        known = model.hold_prior()
        simulated = simulate(known, n, condition)
        chunk = check_sizes(model, simulated.x, annealing.draws, chunk)
        return annealing.bounds(known, simulated, chunk)


class _AsDrawn(nn.Module):
    """z -> the distribution that the decoder's draws follow."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, z: Tensor) -> Distribution:
        return as_drawn(self.decoder(z))


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
