r"""Objectives with a bound $\kappa^2$ on the reconstruction error: it drives the weight $\beta$ of the divergence."""

import math

import torch
from torch import Tensor, distributed
from torch.distributions import Distribution, Independent

from vaepriors.distributions import residual
from vaepriors.objectives.base import Objective
from vaepriors.vae import VAE, Terms
from vaepriors.words import a_type

__all__ = ["GECO", "REWO"]


class _Constrained(Objective):
    """What REWO and GECO share: a weight, and the moving average of the reconstruction error.

    The average starts with the error of the first batch; see `REWO` for the other symbols.
    """

    def __init__(self, kappa: float, nu: float, alpha: float, beta: float, samples: int) -> None:
        for name, value in (("kappa", kappa), ("nu", nu), ("beta", beta)):
            if not value > 0:
                raise ValueError(f"{name} is {value}: a positive number is needed")
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha is {alpha}: it must be at least 0 and less than 1")
        super().__init__(samples)
        self.kappa, self.nu, self.alpha = kappa, nu, alpha
        self.step: Tensor
        self.average: Tensor
        self.log_beta: Tensor
        self.last: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", torch.zeros(()))
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("log_beta", torch.tensor(math.log(beta)))

    def extra_repr(self) -> str:
        return f"kappa={self.kappa}, nu={self.nu}, alpha={self.alpha}, samples={self.samples}"

    def excess(self, x: Tensor, terms: Terms) -> Tensor:
        """Add the batch's error, the mean of `residual` squared, to the moving average; return it minus kappa^2."""
        assert terms.likelihood is not None
        squares = self._squares(terms.likelihood, x)
        error = _mean_over_devices(squares.mean().to(self.average.dtype))
        average = torch.where(self.step == 0, error, (1 - self.alpha) * error + self.alpha * self.average)
        self.last.copy_(error)
        self.average.copy_(average)
        self.step += 1
        return average - self.kappa**2

    def _squares(self, likelihood: Distribution, x: Tensor) -> Tensor:
        """The squared distance of x from the mean of p(x|z), which must exist."""
        try:
            return residual(likelihood, x).detach().square()
        except NotImplementedError as error:
            raise ValueError(self._without_mean(likelihood)) from error

    def _check(self, x: Tensor, likelihood: Distribution) -> None:
        super()._check(x, likelihood)
        if self._squares(likelihood, x).isnan().all():  # of Categorical and Cauchy
            raise ValueError(self._without_mean(likelihood))

    def _without_mean(self, likelihood: Distribution) -> str:
        each = likelihood.base_dist if isinstance(likelihood, Independent) else likelihood
        return (
            f"{type(self).__name__} bounds the distance of x from the mean of p(x|z), but {a_type(each)} has "
            "none: choose the objective ELBO or IWAE"
        )

    def metrics(self) -> dict[str, Tensor]:
        bound = torch.full_like(self.average, self.kappa**2)
        return {"beta": self.log_beta.exp(), "error": self.last, "error_average": self.average, "error_bound": bound}


def _mean_over_devices(value: Tensor) -> Tensor:
    """The mean over all devices: with different values, their phases and then their models would differ."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(value)
        value = value / distributed.get_world_size()
    return value


class REWO(_Constrained):
    r"""Reconstruction-error-based weighting of the objective (Klushyn et al. 2019, algorithm 1, eq. 12 and 13).

    $$\text{loss} = \text{mean}\big[ -\log p(x|z) + \beta\, (\log q(z|x) - \log p(z)) \big]$$

    Before each step, with $\hat C$ the moving average of the mean squared error per dimension of x and
    $\delta = \hat C - \kappa^2$:

    $$\beta \leftarrow \beta \exp(\nu f \delta), \qquad
      f = \tanh(\tau (\beta - 1)) \text{ if } \delta < 0, \text{ else } -1, \qquad \log\beta \in [-16, 0]$$

    Updates begin when $\delta < 0$ for the first time. Until then, in the initial phase, $\beta$ is constant and the
    prior's own parameters are not trained (`prior_gate`). While the error is within the bound, $\beta$ rises towards
    1, the ELBO, by at most $\nu \kappa^2 \tanh\tau$ a step in its logarithm; otherwise $\beta$ falls.

    The paper does not define $\hat C$. With the mean squared error per dimension (of the batch over all devices), its
    values of $\kappa$ are feasible for Gaussian and Bernoulli decoders. The clamp and the start are our choice.

    `scheme="gamma"` is the variant of appendix B.1: $\gamma \leftarrow \gamma \exp(\nu\delta)$,
    $\beta = 1 / (1 + \tau\gamma)$.

    Args:
        kappa: $\kappa$, the bound on the root mean squared error per dimension.
        nu: $\nu$, the speed of $\beta$.
        tau: $\tau$, the slope near $\beta = 1$.
        alpha: Weight of the past in the moving average.
        beta: $\beta$ at the start.
        samples: Draws of z for each x.
        scheme: `tanh` or `gamma`.

    Raises:
        ValueError: If `kappa`, `nu`, `tau` or `beta` is not positive, `beta` is not below 1, `alpha` is outside [0, 1),
            `samples` < 1, or `scheme` is unknown.

    >>> from vaepriors import networks, priors
    >>> model = VAE(networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2), priors.StandardNormal(2))
    >>> objective = REWO(kappa=0.01)
    >>> loss, terms = objective(model, torch.ones(10, 4))
    >>> objective.prior_gate().item()  # the initial phase
    0.0
    """

    def __init__(
        self,
        kappa: float,
        nu: float = 1.0,
        tau: float = 3.0,
        *,
        alpha: float = 0.99,
        beta: float = 1e-3,
        samples: int = 1,
        scheme: str = "tanh",
    ) -> None:
        super().__init__(kappa, nu, alpha, beta, samples)
        if scheme not in ("tanh", "gamma"):
            raise ValueError(f"unknown scheme '{scheme}': choose tanh or gamma")
        if not tau > 0:
            raise ValueError(f"tau is {tau}: a positive number is needed")
        if beta > 1 or (beta == 1 and scheme == "gamma"):
            raise ValueError(f"beta starts at {beta}: REWO needs a start below 1")
        self.tau, self.scheme = tau, scheme
        self.main: Tensor
        self.register_buffer("main", torch.zeros(()))

    def forward(self, model: VAE, x: Tensor) -> tuple[Tensor, Terms]:
        terms = self.check_first(x, model(x, self.samples))
        if not self.training:
            return -terms.log_weight.mean(), terms
        excess = self.excess(x, terms)
        self.main.copy_(torch.maximum(self.main, (excess < 0).to(self.main.dtype)))
        self.log_beta.copy_(torch.where(self.main > 0, self._updated(excess), self.log_beta))
        return (self.log_beta.exp() * terms.log_ratio - terms.log_likelihood).mean(), terms

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, tau={self.tau}, scheme={self.scheme}"

    def _updated(self, excess: Tensor) -> Tensor:
        """log beta after a step of the main phase."""
        if self.scheme == "gamma":
            # 1 / beta - 1, which float32 would round to 0 near beta = 1
            log_gamma = torch.log(torch.expm1(-self.log_beta) / self.tau) + self.nu * excess
            return -torch.log1p(self.tau * log_gamma.clamp(-16, 16).exp())
        f = torch.where(excess < 0, torch.tanh(self.tau * torch.expm1(self.log_beta)), -1.0)
        return (self.log_beta + self.nu * f * excess).clamp(-16, 0)

    def prior_gate(self) -> Tensor:
        return self.main


class GECO(_Constrained):
    r"""Generalised ELBO with constrained optimisation (Rezende & Viola 2018), as in Klushyn et al. 2019, eq. 5.

    $$\text{loss} = \text{mean}\big[ \log q(z|x) - \log p(z) - \lambda \log p(x|z) \big], \qquad
      \log\lambda \leftarrow \log\lambda + \nu (\hat C - \kappa^2) \in [-16, 16]$$

    from the first step on, with $\hat C$ as in `REWO`. The error is kept at its bound from both sides, so
    $\beta = 1 / \lambda$ may exceed 1. All parameters are trained in all steps.

    Args:
        kappa: $\kappa$, the bound on the root mean squared error per dimension.
        nu: $\nu$, the speed of $\lambda$.
        alpha: Weight of the past in the moving average.
        beta: $1 / \lambda$ at the start.
        samples: Draws of z for each x.

    Raises:
        ValueError: If `kappa`, `nu` or `beta` is not positive, `alpha` is outside [0, 1), or `samples` < 1.
    """

    def __init__(
        self, kappa: float, nu: float = 1.0, *, alpha: float = 0.99, beta: float = 1e-3, samples: int = 1
    ) -> None:
        super().__init__(kappa, nu, alpha, beta, samples)

    def forward(self, model: VAE, x: Tensor) -> tuple[Tensor, Terms]:
        terms = self.check_first(x, model(x, self.samples))
        if not self.training:
            return -terms.log_weight.mean(), terms
        self.log_beta.copy_((self.log_beta - self.nu * self.excess(x, terms)).clamp(-16, 16))
        return (terms.log_ratio - (-self.log_beta).exp() * terms.log_likelihood).mean(), terms
