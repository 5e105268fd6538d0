"""The objectives by name."""

from typing import Any, Literal

from vaepriors.app.choices import Positive, Setting, Table
from vaepriors.data import Dataset
from vaepriors.objectives import ELBO, GECO, IWAE, REWO, Objective, PriorFit

__all__ = ["OBJECTIVES", "steps_per_epoch"]

# facts: `needs_mean`: E[x|z]; `needs_start`: the weights of a trained run
OBJECTIVES = Table("objective")


def steps_per_epoch(experiment: Any, dataset: Dataset) -> int:
    """Steps of an epoch: batches that show every training example at least once, unless it has a number of its own."""
    if experiment.epoch_steps is not None:
        return experiment.epoch_steps
    return -(-len(dataset.train) // min(experiment.batch_size, len(dataset.train)))


@OBJECTIVES.entry("elbo")
def elbo(setting: Setting) -> Objective:
    """Evidence lower bound, with warm-up of the divergence's weight (Kingma & Welling 2014)"""
    experiment = setting.experiment
    return ELBO(experiment.warmup, steps_per_epoch(experiment, setting.dataset), experiment.samples)


@OBJECTIVES.entry("iwae")
def iwae(setting: Setting, *, estimator: Literal["plain", "stl", "dreg"] = "plain") -> Objective:
    """Importance-weighted bound (Burda, Grosse & Salakhutdinov 2016)

    Args:
        estimator: Gradient of iwae: plain, stl (no score term; biased), or dreg (doubly reparametrised; unbiased).
    """
    return IWAE(setting.experiment.samples, estimator)


@OBJECTIVES.entry("rewo", needs_mean=True)
def rewo(setting: Setting, *, kappa: Positive, nu: Positive = 1.0) -> Objective:
    """ELBO under a bound on the reconstruction error (Klushyn et al. 2019, algorithm 1)

    Args:
        kappa: Bound on the root mean squared reconstruction error per dimension (of standardised columns in units of
            their standard deviations): 0.18 for MNIST and 0.02 for the pendulum in the paper.
        nu: Speed of the weight of the divergence.
    """
    return REWO(kappa, nu, samples=setting.experiment.samples)


@OBJECTIVES.entry("rewo-gamma", needs_mean=True)
def rewo_gamma(setting: Setting, *, kappa: Positive, nu: Positive = 1.0) -> Objective:
    """The variant of rewo in the paper's appendix (Klushyn et al. 2019, appendix B.1)"""
    return REWO(kappa, nu, samples=setting.experiment.samples, scheme="gamma")


@OBJECTIVES.entry("geco", needs_mean=True)
def geco(setting: Setting, *, kappa: Positive, nu: Positive = 1.0) -> Objective:
    """The reconstruction error held at a bound (Rezende & Viola 2018)"""
    return GECO(kappa, nu, samples=setting.experiment.samples)


@OBJECTIVES.entry("refit", needs_start=True)
def refit(setting: Setting) -> Objective:
    """The prior alone, for the encoder and decoder of a trained run (see `vaepriors refit`)"""
    return PriorFit(setting.experiment.samples)
