"""What an experiment costs before it is run: operations of its products and convolutions, hours from them, and memory.

Operations are counted by torch, on a stand-in for the data set, for one example and for two. A multiply-add is two.

Memory is what a run cannot do without: its weights (each with a gradient, Adam's two moments, and the best model's
copy), its data, and the draws of one step with their densities under a mixture. Activations come on top.
"""

import time
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from vaepriors import data
from vaepriors.app import custom
from vaepriors.app.experiment import PRIORS, TWO_LEVELS, Experiment, build
from vaepriors.data import Dataset
from vaepriors.limits import check_size
from vaepriors.numerics import keep_generators

__all__ = [
    "Memory",
    "check_memory",
    "gflop_per_image",
    "gflop_per_step",
    "gflops_per_second",
    "hours",
    "least_memory",
]

COPIES = 5  # of a weight: itself, its gradient, Adam's two moments, and the best model's
OVER_PRODUCTS = 3  # a step or a likelihood takes 2 to 6 times as long as its products alone (docs/speed.md)


class _Counts(NamedTuple):
    """Operations in 10^9."""

    step: float
    image: float  # of an example's likelihood, what is done once
    draw: float  # and for each draw


def _shape_of(experiment: Experiment) -> Experiment:
    """The experiment with nothing but what decides its operations; conditions, which add few, are left out."""
    form = data.CATALOGUE[experiment.data].form
    like = next(name for name, entry in data.CATALOGUE.items() if entry.form[1:3] == form[1:3])
    rest: Any = {
        "seed": 0, "epochs": 1, "warmup": 0, "patience": 0, "epoch_steps": None, "condition": None,
        "pseudo_conditions": None, "lr": 1e-3, "lr_stages": 1, "init": "he",
    }  # fmt: skip
    return experiment.replace(data=like, **rest)


@cache
def _counts(experiment: Experiment) -> _Counts:
    k = _components(experiment)
    if k > 3:  # a straight line in their number
        smaller: Any = ({_drawn(experiment) or "components": n} for n in (2, 3))
        two, three = (_counts(experiment.replace(**options)) for options in smaller)
        return _Counts(*(a + (k - 2) * (b - a) for a, b in zip(two, three, strict=True)))
    with keep_generators():
        dataset = data.stand_in(experiment.data, 3)
        model, objective = build(experiment, dataset)
    x, steps, draws = dataset.valid, [], []
    for n in (1, 2):  # straight lines in the numbers of examples and of draws, too
        with FlopCounterMode(display=False) as counter:
            objective(model, x[:n])[0].backward()
        steps.append(counter.get_total_flops() / 1e9)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x[:1], n)
        draws.append(counter.get_total_flops() / 1e9)
    step = steps[0] + (experiment.batch_size - 1) * (steps[1] - steps[0])
    return _Counts(step, 2 * draws[0] - draws[1], draws[1] - draws[0])


def _drawn(experiment: Experiment) -> str | None:
    """The option that says how many components a step draws; None if the prior draws none."""
    return None if custom.is_custom(experiment.model) else PRIORS[experiment.prior].facts.get("drawn")


def _components(experiment: Experiment) -> int:
    """The prior's components in a training step."""
    return getattr(experiment, _drawn(experiment) or "components") or 0


def gflop_per_step(experiment: Experiment) -> float:
    """Operations of a training step, forward and backward, in 10^9.

    >>> round(gflop_per_step(Experiment(data="static_mnist")), 2)
    0.57
    """
    return _counts(_shape_of(experiment)).step


def gflop_per_image(experiment: Experiment, samples: int) -> float:
    """Operations of one example's likelihood, in 10^9: what is done once, and what for each of the draws."""
    shape: Any = _shape_of(experiment)
    if drawn := _drawn(experiment):  # evaluation takes all
        shape = shape.replace(**{drawn: data.CATALOGUE[experiment.data].form.sizes[0]})
    counts = _counts(shape)
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
    """A rough upper estimate of the hours of a run with all its epochs; its data set need not be there.

    Its evaluation takes `draws` draws of z for each test example; 0 for none.
    """
    sizes = data.CATALOGUE[experiment.data].form.sizes
    steps = experiment.epochs * (experiment.epoch_steps or -(-sizes[0] // experiment.batch_size))
    gflop = steps * gflop_per_step(experiment)
    if draws:
        gflop += sizes[2] * gflop_per_image(experiment, draws)
    return OVER_PRODUCTS * gflop / gflops_per_second(device) / 3600


class Memory(NamedTuple):
    """Bytes that a run needs at least on each of its devices."""

    networks: int
    components: int  # of the prior
    data: int
    draws: int  # of one step, with their densities under the components or the draws of u

    @property
    def total(self) -> int:
        return sum(self)


def least_memory(experiment: Experiment, dataset: Dataset) -> Memory:
    """The memory that a run needs at least on each device, in bytes; nothing is allocated.

    >>> memory = least_memory(Experiment(latent=2, hidden=(8,)), data.load("digits"))
    >>> memory.networks == 5 * 4 * (2 * 65 * 8 + 2 * 9 * 2 + 2 * 3 * 8 + 9 * 64)
    True
    """
    size = 8 if experiment.precision == "64-true" else 4
    event, k, latent = dataset.event_shape.numel(), _components(experiment), experiment.latent or 0
    point = event + sum(y.shape[-1] for split, y in dataset.conditions.items() if split == "train")
    devices = experiment.devices * experiment.nodes
    share = min(experiment.batch_size // devices, len(dataset.train))
    draws = share * experiment.samples
    facts = _facts(experiment)
    learned, fixed = facts["component"](event, latent) if "component" in facts else (0, 0)
    of_u = facts["numbers_of_a_draw"](experiment) if "numbers_of_a_draw" in facts else 0
    shared = facts["numbers_of_a_step"](experiment) if "numbers_of_a_step" in facts else 0
    levels = 2 if experiment.model in TWO_LEVELS else 1
    return Memory(
        networks=size * COPIES * _weights(experiment, dataset),
        components=size * k * (learned * COPIES + fixed),
        data=_bytes(dataset.train, size)
        + size * (point - event) * len(dataset.train)
        + size * point * (len(dataset.valid) // devices),
        draws=draws * (size * (levels * latent + event + of_u) + 8 * k)  # densities of components are in float64
        + size * shared,
    )


def _bytes(train: Any, size: int) -> int:
    """Bytes of a training set with numbers of this size; of one on disk, those of its order and its batches' rows."""
    if getattr(train, "streamed", False):
        return 24 * len(train)
    stored: Any = getattr(train, "stored", None)
    return train.shape.numel() * (size if stored is None else stored.element_size())


def _facts(experiment: Experiment) -> dict[str, Any]:
    """The facts of the prior, with those of its base; none of a custom model."""
    if custom.is_custom(experiment.model):
        return {}
    return PRIORS.facts_of(PRIORS[experiment.prior], vars(experiment))


def _weights(experiment: Experiment, dataset: Dataset) -> int:
    """The number of all weights except a mixture's, from a model without storage; none of a custom model."""
    if custom.is_custom(experiment.model):
        return 0  # its code may not run without storage
    if "component" in _facts(experiment):
        kind = "prior" if "component" in PRIORS[experiment.prior].facts else "base"
        own: dict[str, Any] = dict.fromkeys(PRIORS[getattr(experiment, kind)].options)
        experiment = experiment.replace(**own | {kind: "standard"})
    facts = ("name", "event_shape", "likelihood", "family", "train", "pseudo", "conditions", "classes")
    form: Any = SimpleNamespace(**{name: getattr(dataset, name) for name in facts})
    try:
        with torch.device("meta"):
            model, _ = build(experiment, form)
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        return 2**61  # a layer of more bytes than torch can count
    return sum(weight.numel() for weight in model.parameters())


def check_memory(experiment: Experiment, dataset: Dataset, device: torch.device | None = None) -> None:
    """Refuse an experiment whose run certainly does not fit into memory, before any of it is allocated.

    It runs on the CPU unless a device is given. There, all devices are processes that share the memory.
    """
    memory = least_memory(experiment, dataset)
    device = torch.device("cpu") if device is None else device
    if device.type == "cpu":
        loaded = 0 if experiment.precision == "64-true" else memory.data
        size = experiment.devices * memory.total - loaded
    else:
        size = memory.total
    largest = max(zip(memory, memory._fields, strict=True))[1]
    check_size(f"the experiment, most of all for its {_in_words(experiment, largest)},", size, device)


DECIDING = {  # options that decide a part of the memory
    "networks": ("latent", "hidden", "prior_latent", "prior_hidden"),
    "components": ("components",),
    "data": ("data",),
    "draws": (
        "batch_size", "samples", "latent", "components", "exemplars", "prior_samples", "prior_latent", "proposals",
    ),
}  # fmt: skip


def _in_words(experiment: Experiment, part: str) -> str:
    options = {field: getattr(experiment, field) for field in DECIDING[part]}
    given = ", ".join(f"{field} {value}" for field, value in options.items() if value is not None)
    return f"{part} ({given})"
