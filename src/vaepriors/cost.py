"""What an experiment costs before it is run: operations of its products and convolutions, and hours from them.

Operations are counted by torch, on a stand-in for the data set, for one example and for two. A multiply-add is two.
"""

import dataclasses
import time
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from vaepriors import data
from vaepriors.experiment import Experiment, build

__all__ = ["gflop_per_image", "gflop_per_step", "gflops_per_second", "hours"]

OVER_PRODUCTS = 3  # a step or a likelihood takes 2 to 6 times as long as its products alone (docs/speed.md)


class _Counts(NamedTuple):
    """Operations in 10^9."""

    step: float
    image: float  # of an example's likelihood, what is done once
    draw: float  # and for each draw


def _shape_of(experiment: Experiment) -> Experiment:
    """The experiment with nothing but what decides its operations."""
    form = data.CATALOGUE[experiment.data].form
    like = next(name for name, entry in data.CATALOGUE.items() if entry.form[1:3] == form[1:3])
    rest: Any = {"seed": 0, "epochs": 1, "warmup": 0, "patience": 0, "lr": 1e-3, "lr_stages": 1, "init": "he"}
    return dataclasses.replace(experiment, data=like, **rest)


@cache
def _counts(experiment: Experiment) -> _Counts:
    k = experiment.components or 0
    if k > 3:  # a straight line in their number
        two, three = (_counts(dataclasses.replace(experiment, components=n)) for n in (2, 3))
        return _Counts(*(a + (k - 2) * (b - a) for a, b in zip(two, three, strict=True)))
    with torch.random.fork_rng(devices=[]):
        dataset = data.stand_in(experiment.data, 3)
        model, objective = build(experiment, dataset)
    x, steps, draws = dataset.train.round(), [], []
    for n in (1, 2):  # straight lines in the numbers of examples and of draws, too
        with FlopCounterMode(display=False) as counter:
            objective(model, x[:n])[0].backward()
        steps.append(counter.get_total_flops() / 1e9)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x[:1], n)
        draws.append(counter.get_total_flops() / 1e9)
    step = steps[0] + (experiment.batch_size - 1) * (steps[1] - steps[0])
    return _Counts(step, 2 * draws[0] - draws[1], draws[1] - draws[0])


def gflop_per_step(experiment: Experiment) -> float:
    """Operations of a training step, forward and backward, in 10^9.

    >>> round(gflop_per_step(Experiment(data="static_mnist")), 2)
    0.57
    """
    return _counts(_shape_of(experiment)).step


def gflop_per_image(experiment: Experiment, samples: int) -> float:
    """Operations of one example's likelihood, in 10^9: what is done once, and what for each of the draws."""
    counts = _counts(_shape_of(experiment))
    return counts.image + samples * counts.draw


@cache
def gflops_per_second(device: str) -> float:
    """The rate of float32 products on a device, measured on a large one."""
    a = torch.randn(2048, 2048, device=device)
    best = 0.0
    for _ in range(4):
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        best = max(best, 2 * 2048**3 / 1e9 / (time.perf_counter() - began))
    return best


def hours(experiment: Experiment, draws: int, device: str = "cpu") -> float:
    """A rough estimate of the hours that a run of all its epochs and its evaluation takes at the most.

    Args:
        experiment: The experiment; its data set need not be there.
        draws: Draws of z for each test example; 0 for no likelihood.
        device: Where.
    """
    sizes = data.CATALOGUE[experiment.data].form.sizes
    steps = experiment.epochs * -(-sizes[0] // experiment.batch_size)
    gflop = steps * gflop_per_step(experiment)
    if draws:
        gflop += sizes[2] * gflop_per_image(experiment, draws)
    return OVER_PRODUCTS * gflop / gflops_per_second(device) / 3600
