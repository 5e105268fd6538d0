"""Truncated rejection sampling with a learned acceptance probability."""

import math
from collections.abc import Callable
from copy import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.distributions import Normalizer, Shape
from vaepriors.limits import at_least_one
from vaepriors.priors.tilted import BLOCK, Tilted, blocks, check_base, checked, draw, numbers_of

__all__ = ["Resampled", "TruncatedRejection"]


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
    """Z in float64 from the logits of n draws; the gradients of their scores count, relative to their mean.

    The density has the power T - 1 of 1 - Z, which enlarges the error of its logarithm as many times.
    """
    n, logits = len(logits), logits.double()
    weights = logits.new_full((n,), -math.log(n)) if score is None else (score - score.detach()).double().log_softmax(0)
    log_z, log_not = ((F.logsigmoid(each) + weights).logsumexp(0) for each in (logits, -logits))
    a = logits.detach().sigmoid()
    return _Acceptance(log_z, log_not, (a - a.mean()).square().sum().sqrt() / n)


class TruncatedRejection(Tilted):
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
        return self._over_batch(self.base.log_prob(value) + weight.to(value.dtype))

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
        ValueError: If `truncation`, `samples` or `precise` < 1, or the base is made of training examples, as an
            `ExemplarPrior` is.

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
        self.base, self.acceptance = check_base(base), acceptance
        self.truncation, self.samples, self.precise = truncation, samples, precise

    def forward(self) -> TruncatedRejection:
        base = checked(self.base())
        known = self._measure(base) if self.training else self._measure_precisely(base)
        return TruncatedRejection(base, self.acceptance, self.truncation, known)

    def _measure(self, base: Distribution) -> _Acceptance:
        draws = draw(base, self.samples)
        return _estimate(numbers_of(self.acceptance, draws.z), draws.score)

    @torch.no_grad()
    def _measure_precisely(self, base: Distribution) -> _Acceptance:
        draws = (base.sample(torch.Size((n,))) for n in blocks(self.precise, BLOCK))
        return _estimate(torch.cat([numbers_of(self.acceptance, z) for z in draws]), None)
