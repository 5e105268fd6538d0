"""Variational autoencoders with learned priors, in PyTorch."""

from vaepriors import (
    data,
    distributions,
    evaluate,
    interpolate,
    latent,
    machine,
    networks,
    nn,
    numerics,
    objectives,
    optim,
    priors,
)
from vaepriors.distributions import (
    Autoregressive,
    Chain,
    DiagonalNormal,
    DiscretizedLogistic,
    IndependentBernoulli,
    NormalMixture,
)
from vaepriors.priors import VHP, MixtureOfGaussians, StandardNormal, TwoLevelPrior, VampPrior
from vaepriors.vae import VAE, Marginal, Terms

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "VHP",
    "Autoregressive",
    "Chain",
    "DiagonalNormal",
    "DiscretizedLogistic",
    "IndependentBernoulli",
    "Marginal",
    "MixtureOfGaussians",
    "NormalMixture",
    "StandardNormal",
    "Terms",
    "TwoLevelPrior",
    "VampPrior",
    "data",
    "distributions",
    "evaluate",
    "interpolate",
    "latent",
    "machine",
    "networks",
    "nn",
    "numerics",
    "objectives",
    "optim",
    "priors",
]
