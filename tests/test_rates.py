"""Optimisers and schedules of the user's own: what `fit` trains, resumes and refuses."""

import json
import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from reference import three_reals, vae_of_three_reals
from vaepriors import Folder, MixtureOfGaussians, fit
from vaepriors.checkpoint import optimizer_tensors
from vaepriors.objectives import ELBO, REWO
from vaepriors.optim import gated_adam, staged_rate
from vaepriors.store import Memory
from vaepriors.training.rates import Rates, make_scheduler
from vaepriors.training.settings import Settings

SHORT = {"batch_size": 20, "accelerator": "cpu"}


class Counting(torch.optim.Optimizer):
    """Steps of length lr / t against the sign of the gradient, with t in the group, and a count in the state."""

    def __init__(self, parameters, lr=0.01):
        super().__init__(parameters, {"lr": lr, "t": 0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["t"] += 1
            for p in group["params"]:
                state = self.state[p]
                state["count"] = state.get("count", 0) + 1
                p -= group["lr"] / (group["t"] + state["count"]) * p.grad.sign()


def groups(parameters):
    return torch.optim.AdamW([{"params": parameters[:2], "lr": 0.01}, {"params": parameters[2:]}], lr=0.002)


OPTIMIZERS = {
    "adam": None,
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.01, amsgrad=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, 1e-4),
    "momentum": lambda parameters: torch.optim.SGD(parameters, 1e-4, momentum=0.9, nesterov=True),
    "rmsprop": torch.optim.RMSprop,
    "nadam": torch.optim.NAdam,
    "adafactor": torch.optim.Adafactor,
    "adagrad": torch.optim.Adagrad,
    "groups": groups,
    "counting": Counting,
}
SCHEDULERS = {
    "none": None,
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 7),
    "plateau": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=0, threshold=0.5),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=6),
    "steps": lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [2, 5]),
    "sequence": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3), lr_scheduler.ExponentialLR(optimizer, 0.7)],
        [3],
    ),
}


@pytest.fixture(scope="module")
def data():
    return three_reals()


def model():
    return vae_of_three_reals(lambda: MixtureOfGaussians(2, 3))


def rates(outcome):
    return [line["lr"] for line in outcome.metrics]


def test_another_optimiser_makes_the_steps_of_a_loop(data):
    one, other = model(), model()
    fit(one, ELBO(), data, epochs=3, lr=0.01, normalize=False, **SHORT)
    fit(other, ELBO(), data, epochs=3, optimizer=lambda p: torch.optim.Adam(p, 0.01, fused=True), **SHORT)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("optimizer", "scheduler"),
    [*((name, "none") for name in OPTIMIZERS), *(("adam", name) for name in SCHEDULERS), ("groups", "cosine"),
     ("momentum", "one cycle"), ("counting", "plateau")],
)  # fmt: skip
def test_a_resumed_training_ends_with_the_same_bits(tmp_path, data, optimizer, scheduler):
    settings = SHORT | {"optimizer": OPTIMIZERS[optimizer], "scheduler": SCHEDULERS[scheduler]}
    whole, resumed, start = model(), model(), dict(model().named_parameters())
    store = Folder(tmp_path)
    outcome = fit(whole, ELBO(), data, epochs=6, **settings)
    fit(model(), ELBO(), data, epochs=4, store=store, **settings)
    again = fit(resumed, ELBO(), data, epochs=6, store=store, **settings)
    for name, p in resumed.named_parameters():
        assert torch.equal(p, whole.get_parameter(name))
        assert not torch.equal(p, start[name])
    assert rates(again) == rates(outcome)


def test_a_resumed_optimiser_keeps_the_types_of_its_state(data):
    settings = SHORT | {"optimizer": torch.optim.NAdam, "precision": "64-true"}  # a product of momenta in float32
    whole, resumed, store = model(), model(), Memory()
    fit(whole, ELBO(), data, epochs=6, **settings)
    fit(model(), ELBO(), data, epochs=3, store=store, **settings)
    fit(resumed, ELBO(), data, epochs=6, store=store, **settings)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_the_rate_follows_the_schedule(data):
    staged = fit(model(), ELBO(), data, epochs=6, lr=0.01, lr_stages=3, **SHORT)
    assert rates(staged) == [staged_rate(0.01, epoch, 3) for epoch in range(1, 7)]

    plateau = fit(model(), ELBO(), data, epochs=5, lr=0.01, scheduler=SCHEDULERS["plateau"], **SHORT)
    assert rates(plateau) == pytest.approx([0.01, 0.01, 0.003, 0.0009, 0.00027])  # no loss is half of the first

    made = []
    options = {"optimizer": lambda p: made.append(groups(p)) or made[0], "scheduler": SCHEDULERS["cosine"]}
    cosine = fit(model(), ELBO(), data, epochs=6, **options, **SHORT)
    shares = [(1 + math.cos(math.pi * epoch / 7)) / 2 for epoch in range(7)]
    assert rates(cosine) == pytest.approx([0.01 * share for share in shares[:6]])
    assert [group["lr"] for group in made[0].param_groups] == pytest.approx([0.01 * shares[6], 0.002 * shares[6]])


def test_a_plateau_is_one_of_the_validation_loss():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = Rates(lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0))
    rates.follow([json.dumps({"loss": -number, "valid_loss": 1.0 + number}) for number in range(3)])
    assert rates.current() == 0.25


def test_the_rate_that_a_cuda_graph_reads_is_changed_in_place():
    optimizer = gated_adam([nn.Parameter(torch.zeros(3))], 0.01, capturable=True)
    (group,) = optimizer.param_groups
    lr, schedule = group["lr"], Rates(make_scheduler(optimizer, Settings(lr_stages=3), None, capturable=True))
    for epoch in range(1, 6):
        assert group["lr"] is lr
        assert lr.item() == pytest.approx(staged_rate(0.01, epoch, 3), rel=1e-6)
        schedule.follow(["{}"] * epoch)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": torch.optim.SGD([torch.zeros(1)])}, "optimizer is a SGD: give a class or a function"),
        ({"optimizer": lambda p: None}, "optimizer returned a NoneType: give a class or a function"),
        ({"optimizer": lambda p: torch.optim.SGD(p[1:])}, "leaves out 1 of 10 parameters"),
        ({"optimizer": lambda p: torch.optim.SGD([*p, nn.Parameter(torch.zeros(1))])}, "has 1 parameter that"),
        ({"optimizer": torch.optim.SGD, "lr": 0.01}, r"lr is 0\.01, but is for Adam only"),
        ({"optimizer": torch.optim.SGD, "normalize": False}, "normalize is False, but is for Adam only"),
        ({"optimizer": torch.optim.SGD, "objective": REWO(0.1, 1.0)}, "REWO keeps the prior unchanged for a while"),
        ({"optimizer": torch.optim.LBFGS}, "LBFGS needs a closure"),
        ({"scheduler": "cosine"}, "scheduler is a str: give a function"),
        ({"scheduler": lambda optimizer: 0.1}, "scheduler returned a float: give a function"),
        ({"scheduler": SCHEDULERS["cosine"], "lr_stages": 2}, "lr_stages is 2, but there is a scheduler"),
        ({"scheduler": SCHEDULERS["one cycle"], "epochs": 7}, "total_steps 6, fewer than the 7 epochs"),
        ({"scheduler": lambda o: lr_scheduler.StepLR(torch.optim.SGD([nn.Parameter(torch.zeros(1))]), 1)}, "another"),
    ],
)
def test_mistakes_are_refused_before_the_start(tmp_path, data, options, words):
    options = {"objective": ELBO(), "epochs": 1} | options
    with pytest.raises(ValueError, match=words):
        fit(model(), data=data, store=Folder(tmp_path / "run"), **options, **SHORT)
    assert not (tmp_path / "run").exists()


def test_a_resumed_training_has_the_same_optimiser_and_schedule(data):
    store = Memory()
    options = SHORT | {"store": store, "scheduler": SCHEDULERS["cosine"], "optimizer": torch.optim.RMSprop}
    fit(model(), ELBO(), data, epochs=1, **options)
    with pytest.raises(ValueError, match=r"with optimizer RMSprop.*0\.99.* not RMSprop.*0\.5"):
        fit(model(), ELBO(), data, epochs=2, **options | {"optimizer": lambda p: torch.optim.RMSprop(p, alpha=0.5)})
    with pytest.raises(ValueError, match=r"with scheduler CosineAnnealingLR.*7.* not StepLR"):
        fit(model(), ELBO(), data, epochs=2, **options | {"scheduler": lambda o: lr_scheduler.StepLR(o, 1)})
    assert fit(model(), ELBO(), data, epochs=2, **options).epoch == 2


def in_turn(factor=0.1, epochs=3):
    def make(optimizer):
        parts = [lr_scheduler.LinearLR(optimizer, factor, total_iters=3), lr_scheduler.ExponentialLR(optimizer, 0.7)]
        return lr_scheduler.SequentialLR(optimizer, parts, [epochs])

    return make


def chained(factor):
    return lambda optimizer: lr_scheduler.ChainedScheduler([lr_scheduler.ConstantLR(optimizer, factor)])


def one_cycle(share):
    return lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=6, pct_start=share)


@pytest.mark.parametrize(
    ("make", "others"),
    [
        (in_turn(), [in_turn(factor=0.2), in_turn(epochs=4)]),
        (chained(0.5), [chained(0.2)]),
        (one_cycle(0.3), [one_cycle(0.5)]),
    ],
)
def test_another_schedule_of_the_same_class_is_refused(data, make, others):
    store = Memory()
    fit(model(), ELBO(), data, epochs=1, store=store, scheduler=make, **SHORT)
    for other in others:
        with pytest.raises(ValueError, match="was trained with scheduler"):
            fit(model(), ELBO(), data, epochs=2, store=store, scheduler=other, **SHORT)
    assert fit(model(), ELBO(), data, epochs=2, store=store, scheduler=make, **SHORT).epoch == 2


def test_a_state_that_no_checkpoint_can_hold_is_refused():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    optimizer.state[optimizer.param_groups[0]["params"][0]] = {"history": [torch.zeros(1)]}
    with pytest.raises(ValueError, match="the state of SGD has history of type list, which a checkpoint cannot hold"):
        optimizer_tensors(optimizer)
