"""What one of several devices sees of a data set.

    training set      all points, and an equal part of the rows of each batch
    validation set    with W devices, every W-th example

The order of the rows is the same on all devices.
"""

import functools
from collections.abc import Generator
from typing import TYPE_CHECKING

from torch import Tensor

from vaepriors.data import Dataset
from vaepriors.data.batches import Order, feed
from vaepriors.numerics import seed_of
from vaepriors.training.settings import Settings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Share"]


class Share:
    """The share of this device, of a batch size that is a multiple of the number of devices."""

    def __init__(self, data: Dataset, settings: Settings, fabric: "Fabric") -> None:
        devices, rank = fabric.world_size, fabric.global_rank
        if settings.batch_size % devices:
            raise ValueError(
                f"batch_size {settings.batch_size} cannot be shared equally by {devices} devices: choose a multiple"
            )
        number = len(data.train)
        size = min(settings.batch_size // devices, -(-number // devices))  # a whole number of rows for each device
        self.order = Order(
            number, size * devices, functools.partial(seed_of, settings.seed, "order"), settings.epoch_steps
        )
        self.columns = slice(rank * size, (rank + 1) * size)
        self.feed = feed(data.train, fabric.device, settings.dtype, data.check_read)
        valid = slice(rank, None, devices)
        self.valid = data.valid[valid].to(fabric.device, settings.dtype)
        splits = {"train": slice(None), "valid": valid} if data.conditions else {}
        self.conditions = {split: data.conditions[split][rows].to(self.valid) for split, rows in splits.items()}

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.order.steps

    def batches(self, epoch: int) -> Generator[Tensor]:
        """The rows of each batch of an epoch, of the same number each time."""
        return self.feed.batches(self.order.epoch(epoch)[:, self.columns])
