"""Self-normalised importance sampling with a learned energy."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from vaepriors.distributions import Shape
from vaepriors.limits import at_least_one
from vaepriors.priors.tilted import BLOCK, Tilted, blocks, check_base, checked, draw

__all__ = ["SNIS", "SelfNormalized"]


class SelfNormalized(Tilted):
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
        proposals = draw(self.base, self.samples - 1)
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
        z = [self._choose(n) for n in blocks(shape.numel(), max(1, BLOCK // self.samples))]
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
    the error of the shared set, too. So has an importance-sampled likelihood: the draws of a chunk share a set, and
    only a larger K or smaller chunks reduce its error, which the effective sample size does not show.

    The gradient is that of the expectation of `log_prob`, also in the parameters of the base: through the path of the
    proposals, and for what has none, such as the weights of a mixture, by its score. (It is exact for objectives that
    are linear in `log_prob`, as the ELBO is; in importance-weighted bounds the score's part has an error of order 1/K.)

    Args:
        base: Module, () -> $\pi(z)$.
        energy: U, module, z of shape `(..., D)` -> number of shape `(...)`; a constant changes nothing.
        samples: K.

    Raises:
        ValueError: If `samples` < 1, or the base is made of training examples, as an `ExemplarPrior` is.

    >>> from vaepriors import networks, priors
    >>> prior = SNIS(priors.StandardNormal(2), networks.scalar(2, [8], bias=False), samples=16)
    >>> prior().log_prob(torch.zeros(5, 2)).shape, prior().sample((3,)).shape
    (torch.Size([5]), torch.Size([3, 2]))
    """

    __call__: Callable[..., SelfNormalized]

    def __init__(self, base: nn.Module, energy: nn.Module, samples: int) -> None:
        super().__init__()
        at_least_one(samples=samples)
        self.base, self.energy, self.samples = check_base(base), energy, samples

    def forward(self) -> SelfNormalized:
        return SelfNormalized(checked(self.base()), self.energy, self.samples)
