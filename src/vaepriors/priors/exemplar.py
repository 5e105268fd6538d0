"""The Exemplar VAE's prior: a normal around each training example."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaepriors.distributions import NormalMixture
from vaepriors.priors.encoded import check_events, component_posteriors, paired, posterior_at
from vaepriors.vae import at_device_of

__all__ = ["ExemplarPrior"]


class ExemplarPrior(nn.Module):
    r"""Mixture of normals around the training examples, $p(z) = \frac1N \sum_n N(z; \mu(x_n), \sigma^2 I)$.

    $\mu(x_n)$ is the mean of the encoder's own posterior at training example n, and $\sigma^2$ one learned variance,
    shared by all components and dimensions (Norouzi, Fleet & Norouzi 2020, Exemplar VAE, section 3). The prior holds
    the *same* encoder as the model and trains it, too.

    An example must not explain itself in training, so `without(rows)` leaves out its own component. `fit` does this,
    and refuses exemplars in another order than the training set. A hand-written loop calls
    `objective(model.without(rows), x)` with the rows of its batch, where row n of `exemplars` is row n of the training
    set; `prior()` leaves out none and overfits.

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
        exemplars: The training set, of shape `(N, *event)`, on any device.
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
        check_events(exemplars, "exemplars", least=2, missing=True)
        if not 2 <= samples <= len(exemplars):
            raise ValueError(f"samples is {samples}: choose 2 to {len(exemplars)}, the number of exemplars")
        exemplars = at_device_of(encoder, exemplars)
        inputs = paired(exemplars, None if conditions is None else conditions.to(exemplars.device), "exemplars")
        incomplete = exemplars.flatten(1).isnan().any(1)
        looked_at = torch.cat([torch.arange(2, device=exemplars.device), incomplete.nonzero().flatten()[:1]])
        posterior_at(encoder, tuple(each[looked_at] for each in inputs), "exemplars", "mean")
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

    def check_order(self, x: Tensor) -> None:
        """Refuse exemplars in another order than the training set: its examples would explain themselves.

        Args:
            x: The first examples of the training set, of shape `(n, *event)`.

        Raises:
            ValueError: If one of x is an exemplar, but not that of its own row.
        """
        exemplars = self.exemplars.flatten(1).nan_to_num()
        for row, one in enumerate(x.to(exemplars).flatten(1).nan_to_num()):
            same = (exemplars == one).all(1).nonzero().flatten().tolist()
            if same and row not in same:
                raise ValueError(
                    f"row {row} of the training set is row {same[0]} of the exemplars, and would explain itself: give "
                    "the exemplars in the order of the training set, such as data.train[:]"
                )

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
        parts = [tuple(each[some] for each in inputs) for some in chosen.split(size)]
        loc = torch.cat([component_posteriors(self.encoder, *part).mean for part in parts])
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
