r"""Which units of a latent space are used.

A unit j of z is active if its posterior mean follows the data, $\mathrm{Var}_x(\mathbb{E}_q[z_j|x]) > 0.01$
(Burda, Grosse & Salakhutdinov 2016, section 5.2): `activity`, `active_units`.

`divergence_of_units` measures the same in nats, $\mathbb{E}_x KL(q(z_j|x) \,\|\, p(z_j))$ (Klushyn et al. 2019,
figure 21). `responsibilities` shows which components of a mixture the codes use, $p(k|z) \propto w_k p_k(z)$.
"""

import math
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from vaepriors.conditional import AnyVAE, batches
from vaepriors.distributions import Chain, NormalMixture, factors, marginal_log_prob, point_estimate
from vaepriors.vae import eval_mode

__all__ = ["active_units", "activity", "divergence_of_units", "levels", "responsibilities"]


@torch.no_grad()
def activity(
    model: AnyVAE, x: Tensor, n: int | None = None, *, chunk: int = 1000, condition: Tensor | None = None
) -> Tensor:
    r"""$\mathrm{Var}_x(\mathbb{E}_q[z_j|x])$ of each unit, of shape `(latent,)`.

    If q(z|x), or the upper level of a chain, has a mean in closed form, it is used. The mean of a lower level is that
    of q(z1|x, z2) averaged over draws of z2. Otherwise draws are averaged. The covariance over x of two such averages
    over independent draws is an unbiased estimate of the variance: a unit that does not follow x has an activity near
    zero.

    Args:
        model: The model.
        x: Data, of shape `(batch, *event)`, at least two.
        n: Draws in each of the two averages; by default 32, or more for few examples.
        chunk: Examples encoded at a time.
        condition: The y of each x, for a `ConditionalVAE`.

    Raises:
        ValueError: If there are fewer than two examples.
    """
    if len(x) < 2:
        raise ValueError(f"a variance over {len(x)} example is not defined: give at least 2")
    n = max(32, 10_000 // len(x)) if n is None else n  # the error of a collapsed unit is about 1 / (n sqrt(batch))
    with eval_mode(model):
        means = [_two_means(at.encoder(batch), n) for at, batch in batches(model, x, condition, chunk)]
    first, second = torch.cat(means, dim=1).double()  # (batch, latent) each
    return ((first - first.mean(0)) * (second - second.mean(0))).sum(0) / (len(x) - 1)


def _two_means(q: Distribution, n: int) -> Tensor:
    """Two estimates of E_q[z], of shape `(2, batch, latent)`: independent, or exact if the mean is known."""
    if isinstance(q, Chain):
        below = point_estimate(q.then(q.first.sample((2, n)))).mean(1)
        return torch.cat([_two_means(q.first, n), below], -1)
    try:
        return torch.stack([q.mean, q.mean])
    except NotImplementedError:
        return q.sample((2, n)).mean(1)


def active_units(model: AnyVAE, x: Tensor, threshold: float = 0.01, *, condition: Tensor | None = None) -> int:
    """The number of units whose activity is above the threshold (see `activity`).

    Raises:
        ValueError: If there are fewer than two examples, or an activity is not a number.
    """
    values = activity(model, x, condition=condition)
    if values.isnan().any():
        raise ValueError("the activity of a unit is not a number: look for NaN in x and in the means of q(z|x)")
    return int((values > threshold).sum())


def levels(posterior: Distribution) -> dict[str, slice]:
    """The levels of z in a posterior, top first, and their places in z: `z`, or `z2` and `z1` of a chain."""
    sizes = getattr(posterior, "sizes", posterior.event_shape)
    ends = list(accumulate(sizes, initial=0))
    names = [f"z{level}" for level in range(len(sizes), 0, -1)] if len(sizes) > 1 else ["z"]
    return {name: slice(*place) for name, place in zip(names, pairwise(ends), strict=True)}


@torch.no_grad()
def divergence_of_units(
    model: AnyVAE, x: Tensor, n: int = 4, *, chunk: int = 100, condition: Tensor | None = None
) -> dict[str, Tensor]:
    r"""$\mathbb{E}_x KL(q(z_j|x) \,\|\, p(z_j))$ of each unit of each level, in nats (Klushyn et al. 2019, figure 21).

    The lower level of a chain is given the upper one, $\mathbb{E}\, KL(q(z_{1j}|x, z_2) \,\|\, p(z_{1j}|z_2))$.
    If the units of a prior are dependent (mixtures), $p(z_j)$ is the marginal, and the sum over units is not the rate.
    The marginals of z under a `VHP` are unknown; those of its own latent variables u are reported instead. For any
    other distribution whose marginals are unknown (flows), the values of that level are NaN.

    Args:
        model: The model.
        x: Data, of shape `(batch, *event)`.
        n: Draws of z for each example.
        chunk: Examples at a time.
        condition: The y of each x, for a `ConditionalVAE`.

    Returns:
        By name of the level (`z`; `z2` and `z1`; `u`), a mean for each unit, float64; NaN where it is unknown.
    """
    sums: dict[str, Tensor] = {}
    with eval_mode(model):
        for at, some in batches(model.hold_prior(), x, condition, chunk):
            q = at.encoder(some)
            for name, parts in _by_level(q, at.prior(), q.sample((n,))).items():
                sums[name] = sums.get(name, torch.zeros(())) + parts.double().mean(0).sum(0)
    return {name: total / len(x) for name, total in sums.items()}


def _by_level(q: Distribution, p: Distribution, z: Tensor) -> dict[str, Tensor]:
    """log q(z_j|x) - log p(z_j) of draws, by level, each of shape `(n, batch, units)`."""
    posteriors, priors = factors(q, z), factors(p, z)
    if posteriors.keys() != priors.keys():  # a chain and one distribution of all levels
        return {"z": torch.full_like(z, math.nan)}
    ratios: dict[str, Tensor] = {}
    for name, (posterior, part) in posteriors.items():
        ratios |= _of_level(name, posterior, priors[name][0], part)
    return ratios


def _of_level(name: str, q: Distribution, p: Distribution, z: Tensor) -> dict[str, Tensor]:
    posterior_and_prior = getattr(p, "posterior_and_prior", None)
    if posterior_and_prior is not None:  # p is a `Marginal`, with its own level u
        inner, prior = posterior_and_prior(z)
        return {"u" + key.removeprefix("z"): value for key, value in _by_level(inner, prior, inner.sample()).items()}
    log_q, log_p = marginal_log_prob(q, z), marginal_log_prob(p, z)
    return {name: torch.full_like(z, math.nan) if log_q is None or log_p is None else log_q - log_p}


@torch.no_grad()
def responsibilities(mixture: NormalMixture, z: Tensor, chunk: int = 50) -> Tensor:
    r"""Mean responsibility of a component, $\frac1B \sum_b p(k|z_b)$ with $p(k|z) \propto w_k N(z; \mu_k, \sigma_k)$.

    Args:
        mixture: Of K components, with one set of weights.
        z: Codes, of shape `(B, latent)`.
        chunk: Codes at a time, at most; fewer for thousands of components.

    Returns:
        Of shape `(K,)`; they sum to one.
    """
    chunk = min(chunk, max(1, 2**24 // mixture.loc.numel()))
    normal, log_w = Normal(mixture.loc.double(), mixture.scale.double()), mixture.logits.double().log_softmax(-1)
    parts = [(normal.log_prob(some[:, None].double()).sum(-1) + log_w).softmax(-1).sum(0) for some in z.split(chunk)]
    return torch.stack(parts).sum(0) / len(z)
