r"""What a latent space does.

A unit j of z is active if its posterior mean follows the data, $\mathrm{Var}_x(\mathbb{E}_q[z_j|x]) > 0.01$
(Burda, Grosse & Salakhutdinov 2016, section 5.2).

The divergence of the ELBO, unit by unit of each level, tells the same in nats: `divergence_of_units`. As a whole it has
two parts, with $q(z) = \frac1N \sum_n q(z|x_n)$ the aggregated posterior (Hoffman & Johnson 2016, "ELBO surgery"):

$$\frac1N \sum_n KL(q(z|x_n) \,\|\, p(z)) = I(n; z) + KL(q(z) \,\|\, p(z)), \qquad 0 \le I \le \log N$$

A model trained by the importance-weighted bound has another posterior than its encoder, the one that resampling by the
weights implies: `ImpliedPosterior` (Cremer, Morris & Duvenaud 2017).

Whether a latent plane has learned an angle is told by a regression on its own polar angle, `angle_regression`
(Klushyn et al. 2019, table 1).
"""

from vaepriors.analysis.angle import AngleRegression, angle_regression
from vaepriors.analysis.diagnosis import diagnose
from vaepriors.analysis.implied import ImpliedPosterior
from vaepriors.analysis.paths import Graph, NoPath, resample, smoothness, straight
from vaepriors.analysis.surgery import Surgery, elbo_surgery
from vaepriors.analysis.units import active_units, activity, divergence_of_units, levels, responsibilities

__all__ = [
    "AngleRegression",
    "Graph",
    "ImpliedPosterior",
    "NoPath",
    "Surgery",
    "active_units",
    "activity",
    "angle_regression",
    "diagnose",
    "divergence_of_units",
    "elbo_surgery",
    "levels",
    "resample",
    "responsibilities",
    "smoothness",
    "straight",
]
