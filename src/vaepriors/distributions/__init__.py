r"""Distributions whose sampler and density are one object.

Eleven distributions. Log-densities are in nats and include all constants.

* `DiagonalNormal`: $N(z; \mu, \mathrm{diag}\,\sigma^2)$, one vector an event;
* `NormalMixture`: $\sum_k w_k N(z; \mu_k, \mathrm{diag}\,\sigma_k^2)$;
* `Chain`: $p(a)\, p(b \mid a)$ over the concatenation $[a, b]$;
* `IndependentBernoulli`: bits, each with its own logit;
* `DiscretizedLogistic`: the masses of a logistic density in equal bins of $[0, 1]$;
* `Codes`: torch's `Categorical`, whose values are codes 0, 1, ..., as real numbers;
* `Poisson` and `NegativeBinomial`: counts, which may be large in single precision;
* `Multinomial`: counts, given their total;
* `Student`: heavy tails around a location;
* `Autoregressive`: $\prod_i p(x_i \mid x_1, \dots, x_{i-1})$ over the pixels of an image.

They do not check the values of their parameters: a check reads the device, and a training step must not.

`as_drawn`, `at_noise`, `auxiliary`, `check_support`, `completed`, `factors`, `marginal_log_prob`, `noise_of`,
`outside`, `point_estimate`, `residual`, `rsample_and_log_prob` and `support_of` ask any distribution, also one of
torch, for what not every distribution has.
"""

from vaepriors.distributions.asking import (
    Auxiliary,
    Normalizer,
    as_drawn,
    at_noise,
    auxiliary,
    check_support,
    completed,
    factors,
    marginal_log_prob,
    noise_of,
    outside,
    point_estimate,
    residual,
    rsample_and_log_prob,
    support_of,
)
from vaepriors.distributions.autoregressive import Autoregressive, naive_pixel_draws, sampling_progress
from vaepriors.distributions.bernoulli import IndependentBernoulli
from vaepriors.distributions.categories import Codes
from vaepriors.distributions.chain import Chain
from vaepriors.distributions.counts import Multinomial, NegativeBinomial, Poisson
from vaepriors.distributions.logistic import DiscretizedLogistic
from vaepriors.distributions.mixture import NormalMixture
from vaepriors.distributions.normal import DiagonalNormal
from vaepriors.distributions.shaped import Shape, ShapedDistribution
from vaepriors.distributions.student import Student

__all__ = [
    "Autoregressive",
    "Auxiliary",
    "Chain",
    "Codes",
    "DiagonalNormal",
    "DiscretizedLogistic",
    "IndependentBernoulli",
    "Multinomial",
    "NegativeBinomial",
    "NormalMixture",
    "Normalizer",
    "Poisson",
    "Shape",
    "ShapedDistribution",
    "Student",
    "as_drawn",
    "at_noise",
    "auxiliary",
    "check_support",
    "completed",
    "factors",
    "marginal_log_prob",
    "naive_pixel_draws",
    "noise_of",
    "outside",
    "point_estimate",
    "residual",
    "rsample_and_log_prob",
    "sampling_progress",
    "support_of",
]
