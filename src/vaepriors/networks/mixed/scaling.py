"""Cells as numbers of about unit size: numbers standardised, positive ones and counts as logarithms."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vaepriors.networks.mixed.columns import KINDS, Column, are, places
from vaepriors.networks.scaling import Moments, Standardize, moments

__all__ = ["LARGEST_LOG", "ColumnScaling", "column_moments"]

LARGEST_LOG = 60.0  # of a positive number


def _logarithms(x: Tensor, positive: Tensor, count: Tensor) -> Tensor:
    """x, with positive numbers as logarithms, and counts as log(1 + count)."""
    x = torch.where(positive, torch.where(positive, x, 1).log(), x)  # the inner one for the gradients of the others
    return torch.where(count, torch.where(count, x, 0).log1p(), x)


def column_moments(x: Tensor, columns: Sequence[Column]) -> Moments:
    """Centre and scale of each column, over its observed cells.

    They are mean and standard deviation of real numbers, of the logarithm of positive ones and size factors, and of
    log(1 + count); the most frequent value, and 1, of bits and categories.
    """
    positive, count = are(columns, "positive", "size", device=x.device), are(columns, "count", device=x.device)
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
        is_ = {kind: are(columns, kind, device=device) for kind in KINDS}
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
