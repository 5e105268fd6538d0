"""What the sections of a report are made from."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaepriors.analysis import Surgery, activity, divergence_of_units, levels
from vaepriors.app.origin import measure_surgery
from vaepriors.app.records import Record
from vaepriors.app.run import Run
from vaepriors.conditional import AnyVAE, batches
from vaepriors.data import Dataset
from vaepriors.likelihood import Estimate, estimate

__all__ = ["Latent", "Subject", "as_conditions", "levels_of", "look", "measure"]


class Latent(NamedTuple):
    """What the latent space of a run does."""

    activity: dict[str, Tensor]  # variance of the posterior mean of each unit, by level
    divergence: dict[str, Tensor]  # of each unit from the prior, in nats, by level
    surgery: Surgery | None  # None with fewer than two examples
    number: int  # of examples in the surgery


@torch.no_grad()
def look(
    model: AnyVAE,
    x: Tensor,
    train: Tensor | None = None,
    seed: int = 0,
    *,
    condition: Tensor | None = None,
    train_condition: Tensor | None = None,
    groups: Tensor | None = None,
    most_levels: int = 1,
) -> Latent:
    """Measure a latent space.

    Args:
        x: Examples, whose units are measured.
        train: Examples of the surgery, which needs many of them: x unless given.
        seed: Seed of the surgery's draws.
        condition, train_condition: The y of each x, for a `ConditionalVAE`.
        groups: The class of each example of the surgery (see `elbo_surgery`).
        most_levels: As in `measure_surgery`.
    """
    y = as_conditions(condition, x)
    where = levels_of(model, x, y)
    variances = activity(model, x, condition=y) if len(x) > 1 else None
    examples, of_examples = (x, y) if train is None else (train, train_condition)
    groups = None if groups is None else groups[: len(examples)]
    return Latent(
        {} if variances is None else {name: variances[place] for name, place in where.items()},
        divergence_of_units(model, x[:1000], condition=y),
        *measure_surgery(model, examples, seed, of_examples, groups, most_levels),
    )


def as_conditions(condition: Tensor | None, x: Tensor) -> Tensor | None:
    """The conditions of the first points, of their type and device."""
    return None if condition is None else condition[: len(x)].to(x)


def levels_of(model: AnyVAE, x: Tensor, y: Tensor | None) -> dict[str, slice]:
    """Where each level is in z."""
    at, one = next(batches(model, x, y, 1))
    return levels(at.encoder(one))


class Subject(NamedTuple):
    """What the sections of a report are made from."""

    name: str
    model: AnyVAE
    data: Dataset
    x: Tensor  # test examples, in a random order
    y: Tensor | None  # their conditions
    labels: Tensor | None
    elbo: Estimate  # of these
    latent: Latent
    metrics: list[dict[str, Any]]
    records: list[Record]  # evaluations of this model
    tested: Tensor  # the test set that these are of
    command: str = ""  # that evaluates it
    epochs: int = 0  # planned
    implied: int = 0  # draws of the importance-weighted posterior to show; none for 0
    run: Run | None = None
    which: str = "best"  # the checkpoint of the run that the model is of
    epoch: int = 0  # of this checkpoint


def measure(model: AnyVAE, data: Dataset, x: Tensor, y: Tensor | None, seed: int) -> tuple[Estimate, Latent]:
    """The ELBO of test examples by one draw each, and the latent space."""
    train, of_train, groups, *_ = data.fixed_train()
    latent = look(model, x, train, seed, condition=y, train_condition=of_train, groups=groups)
    return estimate(model, x, samples=1, condition=y), latent
