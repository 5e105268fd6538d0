"""The likelihoods of a data set by name: the head of the decoder, the support, and what encoders see of x."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

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
from vaepriors.networks.mixed import Column, ColumnScaling, MixedHead, MixedView, column_moments, places
from vaepriors.networks.scaling import Moments, Standardize, StandardizedHead

__all__ = ["LIKELIHOODS", "Likelihood", "mixed_of", "standardized"]


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
        missing: Whether x may be NaN, a missing cell, which the likelihood leaves out.
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
    missing: bool = False


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


SizeFactors = Literal["one", "total"]


def poisson(train: Tensor, *, size_factors: SizeFactors = "one") -> Callable[..., nn.Module]:
    """Counts, with the variance of a Poisson distribution

    Args:
        size_factors: Size factor of each row, which multiplies the means of poisson and negative_binomial: one, or
            total, that of the row over the mean total of the training rows. log p(x) is given the factors then.
    """
    return _with_factors(PoissonHead, train, size_factors)


def negative_binomial(train: Tensor, *, size_factors: SizeFactors = "one") -> Callable[..., nn.Module]:
    """Counts, with a learned dispersion for each column"""
    return _with_factors(NegativeBinomialHead, train, size_factors)


def _with_factors(head: Callable[..., nn.Module], train: Tensor, size_factors: str) -> Callable[..., nn.Module]:
    if size_factors == "one":
        return head
    if getattr(train, "streamed", False):
        raise ValueError(
            "size_factors is total, but the totals of points that stay on disk are not known: choose --stream no"
        )
    return partial(head, total=max(1.0, _mean_total(train[:])))


def _mean_total(train: Tensor) -> float:
    return train.flatten(1).sum(1, dtype=torch.float64).mean().item()


def multinomial(train: Tensor, *, total: Annotated[int, "positive"] | None = None) -> Callable[..., nn.Module]:
    """Counts, given the total of each row

    Args:
        total: Total of a row that multinomial draws; the mean total of the training rows, rounded, unless given. The
            density takes the total of each row as it is.
    """
    if total is not None and total > LARGEST_COUNT:
        raise ValueError(f"total is {total}: at most {LARGEST_COUNT} is possible")
    return partial(MultinomialHead, total=max(1, round(_mean_total(train))) if total is None else total)


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


def standardized(likelihood: Likelihood, of: Callable[[], Moments]) -> Likelihood:
    """A likelihood of real vectors, for standardised columns.

    Args:
        likelihood: What the columns have when they are standardised.
        of: The moments of the training set, which are computed only if a model is built.
    """

    def head(train: Tensor, **options: Any) -> Callable[..., nn.Module]:
        return partial(StandardizedHead, head=likelihood.head(train, **options), scaling=Standardize(*of()))

    scaling = lambda train: Standardize(*of())  # noqa: E731
    return dataclasses.replace(likelihood, head=head, view=scaling, scaling=scaling)


def mixed(train: Tensor) -> Callable[..., nn.Module]:
    """Columns of different kinds, each with a head of its own; cells may be missing"""
    return mixed_of(()).head(train)


def mixed_of(
    columns: Sequence[Column], standardize: bool = True, of: Callable[[], Moments] | None = None
) -> Likelihood:
    """The likelihood of a table with these columns.

    Args:
        columns: The columns; all are real if none are given.
        standardize: Whether numbers are standardised.
        of: The `column_moments` of the training set, if they are known.
    """

    def all_columns(x: Tensor) -> Sequence[Column]:
        return columns or [Column(str(place)) for place in range(x.shape[-1])]

    def scaling(train: Tensor) -> ColumnScaling:
        centre, scale = column_moments(train, all_columns(train)) if of is None else of()
        return ColumnScaling(all_columns(train), centre, scale, standardize)

    def contains(x: Tensor) -> Tensor:
        inside = x.isfinite()
        for kind in _IN_KIND if columns else ():
            cells = x[..., places(columns, kind, device=x.device)]
            inside[..., places(columns, kind, device=x.device)] &= _IN_KIND[kind](cells)
        return inside

    def known(train: Tensor, x: Tensor) -> Tensor:
        codes = places(all_columns(x), "category", device=x.device)
        known = torch.ones_like(x, dtype=torch.bool)
        known[:, codes] = x[:, codes].isnan() | _has_trained(train[:, codes].nan_to_num(-1), x[:, codes].nan_to_num(0))
        return known

    return Likelihood(
        lambda train: partial(MixedHead, scaling=scaling(train)),
        contains,
        "the kinds of its columns: repair it, or set another kind with --columns",
        discrete=False,
        view=lambda train: MixedView(scaling(train), train.isnan().any(0).nonzero().flatten()),
        known=known,
        streams=False,
        scaling=scaling,
        missing=True,
    )


_IN_KIND: dict[str, Callable[[Tensor], Tensor]] = {
    "positive": lambda x: x > 0,
    "count": _is_count,
    "bit": lambda x: (x == 0) | (x == 1),
    "category": lambda x: (x >= 0) & (x < CATEGORIES) & (x == x.floor()),
    "size": lambda x: x > 0,
}

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
    "mixed": dataclasses.replace(mixed_of(()), head=mixed),
}
