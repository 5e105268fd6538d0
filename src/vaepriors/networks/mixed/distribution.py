r"""Tables whose columns have different kinds, and rows with missing cells.

| kind | distribution of a column, given z |
|---|---|
| `real` | normal, with one learned standard deviation for each column |
| `positive` | log-normal, with one learned standard deviation of the logarithm for each column |
| `count` | negative binomial, with one learned dispersion for each column |
| `bit` | Bernoulli |
| `category` | the codes 0, 1, ..., as many as the column has categories |
| `size` | none: the size factor of the row, which the density is given |

Columns are independent given z. A missing cell is NaN. It is left out of the density, which is that of the observed
cells: $p(x_o|z) = \int p(x_o, x_m|z)\, dx_m$.

A size factor s multiplies the means of all counts of its row by s / g, where g is the geometric mean of s in the
training rows. Draws and means have s = g, unless they are `given` the factors of some rows.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, LogNormal, Normal, constraints

from vaepriors.distributions import Codes, NegativeBinomial, Shape, ShapedDistribution
from vaepriors.networks.layers import DenseToEvent, OneHot
from vaepriors.networks.scaling import Moments, Standardize, Standardized, moments

__all__ = ["KINDS", "Column", "ColumnScaling", "Given", "Mixed", "MixedHead", "MixedView", "column_moments", "places"]

KINDS = ("real", "positive", "count", "bit", "category", "size")
NUMBERS = ("real", "positive", "count", "size")  # kinds that are standardised, all but the first as logarithms
LARGEST_LOG = 60.0  # of a positive number


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name.
        kind: One of `KINDS`.
        categories: The names of the codes 0, 1, ... of a category.
    """

    name: str
    kind: str = "real"
    categories: tuple[str, ...] = ()


def places(columns: Sequence[Column], *kinds: str, device: torch.device | None = None) -> Tensor:
    """The places of the columns of some kinds.

    >>> places([Column("a"), Column("b", "bit"), Column("c")], "real")
    tensor([0, 2])
    """
    chosen = [place for place, column in enumerate(columns) if column.kind in kinds]
    return torch.tensor(chosen, dtype=torch.int64, device=device)


def _is(columns: Sequence[Column], *kinds: str, device: torch.device) -> Tensor:
    return torch.tensor([column.kind in kinds for column in columns], device=device)


def _logarithms(x: Tensor, positive: Tensor, count: Tensor) -> Tensor:
    """x, with positive numbers as logarithms, and counts as log(1 + count)."""
    x = torch.where(positive, torch.where(positive, x, 1).log(), x)  # the inner one for the gradients of the others
    return torch.where(count, torch.where(count, x, 0).log1p(), x)


def column_moments(x: Tensor, columns: Sequence[Column]) -> Moments:
    """Centre and scale of each column, over its observed cells.

    They are mean and standard deviation of real numbers, of the logarithm of positive ones and size factors, and of
    log(1 + count); the most frequent value, and 1, of bits and categories.
    """
    positive, count = _is(columns, "positive", "size", device=x.device), _is(columns, "count", device=x.device)
    centre, scale = moments(_logarithms(x, positive, count))
    for place in places(columns, "bit", "category", device=x.device).tolist():
        cells = x[:, place]
        observed = cells[~cells.isnan()]
        centre[place] = observed.mode().values if len(observed) else 0
        scale[place] = 1
    return centre, scale


class ColumnScaling(nn.Module):
    """x -> u: numbers standardised, positive ones, size factors and counts as logarithms; bits and codes as they are.

    A missing cell is filled with the centre of its column. `inverse` clamps bits and codes to their range.

    Args:
        columns: The columns.
        centre, scale: Of each column, as from `column_moments`.
        standardize: Whether numbers are standardised; otherwise u are numbers or logarithms.
    """

    __call__: Callable[..., Tensor]
    positive: Tensor
    count: Tensor
    category: Tensor
    size: Tensor
    of_size: Tensor
    centre: Tensor
    low: Tensor
    high: Tensor
    rounded: Tensor
    filler: Tensor
    order: Tensor
    usual: Tensor

    def __init__(self, columns: Sequence[Column], centre: Tensor, scale: Tensor, standardize: bool = True) -> None:
        super().__init__()
        self.columns, device = tuple(columns), centre.device
        is_ = {kind: _is(columns, kind, device=device) for kind in KINDS}
        unscaled = is_["bit"] | is_["category"] if standardize else torch.ones_like(is_["bit"])
        mean, scale = centre.where(~unscaled, 0), scale.where(~unscaled, 1)
        self.standardize = Standardize(mean, scale)
        codes = torch.tensor([max(1, len(column.categories) - 1) for column in columns], device=device).to(centre)
        number = ~(is_["bit"] | is_["category"])
        buffers = {
            "positive": is_["positive"] | is_["size"],
            "count": is_["count"],
            "category": is_["category"],
            "size": is_["size"],
            "centre": (centre - mean) / scale,
            "low": torch.full_like(centre, -math.inf).where(number, 0),
            "high": torch.full_like(centre, math.inf).where(number, codes),
            "rounded": is_["count"] | is_["bit"],
            "filler": (is_["positive"] | is_["size"]).to(centre),  # a value of every support
            "of_size": places(columns, "size", device=device),
            "usual": centre[is_["size"]].exp(),  # geometric means of size factors
            "order": torch.cat([places(columns, kind, device=device) for kind in KINDS]).argsort(),
        }
        for name, values in buffers.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        u = self.standardize(_logarithms(x, self.positive, self.count))
        return torch.where(x.isnan(), self.centre, u)

    def inverse(self, u: Tensor) -> Tensor:
        """u -> x, without missing cells."""
        x = torch.minimum(torch.maximum(self.standardize.inverse(u), self.low), self.high)
        x = torch.where(self.positive, torch.where(self.positive, x, 0).clamp(-LARGEST_LOG, LARGEST_LOG).exp(), x)
        return torch.where(self.count, torch.where(self.count, x, 0).clamp(0, LARGEST_LOG).expm1(), x)


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


class MixedView(nn.Module):
    """What encoders see of x: standardised numbers, bits as -1 and 1, categories one-hot, and which cells are missing.

    A missing cell is zero. Columns that may miss cells have a number that is 1 where they do.

    Args:
        scaling: From x to u.
        missing: Places of the columns that may miss cells.
    """

    __call__: Callable[..., Tensor]
    numbers: Tensor
    bits: Tensor
    codes: Tensor
    missing: Tensor
    kept: Tensor

    def __init__(self, scaling: ColumnScaling, missing: Tensor) -> None:
        super().__init__()
        self.scaling, device = scaling, missing.device
        sizes = [len(column.categories) for column in scaling.columns if column.kind == "category"]
        self.one_hot = OneHot(torch.tensor(sizes, device=device)) if sizes else None
        kept = [code < size for size in sizes for code in range(max(sizes))]  # the codes that a column has
        groups = {"numbers": NUMBERS, "bits": ("bit",), "codes": ("category",)}
        for name, kinds in groups.items():
            self.register_buffer(name, places(scaling.columns, *kinds, device=device), persistent=False)
        self.register_buffer("missing", missing, persistent=False)
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.bool, device=device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        u, observed = self.scaling(x), (~x.isnan()).to(x)
        bits = (2 * u - 1) * observed
        seen = [(u * observed)[..., self.numbers], bits[..., self.bits], 1 - observed[..., self.missing]]
        if self.one_hot is not None:
            codes = self.one_hot(u[..., self.codes])
            codes = codes * observed[..., self.codes].repeat_interleave(self.one_hot.categories, -1)
            seen.append(codes[..., self.kept])
        return torch.cat(seen, -1)


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

        A missing size factor counts as the usual one.
        """
        if not len(self.scaling.usual):
            return self
        size = value[..., self.scaling.of_size]
        size = torch.where(size.isnan(), self.scaling.usual, size)
        p = self.expand(torch.broadcast_shapes(value.shape[:-1], self.batch_shape))
        return Mixed([_given(part, size, size.log() - self.scaling.usual.log()) for part in p.parts], self.scaling)

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
        other categories for a category. That of a missing cell or a size factor is 0, and the others of its row are
        larger, so that the mean square is that of the observed cells.
        """
        missing = value.isnan() | self.scaling.size
        each = self.scaling(value) - self.scaling(self.given(value).mean)
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


class MixedHead(nn.Module):
    """h -> independent columns of several kinds (see above).

    A standard deviation is at least 0.001 of that of the column, and starts there; log-means of counts are clamped to
    [-20, 20], log-dispersions to [-7, 7], as in `NegativeBinomialHead`.

    Args:
        in_features: Size of the features.
        event_shape: Shape of one x, `(D,)`.
        layer: (in_features, shape) -> a layer from features to numbers of that shape.
        scaling: From x to u, with the columns.
    """

    __call__: Callable[..., Mixed]
    of_positive: Tensor
    of_count: Tensor
    logits: Tensor

    def __init__(
        self, in_features: int, event_shape: Shape, layer: Any = DenseToEvent, *, scaling: ColumnScaling
    ) -> None:
        super().__init__()
        self.scaling, device = scaling, scaling.centre.device
        columns = scaling.columns
        if tuple(event_shape) != (len(columns),):
            raise ValueError(f"x has shape {tuple(event_shape)}, but {len(columns)} columns have kinds: give one each")
        number = {kind: len(places(columns, kind)) for kind in KINDS}
        sizes = [len(column.categories) for column in columns if column.kind == "category"]
        self.widths = [*(number[kind] for kind in KINDS[:4]), sum(sizes)]
        self.parameters_of_x = layer(in_features, (sum(self.widths),))
        normal = number["real"] + number["positive"]
        one = math.log(math.e - 1)  # softplus of it is 1
        self.raw_scale = nn.Parameter(torch.full((normal,), one)) if normal else None
        self.log_dispersion = nn.Parameter(torch.zeros(number["count"])) if number["count"] else None
        mean, unit, real = scaling.standardize.mean, scaling.standardize.scale, places(columns, "real", device=device)
        self.of_real = Standardize(mean[real], unit[real])
        for kind in ("positive", "count"):
            self.register_buffer(f"of_{kind}", places(columns, kind, device=device), persistent=False)
        self.register_buffer("logits", _table_of_logits(sizes, device), persistent=False)

    def forward(self, h: Tensor) -> Mixed:
        parameters = self.parameters_of_x(h)
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        return Mixed(list(self._parts(*parameters.split(self.widths, -1))), self.scaling)

    def _parts(
        self, real: Tensor, positive: Tensor, count: Tensor, bit: Tensor, category: Tensor
    ) -> Iterator[Distribution]:
        mean, unit = self.scaling.standardize.mean, self.scaling.standardize.scale
        scale = None if self.raw_scale is None else F.softplus(self.raw_scale) + 1e-3
        if real.shape[-1] and scale is not None:
            yield Standardized(Normal(real, scale[: real.shape[-1]], validate_args=False), self.of_real)
        if positive.shape[-1] and scale is not None:
            of = self.of_positive
            loc = (mean[of] + unit[of] * positive).clamp(-LARGEST_LOG, LARGEST_LOG)
            yield LogNormal(loc, unit[of] * scale[-len(of) :], validate_args=False)
        if self.log_dispersion is not None:
            of = self.of_count
            log_mean = (mean[of] + unit[of] * count).clamp(-20, 20)
            yield NegativeBinomial(log_mean, self.log_dispersion.clamp(-7, 7))
        if bit.shape[-1]:
            yield Bernoulli(logits=bit, validate_args=False)
        if category.shape[-1]:
            logits = F.pad(category, (0, 1), value=-math.inf)[..., self.logits]
            yield Codes(logits=logits, validate_args=False)
        if len(self.scaling.usual):
            yield Given(self.scaling.usual.expand(*real.shape[:-1], -1))


def _table_of_logits(sizes: Sequence[int], device: torch.device) -> Tensor:
    """The place of the logit of each category of each column, of shape `(C, K)`; one after the last where it has none.

    >>> _table_of_logits([2, 3], torch.device("cpu"))
    tensor([[0, 1, 5],
            [2, 3, 4]])
    """
    most, total, first, rows = max(sizes, default=0), sum(sizes), 0, []
    for size in sizes:
        rows.append([*range(first, first + size), *[total] * (most - size)])
        first += size
    return torch.tensor(rows, dtype=torch.int64, device=device)
