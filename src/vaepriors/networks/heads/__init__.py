"""Heads: modules from features h to a distribution."""

from vaepriors.networks.heads.observed import (
    BernoulliHead,
    CategoricalHead,
    Counts,
    GaussianHead,
    LogisticHead,
    MultinomialHead,
    NegativeBinomialHead,
    Network,
    NormalHead,
    PoissonHead,
    SoftplusNormalHead,
    StudentHead,
    ToEvent,
)

__all__ = [
    "BernoulliHead",
    "CategoricalHead",
    "Counts",
    "GaussianHead",
    "LogisticHead",
    "MultinomialHead",
    "NegativeBinomialHead",
    "Network",
    "NormalHead",
    "PoissonHead",
    "SoftplusNormalHead",
    "StudentHead",
    "ToEvent",
]
