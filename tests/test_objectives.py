"""Objectives on hand-written terms."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, Normal, TransformedDistribution

from reference import Call, LinearGaussian
from vaepriors import networks
from vaepriors.checkpoint import load_module, module_tensors
from vaepriors.distributions import DiagonalNormal
from vaepriors.objectives import ELBO, GECO, IWAE, REWO
from vaepriors.optim import adam
from vaepriors.priors import StandardNormal
from vaepriors.vae import VAE, Terms

LOG_LIKELIHOOD, LOG_Q = torch.tensor([[-3.0, -5.0], [-1.0, -3.0]]), torch.tensor([[1.0, 2.0], [0.0, 1.0]])
TERMS = Terms(LOG_LIKELIHOOD, LOG_Q, torch.zeros(2, 2))  # log p(x|z) is -3 and log q - log p is 1, on average
X = torch.zeros(2, 1, dtype=torch.float64)


def loss_of(objective, terms, x=X):
    """The loss of an objective on hand-written terms, whatever the model."""
    loss, returned = objective(lambda x, n: terms, x)
    assert returned is terms
    return loss


def test_elbo_without_warmup():
    assert loss_of(ELBO(), TERMS).item() == pytest.approx(4.0)


def test_warmup_grows_by_epochs_and_then_stays():
    objective = ELBO(warmup=4, steps_per_epoch=2)
    losses = [loss_of(objective, TERMS).item() for _ in range(12)]
    betas = [0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1, 1, 1, 1, 1, 1]
    assert losses == pytest.approx([3 + beta for beta in betas])
    assert objective.metrics()["beta"].item() == 1


def test_evaluation_is_at_beta_one_and_does_not_count():
    objective = ELBO(warmup=4)
    loss_of(objective, TERMS)
    objective.eval()
    assert loss_of(objective, TERMS).item() == pytest.approx(4.0)
    assert objective.step.item() == 1
    assert objective.metrics()["beta"].item() == 0.25


def test_steps_of_an_epoch_that_are_given_are_kept():
    for objective, expected in ((ELBO(steps_per_epoch=7), 7), (ELBO(), 3)):
        objective.count_epochs(3)
        assert objective.steps_per_epoch == expected


def test_an_objective_checkpoints_itself():
    first, second = ELBO(warmup=4), ELBO(warmup=4)
    loss_of(first, TERMS)
    load_module(second, module_tensors(first))
    assert loss_of(second, TERMS).item() == loss_of(first, TERMS).item() == pytest.approx(3.5)


def test_gradients_are_weighted():
    halves = Terms(*(t.clone().requires_grad_() for t in TERMS[:3]))
    gradients = torch.autograd.grad(loss_of(ELBO(warmup=2), halves), halves[:3])
    expected = [torch.full((2, 2), value) for value in (-0.25, 0.125, -0.125)]
    torch.testing.assert_close(list(gradients), expected)


def test_two_losses_before_one_backward_pass():
    objective = ELBO(warmup=4)
    log_q, zero = torch.tensor([[1.0]], requires_grad=True), torch.zeros(1, 1)
    terms = Terms(zero, log_q, zero)
    (loss_of(objective, terms) + loss_of(objective, terms)).backward()
    assert log_q.grad.item() == pytest.approx(0.25 + 0.5)


def terms_of_error(error, log_likelihood=-3.0, log_ratio=10.0):
    """Hand-written terms whose reconstruction of `X` has this mean squared error."""
    full = lambda value: torch.full((1, 2), value, dtype=torch.float64)  # noqa: E731
    mean = (torch.tensor([[[0.5], [1.5]]], dtype=torch.float64) * error).sqrt()
    return Terms(full(log_likelihood), full(log_ratio), full(0.0), likelihood=Independent(Normal(mean, 1.0), 1))


KAPPA, NU, TAU, ALPHA = 0.5, 0.5, 3.0, 0.9


def double(objective, beta=0.1):
    """In double precision from its first weight on."""
    objective.double().log_beta.fill_(math.log(beta))
    return objective


def rewo(**options):
    options = {"kappa": KAPPA, "nu": NU, "tau": TAU, "alpha": ALPHA, "beta": 0.1} | options
    return double(REWO(**options), options["beta"])


def test_rewo_is_algorithm_1_line_by_line():
    """Both phases, the latch, both branches of f, the average that starts with its first value."""
    objective = rewo()
    beta, average, initial, phases = 0.1, None, True, []
    for error in [1.0, 0.5] + [0.0] * 20 + [1.0] * 3 + [0.0] * 10:
        average = error if average is None else (1 - ALPHA) * error + ALPHA * average
        delta = average - KAPPA**2
        if delta < 0:
            initial = False
        if not initial:
            beta *= math.exp(NU * (math.tanh(TAU * (beta - 1)) if delta < 0 else -1) * delta)
        phases.append((initial, delta < 0))
        loss = loss_of(objective, terms_of_error(error))
        assert loss.item() == pytest.approx(3 + beta * 10, abs=1e-12)
        assert objective.prior_gate().item() == (not initial)
        assert objective.metrics()["beta"].item() == pytest.approx(beta, abs=1e-12)
        assert objective.metrics()["error_average"].item() == pytest.approx(average, abs=1e-12)
        assert objective.metrics()["error"].item() == pytest.approx(error, abs=1e-12)
        assert objective.metrics()["error_bound"].item() == KAPPA**2
    assert set(phases) == {(True, False), (False, True), (False, False)}


def test_rewo_ends_at_the_elbo_and_never_beyond():
    objective = rewo(beta=0.5, nu=100.0)
    for _ in range(200):
        loss = loss_of(objective, terms_of_error(0.0))
    assert loss.item() == pytest.approx(13.0, abs=1e-9)
    assert objective.log_beta.item() <= 0
    for _ in range(200):
        loss_of(objective, terms_of_error(100.0))
    assert objective.log_beta.item() == -16


def test_rewo_rises_no_faster_than_its_speed_limit():
    objective = rewo(beta=1e-3, alpha=0.0)
    before = objective.log_beta.clone()
    for error in torch.linspace(0.0, KAPPA**2 - 1e-6, 50, dtype=torch.float64):
        loss_of(objective, terms_of_error(error))
        rise = (objective.log_beta - before).item()
        assert 0 <= rise <= NU * KAPPA**2 * math.tanh(TAU) + 1e-12
        before = objective.log_beta.clone()


def test_the_variant_of_appendix_b1():
    objective = rewo(scheme="gamma")
    gamma, average = (1 / 0.1 - 1) / TAU, None
    for error in [0.0, 1.0, 5.0, 5.0, 0.0, 0.0]:
        average = error if average is None else (1 - ALPHA) * error + ALPHA * average
        gamma *= math.exp(NU * (average - KAPPA**2))
        beta = 1 / (1 + TAU * gamma)
        assert loss_of(objective, terms_of_error(error)).item() == pytest.approx(3 + beta * 10, abs=1e-9)


def test_geco_moves_from_the_first_step_on_and_past_the_elbo():
    objective = double(GECO(KAPPA, NU, alpha=ALPHA))
    assert objective.prior_gate() is None
    log_lambda, average = -math.log(0.1), None
    for error in [0.5, 0.01] + [0.0] * 50:
        average = error if average is None else (1 - ALPHA) * error + ALPHA * average
        log_lambda += NU * (average - KAPPA**2)
        assert loss_of(objective, terms_of_error(error)).item() == pytest.approx(
            10 + 3 * math.exp(log_lambda), rel=1e-6
        )
    assert objective.metrics()["beta"].item() == pytest.approx(math.exp(-log_lambda))
    assert log_lambda < 0
    for _ in range(10):
        loss_of(objective, terms_of_error(1e6))
    assert objective.log_beta.item() == -16


@pytest.mark.parametrize("objective", [rewo(), rewo(scheme="gamma"), GECO(KAPPA)])
def test_constrained_objectives_are_the_elbo_in_evaluation_and_checkpoint_themselves(objective):
    objective.train()
    for error in (0.1, 0.2):
        loss_of(objective, terms_of_error(error))
    objective.eval()
    before = {name: tensor.clone() for name, tensor in module_tensors(objective).items()}
    assert loss_of(objective, terms_of_error(5.0)).item() == pytest.approx(13.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in module_tensors(objective).items())
    objective.train()
    expected = loss_of(objective, terms_of_error(0.3))
    load_module(objective, before)
    assert torch.equal(loss_of(objective, terms_of_error(0.3)), expected)


def test_gradients_reach_both_halves_but_not_the_error():
    for objective in (rewo(), GECO(KAPPA).double()):
        mean = torch.full((1, 2, 1), 0.3, dtype=torch.float64, requires_grad=True)
        terms = terms_of_error(0.1)._replace(likelihood=Independent(Normal(mean, 1.0), 1))
        halves = [terms.log_likelihood.requires_grad_(), terms.log_q.requires_grad_()]
        loss_of(objective, terms).backward()
        ratio = halves[0].grad / halves[1].grad
        torch.testing.assert_close(ratio, -torch.ones_like(ratio) / objective.log_beta.exp())
        assert mean.grad is None


def test_mistakes_are_named():
    for options, words in [
        ({"kappa": 0.0}, "kappa is 0.0"),
        ({"nu": -1.0}, "nu is -1.0"),
        ({"tau": 0.0}, "tau is 0.0"),
        ({"alpha": 1.0}, "alpha is 1.0"),
        ({"beta": 2.0}, "beta starts at 2.0"),
        ({"scheme": "cosh"}, "'cosh'"),
    ]:
        with pytest.raises(ValueError, match=words):
            rewo(**options)
    for options, words in [
        ({"estimator": "reinforce"}, "'reinforce'"),
        ({"groups": 0}, "groups is 0"),
        ({"elbo_weight": 1.5}, "elbo_weight is 1.5"),
        ({"elbo_weight": 0.5, "estimator": "dreg"}, "dreg"),
    ]:
        with pytest.raises(ValueError, match=words):
            IWAE(5, **options)


@pytest.mark.parametrize("objective", [REWO(0.5), GECO(0.5)])
def test_a_likelihood_without_a_mean_has_no_reconstruction_error(objective):
    """Of NaN, REWO would stay in its first phase for ever, without a word."""
    x = torch.zeros(2, 3)
    codes = Independent(Categorical(logits=torch.zeros(1, 2, 3, 4)), 1)
    flow = TransformedDistribution(Independent(Normal(torch.zeros(1, 2, 3), 1.0), 1), [])
    for likelihood, kind in ((codes, "Categorical"), (flow, "TransformedDistribution")):
        terms = Terms(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2), likelihood=likelihood)
        with pytest.raises(ValueError, match=f"{kind} has none.*ELBO"):
            objective(lambda x, n, terms=terms: terms, x)


def test_iwae_and_its_variants_follow_their_formulas():
    torch.manual_seed(0)
    log_w = torch.randn(6, 5, dtype=torch.float64)
    terms = Terms(log_w, torch.zeros_like(log_w), torch.zeros_like(log_w))
    bound = lambda log_w: (log_w.logsumexp(0) - math.log(len(log_w))).mean()  # noqa: E731
    torch.testing.assert_close(loss_of(IWAE(6), terms), -bound(log_w))
    torch.testing.assert_close(loss_of(IWAE(3, groups=2), terms), -(bound(log_w[:3]) + bound(log_w[3:])) / 2)
    torch.testing.assert_close(loss_of(IWAE(6, elbo_weight=0.3), terms), -(0.3 * log_w.mean() + 0.7 * bound(log_w)))
    torch.testing.assert_close(loss_of(IWAE(1), Terms(*(t[:1] for t in terms[:3]))), -log_w[:1].mean())
    assert IWAE(3, groups=2).samples == 6


def test_an_objective_asks_for_its_draws():
    """The caller gives a model and data, and cannot forget a number of draws."""
    model = LinearGaussian(scale=1.2).vae()
    for objective, draws in [(ELBO(samples=3), 3), (IWAE(5), 5), (IWAE(4, "dreg", groups=2), 8), (REWO(0.1), 1)]:
        loss, terms = objective.double()(model, LinearGaussian().x)
        assert loss.shape == ()
        assert terms.log_weight.shape == (draws, 7)


class Linear(nn.Module):
    """x -> q(z|x) with a mean linear in x and free scales."""

    def __init__(self, size, latent):
        super().__init__()
        self.loc, self.log_scale = nn.Linear(size, latent), nn.Parameter(torch.zeros(latent))

    def forward(self, x):
        return DiagonalNormal(self.loc(x), self.log_scale.exp())


@pytest.mark.parametrize("kind", ["rewo", "geco"])
def test_beta_settles_where_the_error_meets_its_bound(kind):
    """With p(x|z) = N(W z, sigma^2), each of the d units that are in use adds beta sigma^2 to the squared error of x.

    So beta = kappa^2 D / (sigma^2 d) (that is 0.5 here), and REWO is on its way there no faster than its speed limit.
    """
    torch.manual_seed(0)
    size, used, sigma, target = 6, 2, 0.2, 0.5
    kappa = sigma * math.sqrt(target * used / size)
    directions = torch.linalg.qr(torch.randn(size, used)).Q
    data = 3 * torch.randn(2000, used) @ directions.T
    decoder = nn.Sequential(nn.Linear(2, size), Call(lambda loc: Independent(Normal(loc, sigma), 1)))
    model = VAE(Linear(size, 2), decoder, StandardNormal(2))
    with torch.no_grad():  # all but the scales is right from the start, so that beta alone is on its way
        decoder[0].weight.copy_(3 * directions)
        model.encoder.loc.weight.copy_(directions.T / 3)
        for layer in (decoder[0], model.encoder.loc):
            layer.bias.zero_()
        model.encoder.log_scale.fill_(-3.5)
    nu = 1.0
    objective = REWO(kappa, nu, alpha=0.9, beta=0.2) if kind == "rewo" else GECO(kappa, nu, alpha=0.9, beta=0.2)
    optimizer = adam(model, objective, 1e-2, normalize=False)
    betas = []
    for _ in range(1500):
        optimizer.zero_grad()
        loss, _ = objective(model, data[torch.randint(2000, (100,))])
        loss.backward()
        optimizer.step()
        betas.append(objective.log_beta.exp().item())
    # the jitter of Adam adds a little to the error, too
    assert sum(betas[-500:]) / 500 == pytest.approx(target, rel=0.1)
    if kind == "rewo":
        rises = [math.log(after / before) for before, after in pairwise(betas)]
        assert max(rises) <= nu * kappa**2 * math.tanh(3) + 1e-5


def test_the_gamma_scheme_follows_its_formula_from_beta_near_1_in_single_precision():
    """Near 1, 1 / beta - 1 is not what float32 makes of it: beta would stay at 1 whatever the error."""
    kappa, nu, tau = 0.5, 2.0, 3.0
    objective = REWO(kappa, nu, tau, alpha=0.0, beta=0.9, scheme="gamma")
    log_beta = math.log(0.9)
    errors = [0.01] * 60 + [0.3] * 60  # within the bound of 0.25 until beta is 1, then beyond it
    for error in errors:
        loss_of(objective, terms_of_error(error))
        log_gamma = math.log(math.expm1(-log_beta) / tau) + nu * (error - kappa**2)
        log_beta = -math.log1p(tau * math.exp(min(max(log_gamma, -16.0), 16.0)))
        assert objective.log_beta.item() == pytest.approx(log_beta, rel=1e-4)
    assert -1e-2 < log_beta < -1e-6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IWAE(0), "samples is 0"),
        (lambda: ELBO(warmup=-1), "warmup is -1"),
        (lambda: ELBO(steps_per_epoch=0), "steps_per_epoch is 0"),
        (lambda: ELBO(samples=-3), "samples is -3"),
        (lambda: GECO(kappa=0.1, samples=0), "samples is 0"),
    ],
)
def test_sizes_of_zero_or_less_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("objective", [ELBO(), IWAE(2), IWAE(2, "dreg"), REWO(kappa=0.1), GECO(kappa=0.1)])
def test_data_outside_of_the_support_are_refused_in_the_first_call(objective):
    """Bits of -1 and 1, or gray levels, have finite densities that grow without bound."""
    model = VAE(networks.Encoder((4,), [8], 2), networks.Decoder((4,), [8], 2), StandardNormal(2))
    x = torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 255.0, 1.0]])
    with pytest.raises(ValueError, match=r"1 of 2 x.*from 0 to 255"):
        copy.deepcopy(objective)(model, x)
    with pytest.raises(ValueError, match=r"2 of 2 x.*from -0.5 to 0.5"):
        copy.deepcopy(objective)(model, x.clamp(max=1) - 0.5)
    objective(model, x.clamp(max=0.3))  # probabilities
    objective.restart()
    with pytest.raises(ValueError, match="outside the support"):
        objective(model, x)
