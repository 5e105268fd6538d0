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
| `SNIS`, `Resampled` | a base prior, weighted by a learned energy (see `resampled`) |
| `TwoLevelPrior` | $p(z_2)\, p(z_1 \mid z_2)$, with any of these as $p(z_2)$ |

A call computes the components once; keep the distribution while the parameters do not change.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.conditional import hold_prior
from vaepriors.distributions import Chain, DiagonalNormal, NormalMixture
from vaepriors.limits import at_least_one
from vaepriors.vae import VAE, Marginal, eval_mode

__all__ = ["VHP", "ExemplarPrior", "MixtureOfGaussians", "StandardNormal", "TwoLevelPrior", "VampPrior"]


class StandardNormal(nn.Module):
    """N(0, I) over `features` dimensions.

    >>> StandardNormal(2)().sample((5,)).shape
    torch.Size([5, 2])
    """

    __call__: Callable[..., DiagonalNormal]

    def __init__(self, features: int) -> None:
        super().__init__()
        at_least_one(features=features)
        self.loc: Tensor
        self.scale: Tensor
        self.register_buffer("loc", torch.zeros(features), persistent=False)
        self.register_buffer("scale", torch.ones(features), persistent=False)

    def forward(self) -> DiagonalNormal:
        return DiagonalNormal(self.loc, self.scale)


class MixtureOfGaussians(nn.Module):
    r"""Mixture of K diagonal normals with equal weights, means and variances free (Tomczak & Welling 2018, "MoG").

    Means start as standard normal draws and log-variances at 0 (our choice; the paper does not say).

    Args:
        features: Size of z.
        components: K.

    >>> MixtureOfGaussians(2, components=10)().log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    __call__: Callable[..., NormalMixture]

    def __init__(self, features: int, components: int) -> None:
        super().__init__()
        at_least_one(features=features, components=components)
        self.loc = nn.Parameter(torch.randn(components, features))
        self.log_var = nn.Parameter(torch.zeros(components, features))

    def forward(self) -> NormalMixture:
        return NormalMixture(self.loc, torch.exp(self.log_var / 2))


class VampPrior(nn.Module):
    r"""Variational mixture of posteriors, $p(z) = \sum_k w_k\, q(z|u_k)$ (Tomczak & Welling 2018, eq. 9 and 16).

    The components are the encoder's own posteriors at K pseudo-inputs: the prior holds the *same* module as the
    model and trains it too. Learned pseudo-inputs are free parameters, clamped to the range of the data before
    the encoder; a pixel outside it gets no gradient (see `clamped_share`). With `learn=False` the pseudo-inputs are
    fixed: with random training examples, this is the paper's "VampPrior data".

    The encoder must return normal distributions with diagonal covariance over vectors, such as `DiagonalNormal` or
    torch's `Independent(Normal(...), 1)`. This is checked at construction, by their density.

    Sampling draws a component by its weight. (The authors' program takes the first n pseudo-inputs.)

    Args:
        encoder: Module, x -> q(z|x). For a hierarchy, the one of the top level.
        pseudo_inputs: Initial $u$, of shape `(K, *event)`, the event shape of the data.
        weighted: Learn the weights, $w = \mathrm{softmax}(\text{logits})$; otherwise $w_k = 1/K$.
        learn: Learn the pseudo-inputs.
        bounds: Range of the data, to which learned pseudo-inputs are clamped; None for no clamp.
        scaling: Module whose `inverse` maps learned pseudo-inputs to the units of the data, such as
            `networks.scaling.Standardize`; None if they are in these units. Without it, the columns of a table on
            scales of their own would be learned at speeds of their own.
        conditions: Of a conditional model, whose encoder is (x, y) -> q(z|x, y): the y of each pseudo-input, of shape
            `(K, c)`, or a module that returns them, such as `vaepriors.PseudoConditions`.

    Raises:
        ValueError: If `pseudo_inputs` is not a tensor of at least one event that the encoder takes, if its values are
            outside the bounds or not finite, or if the encoder's distribution is not a diagonal normal.

    >>> from vaepriors import networks
    >>> prior = VampPrior(networks.Encoder((1, 4, 4), [16], latent=2), torch.rand(10, 1, 4, 4))
    >>> prior().sample((3,)).shape
    torch.Size([3, 2])
    """

    __call__: Callable[..., NormalMixture]

    def __init__(
        self,
        encoder: nn.Module,
        pseudo_inputs: Tensor,
        *,
        weighted: bool = False,
        learn: bool = True,
        bounds: tuple[float, float] | None = (0.0, 1.0),
        scaling: nn.Module | None = None,
        conditions: Tensor | nn.Module | None = None,
    ) -> None:
        super().__init__()
        _check_events(pseudo_inputs, "pseudo_inputs", missing=not learn)
        if learn and bounds is not None:
            _check_bounds(pseudo_inputs, bounds)
        conditions = _Fixed(conditions) if isinstance(conditions, Tensor) else conditions
        self.encoder, self.conditions = encoder, conditions
        self.bounds = bounds if learn else None
        self.scaling: Any = scaling
        pseudo_inputs = pseudo_inputs.detach().clone()
        self.pseudo_inputs: Tensor
        if learn:
            self.pseudo_inputs = nn.Parameter(pseudo_inputs)
        else:
            self.register_buffer("pseudo_inputs", pseudo_inputs)
        self.logits = nn.Parameter(pseudo_inputs.new_zeros(len(pseudo_inputs))) if weighted else None
        given = None if conditions is None else conditions()
        _check_diagonal_normal(encoder, _paired(self.inputs(), given, "pseudo_inputs"))

    def inputs(self) -> Tensor:
        """The clamped pseudo-inputs in the units of the data, of shape `(K, *event)`."""
        u = self.pseudo_inputs if self.bounds is None else self.pseudo_inputs.clamp(*self.bounds)
        return u if self.scaling is None else self.scaling.inverse(u)

    def forward(self) -> NormalMixture:
        q = self.encoder(*self._seen())
        return NormalMixture(q.mean, q.stddev, self.logits)

    def posteriors(self, components: slice) -> Distribution:
        """The components q(z|u) of some pseudo-inputs."""
        return self.encoder(*(each[components] for each in self._seen()))

    def _seen(self) -> tuple[Tensor, ...]:
        """What the encoder sees: the clamped pseudo-inputs, and their conditions if there are some."""
        return (self.inputs(),) if self.conditions is None else (self.inputs(), self.conditions())

    @torch.no_grad()
    def clamped_share(self) -> Tensor:
        """Share of pseudo-pixels at or beyond a bound; those beyond it get no gradient."""
        if self.bounds is None:
            return self.pseudo_inputs.new_zeros(())
        low, high = self.bounds
        return ((self.pseudo_inputs <= low) | (self.pseudo_inputs >= high)).float().mean()


class _Fixed(nn.Module):
    """Returns a constant tensor, which checkpoints have."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value: Tensor
        self.register_buffer("value", value.detach().clone())

    def forward(self) -> Tensor:
        return self.value


def _paired(x: Tensor, conditions: Tensor | None, name: str) -> tuple[Tensor, ...]:
    """The inputs of an encoder, with a condition for each if there are some."""
    if conditions is None:
        return (x,)
    if conditions.dim() != 2 or len(conditions) != len(x):
        raise ValueError(
            f"there are {len(x)} {name}, but conditions of shape {tuple(conditions.shape)}: give ({len(x)}, c), one "
            "for each"
        )
    return x, conditions


def _check_events(x: Tensor, name: str, least: int = 1, missing: bool = False) -> None:
    """Refuse an argument that is not a tensor of at least `least` finite events, in which cells may be missing."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} is a {type(x).__name__}: give a tensor of shape (K, *event)")
    if x.dim() < 1 or len(x) < least:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: give (K, *event) with K at least {least}")
    if not x.is_floating_point():
        raise ValueError(f"{name} is {x.dtype}: convert it with {name}.float()")
    if (x.isinf() if missing else ~x.isfinite()).any():
        raise ValueError(_not_finite(name))


def _not_finite(name: str) -> str:
    return f"{name} has values that are not finite: give examples of the data, or noise like them"


def _check_bounds(pseudo_inputs: Tensor, bounds: tuple[float, float]) -> None:
    low, high = bounds
    slack = 0.1 * (high - low if math.isfinite(high - low) else 1)  # for training examples plus a little noise
    least, most = pseudo_inputs.min().item(), pseudo_inputs.max().item()
    if least < low - slack or most > high + slack:
        raise ValueError(
            f"pseudo_inputs span [{least:.4g}, {most:.4g}], and would be clamped to the bounds [{low:g}, {high:g}]: "
            "give the range of the data as bounds, or bounds=None"
        )


@torch.no_grad()
def _check_diagonal_normal(encoder: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Compare the density of q(z|u) with that of a diagonal normal, at two points of each component."""
    q = _vectors(encoder, inputs, "pseudo_inputs", "mean", "stddev")
    for step in (0.5, -2.0):
        z = q.mean + step * q.stddev
        if not torch.allclose(q.log_prob(z), DiagonalNormal(q.mean, q.stddev).log_prob(z), rtol=1e-3, atol=1e-3):
            raise ValueError(
                f"the encoder returns a {type(q).__name__} that is not a normal with diagonal covariance: "
                "mix such posteriors with torch.distributions.MixtureSameFamily instead"
            )


@torch.no_grad()
def _vectors(encoder: nn.Module, inputs: tuple[Tensor, ...], name: str, *moments: str) -> Distribution:
    """q(z|x) of the argument `name`, refused if it is not over one vector for each event or lacks a moment."""
    x = inputs[0]
    try:
        with eval_mode(encoder):
            q: Distribution = encoder(*inputs)
    except (RuntimeError, ValueError, IndexError) as error:
        shape = tuple(x.shape[1:])
        raise ValueError(f"{name} have event shape {shape}, which the encoder does not take: {error}") from error
    if tuple(q.batch_shape) != (len(x),) or len(q.event_shape) != 1:
        raise ValueError(
            f"the encoder of {len(x)} {name} returned a distribution of batch shape {tuple(q.batch_shape)} and event "
            f"shape {tuple(q.event_shape)}, expected ({len(x)},) and (latent,): one vector z for each input"
        )
    values = []
    try:
        for moment in moments:
            values.append(getattr(q, moment))
    except NotImplementedError as error:
        raise ValueError(
            f"the encoder returns a {type(q).__name__}, which has no {moment} in closed form: give an encoder "
            "of diagonal normals, such as the `top` of a hierarchical encoder"
        ) from error
    if x.isnan().any() and not all(value.isfinite().all() for value in values):  # it does not take missing cells
        raise ValueError(_not_finite(name))
    return q


class ExemplarPrior(nn.Module):
    r"""Mixture of normals around the training examples, $p(z) = \frac1N \sum_n N(z; \mu(x_n), \sigma^2 I)$.

    $\mu(x_n)$ is the mean of the encoder's own posterior at training example n, and $\sigma^2$ one learned variance,
    shared by all components and dimensions (Norouzi, Fleet & Norouzi 2020, Exemplar VAE, section 3). The prior holds
    the *same* encoder as the model and trains it, too.

    An example must not explain itself in training, so `without(rows)` leaves out its own component. `fit` does this. A
    hand-written loop calls `objective(model.without(rows), x)` with the rows of its batch, where row n of `exemplars`
    is row n of the training set; `prior()` leaves out none and overfits.

    In training mode each call draws M exemplars, without replacement. The density of an example is the mean over those
    of them that are not the example itself, M or M - 1. Given which of the two, these are a uniform draw from the other
    N - 1 examples, so the density is right on average: `exp(log_prob)` is unbiased and the loss is a bound. Two calls
    differ: never cache one in training, and never subtract two. A step encodes M more examples, as a step with a
    `VampPrior` of M components does; the paper draws half of the training set.

    In evaluation mode the density is exact. All N exemplars are encoded in each call, 1,000 at a time: call it once
    under `torch.no_grad()` and keep the distribution, as `estimate` does.

    The exemplars belong to the data, not to the weights: no checkpoint has them, so load weights only into a model that
    was built with the same exemplars. For data that are binarised dynamically they are the probabilities (our choice,
    as for the VampPrior on data). $\log \sigma^2$ starts at 0.

    Args:
        encoder: Module, x -> q(z|x), with a mean in closed form. For a hierarchy, the one of the top level.
        exemplars: The training set, of shape `(N, *event)`.
        samples: M, the number of exemplars of a call in training mode, from 2 to N.
        conditions: Of a conditional model, whose encoder is (x, y) -> q(z|x, y): the y of each exemplar, `(N, c)`.

    Raises:
        ValueError: If `exemplars` is not a tensor of at least two events that the encoder takes, if `samples` is less
            than 2 or more than N, or if the encoder's distribution is not over vectors or has no mean.

    >>> from vaepriors import networks
    >>> prior = ExemplarPrior(networks.Encoder((1, 4, 4), [16], latent=2), torch.rand(30, 1, 4, 4), samples=10)
    >>> len(prior().loc), prior.without(torch.tensor([0, 7, 7])).batch_shape, len(prior.eval()().loc)
    (10, torch.Size([3]), 30)
    """

    __call__: Callable[..., NormalMixture]

    def __init__(
        self, encoder: nn.Module, exemplars: Tensor, samples: int = 500, *, conditions: Tensor | None = None
    ) -> None:
        super().__init__()
        _check_events(exemplars, "exemplars", least=2, missing=True)
        if not 2 <= samples <= len(exemplars):
            raise ValueError(f"samples is {samples}: choose 2 to {len(exemplars)}, the number of exemplars")
        inputs = _paired(exemplars, conditions, "exemplars")
        incomplete = exemplars.flatten(1).isnan().any(1)
        looked_at = torch.cat([torch.arange(2, device=exemplars.device), incomplete.nonzero().flatten()[:1]])
        _vectors(encoder, tuple(each[looked_at] for each in inputs), "exemplars", "mean")
        self.encoder, self.samples = encoder, samples
        # no buffers: DDP would send them to all devices in each step
        self.exemplars, *self.conditions = (each.detach() for each in inputs)
        self.log_var = nn.Parameter(exemplars.new_zeros(()))

    def forward(self) -> NormalMixture:
        return self._mixture(self._draw())

    def without(self, rows: Tensor) -> NormalMixture:
        """The prior of each of some training examples, without its own component.

        Args:
            rows: Rows of the exemplars, whole numbers, of shape `batch`. A row beyond the exemplars leaves out nothing.

        Returns:
            Mixtures of batch shape `batch`.

        Raises:
            ValueError: If `rows` are not whole numbers.
        """
        if rows.is_floating_point() or rows.dtype == torch.bool:
            raise ValueError(f"rows is {rows.dtype}: give the row of each example in the training set")
        return self._mixture(self._draw(), rows)

    def _draw(self) -> Tensor:
        """The rows of the exemplars of a call: M at random in training mode, otherwise all."""
        number = len(self.exemplars)
        if self.training and self.samples < number:
            return torch.randperm(number, device=self.exemplars.device)[: self.samples]
        return torch.arange(number, device=self.exemplars.device)

    def _mixture(self, chosen: Tensor, without: Tensor | None = None) -> NormalMixture:
        """The components of the chosen exemplars, with equal weights; without the one of each given row."""
        size = self.samples if self.training else 1000
        inputs = (self.exemplars, *self.conditions)
        loc = torch.cat([self.encoder(*(each[some] for each in inputs)).mean for some in chosen.split(size)])
        scale = torch.exp(self.log_var / 2).expand_as(loc)
        if without is None:
            return NormalMixture(loc, scale)
        itself = without[..., None] == chosen
        return NormalMixture(loc, scale, loc.new_zeros(()).expand(itself.shape).masked_fill(itself, -torch.inf))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ExemplarPrior":
        """Move or convert the exemplars with the parameters."""
        super()._apply(fn, recurse)
        self.exemplars, *self.conditions = map(fn, (self.exemplars, *self.conditions))
        return self


class VHP(nn.Module):
    r"""Variational hierarchical prior, a VAE over z (Klushyn et al. 2019, eq. 8 to 10).

    $$\log p_K(z) = \log \frac1K \sum_k \frac{p(z|u_k)\, p(u_k)}{q(u_k|z)}, \qquad u_k \sim q(u|z)$$

    is at most $\log p(z)$ on average, and $p_K$ equals $p$ on average. So the loss is a bound, and the
    importance-sampled likelihood is unbiased, for any K. Two calls of `log_prob` differ. Samples are exact: u from
    N(0, I), z from p(z|u). With K = 1 and an `IWAE` objective, the model is the IWAE of two levels.

    Args:
        vae: A VAE whose data are z.
        samples: K.

    Raises:
        ValueError: If `samples` < 1, or the data of the VAE are not vectors.

    >>> from vaepriors import networks
    >>> inner = VAE(networks.Encoder((2,), [8], 2), networks.conditional(2, [8], 2), StandardNormal(2))
    >>> VHP(inner, samples=16)().log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    __call__: Callable[..., Marginal]

    def __init__(self, vae: VAE, samples: int) -> None:
        super().__init__()
        at_least_one(samples=samples)
        self.vae, self.samples = vae, samples
        with torch.random.fork_rng(devices=[]), eval_mode(vae):
            self.event_shape = vae.sample().shape
        if len(self.event_shape) != 1:
            raise ValueError(f"the VAE draws events of shape {tuple(self.event_shape)}: a prior is over vectors z")

    def forward(self) -> Marginal:
        return Marginal(self.vae, self.samples, self.event_shape)


class TwoLevelPrior(nn.Module):
    """p(z2) p(z1|z2), over z = [z2, z1] (Tomczak & Welling 2018, eq. 11 to 13).

    Called with y, as the prior of a conditional model, it is p(z2|y) p(z1|z2, y), of `top(y)` and `bottom(z2, y)`.

    Args:
        top: Module, () -> p(z2).
        bottom: Module, z2 -> p(z1|z2).
        sizes: Sizes of z2 and z1.

    >>> from vaepriors import networks
    >>> prior = TwoLevelPrior(StandardNormal(2), networks.conditional(2, [8], 3), sizes=(2, 3))
    >>> prior().sample((4,)).shape
    torch.Size([4, 5])
    """

    __call__: Callable[..., Chain]

    def __init__(self, top: nn.Module, bottom: nn.Module, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.top, self.bottom, self.sizes = top, bottom, sizes

    def forward(self, *y: Tensor) -> Chain:
        return self._chain(self.top(*y), y)

    def _chain(self, top: Distribution, y: tuple[Tensor, ...]) -> Chain:
        return Chain(top, (lambda z2: self.bottom(z2, *y)) if y else self.bottom, self.sizes)

    @property
    def without(self) -> Callable[..., Chain]:
        """The method of the top for both levels (see `ExemplarPrior`); missing if the top does not have it."""
        top: Any = self.top.without
        return lambda rows, *y: self._chain(top(rows, *y), y)

    def hold_prior(self) -> "TwoLevelPrior":
        """The same of a conditional model, with what all p(z2|y) share computed now."""
        return TwoLevelPrior(hold_prior(self.top), self.bottom, self.sizes)
