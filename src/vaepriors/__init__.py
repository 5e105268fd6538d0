"""Variational autoencoders with learned priors, in PyTorch.

What this package exports is imported at first use, so that the command line can start before torch is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

HOMES = ("vae", "priors", "distributions")  # the modules of the classes above

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name.islower():
            return import_module(f"{__name__}.{name}")
        homes = (import_module(f"{__name__}.{home}") for home in HOMES)
        globals()[name] = next(getattr(home, name) for home in homes if hasattr(home, name))
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
