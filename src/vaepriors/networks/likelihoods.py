"""The likelihoods of a data set by name: the head of the decoder, the support, and what encoders see of x."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn

from vaepriors.networks.heads import (
    BernoulliHead,
    CategoricalHead,
    GaussianHead,
    LogisticHead,
    MultinomialHead,
    NegativeBinomialHead,
    PoissonHead,
    StudentHead,
)
from vaepriors.networks.layers import LogOnePlus, OneHot

__all__ = ["LIKELIHOODS", "Likelihood"]


@dataclass(frozen=True)
class Likelihood:
    """What a data set's likelihood is, by name in `LIKELIHOODS`.

    Attributes:
        head: A function of the training set whose keyword-only parameters are options, which returns the class of the
            decoder's head.
        contains: Which values of x are in the support.
        support: The support in words, with what to do about values outside of it.
        discrete: Whether p(x|z) is a probability, so that bits per dimension make sense, and not a density.
        bounds: Range of x that learned pseudo-inputs keep to; None without one.
        example: Turns uniform noise into points of the support.
        view: What the encoder sees instead of x: training set -> module of x; None if it sees x itself. Pseudo-inputs
            are in the units of x, and pass through it, too.
        independent: Whether the numbers of x are independent given z, which a decoder that draws them in turn needs.
        streams: Whether head and view do without the values of the training set, which may then stay on disk.
        known: (training set, x) -> which values of x a model of this training set can have learned; None for all.
        real: Whether x are real numbers, whose columns can be standardised.
        scaling: What learned pseudo-inputs are scaled by: training set -> module of x with an `inverse`; None if they
            are not.
    """

    head: Callable[..., Callable[..., nn.Module]]
    contains: Callable[[Tensor], Tensor]
    support: str
    discrete: bool
    bounds: tuple[float, float] | None = None
    example: Callable[[Tensor], Tensor] = lambda noise: noise
    view: Callable[[Tensor], nn.Module] | None = None
    independent: bool = True
    streams: bool = True
    known: Callable[[Tensor, Tensor], Tensor] | None = None
    real: bool = False
    scaling: Callable[[Tensor], nn.Module] | None = None


def bernoulli(train: Tensor) -> Callable[..., nn.Module]:
    """Bits or probabilities"""
    return BernoulliHead


def logistic256(train: Tensor) -> Callable[..., nn.Module]:
    """256 gray levels"""
    return LogisticHead


def gaussian(train: Tensor, *, sigma: Annotated[float, "positive"] | None = None) -> Callable[..., nn.Module]:
    """Real numbers

    Args:
        sigma: Standard deviation of p(x|z) for real-valued data, of standardised columns in units of theirs; kappa for
            objectives that have it, learned for others unless given.
    """
    return partial(GaussianHead, scale=sigma)


def student(train: Tensor, *, df: Annotated[float, "positive"] = 4.0) -> Callable[..., nn.Module]:
    """Real numbers with outliers

    Args:
        df: Degrees of freedom of Student's distribution, above 1: the fewer, the heavier its tails.
    """
    if df <= 1:
        raise ValueError(f"df is {df}: more than 1 is needed, for below that Student's distribution has no mean")
    return partial(StudentHead, df=df)


def poisson(train: Tensor) -> Callable[..., nn.Module]:
    """Counts, with the variance of a Poisson distribution"""
    return PoissonHead


def negative_binomial(train: Tensor) -> Callable[..., nn.Module]:
    """Counts, with a learned dispersion for each column"""
    return NegativeBinomialHead


def multinomial(train: Tensor, *, total: Annotated[int, "positive"] | None = None) -> Callable[..., nn.Module]:
    """Counts, given the total of each row

    Args:
        total: Total of a row that multinomial draws; the mean total of the training rows, rounded, unless given. The
            density takes the total of each row as it is.
    """
    if total is not None and total > LARGEST_COUNT:
        raise ValueError(f"total is {total}: at most {LARGEST_COUNT} is possible")
    mean = round(train.flatten(1).sum(1, dtype=torch.float64).mean().item())
    return partial(MultinomialHead, total=max(1, mean) if total is None else total)


def categorical(train: Tensor) -> Callable[..., nn.Module]:
    """Categories with codes 0, 1, ..., as many in each column as in the training set"""
    return partial(CategoricalHead, sizes=_sizes(train))


CATEGORIES = 2**16
"""More codes than this in a column are not categories."""


def _sizes(train: Tensor) -> Tensor:
    """Categories of each column, of shape `(D,)`, or of each channel, `(C, 1, 1)`."""
    return train.amax([0, *range(2, train.dim())]).view(-1, *(1 for _ in train.shape[2:])).long() + 1


def _has_trained(train: Tensor, x: Tensor) -> Tensor:
    """Which codes of x the training set has, in the same column or channel."""
    columns = torch.arange(train.shape[1], device=train.device).view(-1, *(1 for _ in train.shape[2:]))
    code, known = (each.long() * train.shape[1] + columns for each in (x, train))
    return torch.isin(code, known.unique())


LARGEST_COUNT = 2**24
"""Beyond it, float32 does not have every whole number."""


def _is_count(x: Tensor) -> Tensor:
    return (x >= 0) & (x <= LARGEST_COUNT) & (x == x.floor())


def _counts(head: Callable[..., Callable[..., nn.Module]], *, whole: bool = False) -> Likelihood:
    """Counts; `whole` if each row has a total, which a draw takes from the training set."""
    return Likelihood(
        head,
        _is_count,
        f"the whole numbers 0, 1, 2, ... up to {LARGEST_COUNT}: repair the counts, or choose the likelihood gaussian",
        discrete=True,
        bounds=(0.0, math.inf),
        example=lambda noise: (5 * noise**2).floor(),
        view=lambda train: LogOnePlus(),
        independent=not whole,
        streams=not whole,
    )


LIKELIHOODS = {
    "bernoulli": Likelihood(
        bernoulli,
        lambda x: (x == 0) | (x == 1),
        "{0, 1}: binarise the data (dynamic=True does it for train, binarize_once for valid and test)",
        discrete=True,
        bounds=(0.0, 1.0),
        example=torch.round,
    ),
    "logistic256": Likelihood(
        logistic256,
        lambda x: (x >= 0) & (x < 1),
        "[0, 1): store gray levels 0..255 as x = (level + 0.5) / 256",
        discrete=True,
        bounds=(0.0, 1.0),
    ),
    "gaussian": Likelihood(gaussian, torch.isfinite, "the real numbers", discrete=False, real=True),
    "student": Likelihood(student, torch.isfinite, "the real numbers", discrete=False, real=True),
    "poisson": _counts(poisson),
    "negative_binomial": _counts(negative_binomial),
    "multinomial": _counts(multinomial, whole=True),
    "categorical": Likelihood(
        categorical,
        lambda x: (x >= 0) & (x < CATEGORIES) & (x == x.floor()),
        f"the codes 0, 1, 2, ... of categories, below {CATEGORIES}: number the categories from 0",
        discrete=True,
        bounds=(0.0, math.inf),
        example=lambda noise: (3 * noise).floor(),
        view=lambda train: OneHot(_sizes(train)),
        streams=False,
        known=_has_trained,
    ),
}
