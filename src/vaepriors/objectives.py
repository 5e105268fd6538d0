r"""Objectives: maps from `Terms` to a scalar loss in nats per data point.

    ELBO      -E[log p(x|z)] + beta KL, beta warmed up over epochs
    IWAE      - log mean_k w_k, with three estimators of its gradient
    REWO      beta driven by the reconstruction error, up to the ELBO (Klushyn et al. 2019)
    GECO      the reconstruction error held at a bound (Rezende & Viola 2018)

An objective keeps whatever it needs over time in buffers, so that it checkpoints itself, runs without reading
the device, and can be tested with hand-written tensors. In evaluation mode an objective holds still and is
the plain bound it trains towards.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, distributed, nn

from vaepriors.nn import at_least_one
from vaepriors.vae import Terms

__all__ = ["ELBO", "GECO", "IWAE", "REWO", "Objective"]


class Objective(nn.Module, ABC):
    """A loss on `samples` draws of z for each x.

        o = objective
        loss = o(model(x, o.samples, o.score, o.error))

    Attributes:
        samples: Draws of z for each x.
        score: Whether the terms shall have the score term of log q(z|x) (see `VAE.forward`).
        error: Whether the terms shall have the squared error of the reconstruction.
    """

    def __init__(self, samples: int, score: bool = True, error: bool = False) -> None:
        super().__init__()
        at_least_one(samples=samples)
        self.samples, self.score, self.error = samples, score, error

    @abstractmethod
    def forward(self, terms: Terms) -> Tensor:
        """The loss, a scalar, in nats per data point."""

    @abstractmethod
    def metrics(self) -> dict[str, Tensor]:
        """Scalars worth a line in the log, on the device; read once an epoch."""

    @abstractmethod
    def prior_gate(self) -> Tensor | None:
        """1 where the prior's own parameters are trained in this step and 0 where not, on the device; None: always."""


class ELBO(Objective):
    r"""Negative evidence lower bound, with linear warm-up of the divergence (Bowman et al. 2016; Sonderby et al. 2016).

    $$\text{loss} = \text{mean}\big[ -\log p(x|z) + \beta\, (\log q(z|x) - \log p(z)) \big],
      \qquad \beta = \min(1, \text{epoch} / \text{warmup})$$

    with epochs counted from 1, as in Tomczak & Welling 2018. In evaluation mode $\beta = 1$.

    Args:
        warmup: Epochs until $\beta = 1$; none for 0.
        steps_per_epoch: Calls in training mode that make an epoch.
        samples: Draws of z for each x.

    Raises:
        ValueError: If `warmup` < 0, `steps_per_epoch` < 1 or `samples` < 1.

    >>> objective = ELBO(warmup=2)
    >>> terms = Terms(torch.tensor([[-3.0]]), torch.tensor([[1.0]]))
    >>> [objective(terms).item() for _ in range(3)]
    [3.5, 4.0, 4.0]
    """

    def __init__(self, warmup: int = 0, steps_per_epoch: int = 1, samples: int = 1) -> None:
        super().__init__(samples)
        at_least_one(steps_per_epoch=steps_per_epoch)
        if warmup < 0:
            raise ValueError(f"warmup is {warmup}: it cannot be negative; give 0 for none")
        self.warmup, self.steps_per_epoch = warmup, steps_per_epoch
        self.step: Tensor
        self.beta: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("beta", torch.ones(()))

    def forward(self, terms: Terms) -> Tensor:
        if not self.training:
            return -terms.log_weight.mean()
        epoch = self.step // self.steps_per_epoch + 1
        beta = (epoch / max(self.warmup, 1)).clamp(max=1)
        self.step += 1
        self.beta.copy_(beta)
        return (beta * terms.kl - terms.log_likelihood).mean()

    def metrics(self) -> dict[str, Tensor]:
        return {"beta": self.beta}

    def prior_gate(self) -> None:
        return None


class IWAE(Objective):
    r"""Negative importance-weighted bound (Burda, Grosse & Salakhutdinov 2016, eq. 8).

    $$\text{loss} = -\text{mean}\, \log \frac1K \sum_k w_k, \qquad
      \nabla = -\text{mean} \sum_k \tilde w_k \nabla \log w_k, \quad \tilde w = \text{softmax}(\log w)$$

    Estimators of the encoder's gradient; those of all other parameters are the same for the three:

    * `plain`: as above. Its signal-to-noise ratio falls as $1/\sqrt K$ (Rainforth et al. 2018).
    * `stl`: without the score term of log q(z|x) (Roeder, Wu & Duvenaud 2017): less noise, but biased for K > 1.
    * `dreg`: with $\tilde w_k^2$ in place of $\tilde w_k$ on the path through the draws (Tucker et al. 2019, eq. 5):
      unbiased, and its signal-to-noise ratio grows as $\sqrt K$.

    With `groups` M > 1 it is the mean of M bounds of K draws each (MIWAE of Rainforth et al. 2018); with a weight
    $b$ > 0 it is $b$ ELBO $+ (1 - b)$ bound (their CIWAE).

    Args:
        samples: K.
        estimator: `plain`, `stl` or `dreg`.
        groups: M; M K draws are taken for each x.
        elbo_weight: b, between 0 and 1.

    Raises:
        ValueError: If `samples` < 1, `groups` < 1, `estimator` is unknown, or `elbo_weight` is outside [0, 1].

    >>> objective = IWAE(samples=2)
    >>> terms = Terms(torch.tensor([[1.0], [3.0]]).log(), torch.zeros(2, 1))
    >>> round(objective(terms).exp().item(), 3)  # the mean weight is 2
    0.5
    """

    def __init__(self, samples: int, estimator: str = "plain", groups: int = 1, elbo_weight: float = 0.0) -> None:
        if estimator not in ("plain", "stl", "dreg"):
            raise ValueError(f"unknown estimator '{estimator}': choose one of plain, stl, dreg")
        at_least_one(samples=samples, groups=groups)
        if not 0 <= elbo_weight <= 1:
            raise ValueError(f"elbo_weight is {elbo_weight}: it must be within [0, 1]")
        if estimator == "dreg" and elbo_weight > 0:
            raise ValueError("dreg is an estimator for the bound alone: leave elbo_weight at 0, or choose plain or stl")
        super().__init__(samples * groups, score=estimator == "plain")
        self.estimator, self.groups, self.elbo_weight = estimator, groups, elbo_weight

    def forward(self, terms: Terms) -> Tensor:
        log_weight = terms.log_weight.unflatten(0, (self.groups, -1))  # (M, K, *batch)
        if self.estimator == "dreg" and terms.z is not None and terms.z.requires_grad:
            share = log_weight.detach().softmax(1).flatten(0, 1)[..., None]
            terms.z.register_hook(lambda gradient: gradient * share)
        bound = log_weight.logsumexp(1).mean() - math.log(log_weight.shape[1])
        return -(self.elbo_weight * log_weight.mean() + (1 - self.elbo_weight) * bound)

    def metrics(self) -> dict[str, Tensor]:
        return {}

    def prior_gate(self) -> None:
        return None


class _Constrained(Objective):
    """What REWO and GECO have in common: the moving average of the reconstruction error, and a weight of their own.

    The first value of the average is that of the first batch; see `REWO` for the other symbols.
    """

    def __init__(self, kappa: float, nu: float, alpha: float, beta: float, samples: int) -> None:
        for name, value in (("kappa", kappa), ("nu", nu), ("beta", beta)):
            if not value > 0:
                raise ValueError(f"{name} is {value}: a positive number is needed")
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha is {alpha}: it must be at least 0 and less than 1")
        super().__init__(samples, error=True)
        self.kappa, self.nu, self.alpha = kappa, nu, alpha
        self.step: Tensor
        self.average: Tensor
        self.log_beta: Tensor
        self.last: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", torch.zeros(()))
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("log_beta", torch.tensor(math.log(beta)))

    def excess(self, terms: Terms) -> Tensor:
        """Take the batch's error into the average; by how much this is beyond kappa^2."""
        if terms.error is None:
            raise ValueError("the terms have no reconstruction error: call model(x, n, error=True)")
        error = _mean_over_devices(terms.error.detach().mean().to(self.average.dtype))
        average = torch.where(self.step == 0, error, (1 - self.alpha) * error + self.alpha * self.average)
        self.last.copy_(error)
        self.average.copy_(average)
        self.step += 1
        return average - self.kappa**2

    def metrics(self) -> dict[str, Tensor]:
        bound = torch.full_like(self.average, self.kappa**2)
        return {"beta": self.log_beta.exp(), "error": self.last, "error_average": self.average, "error_bound": bound}


def _mean_over_devices(value: Tensor) -> Tensor:
    """The same number on all devices, or their phases would part and with them the models."""
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

    This begins when $\delta < 0$ for the first time. Until then, in the initial phase, $\beta$ stands still and the
    prior's own parameters are not trained (`prior_gate`). While the error is within the bound, $\beta$ rises towards
    1, the ELBO, by at most $\nu \kappa^2 \tanh\tau$ a step in its logarithm; beyond it, $\beta$ falls.

    The paper does not say what $\hat C$ is of; the mean squared error per dimension (of the batch over all devices) is
    the reading under which its $\kappa$ are feasible, for Gaussian and Bernoulli decoders. The clamp and the start are
    our choice.

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
        ValueError: If one of them is out of its range.

    >>> objective = REWO(kappa=0.5, nu=1.0, beta=0.1)
    >>> terms = lambda error: Terms(torch.tensor([[-3.0]]), torch.tensor([[10.0]]), torch.tensor([[error]]))
    >>> round(objective(terms(1.0)).item(), 4), objective.prior_gate().item()  # the initial phase
    (4.0, 0.0)
    """

    def __init__(
        self,
        kappa: float,
        nu: float = 1.0,
        tau: float = 3.0,
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

    def forward(self, terms: Terms) -> Tensor:
        if not self.training:
            return -terms.log_weight.mean()
        excess = self.excess(terms)
        self.main.copy_(torch.maximum(self.main, (excess < 0).to(self.main.dtype)))
        self.log_beta.copy_(torch.where(self.main > 0, self._updated(excess), self.log_beta))
        return (self.log_beta.exp() * terms.kl - terms.log_likelihood).mean()

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

    from the first step on, with $\hat C$ as in `REWO`: the error is held at its bound from both sides, so that
    $\beta = 1 / \lambda$ may pass 1. All parameters are trained always.

    Args:
        kappa, nu, alpha, beta, samples: As for `REWO`.

    Raises:
        ValueError: If one of them is out of its range.
    """

    def __init__(
        self, kappa: float, nu: float = 1.0, alpha: float = 0.99, beta: float = 1e-3, samples: int = 1
    ) -> None:
        super().__init__(kappa, nu, alpha, beta, samples)

    def forward(self, terms: Terms) -> Tensor:
        if not self.training:
            return -terms.log_weight.mean()
        self.log_beta.copy_((self.log_beta - self.nu * self.excess(terms)).clamp(-16, 16))
        return (terms.kl - (-self.log_beta).exp() * terms.log_likelihood).mean()

    def prior_gate(self) -> None:
        return None
