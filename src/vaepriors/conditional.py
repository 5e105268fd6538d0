r"""Models given a condition y: a class, covariates, or several of them.

A conditional model is a module that, called with y, returns a `VAE`:

$$\log p(x|y) = \log \int p(x|z, y)\, p(z|y)\, dz, \qquad q(z|x, y)$$

(Sohn, Lee & Yan 2015, Learning structured output representation using deep conditional generative models). Its parts
are any modules that take y as their last input, and return distributions:

    encoder(x, y), decoder(z, y), prior(y)

`Ignoring(part)` makes such a module of one that does not see y. `networks.Appended` makes one of a network that has
room for y beside x or z. `PerClass` gives each class mixture components of its own.

y is a float tensor of shape `(*batch, c)`: one-hot classes, covariates, or both. z has leading draws,
`(n, *batch, latent)`, and y broadcasts.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.agreement import check_module
from vaepriors.distributions import NormalMixture
from vaepriors.vae import VAE, Constant, Parts, at_device_of
from vaepriors.words import a_type

__all__ = [
    "AnyVAE",
    "ConditionalVAE",
    "Ignoring",
    "PerClass",
    "PseudoConditions",
    "batches",
    "check_condition",
    "given",
    "hold_prior",
    "unconditional",
]


class ConditionalVAE(Parts):
    """A module that, called with y, returns a `VAE`.

    Args:
        encoder: Module, (x, y) -> q(z|x, y), which must have `rsample`.
        decoder: Module, (z, y) -> p(x|z, y), for z with any leading dimensions.
        prior: Module, y -> p(z|y), of the batch shape of y.

    Raises:
        ValueError: If a part does not take y.

    >>> from vaepriors import networks, priors
    >>> encoder = networks.Appended(networks.Encoder((4 + 3,), [16], latent=2), 3)  # x has 4 numbers, y has 3
    >>> decoder = networks.Appended(networks.Decoder((4,), [16], latent=2 + 3), 3)
    >>> model = ConditionalVAE(encoder, decoder, Ignoring(priors.StandardNormal(2)))
    >>> x, y = torch.zeros(10, 4), torch.eye(3)[torch.arange(10) % 3]
    >>> model(y)(x, n=5).bound.shape, model(y[0]).sample((7,)).shape
    (torch.Size([10]), torch.Size([7, 4]))
    """

    __call__: Callable[..., VAE]

    def __init__(self, encoder: nn.Module, decoder: nn.Module, prior: nn.Module) -> None:
        super().__init__(encoder, decoder, prior)
        for name, inputs in (("encoder", "x, y"), ("decoder", "z, y"), ("prior", "y")):
            _check_inputs(name, getattr(self, name), inputs)

    def forward(self, y: Tensor, *others: object) -> VAE:
        """The model given y.

        Args:
            y: Conditions, of shape `(*batch, c)`, on any device.
            others: Nothing: the model is not called with x.

        Raises:
            ValueError: If y is not a tensor of floats with at least one dimension, or there is anything else.
        """
        if others:
            raise ValueError(
                "a ConditionalVAE is called with y alone, and the model that it returns with x: write model(y)(x), or "
                "objective(model(y), x)"
            )
        if not isinstance(y, Tensor) or not y.is_floating_point() or y.dim() == 0:
            kind = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"y is {kind}: give floats of shape (*batch, c), such as one_hot(labels, 10).float() for ten classes"
            )
        y = at_device_of(self, y)
        return VAE(_At(self.encoder, y), _At(self.decoder, y), _PriorAt(self.prior, y))

    def hold_prior(self) -> "ConditionalVAE":
        """The same model with what all p(z|y) share computed now, for many calls with the same parameters."""
        return ConditionalVAE(self.encoder, self.decoder, hold_prior(self.prior))


AnyVAE = VAE | ConditionalVAE


def _check_inputs(name: str, part: nn.Module, inputs: str) -> None:
    """Refuse a part whose `forward` does not take these inputs."""
    try:
        inspect.signature(part.forward).bind(*inputs.split(", "))
    except TypeError as error:
        raise ValueError(
            f"the {name} is {a_type(part)}, which is not called as {name}({inputs}): wrap a part that does "
            f"not see y as Ignoring({name}), and a network with room for y as networks.Appended"
        ) from error


class _At(nn.Module):
    """A part of a conditional model at one y."""

    def __init__(self, part: nn.Module, y: Tensor) -> None:
        super().__init__()
        self.part = part
        self.y: Tensor
        self.register_buffer("y", y, persistent=False)  # converted with the part, as `check` does

    def forward(self, *inputs: Tensor) -> Distribution:
        return self.part(*inputs, self.y)


class _PriorAt(_At):
    """p(z|y) at one y, as a module without arguments."""

    def forward(self, *inputs: Tensor) -> Distribution:
        return self._checked(super().forward(*inputs))

    @property
    def without(self) -> Callable[[Tensor], Distribution]:
        """The method of the prior (see `VAE.without`); missing if the prior does not have it."""
        leave_out: Any = self.part.without
        return lambda rows: self._checked(leave_out(rows, self.y))

    def _checked(self, p: Distribution) -> Distribution:
        """Without the batch shape of y, draws for several y would share one z."""
        if hasattr(p, "batch_shape") and p.batch_shape != self.y.shape[:-1]:
            raise ValueError(
                f"the prior returned batch shape {tuple(p.batch_shape)} for y of shape {tuple(self.y.shape)}: return "
                "p(z|y) of each y, or wrap a prior that does not see y as Ignoring(prior)"
            )
        return p


class Ignoring(nn.Module):
    """A part of a conditional model that does not see y: `encoder(x)`, `decoder(z)` or `prior()`.

    Args:
        part: The part, called without y.

    >>> from vaepriors.priors import StandardNormal
    >>> Ignoring(StandardNormal(2))(torch.zeros(5, 3)).sample().shape
    torch.Size([5, 2])
    """

    __call__: Callable[..., Distribution]

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = check_module("part", part)

    def forward(self, *inputs: Tensor) -> Distribution:
        *others, y = inputs
        p = self.part(*others)
        return p if others else p.expand(y.shape[:-1])

    @property
    def without(self) -> Callable[..., Distribution]:
        """The method of a prior (see `VAE.without`); missing if it does not have it."""
        leave_out: Any = self.part.without
        return lambda rows, y: leave_out(rows)

    def hold_prior(self) -> "Ignoring":
        return Ignoring(Constant(self.part()))


class PerClass(nn.Module):
    r"""A mixture whose components belong to classes, $p(z|y) = \sum_c y_c \sum_{k \in c} w_{k|c}\, p_k(z)$.

    Each class has the components of its own, whose weights sum to one. All components are computed once in each call,
    whatever the classes of y.

    Args:
        mixture: Module, () -> `NormalMixture` of the same K components in each call, such as a `VampPrior` whose
            pseudo-inputs have classes. An `ExemplarPrior` draws others in each call.
        classes: The class of each component, whole numbers of shape `(K,)`; every class up to the largest needs one.
            The first numbers of y are the one-hot class, or probabilities of classes; further ones are ignored.

    Raises:
        ValueError: If `classes` are not whole numbers of shape `(K,)`, or leave out a class, or if the components are
            training examples.

    >>> from vaepriors.priors import MixtureOfGaussians
    >>> prior = PerClass(MixtureOfGaussians(2, components=6), torch.arange(6) % 3)
    >>> prior(torch.eye(3)).log_prob(torch.zeros(5, 3, 2)).shape
    torch.Size([5, 3])
    """

    __call__: Callable[..., NormalMixture]

    def __init__(self, mixture: nn.Module, classes: Tensor) -> None:
        super().__init__()
        if classes.is_floating_point() or classes.dim() != 1 or not len(classes) or classes.min() < 0:
            raise ValueError(
                f"classes is {classes.dtype} {tuple(classes.shape)}: give the class of each component, 0, 1, ..., of "
                "shape (K,)"
            )
        missing = set(range(int(classes.max()) + 1)) - set(classes.tolist())
        if missing:
            raise ValueError(f"class {min(missing)} has no component: give each class at least one")
        if hasattr(mixture, "without"):  # it would pair drawn components with the classes of others
            raise ValueError(
                f"the components of {type(mixture).__name__} are training examples, drawn anew in each call of a "
                "training: give a mixture whose components stay, such as a VampPrior"
            )
        self.part, self.number = mixture, int(classes.max()) + 1
        self.classes: Tensor
        self.register_buffer("classes", classes.long(), persistent=False)

    def forward(self, y: Tensor) -> NormalMixture:
        if y.shape[-1] < self.number:
            raise ValueError(f"y has shape {tuple(y.shape)}, but its first {self.number} numbers must be the class")
        p = self.part()
        if len(p.loc) != len(self.classes):
            raise ValueError(f"there are {len(p.loc)} components, but {len(self.classes)} classes: give one for each")
        own = self.classes == torch.arange(self.number, device=self.classes.device)[:, None]  # (classes, K)
        totals = p.logits.expand_as(own).masked_fill(~own, -torch.inf).logsumexp(-1)
        within = p.logits - totals[self.classes]
        return NormalMixture(p.loc, p.scale, y[..., : self.number].log()[..., self.classes] + within)

    def hold_prior(self) -> "PerClass":
        return PerClass(Constant(self.part()), self.classes)


class PseudoConditions(nn.Module):
    """Learned conditions of pseudo-inputs, () -> c of shape `(K, c)`.

    The first numbers are soft one-hot classes, the softmax of free logits; the others are free.

    Args:
        start: Where they start, of shape `(K, c)`. A class starts with a share of 1 / (1 + (classes - 1) e^-3).
        classes: How many of the c numbers are a one-hot class.

    >>> PseudoConditions(torch.tensor([[1.0, 0.0, 7.0]]), classes=2)()
    tensor([[0.9526, 0.0474, 7.0000]], grad_fn=<CatBackward0>)
    """

    __call__: Callable[..., Tensor]

    def __init__(self, start: Tensor, classes: int = 0) -> None:
        super().__init__()
        self.logits = nn.Parameter(3 * start[:, :classes].detach())
        self.covariates = nn.Parameter(start[:, classes:].detach().clone())

    def forward(self) -> Tensor:
        return torch.cat([self.logits.softmax(-1), self.covariates], -1)


def hold_prior(prior: nn.Module) -> nn.Module:
    """The same prior, with what does not depend on y computed now, if it has a method of this name."""
    hold = getattr(prior, "hold_prior", None)
    return prior if hold is None else hold()


def check_condition(model: nn.Module, y: Tensor | None, number: int | None = None) -> None:
    """Compare a model with its conditions.

    Raises:
        ValueError: If a conditional model has none, another model has some, or there are not `number` of them.
    """
    if isinstance(model, ConditionalVAE) and y is None:
        raise ValueError("the model is a ConditionalVAE, but there are no conditions y: give the y of each x")
    if y is not None and number not in (None, len(y)):
        raise ValueError(f"there are {number} x, but {len(y)} conditions y: give the y of each x")
    if y is not None and not isinstance(model, ConditionalVAE):
        raise ValueError(f"there are conditions y, but the model is {a_type(model)}: give a ConditionalVAE")


def given(model: AnyVAE, y: Tensor | None) -> VAE:
    """The model given y; the model itself without y."""
    return unconditional(model) if y is None else cast(ConditionalVAE, model)(y)


def unconditional(model: AnyVAE) -> VAE:
    """The model itself.

    Raises:
        ValueError: If it is conditional.
    """
    if isinstance(model, ConditionalVAE):
        raise ValueError("the model is given conditions y, which are needed here, too: call model(y) for one of them")
    return model


def batches(model: AnyVAE, x: Tensor, y: Tensor | None, size: int) -> Iterator[tuple[VAE, Tensor]]:
    """Some examples at a time, in the dtype and on the device of the model, which is given their conditions."""
    weights = next(model.parameters(), x[:1])
    for start in range(0, len(x), size):
        place = slice(start, start + size)
        yield given(model, None if y is None else y[place].to(weights)), x[place].to(weights)
