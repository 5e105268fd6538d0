"""The optimiser of a training and its learning rates: those of `fit`, or the user's own."""

import dataclasses
import inspect
import json
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from vaepriors.conditional import AnyVAE
from vaepriors.objectives import Objective
from vaepriors.optim import adam, staged_rate, trained_parameters
from vaepriors.training.settings import Settings
from vaepriors.words import a_type, counted

__all__ = ["MakeOptimizer", "MakeScheduler", "Rates", "describe", "make_optimizer", "make_scheduler"]

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
MakeScheduler = Callable[[torch.optim.Optimizer], LRScheduler]

Made = TypeVar("Made")

ADAM_ONLY = ("lr", "lr_stages", "adam_eps", "normalize")  # settings
PRIVATE = ("_milestones", "_schedule_phases")  # settings of SequentialLR and OneCycleLR
DEVICE_ONLY = ("foreach", "fused", "capturable", "differentiable")  # how an optimiser computes, not what


class Rates:
    """The learning rate of each epoch.

    They follow from the metrics of the epochs before, so a checkpoint does not hold the scheduler.

    Args:
        scheduler: A scheduler of torch, of which each step is an epoch.
    """

    def __init__(self, scheduler: LRScheduler) -> None:
        self.scheduler = scheduler
        self.optimizer: torch.optim.Optimizer = scheduler.optimizer
        self.epochs = 0  # that the scheduler knows

    def follow(self, metrics: list[str]) -> None:
        """Set the learning rate of the epoch after those of these lines of metrics."""
        with warnings.catch_warnings():  # of a resumed training, the steps were made before
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            for line in metrics[self.epochs :]:
                if isinstance(self.scheduler, ReduceLROnPlateau):
                    self.scheduler.step(json.loads(line)["valid_loss"])
                else:
                    self.scheduler.step()
        self.epochs = len(metrics)

    def current(self) -> float:
        """The learning rate of the first group of parameters."""
        return float(self.optimizer.param_groups[0]["lr"])


def make_optimizer(
    model: AnyVAE, objective: Objective, settings: Settings, make: MakeOptimizer | None, capturable: bool
) -> torch.optim.Optimizer:
    """The optimiser that `make` returns, or Adam.

    Raises:
        ValueError: If settings are for Adam only, or what `make` returns does not train what the objective trains.
    """
    if make is None:
        return adam(
            model, objective, settings.lr, normalize=settings.normalize, eps=settings.adam_eps, capturable=capturable
        )
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        if field.name in ADAM_ONLY and value != field.default:
            raise ValueError(f"{field.name} is {value}, but is for Adam only: set it in the function optimizer")
    if capturable:
        raise ValueError("graph is for Adam only: leave graph or optimizer out")
    if objective.prior_gate() is not None:
        raise ValueError(
            f"{type(objective).__name__} keeps the prior unchanged for a while, which works with Adam only: leave "
            "optimizer out"
        )
    trained = [p for p in trained_parameters(model, objective) if p.requires_grad]
    remedy = "a class or a function that makes an optimiser of a list of parameters, such as torch.optim.AdamW"
    optimizer = _made("optimizer", make, trained, torch.optim.Optimizer, remedy)
    if _needs_closure(optimizer):
        raise ValueError(
            f"{type(optimizer).__name__} needs a closure that computes the loss again, which fit does not give: choose "
            "another optimiser"
        )
    _check_parameters(optimizer, trained)
    return optimizer


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    parameters = inspect.signature(type(optimizer).step).parameters.values()
    return any(each.name == "closure" and each.default is each.empty for each in parameters)


def _check_parameters(optimizer: torch.optim.Optimizer, trained: list[nn.Parameter]) -> None:
    """Refuse an optimiser that leaves parameters out, which nobody would notice, or has others."""
    own = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing, others = {id(p) for p in trained} - own, own - {id(p) for p in trained}
    if missing:
        raise ValueError(
            f"the optimiser leaves out {len(missing)} of {counted(len(trained), 'parameter')}: make it of all that "
            "the function optimizer is given, and freeze others by requires_grad_(False) before"
        )
    if others:
        raise ValueError(
            f"the optimiser has {counted(len(others), 'parameter')} that the objective does not train: make it of "
            "those that the function optimizer is given"
        )


def make_scheduler(
    optimizer: torch.optim.Optimizer, settings: Settings, make: MakeScheduler | None, capturable: bool
) -> LRScheduler:
    """The scheduler that `make` returns, or the stages of `lr_stages`.

    Raises:
        ValueError: If `make` returns something else, or other settings contradict it.
    """
    if make is None:
        return LambdaLR(optimizer, lambda epochs: staged_rate(1.0, epochs + 1, settings.lr_stages))
    if settings.lr_stages != 1:
        raise ValueError(f"lr_stages is {settings.lr_stages}, but there is a scheduler: leave one of them out")
    if capturable:
        raise ValueError("graph is for the learning rates of lr_stages only: leave graph or scheduler out")
    example = "lambda optimizer: CosineAnnealingLR(optimizer, 100)"
    remedy = f"a function that makes a scheduler of an optimiser, such as {example}"
    scheduler = _made("scheduler", make, optimizer, LRScheduler, remedy)
    if scheduler.optimizer is not optimizer:
        raise ValueError("the scheduler is of another optimiser: make it of the one that the function is given")
    steps = getattr(scheduler, "total_steps", None)  # of OneCycleLR, after which it refuses another one
    if steps is not None and steps < settings.epochs:
        raise ValueError(
            f"the scheduler {type(scheduler).__name__} has total_steps {steps}, fewer than the {settings.epochs} "
            f"epochs, which are its steps: give it total_steps={settings.epochs}"
        )
    return scheduler


def _made(name: str, make: Callable[[Any], Made], argument: object, kind: type[Made], remedy: str) -> Made:
    """What a function of the user's returns; refuse another kind, and an object in place of the function."""
    made = make(argument) if callable(make) else make
    if callable(make) and isinstance(made, kind):
        return made
    raise ValueError(f"{name} {'returned' if callable(make) else 'is'} {a_type(made)}: give {remedy}")


def describe(part: torch.optim.Optimizer | LRScheduler) -> str:
    """The class of an optimiser or a scheduler, with its plain settings: those that a resumed training needs again."""
    if isinstance(part, LRScheduler):
        parts = [describe(each) for each in getattr(part, "_schedulers", ())]
        return " ".join([type(part).__name__, str(_plain(part.state_dict())), *parts])
    groups = [_plain(group) | {"parameters": len(group["params"])} for group in part.param_groups]
    return f"{type(part).__name__} {' '.join(map(str, groups))}"


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that say what is computed: no tensors, no zeros, and nothing about devices."""
    public = {name: value for name, value in settings.items() if not name.startswith("_") or name in PRIVATE}
    plain = {
        name: value for name, value in public.items() if isinstance(value, int | float | str | tuple | list | dict)
    }
    return {name: value for name, value in plain.items() if value and name not in ("params", *DEVICE_ONLY)}
