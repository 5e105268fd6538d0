r"""Priors with a learned energy: a base prior $\pi(z)$, which a small network makes more or less likely at each z.

A sampler with K or T draws of the base defines each density. There is no intractable constant as in other models with
an energy, and no Markov chain:

| prior | a draw of p(z) is |
|---|---|
| `SNIS` | one of K draws of $\pi$, chosen by weight $e^{-U(z)}$ |
| `Resampled` | the first of T draws of $\pi$ that is accepted, with probability $a(z)$, or the last |

With a constant network, or one draw, both are the base. The base is any module whose call returns a distribution. It is
sampled in each training step, so it should draw fast: an autoregressive flow does not.
"""

import math
from collections.abc import Callable
from copy import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, constraints

from vaepriors.distributions import Normalizer, Shape, ShapedDistribution
from vaepriors.limits import at_least_one

__all__ = ["SNIS", "Resampled", "SelfNormalized", "TruncatedRejection"]

BLOCK = 2**16  # draws that pass the network at a time where memory could run out


class _Draws(NamedTuple):
    """n draws z of a distribution, for an expectation under it that is differentiable in its parameters."""

    z: Tensor  # (n, D), with the gradient of their path
    score: Tensor | None  # (n,): log-probability of what has no path, whose gradient is a term of its own


def _draw(p: Distribution, n: int) -> _Draws:
    """Draws whose paths and scores together give the gradient of an expectation under p.

    A distribution with `rsample` has a path for all of it. A mixture has one within the component, and the component's
    log-weight as score (`rsample_and_score`). Others have only the score, which is their log-density.
    """
    partly = getattr(p, "rsample_and_score", None)
    if partly is not None:
        return _Draws(*partly((n,)))
    if p.has_rsample:
        return _Draws(p.rsample(torch.Size((n,))), None)
    z = p.sample(torch.Size((n,)))
    return _Draws(z, p.log_prob(z))


def _checked(base: Distribution) -> Distribution:
    if base.batch_shape or len(base.event_shape) != 1:
        raise ValueError(
            f"the base has batch shape {tuple(base.batch_shape)} and event shape {tuple(base.event_shape)}: give a "
            "prior, one distribution over vectors z"
        )
    return base


def _numbers(network: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The network's number of each z, in the dtype of z also under autocast."""
    numbers = network(z)
    if numbers.shape != z.shape[:-1]:
        raise ValueError(
            f"the network returned shape {tuple(numbers.shape)} for z of shape {tuple(z.shape)}: return one number for "
            f"each z, shape {tuple(z.shape[:-1])}"
        )
    return numbers.to(z.dtype)


def _blocks(total: int, size: int) -> list[int]:
    """The sizes of the blocks of a number of draws."""
    return [min(size, total - start) for start in range(0, total, size)] or [0]


class _Tilted(ShapedDistribution):
    """What the two densities share: a base distribution, and a network z -> number."""

    support = constraints.real_vector

    def __init__(self, base: Distribution, network: Callable[[Tensor], Tensor]) -> None:
        self.base, self.network = base, network
        super().__init__((), base.event_shape)

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "_Tilted":
        """The same distribution at each place of a batch."""
        expanded = copy(self)
        ShapedDistribution.__init__(expanded, batch_shape, self.event_shape)
        return expanded

    def _numbers(self, z: Tensor) -> Tensor:
        return _numbers(self.network, z)


class SelfNormalized(_Tilted):
    """The distribution of a `SNIS` prior.

    Args:
        base: $\\pi$, of batch shape `()`.
        energy: U, z -> number.
        samples: K.
    """

    def __init__(self, base: Distribution, energy: Callable[[Tensor], Tensor], samples: int) -> None:
        super().__init__(base, energy)
        self.samples = samples

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_event(value, "z")
        if self.samples == 1:
            return self._over_batch(self.base.log_prob(value))
        proposals = _draw(self.base, self.samples - 1)
        log_w, others = -self._numbers(value), -self._numbers(proposals.z)
        log_sum = torch.logaddexp(log_w, others.logsumexp(0))
        log_prob = self.base.log_prob(value) + log_w - log_sum + math.log(self.samples)
        if proposals.score is not None and proposals.score.requires_grad:
            log_prob = log_prob + self._score_term(proposals.score, others, log_sum)
        return self._over_batch(log_prob)

    def _score_term(self, score: Tensor, others: Tensor, log_sum: Tensor) -> Tensor:
        r"""Zero, with the gradient $\sum_k (\log \bar w_{-k} - \log \bar w) \nabla s_k$; $\bar w$ is the mean weight.

        The mean without draw k does not depend on it: subtracting it changes no expectation, and removes most of the
        variance.
        """
        with torch.no_grad():
            share = (others - log_sum[..., None]).exp().clamp(max=1 - torch.finfo(log_sum.dtype).eps)
            excess = torch.log1p(-share) + math.log(self.samples / (self.samples - 1))  # (..., K - 1)
        return excess @ (score - score.detach()).to(excess.dtype)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """For each draw, choose one of K draws of the base by weight: shape `(*sample_shape, *batch, D)`."""
        shape = torch.Size(sample_shape) + self.batch_shape
        z = [self._choose(n) for n in _blocks(shape.numel(), max(1, BLOCK // self.samples))]
        return torch.cat(z).view(*shape, *self.event_shape)

    def _choose(self, n: int) -> Tensor:
        z = self.base.sample(torch.Size((n, self.samples)))
        chosen = Categorical(logits=-self._numbers(z), validate_args=False).sample()
        return z[torch.arange(n, device=z.device), chosen]


class SNIS(nn.Module):
    r"""Self-normalised importance sampling with a learned energy (Lawson, Tucker, Dai & Ranganath 2019).

    $$p(z) = \mathbb{E}_{z_2, \dots, z_K \sim \pi} \left[ \frac{\pi(z)\, e^{-U(z)}}
      {\frac1K \big( e^{-U(z)} + \sum_{k=2}^K e^{-U(z_k)} \big)} \right]$$

    is exactly the density of the sampler: draw K proposals from the base $\pi$ and choose one by weight $e^{-U}$.
    `log_prob` is the logarithm of one draw of this ratio. Its exponential is unbiased, so the loss is a bound and
    importance-sampled likelihoods are unbiased, for any K.

    Each call of `log_prob` draws one set of K - 1 proposals, which all its z share: the cost of the proposals does not
    grow with the batch. Two calls differ: never subtract one from another, and never cache one. Means over a batch have
    the error of the shared set, too.

    The gradient is that of the expectation of `log_prob`, also in the parameters of the base: through the path of the
    proposals, and for what has none, such as the weights of a mixture, by its score. (It is exact for objectives that
    are linear in `log_prob`, as the ELBO is; in importance-weighted bounds the score's part has an error of order 1/K.)

    Args:
        base: Module, () -> $\pi(z)$.
        energy: U, module, z of shape `(..., D)` -> number of shape `(...)`; a constant changes nothing.
        samples: K.

    Raises:
        ValueError: If `samples` < 1.

    >>> from vaepriors import networks, priors
    >>> prior = SNIS(priors.StandardNormal(2), networks.scalar(2, [8], bias=False), samples=16)
    >>> prior().log_prob(torch.zeros(5, 2)).shape, prior().sample((3,)).shape
    (torch.Size([5]), torch.Size([3, 2]))
    """

    __call__: Callable[..., SelfNormalized]

    def __init__(self, base: nn.Module, energy: nn.Module, samples: int) -> None:
        super().__init__()
        at_least_one(samples=samples)
        self.base, self.energy, self.samples = base, energy, samples

    def forward(self) -> SelfNormalized:
        return SelfNormalized(_checked(self.base()), self.energy, self.samples)


class _Acceptance(NamedTuple):
    """Z, the probability that a draw of the base is accepted, as far as it is known."""

    log: Tensor  # log Z
    log_not: Tensor  # log(1 - Z)
    se: Tensor  # standard error of Z

    def shifted(self, errors: float) -> "_Acceptance":
        """Z moved by a number of standard errors, within (0, 1)."""
        eps = torch.finfo(self.log.dtype).eps
        z = (self.log.exp() + errors * self.se).clamp(eps, 1 - eps)
        return _Acceptance(z.log(), torch.log1p(-z), self.se)


def _estimate(logits: Tensor, score: Tensor | None) -> _Acceptance:
    """Z from the logits of n draws; the gradients of their scores count, relative to their mean."""
    n = len(logits)
    weights = logits.new_full((n,), -math.log(n)) if score is None else (score - score.detach()).log_softmax(0)
    log_z, log_not = ((F.logsigmoid(each) + weights).logsumexp(0) for each in (logits, -logits))
    a = logits.detach().sigmoid()
    return _Acceptance(log_z, log_not, (a - a.mean()).square().sum().sqrt() / n)


class TruncatedRejection(_Tilted):
    """The distribution of a `Resampled` prior.

    Args:
        base: $\\pi$, of batch shape `()`.
        logit: z -> logit of a(z).
        truncation: T.
        acceptance: Z, as far as it is known.
    """

    def __init__(
        self, base: Distribution, logit: Callable[[Tensor], Tensor], truncation: int, acceptance: _Acceptance
    ) -> None:
        super().__init__(base, logit)
        self.truncation, self.acceptance = truncation, acceptance

    @property
    def normalizer(self) -> Normalizer:
        """Z and its standard error (see `Normalizer`)."""
        return Normalizer(self.acceptance.log.exp(), self.acceptance.se)

    def shifted(self, errors: float) -> "TruncatedRejection":
        """The density with Z moved by a number of standard errors."""
        moved = copy(self)
        moved.acceptance = self.acceptance.shifted(errors)
        return moved

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_event(value, "z")
        log_not = self.acceptance.log_not
        earlier = torch.arange(self.truncation - 1, device=log_not.device) * log_not  # log(1 - Z)^t
        accepted = F.logsigmoid(self._numbers(value)) + earlier.logsumexp(0)
        weight = torch.logaddexp(accepted, (self.truncation - 1) * log_not)
        return self._over_batch(self.base.log_prob(value) + weight)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw from the base until a draw is accepted; the T-th always is: shape `(*sample_shape, *batch, D)`."""
        shape = torch.Size(sample_shape) + self.batch_shape
        z = self.base.sample(torch.Size((shape.numel(),)))
        pending = torch.arange(len(z), device=z.device)
        for _ in range(self.truncation - 1):
            a = self._numbers(z[pending]).sigmoid()
            pending = pending[torch.rand_like(a) >= a]
            if not len(pending):
                break
            z[pending] = self.base.sample(torch.Size((len(pending),)))
        return z.view(*shape, *self.event_shape)


class Resampled(nn.Module):
    r"""Learned accept/reject sampling, LARS (Bauer & Mnih 2019, Resampled priors for variational autoencoders).

    $$p(z) = \pi(z) \left[ a(z) \sum_{t=0}^{T-2} (1 - Z)^t + (1 - Z)^{T-1} \right], \qquad
      Z = \mathbb{E}_\pi[a(z)]$$

    is the density of truncated rejection sampling: each of at most T draws of the base $\pi$ is accepted with
    probability a(z), and the last one always. The sum is $(1 - (1 - Z)^{T-1}) / Z$. Samples are exact; the density
    needs Z, which each call of the module estimates:

    * In training mode, from `samples` draws of the base, with gradients (in the base's parameters as in `SNIS`).
      For large T, `log_prob` is too high by $\mathrm{Var}(\hat Z) / 2Z^2$ on average and its exponential by
      twice that share, $\mathrm{Var}(\hat Z) = \mathrm{Var}_\pi(a) / \text{samples}$: with 1024 samples,
      $5 \cdot 10^{-4}$ nats if a varies as much as its mean. So training maximises a bound up to this.
    * In evaluation mode, from `precise` draws, without gradients in Z. The distribution has Z and its standard error as
      `normalizer`, and `shifted` moves Z by standard errors: the error of all results that Z causes.

    Args:
        base: Module, () -> $\pi(z)$.
        acceptance: Module, z of shape `(..., D)` -> logit of a(z), of shape `(...)`.
        truncation: T.
        samples: Draws of the base for Z in training mode.
        precise: Draws of the base for Z in evaluation mode.

    Raises:
        ValueError: If `truncation`, `samples` or `precise` < 1.

    >>> from vaepriors import networks, priors
    >>> prior = Resampled(priors.StandardNormal(2), networks.scalar(2, [8]), truncation=10)
    >>> prior().log_prob(torch.zeros(5, 2)).shape, prior().sample((3,)).shape
    (torch.Size([5]), torch.Size([3, 2]))
    """

    __call__: Callable[..., TruncatedRejection]

    def __init__(
        self,
        base: nn.Module,
        acceptance: nn.Module,
        truncation: int = 100,
        *,
        samples: int = 1024,
        precise: int = 2**17,
    ) -> None:
        super().__init__()
        at_least_one(truncation=truncation, samples=samples, precise=precise)
        self.base, self.acceptance = base, acceptance
        self.truncation, self.samples, self.precise = truncation, samples, precise

    def forward(self) -> TruncatedRejection:
        base = _checked(self.base())
        known = self._measure(base) if self.training else self._measure_precisely(base)
        return TruncatedRejection(base, self.acceptance, self.truncation, known)

    def _measure(self, base: Distribution) -> _Acceptance:
        draws = _draw(base, self.samples)
        return _estimate(_numbers(self.acceptance, draws.z), draws.score)

    @torch.no_grad()
    def _measure_precisely(self, base: Distribution) -> _Acceptance:
        draws = (base.sample(torch.Size((n,))) for n in _blocks(self.precise, BLOCK))
        return _estimate(torch.cat([_numbers(self.acceptance, z) for z in draws]), None)
