r"""Importance-sampled likelihoods and bounds, streamed over draws.

With S draws $z_s \sim q(z|x)$ and their log-weights (see `vaepriors.vae`),

$$\log p(x) \approx \log \sum_s w_s - \log S$$

(Burda, Grosse & Salakhutdinov 2016; S = 5,000 in Tomczak & Welling 2018). The estimate is a lower bound in
expectation, and its exponential is unbiased. The effective sample size of the weights,
$(\sum w_s)^2 / \sum w_s^2$, says how reliable it is: near 1, a single draw dominates and more draws are needed.

The prior's components are computed once per call, and the encoder once per image. Memory depends on `chunk`, not on S.

    ImportanceSampling(5000)                  draws from q(z|x)
    ImportanceSampling(5000, Refinement())    draws from a posterior fitted to each x (`vaepriors.refinement`)
    Annealing()                               chains of draws from q(z|x) to p(z|x) (`vaepriors.annealing`)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaepriors.agreement import check_dtype, check_posterior, check_prior
from vaepriors.conditional import AnyVAE, batches, check_condition, given
from vaepriors.distributions import check_support, completed, outside, support_of
from vaepriors.limits import at_least_one, check_size
from vaepriors.numerics import fixed_numerics, keep_generators
from vaepriors.priors import VHP
from vaepriors.vae import VAE, Terms, at_device_of, eval_mode

__all__ = [
    "Estimate",
    "ImportanceSampling",
    "Method",
    "Posterior",
    "bits_per_dim",
    "check_sizes",
    "estimate",
    "log_likelihood",
    "weigh",
]


class Estimate(NamedTuple):
    """Estimates from S draws for each x, of shape `(batch,)`; in nats, except the last."""

    log_likelihood: Tensor  # log mean w
    elbo: Tensor  # mean log w
    rate: Tensor  # mean of log q(z|x) - log p(z)
    distortion: Tensor  # - mean of log p(x|z)
    effective_samples: Tensor  # between 1 and S


class Posterior(Protocol):
    """What returns q(z|x) in place of the encoder, such as `vaepriors.refinement.Refinement`."""

    @property
    def draws(self) -> int:
        """Pairs of x and z that it decodes at a time for each x."""
        ...

    def __call__(self, model: VAE, x: Tensor) -> Distribution: ...


class Method(Protocol):
    """How log p(x) is estimated: `ImportanceSampling`, or `vaepriors.annealing.Annealing`."""

    @property
    def draws(self) -> int:
        """Pairs of x and z for each x at a time: it handles chunk / draws examples together."""
        ...

    def weigh(
        self, model: VAE, prior: Distribution, x: Tensor, chunk: int, progress: Callable[[int], None]
    ) -> Estimate:
        """The estimates of each x under a given prior distribution, `chunk` pairs at a time."""
        ...


def _ignore(images: int) -> None:
    """The default progress: nothing is reported."""


@fixed_numerics()
@torch.no_grad()
def estimate(
    model: AnyVAE,
    x: Tensor,
    samples: int | Method = 5000,
    *,
    chunk: int | None = None,
    progress: Callable[[int], None] = _ignore,
    condition: Tensor | None = None,
) -> Estimate:
    """Estimate log p(x), the ELBO, rate and distortion from the same draws.

    Args:
        model: The model, in evaluation mode during the call.
        x: Data, of shape `(batch, *event)`, on any device; the estimates are on that of the model.
        samples: S, the draws of z for each x from q(z|x); or another method, such as
            `ImportanceSampling(5000, Refinement())` or `Annealing()`.
        chunk: Pairs (x, z) decoded at a time; by default, what suits the model and the device. It bounds the memory and
            changes results only through the order of the draws, and the number of sets of proposals of a `SNIS` prior.
        progress: Called with the number of images just finished.
        condition: The y of each x, of shape `(batch, c)`, for a `ConditionalVAE`; the estimates are of log p(x|y).

    Raises:
        ValueError: If `samples` < 1, `chunk` < 1, x is empty, a chunk does not fit into memory, x and the model differ
            in dtype, conditions are missing or not those of the model, x or z has values outside the support of p(x|z)
            or p(z), or the method cannot be used with the model.
    """
    check_dtype(x)
    x = at_device_of(model, x)
    method: Any = samples if hasattr(samples, "weigh") else ImportanceSampling(samples)
    chunk = check_sizes(model, x, method.draws, chunk)
    with eval_mode(model):
        check_condition(model, condition, len(x))
        first = None if condition is None else condition[:1].to(x)
        z = _check_data(given(model, first), x)
        known = model.hold_prior()
        _check_codes(given(known, first).prior(), z)
        return weigh(method, known, x, condition, chunk, progress)


def weigh(
    method: Method,
    model: AnyVAE,
    x: Tensor,
    condition: Tensor | None,
    chunk: int,
    progress: Callable[[int], None],
) -> Estimate:
    """The estimates of each x given its condition, if there is one, by a method of `chunk` pairs at a time."""
    if condition is None:
        return method.weigh(given(model, None), model.prior(), x, chunk, progress)
    size = max(1, chunk // method.draws)  # as many as a method takes together
    parts = [method.weigh(at, at.prior(), some, chunk, progress) for at, some in batches(model, x, condition, size)]
    return Estimate(*map(torch.cat, zip(*parts, strict=True)))


def check_sizes(model: AnyVAE, x: Tensor, samples: int, chunk: int | None) -> int:
    """Check the sizes, and return the chunk: the given one, or what suits the model and the device."""
    chunk = _chunk(model, x.device) if chunk is None else chunk
    at_least_one(**{"samples": samples, "chunk": chunk, "the number of images": len(x)})
    pairs, size = min(chunk, samples * len(x)), x[0].numel() * x.element_size()
    of_u = 4 * max((part.samples for part in model.modules() if isinstance(part, VHP)), default=0)
    what = f"decoding {pairs} pairs at a time (a smaller chunk takes less), with the prior's own draws,"
    check_size(what, pairs * (size + of_u), x.device)
    return chunk


def _check_data(model: VAE, x: Tensor) -> Tensor:
    """Compare dtype and values of x with the model, once for an evaluation: a look at values reads the device.

    Returns:
        Draws of z for the first x, of shape `(100, 1, latent)`.
    """
    dtype = next((p.dtype for p in model.parameters()), x.dtype)
    if x.dtype != dtype:
        raise ValueError(f"x is {x.dtype} and the model {dtype}: convert one of them, for example with x.to({dtype})")
    try:
        with keep_generators(x):
            z = check_posterior(model.encoder(x[:1])).sample((100,))
            likelihood = model.decoder(z[0])
    except (ValueError, RuntimeError) as error:  # of a posterior whose parameters are NaN
        if not x[0].isfinite().all():
            raise ValueError(_not_finite(x)) from error
        raise
    if support_of(likelihood) is not None:
        x = completed(likelihood, x)
        if not x.isfinite().all():
            raise ValueError(_not_finite(x))
        check_support(likelihood, x, outside(likelihood, x))
    return z


def _check_codes(prior: Distribution, z: Tensor) -> None:
    """Refuse draws of q(z|x) outside of the support of p(z), unless it has the density 0 there, as it should."""
    wrong = outside(check_prior(prior, z), z) & z.isfinite().all(-1)
    if wrong.any() and not _vanishes(prior, z, wrong):
        raise ValueError(
            f"draws of q(z|x) are outside the support of p(z), {support_of(prior)}: give the encoder a distribution on "
            "this support, or the model another prior"
        )


def _vanishes(prior: Distribution, z: Tensor, wrong: Tensor) -> bool:
    try:
        return bool((prior.log_prob(z)[wrong] == -math.inf).all())
    except ValueError:  # torch's own check of values
        return False


def _not_finite(x: Tensor) -> str:
    rows = (~x.flatten(1).isfinite()).any(1).nonzero().flatten().tolist()
    return (
        f"{len(rows)} of {len(x)} x have values that are not finite, the first in row {rows[0]}: repair or remove them"
    )


@dataclass(frozen=True)
class ImportanceSampling:
    """Independent draws of z for each x, from q(z|x) or from another posterior.

    Args:
        samples: S, the draws for each x.
        posterior: What returns the posterior, called with the model and some x; the encoder unless given.

    Raises:
        ValueError: If `samples` < 1.
    """

    samples: int = 5000
    posterior: Posterior | None = None

    def __post_init__(self) -> None:
        at_least_one(samples=self.samples)

    @property
    def draws(self) -> int:
        """Pairs of x and z for each x at a time: all, or those in a step of the posterior's fit."""
        return self.samples if self.posterior is None else self.posterior.draws

    def weigh(
        self, model: VAE, prior: Distribution, x: Tensor, chunk: int, progress: Callable[[int], None]
    ) -> Estimate:
        """The estimates of each x under a given prior distribution, `chunk` pairs at a time (see `estimate`)."""
        parts = []
        for batch in x.split(max(1, chunk // self.draws)):
            draws = max(1, min(self.samples, chunk // len(batch)))
            q = model.encoder(batch) if self.posterior is None else self.posterior(model.given(prior=prior), batch)
            known, sums, left = model.given(q, prior), _Sums(batch), self.samples
            while left:
                n = min(draws, left)
                sums.add(known(batch, n))
                left -= n
            parts.append(sums.estimate(self.samples))
            progress(len(batch))
        return Estimate(*map(torch.cat, zip(*parts, strict=True)))


def _chunk(model: AnyVAE, device: torch.device) -> int:
    """The number of pairs for which the device is fast: on a CPU with convolutions, few enough for the cache."""
    if device.type != "cpu":
        return 10_000  # 10 GiB of features of the ConvHVAE
    return 64 if any(parameter.dim() == 4 for parameter in model.decoder.parameters()) else 1000


class _Sums:
    """Sums over draws in float64: the logarithms of those of w and w^2, and those of the two parts of log w."""

    def __init__(self, x: Tensor) -> None:
        zero = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        self.log_w, self.log_w2 = zero - math.inf, zero - math.inf
        self.log_likelihood, self.log_ratio = zero.clone(), zero.clone()

    def add(self, terms: Terms) -> None:
        log_likelihood, log_ratio = terms.log_likelihood.double(), terms.log_ratio.double()
        log_w = log_likelihood - log_ratio  # (n, images)
        self.log_w = torch.logaddexp(self.log_w, log_w.logsumexp(0))
        self.log_w2 = torch.logaddexp(self.log_w2, (2 * log_w).logsumexp(0))
        self.log_likelihood += log_likelihood.sum(0)
        self.log_ratio += log_ratio.sum(0)

    def estimate(self, samples: int) -> Estimate:
        rate, distortion = self.log_ratio / samples, -self.log_likelihood / samples
        return Estimate(
            log_likelihood=self.log_w - math.log(samples),
            elbo=-distortion - rate,
            rate=rate,
            distortion=distortion,
            effective_samples=torch.exp(2 * self.log_w - self.log_w2),
        )


def log_likelihood(
    model: AnyVAE,
    x: Tensor,
    samples: int = 5000,
    *,
    chunk: int | None = None,
    condition: Tensor | None = None,
) -> Tensor:
    """Importance-sampled log p(x) of each x, of shape `(batch,)`, in nats (see `estimate`)."""
    return estimate(model, x, samples, chunk=chunk, condition=condition).log_likelihood


def bits_per_dim(nats: float, dimensions: int) -> float:
    """Nats of an image of `dimensions` pixels as bits per pixel, nats / (D ln 2).

    >>> bits_per_dim(math.log(256) * 560, 560)
    8.0
    """
    return nats / (dimensions * math.log(2))
