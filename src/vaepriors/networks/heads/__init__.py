r"""Heads: modules from features h to a distribution.

| head | distribution | parameters |
|---|---|---|
| `NormalHead` | $N(z; \mu, \mathrm{diag}\,\sigma^2)$ | $\log\sigma^2$ clamped to [-6, 2] |
| `SoftplusNormalHead` | the same | $\sigma = \mathrm{softplus}(\cdot) + 10^{-4}$ |
| `BernoulliHead` | independent bits | logits |
| `LogisticHead` | 256 equal bins of [0, 1] | see `DiscretizedLogistic` |
| `GaussianHead` | $N(x; \mu, \sigma^2 I)$ | one $\sigma$ for all coordinates |
| `StudentHead` | independent, with heavy tails | one scale for all coordinates |
| `CategoricalHead` | independent categories | logits, $-\infty$ for categories that a column does not have |
| `MultinomialHead` | counts, given their total | logits |
| `PoissonHead` | independent counts | $\log$ of the mean, clamped to [-20, 20] |
| `NegativeBinomialHead` | the same, with more variance | the same, and one dispersion for each column |
"""

from vaepriors.networks.heads.base import Network, ToEvent
from vaepriors.networks.heads.counts import Counts, MultinomialHead, NegativeBinomialHead, PoissonHead
from vaepriors.networks.heads.latent import NormalHead, SoftplusNormalHead
from vaepriors.networks.heads.observed import BernoulliHead, CategoricalHead, GaussianHead, LogisticHead, StudentHead

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
