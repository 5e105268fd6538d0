"""Custom objectives: what `fit` trains, keeps and refuses."""

import numpy as np
import pytest
import torch
from torch import nn

from reference import three_reals, vae_of_three_reals
from vaepriors import Folder, StandardNormal, fit
from vaepriors.objectives import ELBO, Objective

SHORT = {"epochs": 2, "batch_size": 20, "accelerator": "cpu"}


class BetaVAE(Objective):
    def __init__(self, beta=4.0, change=lambda loss, terms: (loss, terms)):
        super().__init__(samples=1)
        self.beta, self.change = beta, change
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, model, x):
        terms = model(x, self.samples)
        return self.change(
            (terms.distortion + self.beta * terms.rate + self.weight.square() - self.weight).mean(), terms
        )

    def metrics(self):
        return {"weight": self.weight.item()}


@pytest.fixture(scope="module")
def data():
    return three_reals()


def model():
    return vae_of_three_reals(lambda: StandardNormal(2))


def test_its_own_parameters_are_trained_and_logged(data):
    objective = BetaVAE()
    outcome = fit(model(), objective, data, **SHORT)
    assert 0 < outcome.metrics[0]["weight"] < outcome.metrics[1]["weight"] == objective.weight.item()


def test_a_resumed_training_has_the_same_options(tmp_path, data):
    fit(model(), BetaVAE(), data, **SHORT, store=Folder(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"beta=4\.0.* not .*beta=1\.0"):
        fit(model(), BetaVAE(1.0), data, **SHORT | {"epochs": 3}, store=Folder(tmp_path / "run"))
    assert repr(BetaVAE(np.float32(0.5))) == repr(BetaVAE(0.5))
    assert repr(ELBO(warmup=2)) == "ELBO(warmup=2, samples=1)"  # which folders of trainings hold


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda loss, terms: loss, "return a pair"),
        (lambda loss, terms: (loss.item(), terms), "return a pair"),
        (lambda loss, terms: (loss.detach(), terms), "without a gradient"),
        (lambda loss, terms: (loss + terms.rate, terms), r"shape \(20,\): return its mean"),
    ],
)
def test_what_it_returns_by_mistake_is_refused(data, change, words):
    with pytest.raises(ValueError, match=words):
        fit(model(), BetaVAE(change=change), data, **SHORT)
