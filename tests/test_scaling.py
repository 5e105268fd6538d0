"""Standardised columns: densities, draws and errors beside those of a model of data that are standardised before."""

import json
import math

import numpy as np
import pytest
import torch

from vaepriors import data, objectives
from vaepriors.app import run
from vaepriors.app.cost import least_memory
from vaepriors.app.experiment import Experiment, build, load_data
from vaepriors.data import Dataset
from vaepriors.distributions import Student, residual
from vaepriors.networks.scaling import Standardize, Standardized, moments
from vaepriors.training import fit

GENERATOR = np.random.default_rng(0)
MEAN, SCALE = np.array([4000.0, 0.0, -0.5]), np.array([500.0, 0.001, 2.0])
X = torch.tensor(MEAN + SCALE * GENERATOR.normal(size=(60, 3)), dtype=torch.float32)
VAMP = {"prior": "vamp", "components": 4, "pseudo_inputs": "data"}


def dataset(x, **facts):
    return Dataset("test", x[:40], x[40:50], x[50:], "gaussian", **facts)


def models(**options):
    """The same weights, for the data as given with standardised columns, and for data that are standardised before."""
    mean, scale = moments(X[:40])
    for x, standardize in ((X, True), ((X - mean) / scale, False)):
        torch.manual_seed(0)
        model, objective = build(Experiment(latent=2, hidden=(8,), **options), dataset(x, standardize=standardize))
        yield model, objective, x, scale


def test_moments_ignore_missing_cells_and_constant_columns():
    x = torch.cat([X, torch.full((60, 1), 7.3), torch.full((60, 1), torch.nan)], 1)
    x[3, 0] = torch.nan
    mean, scale = moments(x)
    rows = x.double().numpy()
    np.testing.assert_allclose(mean[:3], np.nanmean(rows[:, :3], 0), rtol=1e-6)
    np.testing.assert_allclose(scale[:3], np.nanstd(rows[:, :3], 0), rtol=1e-6)
    assert scale[3:].tolist() == [1, 1]
    assert mean[3].item() == x[0, 3].item()
    assert mean[4] == 0


def test_a_small_spread_around_a_large_mean_is_kept():
    x = torch.tensor([4000 - 0.001, 4000 + 0.001], dtype=torch.float32)[:, None]
    scaling = Standardize(*moments(x))
    assert scaling(x).flatten().tolist() == [-1, 1]
    assert torch.equal(scaling.inverse(scaling(x)), x)


@pytest.mark.parametrize(
    "options",
    [VAMP, VAMP | {"model": "hvae"}, {"prior": "vamp-data", "components": 4}, {"prior": "exemplar", "exemplars": 9}],
)
def test_the_model_is_one_of_the_data_as_given(options):
    (one, _, x, scale), (other, _, u, _) = models(**options)
    torch.manual_seed(1)
    terms = one(x, 5)
    torch.manual_seed(1)
    expected = other(u, 5)
    torch.testing.assert_close(terms.log_likelihood, expected.log_likelihood - scale.log().sum(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(terms.log_ratio, expected.log_ratio, rtol=1e-4, atol=1e-4)
    torch.manual_seed(2)
    draws = one.sample((6,))
    torch.manual_seed(2)
    mean, _ = moments(X[:40])
    torch.testing.assert_close((draws - mean) / scale, other.sample((6,)), rtol=1e-3, atol=1e-3)
    error, same = residual(terms.likelihood, x), residual(expected.likelihood, u)
    torch.testing.assert_close(error, same, rtol=1e-4, atol=1e-4)


def test_pseudo_inputs_are_learned_as_standardised_values():
    (one, _, x, _), (other, _, _, _) = models(**VAMP)
    torch.testing.assert_close(one.prior.pseudo_inputs, other.prior.pseudo_inputs)
    assert (one.prior.inputs()[:, 0] > 2000).all()
    one(x).log_weight.mean().backward()
    assert one.prior.pseudo_inputs.grad.isfinite().all()


def test_density_and_draws_of_heavy_tails_are_in_the_units_of_the_data():
    scaling = Standardize(torch.tensor([4000.0, 1.0]), torch.tensor([10.0, 0.1]))
    each = Standardized(Student(4.0, torch.zeros(5, 2), torch.tensor(1.0)), scaling)
    x = torch.tensor([4010.0, 1.0])
    torch.testing.assert_close(each.log_prob(x), Student(4.0, scaling.mean, scaling.scale).log_prob(x).expand(5, 2))
    assert each.expand((3, 5, 2)).sample().shape == (3, 5, 2)
    assert each.variance[0].tolist() == pytest.approx([200, 0.02])


def test_a_training_on_uneven_scales_ends_at_the_density_of_the_standardised_one():
    losses = []
    for model, _, x, scale in models():
        facts = {"standardize": not losses}
        outcome = fit(model, objectives.ELBO(), dataset(x, **facts), epochs=3, lr=1e-2, accelerator="cpu")
        losses.append(outcome.best_loss - scale.log().sum().item() * (not losses))
    assert losses[0] == pytest.approx(losses[1], abs=1e-2)


def test_real_tables_of_a_file_are_standardised_unless_asked_not_to(tmp_path):
    path = str(tmp_path / "mine.npy")
    np.save(path, X.numpy())
    assert data.load(path).standardize
    assert not data.load(path).doubts
    assert "(standardised)" in data.load(path).summary()
    plain = load_data(Experiment(data=path, standardize=False))
    assert not plain.standardize
    assert "standard deviations" in plain.doubts[0]
    assert not load_data(Experiment(data=path, model="mine:make")).standardize
    np.save(path, X.view(60, 3, 1).numpy())
    assert not data.load(path).standardize  # images
    np.save(path, (X > 0).numpy())
    assert not data.load(path).standardize


def test_runs_of_earlier_versions_are_not_standardised_and_keep_their_identity():
    experiment = Experiment(data="mine.npy")
    old = {name: value for name, value in json.loads(json.dumps(vars(experiment))).items() if name != "standardize"}
    read = Experiment.read(old)
    assert not read.standardize
    assert Experiment.read(vars(experiment)) == experiment
    assert run.identity(read, "a") == run.identity(Experiment(), "a") != run.identity(experiment, "a")
    assert Experiment.read({"data": "digits"}) == Experiment()


def test_the_memory_of_a_run_is_estimated_with_standardised_columns():
    assert least_memory(Experiment(latent=2, **VAMP), dataset(X, standardize=True)).total > 0


def test_a_bound_on_the_error_is_in_standardised_units():
    (one, objective, x, _), (other, same, u, _) = models(objective="geco", kappa=0.5)
    for model, geco, rows in ((one, objective, x), (other, same, u)):
        torch.manual_seed(3)
        geco(model, rows)
    assert objective.metrics()["error"].item() == pytest.approx(same.metrics()["error"].item(), rel=1e-3)
    assert math.isfinite(objective.metrics()["error"].item())
