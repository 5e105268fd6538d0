r"""Priors with a learned energy: a base prior $\pi(z)$, which a small network makes more or less likely at each z.

A sampler with K or T draws of the base defines each density. There is no intractable constant as in other models with
an energy, and no Markov chain:

| prior | a draw of p(z) is |
|---|---|
| `SNIS` | one of K draws of $\pi$, chosen by weight $e^{-U(z)}$ |
| `Resampled` | the first of T draws of $\pi$ that is accepted, with probability $a(z)$, or the last |

With a constant network, or one draw, both are the base. The base is any module whose call returns a distribution. It is
sampled in each training step, so it should draw fast: an autoregressive flow does not.
"""

from collections.abc import Callable
from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vaepriors.distributions import Shape, ShapedDistribution

__all__ = ["BLOCK", "Draws", "Tilted", "blocks", "check_base", "checked", "draw", "numbers_of"]

BLOCK = 2**16  # draws that pass the network at a time where memory could run out


class Draws(NamedTuple):
    """n draws z of a distribution, for an expectation under it that is differentiable in its parameters."""

    z: Tensor  # (n, D), with the gradient of their path
    score: Tensor | None  # (n,): log-probability of what has no path, whose gradient is a term of its own


def draw(p: Distribution, n: int) -> Draws:
    """Draws whose paths and scores together give the gradient of an expectation under p.

    A distribution with `rsample` has a path for all of it. A mixture has one within the component, and the component's
    log-weight as score (`rsample_and_score`). Others have only the score, which is their log-density.
    """
    partly = getattr(p, "rsample_and_score", None)
    if partly is not None:
        return Draws(*partly((n,)))
    if p.has_rsample:
        return Draws(p.rsample(torch.Size((n,))), None)
    z = p.sample(torch.Size((n,)))
    return Draws(z, p.log_prob(z))


def check_base(base: nn.Module) -> nn.Module:
    """The base module, refused if it is made of training examples: they would explain themselves."""
    if hasattr(base, "without"):
        raise ValueError(
            f"the components of {type(base).__name__} are training examples, which would explain themselves as a base: "
            "give another one, such as a VampPrior"
        )
    return base


def checked(base: Distribution) -> Distribution:
    """The base, refused if it is not one distribution over vectors."""
    if base.batch_shape or len(base.event_shape) != 1:
        raise ValueError(
            f"the base has batch shape {tuple(base.batch_shape)} and event shape {tuple(base.event_shape)}: give a "
            "prior, one distribution over vectors z"
        )
    return base


def numbers_of(network: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The network's number of each z, in the dtype of z also under autocast."""
    numbers = network(z)
    if numbers.shape != z.shape[:-1]:
        raise ValueError(
            f"the network returned shape {tuple(numbers.shape)} for z of shape {tuple(z.shape)}: return one number for "
            f"each z, shape {tuple(z.shape[:-1])}"
        )
    return numbers.to(z.dtype)


def blocks(total: int, size: int) -> list[int]:
    """The sizes of the blocks of a number of draws."""
    return [min(size, total - start) for start in range(0, total, size)] or [0]


class Tilted(ShapedDistribution):
    """What the two densities share: a base distribution, and a network z -> number."""

    support = constraints.real_vector

    def __init__(self, base: Distribution, network: Callable[[Tensor], Tensor]) -> None:
        self.base, self.network = base, network
        super().__init__((), base.event_shape)

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> "Tilted":
        """The same distribution at each place of a batch."""
        expanded = copy(self)
        ShapedDistribution.__init__(expanded, batch_shape, self.event_shape)
        return expanded

    def _numbers(self, z: Tensor) -> Tensor:
        return numbers_of(self.network, z)
