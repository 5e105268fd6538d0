r"""Objectives: called with a model and data, they return a scalar loss in nats per data point, and its `Terms`.

    loss, terms = objective(model, x)

    ELBO      -E[log p(x|z)] + beta KL, beta warmed up over epochs
    IWAE      - log mean_k w_k, with three estimators of its gradient
    REWO      beta driven by the reconstruction error, up to the ELBO (Klushyn et al. 2019)
    GECO      the reconstruction error kept at a bound (Rezende & Viola 2018)
    PriorFit  E[log q(z|x) - log p(z)] in the parameters of the prior alone; encoder and decoder stand still

An objective asks the model for as many draws as it needs, and for the estimator of the gradient. Its state is in
buffers, so it is saved with a checkpoint and no step reads the device. In evaluation mode the state does not change,
and the loss is the plain bound that is trained for.
"""

from vaepriors.objectives.base import Objective
from vaepriors.objectives.constrained import GECO, REWO
from vaepriors.objectives.elbo import ELBO
from vaepriors.objectives.iwae import IWAE
from vaepriors.objectives.prior_fit import PriorFit

__all__ = ["ELBO", "GECO", "IWAE", "REWO", "Objective", "PriorFit"]
