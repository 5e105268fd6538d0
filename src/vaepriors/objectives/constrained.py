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

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn
from torch.func import functional_call

from vaepriors.distributions import residual
from vaepriors.limits import at_least_one
from vaepriors.vae import VAE, Parts, Terms, check_dtype

__all__ = ["ELBO", "GECO", "IWAE", "REWO", "Objective", "PriorFit"]


class Objective(nn.Module, ABC):
    """A loss on `samples` draws of z for each x.

    Attributes:
        samples: Draws of z for each x.
    """

    __call__: Callable[..., tuple[Tensor, Terms]]

    def __init__(self, samples: int) -> None:
        super().__init__()
        at_least_one(samples=samples)
        self.samples = samples

    @abstractmethod
    def forward(self, model: VAE, x: Tensor) -> tuple[Tensor, Terms]:
        """The loss, a scalar, in nats per data point, and the terms that it was computed from."""

    def count_epochs(self, steps: int) -> None:
        """Set the number of calls in training mode that make an epoch, unless it was given."""

    def metrics(self) -> dict[str, Tensor]:
        """Scalars for the log, on the device; read once an epoch."""
        return {}

    def prior_gate(self) -> Tensor | None:
        """1 if the prior's own parameters are trained in this step, otherwise 0, on the device; None if always."""
        return None

    def fixed(self, model: Parts) -> tuple[nn.Module, ...]:
        """The parts of the model that stand still: not trained, and in evaluation mode during the training."""
        return ()

    def trained(self, model: Parts) -> list[nn.Parameter]:
        """The parameters that are trained: those of no fixed part."""
        fixed = {id(p) for part in self.fixed(model) for p in part.parameters()}
        return [p for p in model.parameters() if id(p) not in fixed]


class ELBO(Objective):
    r"""Negative evidence lower bound, with linear warm-up of the divergence (Bowman et al. 2016; Sonderby et al. 2016).

    $$\text{loss} = \text{mean}\big[ -\log p(x|z) + \beta\, (\log q(z|x) - \log p(z)) \big],
      \qquad \beta = \min(1, \text{epoch} / \text{warmup})$$

    with epochs counted from 1, as in Tomczak & Welling 2018. In evaluation mode $\beta = 1$.

    Args:
        warmup: Epochs until $\beta = 1$; 0 for no warm-up.
        steps_per_epoch: Calls in training mode that make an epoch. `fit` sets it unless it is given; in a custom loop
            without it, the warm-up counts calls.
        samples: Draws of z for each x.

    Raises:
        ValueError: If `warmup` < 0, `steps_per_epoch` < 1 or `samples` < 1.

    >>> from vaepriors import networks, priors
    >>> model = VAE(networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2), priors.StandardNormal(2))
    >>> objective, x = ELBO(warmup=100, steps_per_epoch=500), torch.ones(10, 4)
    >>> loss, terms = objective(model, x)
    >>> bool(loss.isclose((0.01 * terms.rate + terms.distortion).mean()))
    True
    """

    def __init__(self, warmup: int = 0, steps_per_epoch: int | None = None, samples: int = 1) -> None:
        super().__init__(samples)
        at_least_one(steps_per_epoch=steps_per_epoch)
        if warmup < 0:
            raise ValueError(f"warmup is {warmup}: it cannot be negative; give 0 for none")
        self.warmup, self.steps_per_epoch = warmup, steps_per_epoch
        self.step: Tensor
        self.beta: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("beta", torch.ones(()))

    def forward(self, model: VAE, x: Tensor) -> tuple[Tensor, Terms]:
        terms = model(x, self.samples)
        if not self.training:
            return -terms.log_weight.mean(), terms
        epoch = self.step // (self.steps_per_epoch or 1) + 1
        beta = (epoch / max(self.warmup, 1)).clamp(max=1)
        self.step += 1
        self.beta.copy_(beta)
        return (beta * terms.log_ratio - terms.log_likelihood).mean(), terms

    def count_epochs(self, steps: int) -> None:
        if self.steps_per_epoch is None:
            self.steps_per_epoch = steps

    def metrics(self) -> dict[str, Tensor]:
        return {"beta": self.beta}


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

    >>> from vaepriors import networks, priors
    >>> model = VAE(networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2), priors.StandardNormal(2))
    >>> loss, terms = IWAE(samples=50)(model, torch.ones(10, 4))
    >>> bool(loss.isclose(-terms.bound.mean()))
    True
    """

    def __init__(self, samples: int, estimator: str = "plain", groups: int = 1, *, elbo_weight: float = 0.0) -> None:
        if estimator not in ("plain", "stl", "dreg"):
            raise ValueError(f"unknown estimator '{estimator}': choose one of plain, stl, dreg")
        at_least_one(samples=samples, groups=groups)
        if not 0 <= elbo_weight <= 1:
            raise ValueError(f"elbo_weight is {elbo_weight}: it must be within [0, 1]")
        if estimator == "dreg" and elbo_weight > 0:
            raise ValueError("dreg is an estimator for the bound alone: leave elbo_weight at 0, or choose plain or stl")
        super().__init__(samples * groups)
        self.estimator, self.groups, self.elbo_weight = estimator, groups, elbo_weight

    def forward(self, model: VAE, x: Tensor) -> tuple[Tensor, Terms]:
        terms = model(x, self.samples) if self.estimator == "plain" else self._without_score(model, x)
        log_weight = terms.log_weight.unflatten(0, (self.groups, -1))  # (M, K, *batch)
        if self.estimator == "dreg" and terms.z is not None and terms.z.requires_grad:
            share = log_weight.detach().softmax(1).flatten(0, 1)[..., None]
            terms.z.register_hook(lambda gradient: gradient * share)
        bound = log_weight.logsumexp(1).mean() - math.log(log_weight.shape[1])
        return -(self.elbo_weight * log_weight.mean() + (1 - self.elbo_weight) * bound), terms

    def _without_score(self, model: VAE, x: Tensor) -> Terms:
        """Terms in which the gradient of log q(z|x) has no score term, the gradient at fixed z.

        The score term has mean zero. The values are the same, and the gradient reaches the encoder through the draws
        only. This costs another pass of the encoder.
        """
        check_dtype(x)
        z = model.encoder(x).rsample((self.samples,))
        parameters = {f"encoder.{name}": p.detach() for name, p in model.encoder.named_parameters()}
        return model.weigh(x, z, functional_call(_LogProb(model.encoder), parameters, (x, z)))


class _LogProb(nn.Module):
    """(x, z) -> log q(z|x), all in one call: a chain calls its encoder again for the lower level."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.encoder(x).log_prob(z)


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

    def excess(self, x: Tensor, terms: Terms) -> Tensor:
        """Add the batch's error, the mean of `residual` squared, to the moving average; return it minus kappa^2."""
        assert terms.likelihood is not None
        squares = residual(terms.likelihood, x).detach().square()
        error = _mean_over_devices(squares.mean().to(self.average.dtype))
        average = torch.where(self.step == 0, error, (1 - self.alpha) * error + self.alpha * self.average)
        self.last.copy_(error)
        self.average.copy_(average)
        self.step += 1
        return average - self.kappa**2

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
        terms = model(x, self.samples)
        if not self.training:
            return -terms.log_weight.mean(), terms
        excess = self.excess(x, terms)
        self.main.copy_(torch.maximum(self.main, (excess < 0).to(self.main.dtype)))
        self.log_beta.copy_(torch.where(self.main > 0, self._updated(excess), self.log_beta))
        return (self.log_beta.exp() * terms.log_ratio - terms.log_likelihood).mean(), terms

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
        terms = model(x, self.samples)
        if not self.training:
            return -terms.log_weight.mean(), terms
        self.log_beta.copy_((self.log_beta - self.nu * self.excess(x, terms)).clamp(-16, 16))
        return (terms.log_ratio - (-self.log_beta).exp() * terms.log_likelihood).mean(), terms


class PriorFit(Objective):
    r"""The rate, in the prior's own parameters: a new prior for an encoder and a decoder that stand still.

    $$\text{loss} = \text{mean}\big[ \log q(z|x) - \log p(z) \big], \qquad
      \mathbb{E}[\text{loss}] = I(n; z) + KL(q(z) \,\|\, p(z))$$

    The mutual information of an example's number and its code does not depend on p (see `analysis.elbo_surgery`), and
    neither does the distortion. So this minimises the divergence of the prior from the aggregated posterior, and the
    ELBO rises by as much as the divergence falls. For two levels both p(z2) and p(z1|z2) are trained.

    No gradient reaches the parameters of encoder and decoder, also where a prior shares them: of a VampPrior the
    pseudo-inputs and the weights are trained. The decoder is called only for the distortion in the log.

    In evaluation mode the loss is the same, with the same noise in each call: the losses of two epochs differ by their
    priors alone.

    Args:
        samples: Draws of z for each x.

    Raises:
        ValueError: If `samples` < 1.

    >>> from vaepriors import networks, priors
    >>> encoder, decoder = networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2)
    >>> model = VAE(encoder, decoder, priors.MixtureOfGaussians(2, components=3))
    >>> loss, terms = PriorFit()(model, torch.ones(10, 4))
    >>> loss.backward()
    >>> model.prior.loc.grad is None, any(p.grad is not None for p in encoder.parameters())
    (False, False)
    """

    def __init__(self, samples: int = 1) -> None:
        super().__init__(samples)

    def forward(self, model: VAE, x: Tensor) -> tuple[Tensor, Terms]:
        if self.training:
            return self._rate(model, x)
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(0)
            return self._rate(model, x)

    def _rate(self, model: VAE, x: Tensor) -> tuple[Tensor, Terms]:
        fixed = [p for part in self.fixed(model) for p in part.parameters() if p.requires_grad]  # none within `fit`
        try:
            for p in fixed:
                p.requires_grad_(False)
            terms = model(x, self.samples)
        finally:
            for p in fixed:
                p.requires_grad_(True)
        return terms.log_ratio.mean(), terms

    def fixed(self, model: Parts) -> tuple[nn.Module, ...]:
        return (model.encoder, model.decoder)
