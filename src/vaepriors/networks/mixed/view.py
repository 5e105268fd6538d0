"""What encoders see of a row."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaepriors.networks.layers import OneHot
from vaepriors.networks.mixed.columns import NUMBERS, places
from vaepriors.networks.mixed.scaling import ColumnScaling

__all__ = ["MixedView"]


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
        used = [code < size for size in sizes for code in range(max(sizes))]  # whether a column has the code
        kept = [place for place, there in enumerate(used) if there]  # to select by a mask, a device is read
        groups = {"numbers": NUMBERS, "bits": ("bit",), "codes": ("category",)}
        for name, kinds in groups.items():
            self.register_buffer(name, places(scaling.columns, *kinds, device=device), persistent=False)
        self.register_buffer("missing", missing, persistent=False)
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.long, device=device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        u, observed = self.scaling(x), (~x.isnan()).to(x)
        bits = (2 * u - 1) * observed
        seen = [(u * observed)[..., self.numbers], bits[..., self.bits], 1 - observed[..., self.missing]]
        if self.one_hot is not None:
            codes = self.one_hot(u[..., self.codes])
            codes = codes * observed[..., self.codes].repeat_interleave(self.one_hot.categories, -1)
            seen.append(codes[..., self.kept])
        return torch.cat(seen, -1)
