"""The head of decoders of mixed columns."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, LogNormal, Normal

from vaepriors.distributions import Codes, NegativeBinomial, Shape
from vaepriors.networks.layers import DenseToEvent
from vaepriors.networks.mixed.columns import KINDS, places
from vaepriors.networks.mixed.distribution import Given, Mixed
from vaepriors.networks.mixed.scaling import LARGEST_LOG, ColumnScaling
from vaepriors.networks.scaling import Standardize, Standardized

__all__ = ["MixedHead"]


class MixedHead(nn.Module):
    """h -> independent columns of several kinds (see `vaepriors.networks.mixed`).

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
