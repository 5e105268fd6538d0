"""Doubts whether custom data were read as they are meant: sentences, each with a remedy."""

from collections.abc import Iterator

import torch

from vaepriors.data.dataset import LIKELIHOODS
from vaepriors.data.survey import Facts
from vaepriors.words import counted

__all__ = ["doubtful_layout", "doubtful_scales", "doubtful_split", "doubtful_values"]

FAR, NEAR = 10.0, 0.01  # real values of a larger mean or another standard deviation are far from a unit scale
UNEVEN = 1000.0  # and so is a table whose columns differ more in their standard deviations


def doubtful_split(moved: int) -> Iterator[str]:
    """A note about rows that went from valid and test of a random split to train."""
    if moved:
        yield (
            f"the random split moved {counted(moved, 'row')} from valid and test to train, which had "
            "no row of such a category or class: for another split, give your own"
        )


def doubtful_layout(shape: torch.Size) -> Iterator[str]:
    """A doubt about images whose channels look like columns."""
    _, channels, *sides = shape
    if sides and sides[1] <= 4 < min(channels, sides[0]):
        yield (
            f"images are read as {channels} channels of {sides[0]} x {sides[1]} pixels, which looks like channels "
            "last: store (N, C, H, W) if it is"
        )


def doubtful_values(facts: Facts, chosen: str, likelihood: str) -> Iterator[str]:
    """Doubts about the likelihood that `auto` has chosen."""
    if chosen == "logistic256" and likelihood == "auto" and facts.ends:
        yield (
            "every byte is 0 or 255, which looks binary and is read as 256 gray levels: choose --likelihood bernoulli "
            "if it is binary"
        )
    if not LIKELIHOODS[chosen].discrete and facts.finite and likelihood == "auto" and facts.counts:
        yield (
            "every value is a whole number and is read as a real one: choose --likelihood poisson or negative_binomial "
            "for counts"
        )


def doubtful_scales(facts: Facts, chosen: str) -> Iterator[str]:
    """Doubts about real values that are not standardised."""
    if LIKELIHOODS[chosen].discrete or not facts.finite:
        return
    if facts.low >= 0 and facts.high <= 255 and facts.deviation > FAR:
        yield (
            f"values from {facts.low:.6g} to {facts.high:.6g} look like pixels and are read as real numbers: divide "
            "them by 255, store them as uint8, or choose --likelihood logistic256 or bernoulli if they are whole levels"
        )
    elif facts.most > UNEVEN * facts.least:
        yield (
            f"columns have standard deviations from {facts.least:.3g} to {facts.most:.3g}: standardise each, or the "
            "largest decide alone"
        )
    elif facts.deviation > FAR or abs(facts.mean) > FAR or 0 < facts.deviation < NEAR:
        yield (
            f"values have mean {facts.mean:.3g} and standard deviation {facts.deviation:.3g}, far from a unit scale: "
            "standardise them, or training may fail"
        )
