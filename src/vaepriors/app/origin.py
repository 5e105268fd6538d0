"""Where a refitted run comes from: refit.json, with the parts of the ELBO before.

The parts are measured on the same draws for models with the same encoder, so before and after compare in pairs.
"""

from typing import Any, TypedDict

import torch
from torch import Tensor

from vaepriors.analysis import Surgery, elbo_surgery, levels
from vaepriors.app.run import Run
from vaepriors.conditional import AnyVAE, batches
from vaepriors.numerics import keep_generators, seed_of
from vaepriors.reading import read_json

__all__ = ["Origin", "measure_surgery", "origin"]

SURGERY = {1: (100_000, 2000), 2: (4000, 200)}  # by levels, examples and draws at most: of two, each pair costs a pass


class Origin(TypedDict):
    """refit.json."""

    run: str  # the folder's name
    epoch: int
    model_sha256: str
    prior: dict[str, Any]  # with its options
    number: int  # of training examples in the surgery
    surgery: dict[str, float] | None  # of the model before, with `Surgery`'s names; None with one example


def origin(run: Run) -> Origin | None:
    """What refit.json says; None if the run was not refitted."""
    path = run / "refit.json"
    return read_json(path, Origin, "restore it, or refit in another folder") if path.is_file() else None


@torch.no_grad()
def measure_surgery(
    model: AnyVAE,
    x: Tensor,
    seed: int = 0,
    condition: Tensor | None = None,
    groups: Tensor | None = None,
    most_levels: int = 1,
) -> tuple[Surgery | None, int]:
    """The parts of the ELBO of examples, with the same draws for models with the same encoder.

    Args:
        x: The examples. Of more than `SURGERY` a random subset of that size is taken.
        seed: Of the subset and of the draws.
        condition: The y of each x, for a `ConditionalVAE`.
        groups: As in `elbo_surgery`.
        most_levels: Of several models whose parts are compared, the most levels of one: all take the same examples.

    Returns:
        The parts, None of fewer than two examples, and the number of examples.
    """
    parameter = next(model.parameters())
    with keep_generators(model):
        torch.manual_seed(seed_of(seed, "surgery"))
        y = None if condition is None else condition.to(parameter)
        first, one = next(batches(model, x[:1].to(parameter), y, 1))
        most, draws = SURGERY[max(most_levels, len(levels(first.encoder(one))))]
        rows = torch.randperm(len(x))[:most] if len(x) > most else slice(None)
        x, y = x[rows].to(parameter), None if y is None else y[rows]
        groups = None if groups is None else groups[rows].to(x.device)
        return (elbo_surgery(model, x, draws, condition=y, groups=groups) if len(x) > 1 else None), len(x)
