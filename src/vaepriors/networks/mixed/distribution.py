"""The distribution of a row."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, LogNormal, constraints

from vaepriors.distributions import Codes, NegativeBinomial, Shape, ShapedDistribution
from vaepriors.networks.mixed.columns import Column
from vaepriors.networks.mixed.scaling import ColumnScaling

__all__ = ["Given", "Mixed"]


class Given(ShapedDistribution):
    """Numbers that the density is given: its logarithm is 0, and all draws are these numbers."""

    def __init__(self, value: Tensor) -> None:
        self.value = value
        super().__init__(value.shape, ())

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "Given":
        return Given(self.value.expand(torch.Size(batch_shape)))

    @property
    def mean(self) -> Tensor:
        return self.value

    def log_prob(self, value: Tensor) -> Tensor:
        return self._over_batch(torch.zeros_like(value))

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return self.value.expand(*torch.Size(sample_shape), *self.batch_shape)


class Mixed(ShapedDistribution):
    r"""Independent columns of several kinds, where NaN is a missing cell.

    $$\log p(x_o) = \sum_{j \text{ observed}} \log p_j(x_j)$$

    The mean of bits is their probability, that of a category the most probable code.

    Args:
        parts: A distribution for each kind that there is, in the order of `KINDS`, over the cells of its n columns, of
            batch shape `(*batch, n)`.
        scaling: From x to u, with the columns.
    """

    def __init__(self, parts: Sequence[Distribution], scaling: ColumnScaling) -> None:
        self.parts, self.scaling = tuple(parts), scaling
        super().__init__(self.parts[0].batch_shape[:-1], (len(scaling.columns),))

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "Mixed":
        parts = [p.expand(torch.Size((*batch_shape, *p.batch_shape[-1:]))) for p in self.parts]
        return Mixed(parts, self.scaling)

    @property
    def support(self) -> constraints.Constraint:
        """That of complete rows."""
        columns = self.scaling.columns
        if all(column.kind == "real" for column in columns):
            return constraints.real_vector
        each = [_support(column) for column in columns]
        return constraints.independent(constraints.cat(each, -1, [1] * len(each)), 1)

    def _joined(self, cells: Sequence[Tensor]) -> Tensor:
        """Cells of each part, in the order of the columns."""
        return torch.cat(list(cells), -1)[..., self.scaling.order]

    def _split(self, x: Tensor) -> Sequence[Tensor]:
        """The cells of each part: the inverse of `_joined`."""
        return x[..., self.scaling.order.argsort()].split([p.batch_shape[-1] for p in self.parts], -1)

    def given(self, value: Tensor) -> "Mixed":
        """The distribution of rows with the size factors of these, of shape `(*batch, D)`; itself without any.

        A missing size factor stays the usual one. Given twice, the factors are the last ones.
        """
        if not len(self.scaling.usual):
            return self
        p: Any = self.expand(torch.broadcast_shapes(value.shape[:-1], self.batch_shape))
        size, before = value[..., self.scaling.of_size], p.parts[-1].value  # `size` is the last kind
        size = torch.where(size.isnan(), before, size)
        return Mixed([_given(part, size, size.log() - before.log()) for part in p.parts], self.scaling)

    def marginal_log_prob(self, value: Tensor) -> Tensor:
        """log p_j(x_j) of each cell, 0 of a missing one and of a size factor, of shape `(*sample, *batch, D)`."""
        self._check_event(value, "x")
        missing, x = value.isnan(), self.completed(value)  # otherwise gradients would be NaN
        each = [p.log_prob(cells) for p, cells in zip(self.given(value).parts, self._split(x), strict=True)]
        return torch.where(missing, 0, self._joined(each))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.marginal_log_prob(value).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return self._joined([p.sample(torch.Size(sample_shape)) for p in self.parts])

    @property
    def mean(self) -> Tensor:
        return self.point(self.expected())

    def expected(self) -> list[Tensor]:
        """The mean of each part, of shape `(*batch, n)`; of codes their probabilities, of shape `(*batch, n, K)`.

        For several z, they can be averaged.
        """
        return [p.probs if isinstance(p, Codes) else p.mean for p in self.parts]

    def point(self, expected: Sequence[Tensor]) -> Tensor:
        """x with these means, and the most probable codes."""
        pairs = zip(self.parts, expected, strict=True)
        return self._joined([each.argmax(-1).to(each) if isinstance(p, Codes) else each for p, each in pairs])

    def whole(self, value: Tensor) -> Tensor:
        """x with counts and bits rounded, as in the data."""
        return torch.where(self.scaling.rounded, value.round(), value)

    def completed(self, value: Tensor) -> Tensor:
        """x with a value of the support in missing cells (see `distributions.completed`)."""
        return torch.where(value.isnan(), self.scaling.filler, value)

    def residual(self, value: Tensor) -> Tensor:
        """The distance of each cell from its mean (see `distributions.residual`).

        It is the difference of standardised numbers or logarithms, or of bit and probability; the probability of the
        other categories for a category. That of a positive number is from the mean of its logarithm, which the mean of
        the number itself may be far above. That of a missing cell or a size factor is 0, and the others of its row are
        larger, so that the mean square is that of the observed cells.
        """
        missing = value.isnan() | self.scaling.size
        p = self.given(value)
        pairs = zip(p.parts, p.expected(), strict=True)
        centre = p.point([part.loc.exp() if isinstance(part, LogNormal) else mean for part, mean in pairs])
        each = self.scaling(value) - self.scaling(centre)
        each = torch.where(self.scaling.category, -torch.expm1(self.marginal_log_prob(value)), each)
        share = (~missing).to(value).mean(-1, keepdim=True).clamp(min=1 / value.shape[-1])
        return torch.where(missing, 0, each / share.sqrt())


def _given(part: Distribution, size: Tensor, log_factor: Tensor) -> Distribution:
    """The columns of a kind given the size factor of each row."""
    if isinstance(part, Given):
        return Given(size.expand(part.batch_shape))
    if isinstance(part, NegativeBinomial):
        return NegativeBinomial(part.log_mean + log_factor, part.log_dispersion)
    return part


def _support(column: Column) -> constraints.Constraint:
    known = {
        "real": constraints.real,
        "positive": constraints.positive,
        "count": constraints.nonnegative_integer,
        "bit": constraints.boolean,
        "size": constraints.positive,
    }
    return known.get(column.kind) or constraints.integer_interval(0, len(column.categories) - 1)
