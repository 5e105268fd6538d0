r"""Comparisons for probability masses: x has D coordinates, each on a regular grid of values.

    masses   the sum of all masses is 1
    moves    E_p[s(D) D] = 0, D = log p(x') - log p(x), x' with one coordinate drawn anew, uniformly
    levels   E_p[s(D) (f(x') - f(x))] = 0, f the indicator of the lowest, or of the highest, value

The sum is over all x where these are few, or over each coordinate of torch's `Independent`. Otherwise, if the
coordinates are independent, it follows from single changes: each coordinate's mass given the others is
$\pi_d(v) \propto p(x : x_d = v)$, and $\log p(x) = \sum_d \log \pi_d(x_d)$ + the log of the sum.
"""

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from vaepriors.checking.report import Finding, Verdict, decide, limit
from vaepriors.checking.subject import CHUNK, Subject, in_chunks

__all__ = ["compare_masses", "grid_of"]

MOST_POINTS, MOST_LEVELS = 2**14, 4096
MOVES = 4  # of each draw
MOST_CHANGES = 2**18  # single changes, each the density of one x

MASSES = Verdict(
    "The masses sum to one (their log-sum is given).",
    "The masses do not sum to one (their log-sum is given): the values at the ends may lack the tails.",
    "The coordinates depend on each other and are too many to list all values: check a smaller event.",
)

GIVEN_TOTAL = "The density takes the total from x itself, so draws of one total do not show all masses."
_OF_ONE_TOTAL = type(constraints.multinomial(1))  # torch's, whose density is that of other totals as well


def grid_of(subject: Subject, z: Tensor) -> Tensor | None:
    """The values of one coordinate, in order, if they are on a regular grid; None for a density.

    They are those of the support if it is finite, otherwise of the draws, filled up to the ends of the support. That
    floating-point numbers are a grid themselves, as of a normal distribution with mean 100 and scale 0.001, is ignored.
    """
    values = z[z.isfinite()].double().unique()
    base: Any = subject.support
    while hasattr(base, "base_constraint"):
        base = base.base_constraint
    if base is constraints.boolean:
        return z.new_tensor([0.0, 1.0])
    if isinstance(base, type(constraints.integer_interval(0, 1))):
        low = float(torch.as_tensor(base.lower_bound).min())  # they may differ among coordinates
        high = float(torch.as_tensor(base.upper_bound).max())
        return torch.arange(low, high + 1, dtype=z.dtype, device=z.device) if high - low < MOST_LEVELS else None
    if len(values) < 2 or len(values) > min(MOST_LEVELS, z.numel() // 2):
        return None
    rounding = 8 * torch.finfo(z.dtype).eps * values.abs().max()
    if values.diff().min() < rounding and not getattr(base, "is_discrete", False):
        return None
    return _filled(values, base).to(z.dtype)


def _filled(values: Tensor, base: Any) -> Tensor:
    step = values.diff().min().item()
    low, high = values[0].item(), values[-1].item()
    least, most = (getattr(base, name, None) for name in ("lower_bound", "upper_bound"))
    below = 0 if least is None else max(0, math.floor((low - float(least)) / step + 1e-3))
    open_end = 1e-3 if not hasattr(base, "upper_bound") or isinstance(base, constraints.interval) else -1e-3
    if most is None and least is not None:
        above = 3 * round((high - low) / step) + 50  # a count: masses further out are too small to matter
    else:
        above = 0 if most is None else max(0, math.floor((float(most) - high) / step + open_end))
    count = round((high - low) / step) + 1
    index = torch.arange(-below, count + above, dtype=torch.float64, device=values.device)
    return low + index * (high - low) / max(count - 1, 1)


def compare_masses(subject: Subject, x: Tensor, values: Tensor) -> list[Finding]:
    """The comparisons above, by draws x of shape `(n, *batch, *event)`."""
    if getattr(subject.distribution, "given_total", False) or isinstance(subject.support, _OF_ONE_TOTAL):
        return [Finding("masses", None, math.nan, 0.0, 0.0, GIVEN_TOTAL)]
    findings = [_masses(subject, x, values)]
    return findings + _single_moves(subject, x, values)


def _masses(subject: Subject, x: Tensor, values: Tensor) -> Finding:
    dims = subject.event_shape.numel()
    base = getattr(subject.distribution, "base_dist", None)
    if dims * math.log(len(values)) <= math.log(MOST_POINTS):
        points = torch.cartesian_prod(*[values] * dims).reshape(
            -1, *[1] * len(subject.batch_shape), *subject.event_shape
        )
        points = points.expand(-1, *subject.batch_shape, *subject.event_shape)
        total = subject.log_prob_or_zero(points, x).logsumexp(0)
    elif base is not None and base.event_shape == () and hasattr(base, "log_prob"):
        points = values.reshape(-1, *[1] * len(base.batch_shape)).expand(-1, *base.batch_shape)
        each = Subject(base).log_prob_or_zero(points, x).logsumexp(0)
        total = each.reshape(subject.members, -1).sum(-1)
    elif dims * len(values) * subject.members <= MOST_CHANGES and _independent(subject, x, values):
        total = _sum_by_changes(subject, x[:1], values)
    else:
        return Finding("masses", None, math.nan, 0.0, 0.0, MASSES[None])
    return decide("masses", total, 0.0, 0.0, MASSES, tolerance=1e-3 + 1e-5 * dims + 5 / len(x))


def _changed(x: Tensor, subject: Subject, coordinate: Tensor, value: Tensor) -> Tensor:
    """x of shape `(n, *batch, *event)` with one coordinate of each row changed."""
    flat = x.reshape(len(x), subject.members, -1).clone()
    rows = torch.arange(len(x), device=x.device)
    flat[rows, :, coordinate] = value[:, None].expand(-1, subject.members)
    return flat.reshape(x.shape)


def _independent(subject: Subject, x: Tensor, values: Tensor) -> bool:
    """Whether a change of one coordinate has the same effect whatever the others are, for a few changes."""
    dims = subject.event_shape.numel()
    coordinate = torch.randint(dims, (64,), device=x.device)
    old, new = (values[torch.randint(len(values), (64,), device=x.device)] for _ in range(2))
    effects = []
    for base in (x[0], x[-1]):
        at = base.expand(64, *base.shape)
        effects.append(
            subject.log_prob(_changed(at, subject, coordinate, new))
            - subject.log_prob(_changed(at, subject, coordinate, old))
        )
    return torch.allclose(effects[0], effects[1], rtol=1e-3, atol=1e-2)


def _sum_by_changes(subject: Subject, x: Tensor, values: Tensor) -> Tensor:
    """Log of the sum of all masses, of shape `(B,)`, of coordinates that are independent."""
    dims = subject.event_shape.numel()
    pairs = torch.tensor(list(itertools.product(range(dims), range(len(values)))), device=x.device)

    def log_prob(part: Tensor) -> Tensor:
        return subject.log_prob(_changed(x.expand(len(part), *x.shape[1:]), subject, part[:, 0], values[part[:, 1]]))

    changed = in_chunks(log_prob, pairs, CHUNK // subject.members).reshape(dims, len(values), -1)
    own = subject.log_prob(x)[0]
    return own + (changed.logsumexp(1) - own).sum(0)


def _single_moves(subject: Subject, draws: Tensor, values: Tensor) -> list[Finding]:
    x = draws.repeat(MOVES, *[1] * (draws.dim() - 1))
    coordinate = torch.randint(subject.event_shape.numel(), (len(x),), device=x.device)
    new = values[torch.randint(len(values), (len(x),), device=x.device)]
    old = x.reshape(len(x), subject.members, -1)[torch.arange(len(x), device=x.device), :, coordinate]
    change = subject.log_prob_or_zero(_changed(x, subject, coordinate, new), x) - subject.log_prob(x)
    none = change.isneginf().all(0)  # as of one-hot vectors
    accept = torch.sigmoid(change)
    value = torch.where(change.isneginf(), 0.0, accept * change)
    ends = [accept * ((new[:, None] == end).double() - (old == end).double()) for end in (values[0], values[-1])]
    value, end = (each.unflatten(0, (MOVES, -1)).mean(0) for each in (value, torch.cat(ends, 1)))  # of each draw
    verdict = Verdict(
        "Moves of single coordinates up and down the masses are balanced among the samples.",
        "Moves of single coordinates are not balanced: the sampler draws from another distribution than the masses.",
    )
    ends_verdict = Verdict(
        "The lowest and the highest value are as frequent among the samples as their masses say.",
        "The lowest or the highest value is more or less frequent among the samples than its mass says.",
    )
    return [
        decide("moves", *_mean(value), verdict, tolerance=1e-3, blind=none),
        decide("levels", *_mean(end), ends_verdict, tolerance=1e-3, blind=torch.cat([none, none])),
    ]


def _mean(values: Tensor) -> tuple[Tensor, float, Tensor]:
    """Mean over draws, what it should be, and its standard error, for which rare events count as well."""
    n = len(values)
    return values.mean(0), 0.0, values.std(0) / math.sqrt(n) + 12.5 / limit(1) / n
