r"""Priors: modules whose call, without arguments, returns the distribution p(z).

Averaged over the data, the ELBO is largest in p(z) for the aggregated posterior
$q(z) = \frac1N \sum_n q(z|x_n)$ (Hoffman & Johnson 2016). It overfits and costs a pass over the data, so K
components approximate it (Tomczak & Welling 2018, section 3):

| prior | p(z) |
|---|---|
| `StandardNormal` | $N(z; 0, I)$ |
| `MixtureOfGaussians` | $\frac1K \sum_k N(z; \mu_k, \mathrm{diag}\,\sigma_k^2)$, both free |
| `VampPrior` | $\sum_k w_k\, q(z \mid u_k)$: pseudo-inputs $u_k$ learned, or fixed training examples |
| `ExemplarPrior` | $\frac1N \sum_n N(z; \mu(x_n), \sigma^2 I)$ over all N training examples |
| `VHP` | $\int p(z \mid u)\, N(u; 0, I)\, du$: a VAE over z |
| `SNIS`, `Resampled` | a base prior, weighted by a learned energy (see `tilted`) |
| `TwoLevelPrior` | $p(z_2)\, p(z_1 \mid z_2)$, with any of these as $p(z_2)$ |

A call computes the components once; keep the distribution while the parameters do not change.
"""

from vaepriors.priors.exemplar import ExemplarPrior
from vaepriors.priors.mixture import MixtureOfGaussians
from vaepriors.priors.resampled import Resampled
from vaepriors.priors.snis import SNIS
from vaepriors.priors.standard import StandardNormal
from vaepriors.priors.two_levels import TwoLevelPrior
from vaepriors.priors.vamp import VampPrior
from vaepriors.priors.vhp import VHP

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
