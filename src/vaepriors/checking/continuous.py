r"""Comparisons of a density p on R^D with its sampler.

Two of them need a density r that is known, and draws of it:

    normalisation   E_r[p / r] = 1                                     of the density alone
    regions         E_r[(p / r) (f - E_p f)] = 0, f bounded            any sampler error that r covers
    bridge          E_p[r / (p + r)] = E_r[p / (p + r)]                both at once; bounded, so it lasts longest

(the last is the ratio estimator of Bennett 1976). Two need neither r nor the normaliser of p, and are sharp in high
dimensions:

    score           E_p[g . grad log p + div g] = 0, g smooth and bounded             Stein's identity
    moves           E_p[s(D) D] = 0, D = log p(z + e) - log p(z), e symmetric         detailed balance of Barker's moves

with $s$ the logistic function. As $z \to z + e$ and back are equally frequent among accepted moves, and
$s(D) D^2$ is at most 0.54 for the moves downhill, the last has a finite variance for every density. These two are
blind to the weights of modes that are far apart, which the first three and the order of draws see.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaepriors.checking.proposal import KnownDensity, fit_density
from vaepriors.checking.report import Finding, Verdict, decide, limit
from vaepriors.checking.subject import BLOCKS, RealSubject, variance_of_mean

__all__ = ["compare_densities", "features_of"]

FEWEST = 200  # effective samples below which an importance-weighted mean is not trusted
STEADY = 0.5  # effective share of the calls of an estimated density: less has heavy tails
RARE = 12.5  # events that may be missing by chance: P(none of 12.5) = 4e-6
PAIRS = 64  # coordinates of which all pairs are compared


@dataclass(frozen=True)
class Draws:
    """Draws of the sampler and of r, with the log-densities of both at both, of shape `(n, B)`."""

    fitted: Tensor  # (n, B, D): those that r was fitted to, independent of the next
    of_p: Tensor  # (n, B, D)
    of_r: Tensor  # (n, B, D)
    p_at_p: Tensor
    r_at_p: Tensor
    p_at_r: Tensor
    r_at_r: Tensor
    shift: Tensor  # of p_at_p, by a standard error of an estimated constant of p
    blocks: int | None = None  # of `p_at_r`, if p is an estimate


def compare_densities(subject: RealSubject, z: Tensor, n: int, random: bool) -> list[Finding]:
    """The comparisons above.

    Args:
        subject: p.
        z: Draws of its sampler, all finite.
        n: Of these, how many are for the comparisons; the others are for fitting.
        random: Whether p is an unbiased estimate, so that only means of p itself are right.
    """
    if random and (agreement := subject.agreement(z[:500])) < STEADY:
        sentence = "Calls of log_prob differ too much to average their exponentials: a few calls decide the mean."
        return [Finding("agreement", None, agreement, 1.0, 0.0, sentence)]
    draws = _draw(subject, z, n)
    findings = [_normalisation(draws), _regions(draws)]
    if not random:
        findings += [_bridge(draws), _score(subject, draws, z.dtype), _moves(subject, draws, z.dtype)]
    return findings


def _draw(subject: RealSubject, z: Tensor, n: int) -> Draws:
    y = subject.flat(z)
    fitted, of_p = y[n:], y[:n]
    known = [fit_density(fitted[:, member]) for member in range(subject.members)]
    of_r = torch.stack([r.sample(n) for r in known], 1).to(z.dtype).double()
    blocks = BLOCKS if subject.calls > 1 else None
    p_at_p, p_at_r = subject.log_density(of_p, z.dtype), subject.log_density(of_r, z.dtype, blocks)
    shift = subject.shift(of_p, z.dtype)
    return Draws(fitted, of_p, of_r, p_at_p, _log_known(known, of_p), p_at_r, _log_known(known, of_r), shift, blocks)


def _log_known(known: list[KnownDensity], y: Tensor) -> Tensor:
    return torch.stack([r.log_prob(y[:, member]) for member, r in enumerate(known)], 1)


def _normalisation(draws: Draws) -> Finding:
    one = torch.ones_like(draws.p_at_r)[..., None]
    number, error, blind = _weighted_mean(draws, one, one)
    error = error.hypot(draws.shift.expm1().mean(0)[:, None])
    return decide(
        "normalisation", number, 1.0, error,
        Verdict(
            "The density integrates to one.",
            "Where the samples are, the density does not integrate to one: a constant, a Jacobian or a sum over "
            "dimensions is wrong, or the sampler misses a part of it.",
            "Too few effective samples: no known density is close enough to p (see bridge).",
        ),
        tolerance=2e-3, blind=blind,
    )  # fmt: skip


def _weighted_mean(draws: Draws, at_r: Tensor, at_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E_r[(p / r) f], its standard error, and whether too few weights decide it, each of shape `(B, F)`.

    The second moment under r is E_p[(p / r) f^2], so the draws of p show where r has too few: of the two estimates the
    larger is taken.

    Args:
        draws: The draws.
        at_r: f at the draws of r, of shape `(n, B, F)`.
        at_p: f at the draws of p.
    """
    n = len(at_r)
    of_r, of_p = ((a - b).exp() for a, b in ((draws.p_at_r, draws.r_at_r), (draws.p_at_p, draws.r_at_p)))
    total = of_r.mean(0)
    values = of_r[..., None] * at_r
    second = total[:, None] * (of_p[..., None] * at_p.square()).mean(0)
    error = torch.maximum(variance_of_mean(values, draws.blocks), second / n).sqrt()
    effective = n * total.square() / torch.maximum(of_r.square().mean(0), total * of_p.mean(0)).clamp(min=1e-300)
    heavy = torch.maximum(of_r.amax(0), of_p.amax(0)) > 0.05 * n * total
    blind = (effective < FEWEST) | heavy | ~of_r.isfinite().all(0)
    return values.mean(0), error, blind[:, None].expand_as(error)


def _regions(draws: Draws) -> Finding:
    features = features_of(draws.fitted)
    at_p, at_r = features(draws.of_p), features(draws.of_r)  # (n, B, F)
    centre = at_p.mean(0)
    number, error, blind = _weighted_mean(draws, at_r - centre, at_p - centre)
    total = (draws.p_at_r - draws.r_at_r).exp().mean(0).clamp(min=1e-300)[:, None]
    moved = (draws.shift.softmax(0)[..., None] * (at_p - centre)).sum(0)
    error = ((error / total).square() + at_p.var(0) / len(at_p) + moved.square()).sqrt()
    return decide(
        "regions", number / total, 0.0, error,
        Verdict(
            "The samples visit each region as often as the density says.",
            "The samples visit some regions more often than the density says.",
            "Too few effective samples: no known density is close enough to p.",
        ),
        tolerance=2e-3, blind=blind,
    )  # fmt: skip


def features_of(fitted: Tensor, coordinates: int = 16) -> Callable[[Tensor], Tensor]:
    """Bounded functions of y `(n, B, D)`: of coordinates, of random directions, and of the distance to some draws."""
    mean, scale = fitted.mean(0), fitted.std(0).clamp(min=1e-12)
    dims = fitted.shape[-1]
    directions = torch.randn(dims, coordinates, dtype=fitted.dtype, device=fitted.device) * math.sqrt(2 / dims)
    centres = ((fitted[:coordinates] - mean) / scale).transpose(0, 1)  # (B, C, D)
    distance = torch.cdist(((fitted[:500] - mean) / scale).transpose(0, 1), centres)  # (B, n, C)
    width = distance.quantile(0.1, dim=1).clamp(min=1e-6)  # (B, C)

    def features(y: Tensor) -> Tensor:
        t = (y - mean) / scale
        near = torch.cdist(t.transpose(0, 1), centres).transpose(0, 1) / width
        return torch.cat([t[..., :coordinates].tanh(), (t @ directions).sin(), (-near.square() / 2).exp()], -1)

    return features


def _bridge(draws: Draws) -> Finding:
    """Log of the integral of p, if its sampler is right. The decision is made at 0, where both means are bounded."""
    at_p, at_r = draws.p_at_p - draws.r_at_p, draws.p_at_r - draws.r_at_r
    number = _root(at_p, at_r)
    difference, error, slope = _balance(at_p, at_r, torch.zeros_like(number))
    error = error.hypot(slope * draws.shift.mean(0))
    accepted = limit(number.numel()) * error + 2 * RARE / len(at_p) + 1e-3
    _, error, slope = _balance(at_p, at_r, number)
    error = (error / slope.clamp(min=1e-12)).hypot(draws.shift.mean(0))
    excess = difference.abs() / accepted
    return decide(
        "bridge", number, 0.0, error,
        Verdict(
            "The log of the density's integral, by draws of p and of a known density, is zero.",
            "Where the samples are, the density is too high or too low by about this many nats: it is not normalised, "
            "or has mass where no samples are.",
            "The samples are too far from every known density to say.",
        ),
        excess=excess, blind=(excess <= 1) & ~(error < 0.2),
    )  # fmt: skip


def _balance(at_p: Tensor, at_r: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E_p[r / (p/c + r)] - E_r[p/c / (p/c + r)] with log c = shift, its standard error, and its slope in log c."""
    of_p, of_r = torch.sigmoid(shift - at_p), torch.sigmoid(at_r - shift)
    error = ((of_p.var(0) + of_r.var(0)) / len(at_p)).sqrt()
    slope = (of_p * (1 - of_p)).mean(0) + (of_r * (1 - of_r)).mean(0)
    return of_p.mean(0) - of_r.mean(0), error, slope


def _root(at_p: Tensor, at_r: Tensor) -> Tensor:
    """The shift at which the balance is zero, by bisection: it rises in the shift."""
    low = torch.full_like(at_p[0], -1e4)
    high = -low
    for _ in range(60):
        middle = (low + high) / 2
        above = _balance(at_p, at_r, middle)[0] > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2


def _score(subject: RealSubject, draws: Draws, dtype: torch.dtype) -> Finding:
    verdict = Verdict(
        "Stein's identity holds: the samples follow the density's gradient.",
        "Stein's identity does not hold: the sampler draws from another distribution.",
        "A few samples decide the gradient's mean, or there is no gradient (see moves).",
    )
    try:
        score = subject.score(draws.of_p, dtype)
    except RuntimeError:
        return Finding("score", None, math.nan, 0.0, 0.0, verdict[None])
    number, error, fourth = (torch.cat(parts, -1) for parts in zip(*_stein(score, draws), strict=True))
    effective = len(score) * (error.square() * len(score)).square() / fourth.clamp(min=1e-300)  # n E[a^2]^2 / E[a^4]
    return decide("score", number, 0.0, error, verdict, tolerance=2e-3, blind=effective < 30)


def _stein(score: Tensor, draws: Draws) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Means of Stein's identity with their standard errors and fourth moments, each of shape `(B, *)`.

    The fields g, in coordinates t of unit variance: one coordinate, constant; tanh of the same coordinate, and their
    sum; tanh of another coordinate.
    """
    mean, scale = draws.fitted.mean(0), draws.fitted.std(0).clamp(min=1e-12)
    score, h = score * scale, ((draws.of_p - mean) / scale).tanh()
    own = score * h + 1 - h.square()
    statistics = [_moments(each) for each in (score, own, own.mean(-1, keepdim=True))]
    a, b = score[..., :PAIRS], h[..., :PAIRS]
    product, second, fourth = (torch.einsum("nbi,nbj->bij", a**k, b**k) / len(a) for k in (1, 2, 4))
    other = ~torch.eye(a.shape[-1], dtype=torch.bool, device=a.device)
    error = (second - product.square()).clamp(min=0).div(len(a)).sqrt()
    return [*statistics, (product[:, other], error[:, other], fourth[:, other])]


def _moments(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return values.mean(0), values.std(0, unbiased=False) / math.sqrt(len(values)), values.pow(4).mean(0)


def _moves(subject: RealSubject, draws: Draws, dtype: torch.dtype) -> Finding:
    pilot = draws.fitted[:200]
    scale = draws.fitted.std(0).clamp(min=1e-12)
    sizes = torch.logspace(-3, 0.5, 15, dtype=scale.dtype, device=scale.device)
    at = subject.log_density(pilot, dtype)
    moved = [subject.log_density(pilot + size * scale * torch.randn_like(pilot), dtype) for size in sizes]
    typical = torch.stack([(each - at).abs().median(0).values for each in moved])  # (sizes, B)
    size = sizes[typical.sub(1).abs().nan_to_num(nan=math.inf).argmin(0)]  # (B,)
    spread = torch.exp(torch.rand_like(draws.p_at_p).mul(2).sub(1) * math.log(3))  # drawn apart from z
    step = (size * spread)[..., None] * scale * torch.randn_like(draws.of_p)
    change = subject.log_density(draws.of_p + step, dtype) - draws.p_at_p
    value = torch.where(change.isneginf(), 0.0, torch.sigmoid(change) * change)
    error = value.std(0) / math.sqrt(len(value)) + RARE / limit(1) / len(value)
    return decide(
        "moves", value.mean(0), 0.0, error,
        Verdict(
            "Moves up and down the density are balanced among the samples.",
            "Moves up and down the density are not balanced: the sampler draws from another distribution.",
        ),
        tolerance=1e-3,
    )  # fmt: skip
