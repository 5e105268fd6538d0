r"""What a latent space does.

A unit j of z is active if its posterior mean follows the data, $\mathrm{Var}_x(\mathbb{E}_q[z_j|x]) > 0.01$
(Burda, Grosse & Salakhutdinov 2016, section 5.2).

The divergence of the ELBO, unit by unit of each level, tells the same in nats: `divergence_of_units`. As a whole it has
two parts, with $q(z) = \frac1N \sum_n q(z|x_n)$ the aggregated posterior (Hoffman & Johnson 2016, "ELBO surgery"):

$$\frac1N \sum_n KL(q(z|x_n) \,\|\, p(z)) = I(n; z) + KL(q(z) \,\|\, p(z)), \qquad 0 \le I \le \log N$$

A model trained by the importance-weighted bound has another posterior than its encoder, the one that resampling by the
weights implies: `ImpliedPosterior` (Cremer, Morris & Duvenaud 2017).

Whether a latent plane has learned an angle is told by a regression on its own polar angle, `angle_regression`
(Klushyn et al. 2019, table 1).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaepriors.distributions import Chain, DiagonalNormal, NormalMixture, Shape, mean_or_draw
from vaepriors.nn import evaluating
from vaepriors.vae import VAE, Marginal

__all__ = [
    "AngleRegression",
    "ImpliedPosterior",
    "Surgery",
    "active_units",
    "activity",
    "angle_regression",
    "diagnose",
    "divergence_of_units",
    "elbo_surgery",
    "levels",
    "responsibilities",
]

FEW_EFFECTIVE_SAMPLES = 10


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
    with evaluating(model):
        means = [_two_means(model.encoder(batch), n) for batch in x.split(chunk)]
    first, second = torch.cat(means, dim=1).double()  # (batch, latent) each
    return ((first - first.mean(0)) * (second - second.mean(0))).sum(0) / (len(x) - 1)


def _two_means(q: Distribution, n: int) -> Tensor:
    """Two estimates of E_q[z], shape `(2, batch, latent)`: independent, or both exact where the mean is known."""
    if isinstance(q, Chain):
        below = mean_or_draw(q.then(q.first.sample((2, n)))).mean(1)
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
    with evaluating(model):
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


def diagnose(
    activity: dict[str, Tensor], surgery: "Surgery | None" = None, effective_samples: float | None = None
) -> list[str]:
    """What a user should know of a latent space and its likelihood, in sentences; none if there is nothing to say.

    Args:
        activity: Of the units of each level (see `activity`).
        surgery: The parts of the ELBO.
        effective_samples: Of the likelihood's estimate, on average.
    """
    sentences = []
    for name, values in activity.items():
        dead = int((values <= 0.01).sum())
        if dead == len(values):
            sentences.append(f"Level {name} has collapsed: none of its {dead} units follows the data.")
        elif dead:
            which = ", ".join(str(j) for j in (values <= 0.01).nonzero().flatten().tolist()[:12])
            more = ", ..." if dead > 12 else ""
            sentences.append(
                f"{dead} of {len(values)} units of {name} have collapsed: their means do not follow the data "
                f"(units {which}{more})."
            )
    if surgery is not None:
        sentences += _diagnose_surgery(surgery)
    if effective_samples is not None and effective_samples < FEW_EFFECTIVE_SAMPLES:
        sentences.append(
            f"The estimate of log p(x) rests on few draws: {effective_samples:.1f} effective samples on average, fewer "
            f"than {FEW_EFFECTIVE_SAMPLES}. It is likely too low; more samples would raise it."
        )
    return sentences


def _diagnose_surgery(surgery: "Surgery") -> list[str]:
    if surgery.limited_by_n:
        least = max(0.0, surgery.rate - surgery.log_n)
        return [
            f"The mutual information, {surgery.mutual_information:.2f} nats, is near its limit of log N = "
            f"{surgery.log_n:.2f}: more examples would show more information, and a marginal KL that is smaller by as "
            f"much. With these examples it is at least the rate less log N, {least:.2f} nats."
        ]
    if surgery.marginal_kl > max(1.0, 0.25 * surgery.rate):
        return [
            f"The prior does not match the aggregated posterior: the marginal KL is {surgery.marginal_kl:.1f} nats, of "
            f"a rate of {surgery.rate:.1f}. On these examples, a better prior could gain at most that much."
        ]
    return []


class Surgery(NamedTuple):
    """The parts of the ELBO of a set of data, in nats, with the standard errors over the draws of the two that count.

    `-elbo = distortion + rate`, and `rate = mutual_information + marginal_kl` on the very same draws.
    """

    distortion: float  # - E[log p(x|z)]
    rate: float  # E[log q(z|x) - log p(z)]
    mutual_information: float  # I(n; z), of an example's number and its code
    marginal_kl: float  # KL(q(z) || p(z))
    log_n: float  # the most that I can be
    mutual_information_se: float
    marginal_kl_se: float

    @property
    def limited_by_n(self) -> bool:
        """Whether I is within 3 nats of log N. Then the marginal KL would be smaller with more examples.

        It is at least the rate less log N, whatever the prior. With standard normal aggregated posterior and prior, a
        true KL of 0, the estimate is 0.1 to 0.3 nats at this threshold, and below 0.1 two nats further away.
        """
        return self.log_n - self.mutual_information < 3


@torch.no_grad()
def elbo_surgery(model: VAE, x: Tensor, draws: int = 10_000, block: int = 2**22) -> Surgery:
    r"""Split the ELBO of N examples (see above), by the sum over all N in the aggregated posterior.

    With examples $n_s$ drawn without replacement and $z_s \sim q(z|x_{n_s})$,

    $$\log q(z_s) = \log \frac1N \sum_m q(z_s|x_m), \qquad
      I \approx \text{mean} \log \frac{q(z_s|x_{n_s})}{q(z_s)}, \qquad
      KL(q \| p) \approx \text{mean} \log \frac{q(z_s)}{p(z_s)}$$

    which is unbiased for these N examples; sums over a batch instead of all N are not. Both parts depend on N: as
    $I \le \log N$, the marginal KL is at least the rate less log N. It is what a better prior could gain only where I
    is well below log N (see `Surgery.limited_by_n`), so give many examples, as of the training set. Under a prior
    whose density is an estimate (`VHP`), rate and marginal KL are upper bounds in the mean.

    One level costs a matrix product. For two levels q(z1|x_m, z2) must be computed for every pair of a draw and an
    example: give some hundred draws, or fewer examples.

    Args:
        model: The model.
        x: The N examples, of shape `(N, *event)`.
        draws: How many $z_s$; at most N.
        block: Numbers held at a time, which bounds the memory.

    Raises:
        ValueError: If there are fewer than two draws or examples.
    """
    draws = min(draws, len(x))
    if draws < 2:
        raise ValueError(f"{draws} draws of {len(x)} examples: at least 2 are needed")
    with evaluating(model):
        chosen = x[torch.randperm(len(x), device=x.device)[:draws]]
        prior, parts = model.prior(), []
        for some in chosen.split(1000):
            q = model.encoder(some)
            z = q.sample()
            parts.append((z, model.decoder(z).log_prob(some), q.log_prob(z), prior.log_prob(z)))
        z, log_likelihood, own, log_p = map(torch.cat, zip(*parts, strict=True))
        log_likelihood, own, log_p = log_likelihood.double(), own.double(), log_p.double()
        log_q = _aggregated(model, x, z, block)
    information, marginal = own - log_q, log_q - log_p
    return Surgery(
        distortion=-log_likelihood.mean().item(),
        rate=(own - log_p).mean().item(),
        mutual_information=information.mean().item(),
        marginal_kl=marginal.mean().item(),
        log_n=math.log(len(x)),
        mutual_information_se=information.std().item() / math.sqrt(draws),
        marginal_kl_se=marginal.std().item() / math.sqrt(draws),
    )


def _aggregated(model: VAE, x: Tensor, z: Tensor, block: int) -> Tensor:
    """log q(z) of draws z, shape `(S, latent)`, under the aggregated posterior of all x: shape `(S,)`, in float64."""
    posteriors = [model.encoder(some) for some in x.split(1000)]
    if all(isinstance(q, DiagonalNormal) for q in posteriors):
        mixture = NormalMixture(
            torch.cat([q.loc for q in posteriors]).double(), torch.cat([q.scale for q in posteriors])
        )
        return torch.cat([mixture.log_prob(zs.double()) for zs in z.split(max(1, block // len(x)))])
    total = torch.full((len(z),), -math.inf, dtype=torch.float64, device=z.device)
    for q, some in zip(posteriors, x.split(1000), strict=True):
        each = max(1, block // (len(some) * 1000))  # features of a pair, some hundred numbers
        pairs = [q.log_prob(zs[:, None].expand(-1, len(some), -1)).double().logsumexp(1) for zs in z.split(each)]
        total = torch.logaddexp(total, torch.cat(pairs))
    return total - math.log(len(x))


class ImpliedPosterior:
    r"""The posterior that importance weighting implies for one x (Cremer, Morris & Duvenaud 2017, section 3).

    K draws of q(z|x), one of which is kept with probability in proportion to its weight $w(z) = p(x, z) / q(z|x)$,
    follow

    $$q_{EW}(z) = \mathbb{E}_{z_2, \dots, z_K \sim q}\left[ \frac{p(x, z)}
      {\frac1K \left( w(z) + \sum_{k \ge 2} w(z_k) \right)} \right],$$

    which is q for K = 1 and tends to p(z|x). Its ELBO lies between the bound of K draws and log p(x), strictly for
    K > 1 unless q is the exact posterior.

    Args:
        model: The model.
        x: One example, of shape `event`.
        samples: K.

    Raises:
        ValueError: If K is less than 1.
    """

    def __init__(self, model: VAE, x: Tensor, samples: int) -> None:
        if samples < 1:
            raise ValueError(f"samples is {samples}: at least 1 is needed")
        self.model, self.x, self.samples = model, x, samples

    @torch.no_grad()
    def log_prob(self, z: Tensor, draws: int = 1000, chunk: int = 10_000) -> Tensor:
        """log q_EW(z) of points, in nats and float64, shape `(G,)`; the mean in it is over so many draws of the others.

        Args:
            z: Points, of shape `(G, latent)`.
            draws: Sets of K - 1 draws to average over; the same for all points.
            chunk: Pairs decoded at a time, and a hundred times as many pairs of a point and a set.
        """
        model, x = self.model, self.x
        with evaluating(model):
            q, prior = model.encoder(x), model.prior()
            known, log_q = model.given(q, prior), q.log_prob(z).double()
            if self.samples == 1:
                return log_q
            joint = [model.decoder(some).log_prob(x) + prior.log_prob(some) for some in z.split(chunk)]
            number, others = draws * (self.samples - 1), []
            for start in range(0, number, chunk):
                others.append(known(x, min(chunk, number - start)).log_weight.double())
        log_joint = torch.cat(joint).double()
        rest = torch.cat(others).view(draws, -1).logsumexp(1)  # log of the sum of the other weights
        size = max(1, 100 * chunk // draws)
        means = [
            (torch.logaddexp(rest, own[:, None]) - math.log(self.samples)).neg().logsumexp(1)  # over (size, draws)
            for own in (log_joint - log_q).split(size)
        ]
        return log_joint + torch.cat(means) - math.log(draws)

    @torch.no_grad()
    def sample(self, shape: Shape = ()) -> Tensor:
        """Draws, of shape `(*shape, latent)`: of K draws of the encoder, the one that its weight elects."""
        number = math.prod(shape)
        with evaluating(self.model):
            terms = self.model(self.x, self.samples * number)
        log_weight = terms.log_weight.view(number, self.samples)
        elected = torch.distributions.Categorical(logits=log_weight).sample()
        assert terms.z is not None
        return terms.z.view(number, self.samples, -1)[torch.arange(number), elected].view(*shape, -1)


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


class AngleRegression(NamedTuple):
    """How well the polar angle in the latent plane tells a true angle."""

    error: float  # mean absolute error, in radians
    winding: int  # turns in the latent plane while the true angle makes one; only 1 and -1 are one to one


def angle_regression(z: Tensor, angles: Tensor) -> AngleRegression:
    r"""Ordinary least squares of the true angle on the polar angle of z around the mean of all z.

    In the order of the true angles, the polar angle is unwrapped (each step taken as the shorter way round), the line
    fitted, and the error of its prediction wrapped into $[-\pi, \pi)$. (Klushyn et al. 2019, appendix B.3, regress on
    $\arcsin(z_2 / r)$; their exact procedure is not given, this one is ours.)

    Read the error together with the winding number. The line is fitted to the unwrapped angle, so codes that are
    independent of the true angle have an error of 1.1 ± 0.4, in 5 % of cases below 0.5, and not one of $\pi / 2$. Only
    with a winding number of 1 or -1 is the angle laid out once around the mean.

    Args:
        z: Posterior means, of shape `(N, 2)`.
        angles: True angles in radians, of shape `(N,)`.

    Raises:
        ValueError: If z is not in a plane, or there are fewer than three points.

    >>> angles = torch.linspace(0, 2 * math.pi, 100)[:-1]
    >>> ring = torch.stack([3 + 2 * angles.cos(), -2 * angles.sin()], 1)
    >>> found = angle_regression(ring, angles)
    >>> round(found.error, 4), found.winding
    (0.0, -1)
    """
    if z.dim() != 2 or z.shape[1] != 2 or len(z) < 3 or angles.shape != z.shape[:1]:
        raise ValueError(
            f"z has shape {tuple(z.shape)} and angles {tuple(angles.shape)}: (N, 2) and (N,) are needed, N at least 3"
        )
    true, order = angles.double().cpu().sort()
    centred = (z.double().cpu() - z.double().cpu().mean(0))[order]
    polar = np.unwrap(torch.atan2(centred[:, 1], centred[:, 0]).numpy())
    turn = np.unwrap([polar[-1], polar[0]])[1] - polar[0]  # what is left to the closed curve, in whole turns
    slope, intercept = np.polyfit(polar, true.numpy(), 1)
    error = np.mod(true.numpy() - (slope * polar + intercept) + math.pi, 2 * math.pi) - math.pi
    return AngleRegression(float(np.abs(error).mean()), round(turn / (2 * math.pi)))
