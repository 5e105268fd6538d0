"""Heads of encoders: h -> q(z|x), and of the conditional distributions of z."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaepriors.distributions import DiagonalNormal
from vaepriors.networks.heads.base import single
from vaepriors.networks.layers import dense

__all__ = ["NormalHead", "SoftplusNormalHead"]


class NormalHead(nn.Module):
    """h -> N(z; mean, diag variance), with the log-variance clamped to [-6, 2] as in Tomczak & Welling 2018."""

    __call__: Callable[..., DiagonalNormal]

    def __init__(self, in_features: int, features: int) -> None:
        super().__init__()
        self.loc = dense(in_features, features)
        self.log_var = dense(in_features, features)

    def forward(self, h: Tensor) -> DiagonalNormal:
        log_var = single(self.log_var(h)).clamp(-6, 2)
        return DiagonalNormal(single(self.loc(h)), torch.exp(log_var / 2))


class SoftplusNormalHead(nn.Module):
    """h -> N(z; mean, diag scale^2), with scale = softplus(linear(h)) + floor.

    For the networks of Klushyn et al. 2019, who do not say how their scale is bounded (the floor is our choice).

    Args:
        in_features: Size of the features.
        features: Size of z.
        floor: Lower bound of the scale.
        start: The scale where `linear(h)` is at its initial bias, above the floor; by default it is near 0.7.

    Raises:
        ValueError: If `start` is not above the floor.
    """

    __call__: Callable[..., DiagonalNormal]

    def __init__(self, in_features: int, features: int, floor: float = 1e-4, start: float | None = None) -> None:
        super().__init__()
        if start is not None and not start > floor:
            raise ValueError(f"the scale of q(z|x) starts at {start}: more than its lower bound of {floor} is needed")
        self.floor = floor
        self.loc = dense(in_features, features)
        self.raw_scale = dense(in_features, features)
        if start is not None:
            nn.init.constant_(self.raw_scale.bias, math.log(math.expm1(start - floor)))

    def forward(self, h: Tensor) -> DiagonalNormal:
        return DiagonalNormal(single(self.loc(h)), F.softplus(single(self.raw_scale(h))) + self.floor)
