"""The importance-weighted bound, with three estimators of its gradient."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaepriors.agreement import check_dtype, check_posterior
from vaepriors.limits import at_least_one
from vaepriors.objectives.base import Objective
from vaepriors.vae import VAE, Terms

__all__ = ["IWAE"]


class IWAE(Objective):
    r"""Negative importance-weighted bound (Burda, Grosse & Salakhutdinov 2016, eq. 8).

    $$\text{loss} = -\text{mean}\, \log \frac1K \sum_k w_k, \qquad
      \nabla = -\text{mean} \sum_k \tilde w_k \nabla \log w_k, \quad \tilde w = \text{softmax}(\log w)$$

    Estimators of the encoder's gradient; those of all other parameters are the same for the three:

    * `plain`: as above. Its signal-to-noise ratio falls as $1/\sqrt K$ (Rainforth et al. 2018).
    * `stl`: without the score term of log q(z|x) (Roeder, Wu & Duvenaud 2017): less noise, but biased for K > 1.
    * `dreg`: with $\tilde w_k^2$ in place of $\tilde w_k$ on the path through the draws (Tucker et al. 2019, eq. 5):
      unbiased, and its signal-to-noise ratio grows as $\sqrt K$.

    The last two call the lower level of a `Chain` twice, so it must have no dropout.

    With `groups` M > 1 it is the mean of M bounds of K draws each (MIWAE of Rainforth et al. 2018); with a weight
    $b$ > 0 it is $b$ ELBO $+ (1 - b)$ bound (their CIWAE).

    Args:
        samples: K.
        estimator: `plain`, `stl` or `dreg`.
        groups: M; M K draws are taken for each x.
        elbo_weight: b, between 0 and 1.

    Raises:
        ValueError: If `samples` < 1, `groups` < 1, `estimator` is unknown, or `elbo_weight` is outside [0, 1].

    >>> import torch
    >>> from vaepriors import networks, priors
    >>> model = VAE(networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2), priors.StandardNormal(2))
    >>> loss, terms = IWAE(samples=50)(model, torch.ones(10, 4))
    >>> bool(loss.isclose(-terms.bound.mean()))
    True
    """

    def __init__(self, samples: int, estimator: str = "plain", groups: int = 1, *, elbo_weight: float = 0.0) -> None:
        if estimator not in ("plain", "stl", "dreg"):
            raise ValueError(f"unknown estimator '{estimator}': choose one of plain, stl, dreg")
        at_least_one(samples=samples, groups=groups)
        if not 0 <= elbo_weight <= 1:
            raise ValueError(f"elbo_weight is {elbo_weight}: it must be within [0, 1]")
        if estimator == "dreg" and elbo_weight > 0:
            raise ValueError("dreg is an estimator for the bound alone: leave elbo_weight at 0, or choose plain or stl")
        super().__init__(samples * groups)
        self.estimator, self.groups, self.elbo_weight = estimator, groups, elbo_weight

    def extra_repr(self) -> str:
        options = f"estimator={self.estimator}, groups={self.groups}, elbo_weight={self.elbo_weight}"
        return f"samples={self.samples // self.groups}, {options}"

    def forward(self, model: VAE, x: Tensor) -> tuple[Tensor, Terms]:
        terms = model(x, self.samples) if self.estimator == "plain" else self._without_score(model, x)
        terms = self.check_first(x, terms)
        log_weight = terms.log_weight.unflatten(0, (self.groups, -1))  # (M, K, *batch)
        if self.estimator == "dreg" and terms.z is not None and terms.z.requires_grad:
            share = log_weight.detach().softmax(1).flatten(0, 1)[..., None]
            terms.z.register_hook(lambda gradient: gradient * share)
        bound = log_weight.logsumexp(1).mean() - math.log(log_weight.shape[1])
        return -(self.elbo_weight * log_weight.mean() + (1 - self.elbo_weight) * bound), terms

    def _without_score(self, model: VAE, x: Tensor) -> Terms:
        """Terms in which the gradient of log q(z|x) has no score term, the gradient at fixed z.

        The score term has mean zero. The values are the same, and the gradient reaches the encoder through the draws
        only. The encoder is called once: in a second call, dropout would give the density of another posterior.
        """
        check_dtype(x)
        posterior = check_posterior(model.encoder(x))
        z = posterior.rsample((self.samples,))
        return model.weigh(x, z, _log_prob_of_draws(posterior, z))


def _log_prob_of_draws(q: Distribution, z: Tensor) -> Tensor:
    """log q(z), whose only gradient is that in z."""
    if not torch.is_grad_enabled():
        return q.log_prob(z)
    fixed = z.detach().requires_grad_()
    log_q = q.log_prob(fixed)
    (slope,) = torch.autograd.grad(log_q.sum(), fixed)
    return log_q.detach() + (slope * (z - fixed.detach())).sum(-1)
