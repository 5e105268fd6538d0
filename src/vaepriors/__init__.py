"""Variational autoencoders with learned priors, in PyTorch.

A model is `VAE(encoder, decoder, prior)`: three modules whose call returns a `torch.distributions.Distribution`.

* `VAE`, `Terms`, `Marginal`: the theory, in `vaepriors.vae`.
* `ConditionalVAE`, `Ignoring`, `PerClass`, `PseudoConditions`: models given a class or covariates, in
  `vaepriors.conditional`.
* `StandardNormal`, `MixtureOfGaussians`, `VampPrior`, `ExemplarPrior`, `VHP`, `SNIS`, `Resampled`, `TwoLevelPrior`: the
  priors.
* `networks`, `distributions`: the papers' encoders and decoders, and what they return.
* `objectives`, `optim`, `fit`: what to optimise, and the training loop.
* `Folder`, `load_weights`: where a training is kept, and how it comes back; `load`: the model of a run of the command
  line, with its data.
* `estimate`, `analysis`, `report`: importance-sampled likelihoods, what a latent space does, and a page with all of it.
* `check`: whether the density and the sampler of anyone's prior or model agree.
* `ImportanceSampling`, `Refinement`, `Annealing`, `bidirectional`: other likelihood estimates, and how far they can be
  from the truth.
* `data`, `Dataset`: data sets by name, and custom files and arrays.

Everything is imported at first use, so that the command line can start before torch is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaepriors import (
        analysis,
        annealing,
        conditional,
        data,
        distributions,
        likelihood,
        networks,
        numerics,
        objectives,
        optim,
        priors,
        refinement,
        store,
        training,
        vae,
    )
    from vaepriors.annealing import Annealing, Bounds, bidirectional
    from vaepriors.app.report.run import report
    from vaepriors.app.trained import load
    from vaepriors.checking import check
    from vaepriors.conditional import ConditionalVAE, Ignoring, PerClass, PseudoConditions
    from vaepriors.data import Dataset
    from vaepriors.distributions import (
        Autoregressive,
        Chain,
        DiagonalNormal,
        DiscretizedLogistic,
        IndependentBernoulli,
        NormalMixture,
    )
    from vaepriors.likelihood import ImportanceSampling, estimate
    from vaepriors.priors import (
        SNIS,
        VHP,
        ExemplarPrior,
        MixtureOfGaussians,
        Resampled,
        StandardNormal,
        TwoLevelPrior,
        VampPrior,
    )
    from vaepriors.refinement import Refinement
    from vaepriors.store import Folder, load_weights
    from vaepriors.training import fit
    from vaepriors.vae import VAE, Marginal, Terms

__version__ = "0.1.0"

__all__ = [
    "SNIS",
    "VAE",
    "VHP",
    "Annealing",
    "Autoregressive",
    "Bounds",
    "Chain",
    "ConditionalVAE",
    "Dataset",
    "DiagonalNormal",
    "DiscretizedLogistic",
    "ExemplarPrior",
    "Folder",
    "Ignoring",
    "ImportanceSampling",
    "IndependentBernoulli",
    "Marginal",
    "MixtureOfGaussians",
    "NormalMixture",
    "PerClass",
    "PseudoConditions",
    "Refinement",
    "Resampled",
    "StandardNormal",
    "Terms",
    "TwoLevelPrior",
    "VampPrior",
    "analysis",
    "annealing",
    "bidirectional",
    "check",
    "conditional",
    "data",
    "distributions",
    "estimate",
    "fit",
    "likelihood",
    "load",
    "load_weights",
    "networks",
    "numerics",
    "objectives",
    "optim",
    "priors",
    "refinement",
    "report",
    "store",
    "training",
    "vae",
]

HOMES = {
    "vae": ("VAE", "Marginal", "Terms"),
    "priors": (
        "SNIS", "VHP", "ExemplarPrior", "MixtureOfGaussians", "Resampled", "StandardNormal", "TwoLevelPrior",
        "VampPrior",
    ),
    "distributions": (
        "Autoregressive", "Chain", "DiagonalNormal", "DiscretizedLogistic", "IndependentBernoulli", "NormalMixture",
    ),
    "checking": ("check",),
    "conditional": ("ConditionalVAE", "Ignoring", "PerClass", "PseudoConditions"),
    "data": ("Dataset",),
    "likelihood": ("ImportanceSampling", "estimate"),
    "refinement": ("Refinement",),
    "annealing": ("Annealing", "Bounds", "bidirectional"),
    "training": ("fit",),
    "store": ("Folder", "load_weights"),
    "app.report.run": ("report",),
    "app.trained": ("load",),
}  # fmt: skip
HOME = {name: home for home, names in HOMES.items() for name in names}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"{__name__}.{HOME.get(name, name)}")
        globals()[name] = getattr(module, name) if name in HOME else module
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
