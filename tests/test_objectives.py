"""Objectives on hand-written terms."""

import pytest
import torch

from vaepriors.checkpoint import load_module, module_tensors
from vaepriors.objectives import ELBO
from vaepriors.vae import Terms

TERMS = Terms(torch.tensor([[-3.0, -5.0], [-1.0, -3.0]]), torch.tensor([[1.0, 2.0], [0.0, 1.0]]))  # means -3 and 1


def test_elbo_without_warmup():
    assert ELBO()(TERMS).item() == pytest.approx(4.0)


def test_warmup_grows_by_epochs_and_then_stays():
    objective = ELBO(warmup=4, steps_per_epoch=2)
    losses = [objective(TERMS).item() for _ in range(12)]
    betas = [0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1, 1, 1, 1, 1, 1]
    assert losses == pytest.approx([3 + beta for beta in betas])
    assert objective.metrics()["beta"].item() == 1


def test_evaluation_is_at_beta_one_and_does_not_count():
    objective = ELBO(warmup=4)
    objective(TERMS)
    objective.eval()
    assert objective(TERMS).item() == pytest.approx(4.0)
    assert objective.step.item() == 1
    assert objective.metrics()["beta"].item() == 0.25


def test_an_objective_checkpoints_itself():
    first, second = ELBO(warmup=4), ELBO(warmup=4)
    first(TERMS)
    load_module(second, module_tensors(first))
    assert second(TERMS).item() == first(TERMS).item() == pytest.approx(3.5)


def test_gradients_are_weighted():
    halves = Terms(*(t.clone().requires_grad_() for t in TERMS))
    gradients = torch.autograd.grad(ELBO(warmup=2)(halves), halves)
    torch.testing.assert_close(gradients, (torch.full((2, 2), -0.25), torch.full((2, 2), 0.125)))


def test_two_losses_before_one_backward_pass():
    objective = ELBO(warmup=4)
    kl = torch.tensor([[1.0]], requires_grad=True)
    (objective(Terms(torch.zeros(1, 1), kl)) + objective(Terms(torch.zeros(1, 1), kl))).backward()
    assert kl.grad.item() == pytest.approx(0.25 + 0.5)
