"""What works on the CPU works on another device: nothing mixes the two, and a training step reads nothing from it."""

import contextlib
import copy
import itertools
import math

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from simulated import AVAILABLE, Mixed, simulated_device
from vaepriors import (
    VAE,
    Annealing,
    ExemplarPrior,
    ImportanceSampling,
    MixtureOfGaussians,
    Refinement,
    VampPrior,
    analysis,
    bidirectional,
    check,
    estimate,
    imputation,
    networks,
)
from vaepriors.app.experiment import MODELS, PRIORS, Experiment, build
from vaepriors.app.train import settings_of
from vaepriors.conditional import given
from vaepriors.data import Dataset
from vaepriors.networks.mixed import Column
from vaepriors.numerics import fixed_numerics
from vaepriors.store import Memory
from vaepriors.training.loop import Training
from vaepriors.training.settings import Settings

SIMULATED = pytest.mark.skipif(not AVAILABLE, reason="needs a torch that can simulate a device")

OBJECTIVES = {
    "rewo": {"objective": "rewo", "kappa": 0.6, "prior": "vhp", "prior_samples": 3},
    "geco": {"objective": "geco", "kappa": 0.6, "prior": "vhp", "prior_samples": 3},
    "dreg": {"objective": "iwae", "samples": 3, "estimator": "dreg"},
}
SMALL = {"components": 4, "exemplars": 4, "prior_hidden": (4,), "proposals": 4, "truncation": 4, "prior_samples": 3}
COLUMNS = (Column("a", "real"), Column("b", "category", ("x", "y", "z")), Column("c", "bit"), Column("d", "count"))


def images():
    x = torch.rand(23, 1, 4, 4)
    return Dataset("bits", x, x[:6].round(), x[:5].round(), "bernoulli", dynamic=True)


def gray():
    x = (torch.randint(0, 256, (23, 1, 16, 16)) + 0.5) / 256
    return Dataset("gray", x, x[:6], x[:5], "logistic256")


def vectors(likelihood, *shape):
    x = torch.arange(69.0).remainder(4).view(23, *shape)
    return Dataset("vectors", x, x[:6], x[:5], likelihood)


def table():
    kinds = [torch.randn(23), torch.arange(23) % 3, torch.arange(23) % 2, torch.arange(23) % 5]
    x, y = torch.stack(kinds, 1), torch.eye(2)[torch.arange(23) % 2]
    x[10:, 0], x[12:, 1] = torch.nan, torch.nan
    splits = {"train": slice(None), "valid": slice(6), "test": slice(7, 14)}
    labels = {split: y[rows, 1].long() for split, rows in splits.items()}
    conditions = {split: y[rows] for split, rows in splits.items()}
    parts = (x[rows] for rows in splits.values())
    return Dataset("table", *parts, "mixed", columns=COLUMNS, labels=labels, conditions=conditions)


CASES = {
    **{
        f"prior {name}": (images, {"prior": name} | {k: v for k, v in SMALL.items() if k in PRIORS[name].options})
        for name in PRIORS
    },
    **{f"model {name}": (gray, {"model": name, "prior": "vamp", "components": 3}) for name in MODELS},
    **{f"objective {name}": (images, options) for name, options in OBJECTIVES.items()},
    "likelihood mixed": (table, {"prior": "vamp", "components": 4, "condition": "labels"}),
    "likelihood poisson": (lambda: vectors("poisson", 3), {}),
    "likelihood negative_binomial": (lambda: vectors("negative_binomial", 3), {}),
    "likelihood multinomial": (lambda: vectors("multinomial", 3), {}),
    "likelihood categorical": (lambda: vectors("categorical", 1, 1, 3), {}),
    "likelihood student": (lambda: vectors("student", 3), {"df": 3.0}),
}


class OneDevice:
    """What a training needs of a Fabric with one device."""

    world_size, global_rank, is_global_zero = 1, 0, True

    def __init__(self, name):
        self.device = torch.device(name)

    def setup(self, losses, optimizer, move_to_device):
        return losses, optimizer

    def backward(self, loss):
        loss.backward()

    def all_reduce(self, x, reduce_op):
        return x

    def barrier(self):
        pass


def trained(experiment, dataset, device, watch):
    """The model after an epoch on a device, and its metrics. The first step checks x; `watch` is around the others."""
    torch.manual_seed(1)
    model, objective = build(experiment, dataset)
    parts = Training(model, objective, dataset, Settings(**settings_of(experiment)), OneDevice(device), Memory())
    step, number = parts.step, itertools.count()

    def watched(rows):
        with watch() if next(number) else contextlib.nullcontext():
            return step(rows)

    parts.step = watched
    parts.run()
    (line,) = parts.store.metrics()
    return parts.model, {name: line[name] for name in line.keys() - {"seconds", "memory"}}


def prepared(case):
    """The experiment and the data of a case."""
    make, options = CASES[case]
    torch.manual_seed(0)
    return Experiment(latent=2, hidden=(4,), epochs=1, batch_size=10, warmup=0, **options), make()


def compare(case):
    experiment, dataset = prepared(case)
    x, y = dataset.test, dataset.conditions.get("test")
    with simulated_device() as reads:  # from the start: the engine of gradients counts devices once

        @contextlib.contextmanager
        def no_reads():
            before = len(reads)
            yield
            assert not reads[before:], reads[before:]

        found = []
        for device in ("cpu", "sim"):
            model, metrics = trained(experiment, dataset, device, no_reads)
            torch.manual_seed(2)
            estimated = estimate(model, x, samples=3, condition=y)
            assert estimated.log_likelihood.device.type == device
            weights = [w.cpu() for w in [*model.state_dict().values(), estimated.log_likelihood, estimated.elbo]]
            found.append((metrics, weights, analysis.elbo_surgery(model, x, draws=10, condition=y)))
        (metrics, weights, surgery), (other_metrics, other_weights, other_surgery) = found
        assert metrics == other_metrics
        assert all(torch.equal(a, b) for a, b in zip(weights, other_weights, strict=True))
        assert surgery == other_surgery


@contextlib.contextmanager
def no_waiting():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def check_on(device, case, watch):
    """Train on a device, and compare the densities of encoder and decoder with those on the CPU."""
    experiment, dataset = prepared(case)
    x, y = dataset.test, dataset.conditions.get("test")
    model, metrics = trained(experiment, dataset, device, watch)
    assert all(math.isfinite(value) for value in metrics.values())
    assert estimate(model, x, samples=3, condition=y).log_likelihood.isfinite().all()
    with fixed_numerics(), torch.no_grad():
        here, there = (given(each.eval(), y) for each in (copy.deepcopy(model).cpu(), model))
        z = here.encoder(x).sample()
        on = [each.to(device) for each in (x, z)]
        assert torch.allclose(here.encoder(x).log_prob(z), there.encoder(on[0]).log_prob(on[1]).cpu(), 1e-3, 1e-3)
        assert torch.allclose(here.decoder(z).log_prob(x), there.decoder(on[1]).log_prob(on[0]).cpu(), 1e-3, 1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_a_training_on_cuda_waits_for_nothing_and_has_the_densities_of_the_cpu(case):
    check_on("cuda", case, no_waiting)


def look():
    with simulated_device() as reads:
        x, other = torch.ones(3, device="sim"), torch.ones(3)
        waiting = [
            lambda: x.sum().item(), lambda: bool(x.sum() > 0), lambda: x.tolist(), lambda: x.cpu(), lambda: x[x > 0],
            lambda: x.nonzero(), lambda: x[torch.tensor([0])], lambda: other.copy_(x), lambda: x.copy_(other),
            lambda: other.to(x), lambda: torch.tensor(1.0, device="sim"), lambda: x.new_tensor([1.0]),
        ]  # fmt: skip
        for number, wait in enumerate(waiting):
            before = len(reads)
            wait()
            assert len(reads) > before, number
        before = list(reads)
        at_once = x + 1, x * torch.tensor(2.0), x.new_zeros(2), torch.where(x > 0, x, 0.0), x[x.long()], x.double()
        assert all(each.device == x.device for each in at_once)
        assert reads == before
        for mix in (lambda: x + other, lambda: torch.cat([x, other]), lambda: other[x.long()], lambda: other @ x):
            with pytest.raises(Mixed):
                mix()


@SIMULATED
def test_the_simulated_device_shows_reads_and_mixtures(processes):
    assert processes((look,)) == [0]


@SIMULATED
@pytest.mark.parametrize("case", CASES)
def test_a_training_and_its_likelihoods_are_those_of_the_cpu(case, processes):
    assert processes((compare, case)) == [0]


def evaluated(device):
    """Numbers of a model on a device for data on the CPU, by the functions that take both."""
    torch.manual_seed(0)
    bits, rows = images(), table()
    encoder, decoder = networks.Encoder((1, 4, 4), [4], 2), networks.Decoder((1, 4, 4), [4], 2)
    model = VAE(encoder, decoder, MixtureOfGaussians(2, 3)).to(device)
    experiment = Experiment(latent=2, hidden=(4,), prior="vamp", components=4, condition="labels")
    given = build(experiment, rows)[0].to(device)
    x, y = bits.test, rows.conditions["test"]
    train, test = ((rows.fixed_train().x[:k], rows.labels["train"][:k], rows.conditions["train"][:k]) for k in (20, 10))
    return {
        "ais": estimate(model, x, Annealing(4, 6)).log_likelihood,
        "refined": estimate(model, x, ImportanceSampling(4, Refinement(3, 2))).log_likelihood,
        "bidirectional": bidirectional(model, 3, Annealing(4, 6)),
        "implied": analysis.ImpliedPosterior(model, x[0], 3).log_prob(model.prior().sample((4,)), 5),
        "codes": analysis.codes(given, rows.test, condition=y),
        "activity": analysis.activity(given, rows.test, condition=y),
        "divergence": analysis.divergence_of_units(given, rows.test, condition=y),
        "surgery": analysis.elbo_surgery(given, rows.test, 5, condition=y, groups=rows.labels["test"]),
        "information": analysis.class_information(given, analysis.Labelled(*train), analysis.Labelled(*test)),
        "imputed": imputation.impute(given, rows.test, 5, 2, condition=y),
        "draws": given(y).sample((3,)),
        "pseudo-inputs": VampPrior(given.encoder, rows.test, learn=False, conditions=y)().loc,
        "exemplars": ExemplarPrior(given.encoder, rows.test, 4, conditions=y).eval()().loc,
        "check": [finding.number for finding in check(model, x, draws=200)],
        "check given y": [finding.number for finding in check(given(y[0]), rows.test[:1], draws=200)],
    }


def compare_functions():
    with simulated_device():
        plain, there = (tree_map_only(torch.Tensor, lambda x: x.cpu(), evaluated(device)) for device in ("cpu", "sim"))
    for name, numbers in plain.items():
        for a, b in zip(tree_leaves(numbers), tree_leaves(there[name]), strict=True):
            assert a.equal(b) if isinstance(a, torch.Tensor) else a == b or a != a, name


@SIMULATED
def test_what_takes_a_model_and_data_takes_those_of_two_devices(processes):
    assert processes((compare_functions,)) == [0]
