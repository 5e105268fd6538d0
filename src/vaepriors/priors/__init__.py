"""Priors: modules whose call, without arguments, returns the distribution p(z)."""

from vaepriors.priors.resampled import SNIS, Resampled
from vaepriors.priors.vamp import (
    VHP,
    ExemplarPrior,
    MixtureOfGaussians,
    StandardNormal,
    TwoLevelPrior,
    VampPrior,
)

__all__ = [
    "SNIS",
    "VHP",
    "ExemplarPrior",
    "MixtureOfGaussians",
    "Resampled",
    "StandardNormal",
    "TwoLevelPrior",
    "VampPrior",
]
