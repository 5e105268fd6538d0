"""What to ask any distribution, also one of torch, that not every distribution has.

A distribution answers by a method of the same name.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, constraints

from vaepriors.distributions.normal import DiagonalNormal
from vaepriors.distributions.shaped import Shape
from vaepriors.words import a_type

__all__ = [
    "Auxiliary",
    "Normalizer",
    "as_drawn",
    "at_noise",
    "auxiliary",
    "check_support",
    "completed",
    "factors",
    "marginal_log_prob",
    "noise_of",
    "outside",
    "point_estimate",
    "residual",
    "rsample_and_log_prob",
    "support_of",
]


def rsample_and_log_prob(distribution: Distribution, shape: Shape = ()) -> tuple[Tensor, Tensor]:
    """Draw z with gradients, and log q(z) of the same draw.

    If the distribution has a method of this name (ours and those of zuko do), it is called, as it shares the work of
    the two. Otherwise `rsample` and `log_prob` are called in turn.

    Args:
        distribution: q, with batch shape `batch`.
        shape: Sample shape, put first.

    Returns:
        z of shape `(*shape, *batch, *event)` and log q(z) of shape `(*shape, *batch)`, in nats.

    >>> from torch.distributions import Exponential
    >>> z, log_q = rsample_and_log_prob(Exponential(torch.ones(3)), (2,))
    >>> torch.equal(log_q, -z)
    True
    """
    joint = getattr(distribution, "rsample_and_log_prob", None)
    if joint is not None:
        return joint(shape)
    z = distribution.rsample(torch.Size(shape))
    return z, distribution.log_prob(z)


def point_estimate(distribution: Distribution) -> Tensor:
    """The mean of a distribution, or a draw if the mean has no closed form.

    Of a `Chain` it is the mean of a, and after it the mean of b given that a.

    >>> point_estimate(DiagonalNormal(torch.ones(2), torch.ones(2)))
    tensor([1., 1.])
    """
    method = getattr(distribution, "point_estimate", None)
    if method is not None:
        return method()
    try:
        return distribution.mean
    except NotImplementedError:
        return distribution.sample()


def residual(distribution: Distribution, value: Tensor) -> Tensor:
    """The distance of values from the mean, in the units in which the distribution compares its columns.

    They are those of the values, unless the distribution has a method of this name.

    >>> residual(DiagonalNormal(torch.ones(2), torch.ones(2)), torch.zeros(2))
    tensor([-1., -1.])
    """
    method = getattr(distribution, "residual", None)
    return value - distribution.mean if method is None else method(value)


def as_drawn(distribution: Distribution) -> Distribution:
    """The distribution that `sample` draws from, where the density takes something else from each value itself.

    It is the distribution itself, unless that has a method of this name.

    >>> as_drawn(DiagonalNormal(torch.ones(2), torch.ones(2)))
    DiagonalNormal(batch_shape=(), event_shape=(2,))
    """
    method = getattr(distribution, "as_drawn", None)
    return distribution if method is None else method()


def completed(distribution: Distribution, value: Tensor) -> Tensor:
    """Values with a number of the support in place of missing cells, if the distribution takes them.

    >>> completed(DiagonalNormal(torch.ones(2), torch.ones(2)), torch.zeros(2))
    tensor([0., 0.])
    """
    method = getattr(distribution, "completed", None)
    return value if method is None else method(value)


def support_of(distribution: Distribution) -> constraints.Constraint | None:
    """The support of a distribution, or None if it does not define one.

    >>> support_of(DiagonalNormal(torch.zeros(2), torch.ones(2)))
    IndependentConstraint(Real(), 1)
    """
    try:
        return distribution.support
    except (NotImplementedError, AttributeError):
        return None


def outside(distribution: Distribution, value: Tensor) -> Tensor:
    """Where values are outside of the support: booleans of the shape of their log-densities, False if it is unknown.

    >>> outside(torch.distributions.Gamma(torch.ones(2), 1.0), torch.tensor([-1.0, 1.0])).tolist()
    [True, False]
    """
    support: Any = support_of(distribution)
    shape = value.shape[: value.dim() - len(distribution.event_shape)]
    if support is None:
        return torch.zeros(shape, dtype=torch.bool, device=value.device)
    inside = support.check(completed(distribution, value))
    return ~inside.reshape(*shape, -1).all(-1) if inside.shape != shape else ~inside


def check_support(likelihood: Distribution, x: Tensor, wrong: Tensor) -> None:
    """Refuse data some of which are wrong, because they are outside of the support of p(x|z).

    Raises:
        ValueError: If one of `wrong`, booleans of the shape of log p(x|z), is true.
    """
    if not wrong.any():
        return
    first = completed(likelihood, x)[wrong][0]
    raise ValueError(
        f"{int(wrong.sum())} of {wrong.numel()} x are outside the support of p(x|z), {support_of(likelihood)}; the "
        f"first has values from {first.min().item():.6g} to {first.max().item():.6g}: scale, binarise or repair the "
        "data"
    )


def factors(distribution: Distribution, z: Tensor) -> dict[str, tuple[Distribution, Tensor]]:
    """The conditional distributions whose product is p(z), by level, each with its part of z.

    Args:
        distribution: p.
        z: Values, of shape `(*sample, *batch, *event)`.

    Returns:
        p(z2) and p(z1|z2) of a `Chain`, as `z2` and `z1`. Otherwise p itself, as `z`.

    >>> list(factors(DiagonalNormal(torch.zeros(2), torch.ones(2)), torch.zeros(2)))
    ['z']
    """
    method = getattr(distribution, "factors", None)
    return {"z": (distribution, z)} if method is None else method(z)


def marginal_log_prob(distribution: Distribution, z: Tensor) -> Tensor | None:
    r"""Marginal log-density $\log p(z_j)$ of each coordinate.

    Args:
        distribution: p, over vectors.
        z: Values, of shape `(*sample, *batch, D)`.

    Returns:
        Shape `(*sample, *batch, D)`, in nats. None if the marginals are unknown: they are known for `DiagonalNormal`,
        `NormalMixture` and torch's `Independent`.

    >>> from torch.distributions import Independent, Normal
    >>> marginal_log_prob(Independent(Normal(torch.zeros(3), 1.0), 1), torch.zeros(5, 3)).shape
    torch.Size([5, 3])
    """
    method = getattr(distribution, "marginal_log_prob", None)
    if method is not None:
        return method(z)
    if isinstance(distribution, Independent) and len(distribution.event_shape) == 1:  # torch's: it has no such method
        return distribution.base_dist.log_prob(z)
    return None


class Normalizer(NamedTuple):
    """An estimated constant of a density, with its standard error.

    A distribution whose `log_prob` has such a constant has it as `normalizer`, and a method `shifted(errors)`: the same
    distribution with the constant moved by this number of standard errors.
    """

    value: Tensor
    se: Tensor


class Auxiliary(NamedTuple):
    """A distribution p(z) as the marginal of a joint one with u, whose density is known where that of p(z) is not."""

    joint: Distribution  # p(u, z), over [u, z]
    posterior: Callable[[Tensor], Distribution]  # z -> q(u|z)
    size: int  # of u


def auxiliary(distribution: Distribution) -> Auxiliary | None:
    """What a distribution p(z) with an estimated density is the marginal of; None for any other.

    >>> auxiliary(DiagonalNormal(torch.zeros(2), torch.ones(2))) is None
    True
    """
    method = getattr(distribution, "auxiliary", None)
    return None if method is None else method()


def at_noise(distribution: Distribution, epsilon: Tensor) -> tuple[Tensor, Tensor]:
    r"""The value z to which a sampler maps noise $\epsilon$, and $\log |\partial z / \partial \epsilon|$.

    Args:
        distribution: q, a diagonal normal over vectors, for which $z = \mu + \sigma \epsilon$, or a `Chain` of such.
        epsilon: Values in place of draws of N(0, I), of the shape of z.

    Returns:
        z, and the logarithm of the determinant, of the shape of `log_prob`.

    Raises:
        ValueError: If the distribution has no such sampler.

    >>> at_noise(DiagonalNormal(torch.ones(1), torch.ones(1)), torch.tensor([0.5]))
    (tensor([1.5000]), tensor(0.))
    """
    method = getattr(_with_noise(distribution), "at_noise", None)
    return method(epsilon) if method is not None else _refuse_noise(distribution)


def noise_of(distribution: Distribution, z: Tensor) -> tuple[Tensor, Tensor]:
    """The noise that a sampler maps to z, and the logarithm of the determinant there: the inverse of `at_noise`.

    Raises:
        ValueError: As in `at_noise`.
    """
    method = getattr(_with_noise(distribution), "noise_of", None)
    return method(z) if method is not None else _refuse_noise(distribution)


def _with_noise(distribution: Distribution) -> Distribution:
    """The same distribution as one of ours, where torch's has no such methods."""
    if not isinstance(distribution, Independent) or len(distribution.event_shape) != 1:
        return distribution
    each = distribution.base_dist
    return DiagonalNormal(each.loc, each.scale) if isinstance(each, Normal) else distribution


def _refuse_noise(distribution: Distribution) -> Any:
    raise ValueError(
        f"q(z|x) is {a_type(distribution)}: an encoder that returns diagonal normals over vectors, or a Chain "
        "of them, is needed here"
    )
