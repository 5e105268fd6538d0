"""Which units of a latent space are used."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaepriors.distributions import Chain, DiagonalNormal, NormalMixture, point_estimate
from vaepriors.vae import VAE, Marginal, eval_mode

__all__ = ["active_units", "activity", "divergence_of_units", "levels", "responsibilities"]


@torch.no_grad()
def activity(model: VAE, x: Tensor, n: int | None = None, chunk: int = 1000) -> Tensor:
    r"""$\mathrm{Var}_x(\mathbb{E}_q[z_j|x])$ of each unit, of shape `(latent,)`.

    The posterior mean is exact where q(z|x) has one, also for the upper level of a chain. The mean of a lower level is
    that of q(z1|x, z2) averaged over draws of z2; of a posterior without a mean in closed form, draws are averaged. The
    covariance over x of two such averages over independent draws estimates the variance without bias, and a unit that
    does not follow x has an activity near zero.

    Args:
        model: The model.
        x: Data, of shape `(batch, *event)`, at least two.
        n: Draws in each of the two averages; 32, or more for few examples, unless given.
        chunk: Examples encoded at a time.

    Raises:
        ValueError: If there are fewer than two examples.
    """
    if len(x) < 2:
        raise ValueError(f"a variance over {len(x)} example is not defined: give at least 2")
    n = max(32, 10_000 // len(x)) if n is None else n  # the error of a collapsed unit is about 1 / (n sqrt(batch))
    with eval_mode(model):
        means = [_two_means(model.encoder(batch), n) for batch in x.split(chunk)]
    first, second = torch.cat(means, dim=1).double()  # (batch, latent) each
    return ((first - first.mean(0)) * (second - second.mean(0))).sum(0) / (len(x) - 1)


def _two_means(q: Distribution, n: int) -> Tensor:
    """Two estimates of E_q[z], shape `(2, batch, latent)`: independent, or both exact where the mean is known."""
    if isinstance(q, Chain):
        below = point_estimate(q.then(q.first.sample((2, n)))).mean(1)
        return torch.cat([_two_means(q.first, n), below], -1)
    try:
        return torch.stack([q.mean, q.mean])
    except NotImplementedError:
        return q.sample((2, n)).mean(1)


def active_units(model: VAE, x: Tensor, threshold: float = 0.01) -> int:
    """The number of units whose activity is above the threshold (see `activity`)."""
    return int((activity(model, x) > threshold).sum())


def levels(posterior: Distribution) -> dict[str, slice]:
    """The levels of z in a posterior, top first, and where each stands in z: `z`, or `z2` and `z1` of a chain."""
    size = posterior.event_shape[0]
    if isinstance(posterior, Chain):
        return {"z2": slice(0, posterior.split), "z1": slice(posterior.split, size)}
    return {"z": slice(0, size)}


@torch.no_grad()
def divergence_of_units(model: VAE, x: Tensor, n: int = 4, chunk: int = 100) -> dict[str, Tensor]:
    r"""$\mathbb{E}_x KL(q(z_j|x) \,\|\, p(z_j))$ of each unit of each level, in nats (Klushyn et al. 2019, figure 21).

    Of a chain the lower level is taken given the upper one, $\mathbb{E}\, KL(q(z_{1j}|x, z_2) \,\|\, p(z_{1j}|z_2))$.
    For priors that are not independent across units (mixtures), $p(z_j)$ is the marginal law, and the sum over units is
    not the rate. A `VHP` has no such law for z; its own latent variables u have, and are told instead.

    Args:
        model: The model, its posteriors normal with diagonal covariance, or chains of such.
        x: Data, of shape `(batch, *event)`.
        n: Draws of z for each example.
        chunk: Examples at a time.

    Returns:
        By name of the level (`z`; `z2` and `z1`; `u`), a mean for each unit, float64.
    """
    sums: dict[str, Tensor] = {}
    with eval_mode(model):
        prior = model.prior()
        for some in x.split(chunk):
            for name, parts in _by_level(model.encoder(some), prior, n).items():
                sums[name] = sums.get(name, torch.zeros((), device=x.device)) + parts.double().mean(0).sum(0)
    return {name: total / len(x) for name, total in sums.items()}


def _by_level(q: Distribution, p: Distribution, n: int) -> dict[str, Tensor]:
    """log q(z_j|x) - log p(z_j) of n draws, by level, each of shape `(n, batch, units)`."""
    if isinstance(q, Chain) and isinstance(p, Chain):
        top = q.first.sample((n,))
        found = _of_level("z2", q.first, p.first, top)
        below = q.then(top)
        return found | _of_level("z1", below, p.then(top), below.sample())
    return _of_level("z", q, p, q.sample((n,)))


def _of_level(name: str, q: Distribution, p: Distribution, z: Tensor) -> dict[str, Tensor]:
    if isinstance(p, Marginal):  # a VAE over z: its own level
        inner = _by_level(p.model.encoder(z), p.model.prior(), 1)
        return {"u" + key.removeprefix("z"): value[0] for key, value in inner.items()}
    own, prior = _of_coordinates(q, z), _of_coordinates(p, z)
    return {} if own is None or prior is None else {name: own - prior}


def _of_coordinates(p: Distribution, z: Tensor) -> Tensor | None:
    """log p_j(z_j) of the marginal law of each coordinate, or None where it is not known."""
    if isinstance(p, NormalMixture):
        each = Normal(p.loc, p.scale).log_prob(z[..., None, :])  # (..., K, D)
        return (each + p.logits.log_softmax(-1)[:, None]).logsumexp(-2)
    if isinstance(p, DiagonalNormal) or (isinstance(p, Independent) and isinstance(p.base_dist, Normal)):
        return Normal(p.mean, p.stddev).log_prob(z)
    return None


@torch.no_grad()
def responsibilities(mixture: NormalMixture, z: Tensor, chunk: int = 50) -> Tensor:
    r"""The share of each component in codes, $\frac1B \sum_b p(k|z_b)$ with $p(k|z) \propto w_k N(z; \mu_k, \sigma_k)$.

    Args:
        mixture: Of K components.
        z: Codes, of shape `(B, latent)`.
        chunk: Codes at a time.

    Returns:
        Of shape `(K,)`; they sum to one.
    """
    normal, log_w = Normal(mixture.loc.double(), mixture.scale.double()), mixture.logits.double().log_softmax(-1)
    parts = [(normal.log_prob(some[:, None].double()).sum(-1) + log_w).softmax(-1).sum(0) for some in z.split(chunk)]
    return torch.stack(parts).sum(0) / len(z)
