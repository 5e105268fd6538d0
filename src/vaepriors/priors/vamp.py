"""The VampPrior: a mixture of the encoder's own posteriors."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.distributions import DiagonalNormal, NormalMixture
from vaepriors.priors.encoded import check_events, component_posteriors, paired, posterior_at
from vaepriors.vae import at_device_of, eval_mode
from vaepriors.words import a_type

__all__ = ["VampPrior"]


class VampPrior(nn.Module):
    r"""Variational mixture of posteriors, $p(z) = \sum_k w_k\, q(z|u_k)$ (Tomczak & Welling 2018, eq. 9 and 16).

    The components are the encoder's own posteriors at K pseudo-inputs: the prior holds the *same* module as the
    model and trains it too. Learned pseudo-inputs are free parameters, clamped to the range of the data before
    the encoder; a pixel outside it gets no gradient (see `clamped_share`). With `learn=False` the pseudo-inputs are
    fixed: with random training examples, this is the paper's "VampPrior data".

    The encoder must return normal distributions with diagonal covariance over vectors, such as `DiagonalNormal` or
    torch's `Independent(Normal(...), 1)`. This is checked at construction, by their density. Batch norm uses, for the
    components, the running statistics of the data.

    Sampling draws a component by its weight. (The authors' program takes the first n pseudo-inputs.)

    Args:
        encoder: Module, x -> q(z|x). For a hierarchy, the one of the top level.
        pseudo_inputs: Initial $u$, of shape `(K, *event)`, the event shape of the data, on any device.
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
            outside the bounds or not finite, if the encoder's distribution is not a diagonal normal, or if
            pseudo-inputs are to be learned and get no gradient, as from an encoder that rounds them to codes.

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
        check_events(pseudo_inputs, "pseudo_inputs", missing=not learn)
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
        self.to(at_device_of(encoder, pseudo_inputs).device)
        given = None if conditions is None else conditions()
        inputs = paired(self.inputs(), given, "pseudo_inputs")
        _check_diagonal_normal(encoder, inputs)
        if learn:
            _check_gradient(encoder, inputs)

    def inputs(self) -> Tensor:
        """The clamped pseudo-inputs in the units of the data, of shape `(K, *event)`."""
        u = self.pseudo_inputs if self.bounds is None else self.pseudo_inputs.clamp(*self.bounds)
        return u if self.scaling is None else self.scaling.inverse(u)

    def forward(self) -> NormalMixture:
        q = component_posteriors(self.encoder, *self._seen())
        return NormalMixture(q.mean, q.stddev, self.logits)

    def posteriors(self, components: slice) -> Distribution:
        """The components q(z|u) of some pseudo-inputs."""
        return component_posteriors(self.encoder, *(each[components] for each in self._seen()))

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
    q = posterior_at(encoder, inputs, "pseudo_inputs", "mean", "stddev")
    for step in (0.5, -2.0):
        z = q.mean + step * q.stddev
        if not torch.allclose(q.log_prob(z), DiagonalNormal(q.mean, q.stddev).log_prob(z), rtol=1e-3, atol=1e-3):
            raise ValueError(
                f"the encoder returns {a_type(q)} that is not a normal with diagonal covariance: "
                "mix such posteriors with torch.distributions.MixtureSameFamily instead"
            )


def _check_gradient(encoder: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Refuse an encoder whose q(z|u) has no gradient in u. While its parameters are frozen, only u has one."""
    if torch.is_inference_mode_enabled():
        return
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    u, *conditions = (each[:1].detach() for each in inputs)
    encoder.requires_grad_(False)
    try:
        with torch.enable_grad(), eval_mode(encoder):
            connected = encoder(u.requires_grad_(), *conditions).mean.requires_grad
    finally:
        for parameter in trained:
            parameter.requires_grad_()
    if not connected:
        raise ValueError(
            "the encoder gives pseudo_inputs no gradient, as an embedding of codes does, so they cannot be learned: "
            "choose learn=False, or another prior"
        )
