"""Trained models in use: loaded in Python, codes of their data, and new data."""

import sys

import pytest
import torch

import vaepriors as library
from vaepriors import VAE, Folder, StandardNormal, analysis, data, estimate, fit, networks, objectives
from vaepriors.app.run import Run
from vaepriors.distributions import point_estimate

CODE = """
from vaepriors import VAE, networks, priors

def make(data, latent=2, hidden=(6,)):
    shape = data.event_shape
    encoder, decoder = networks.Encoder(shape, hidden, latent), networks.Decoder(shape, hidden, latent)
    return VAE(encoder, decoder, priors.StandardNormal(latent))

other = make
"""


@pytest.fixture
def custom(in_folder, train):
    """A run of a custom model, whose code is not imported any more."""
    (in_folder / "mine.py").write_text(CODE)
    assert train(in_folder / "run", "--model", "mine:make", "--epochs", "1") == 0
    del sys.modules["mine"]
    yield in_folder / "run"
    sys.modules.pop("mine", None)


# load


def test_a_loaded_model_is_the_evaluated_one(tmp_path, train):
    assert train(tmp_path / "run", "--model", "hvae", "--prior", "vamp", "--components", "3", "--epochs", "2") == 0
    state = torch.get_rng_state()
    model, dataset = library.load(tmp_path / "run", "last")
    assert torch.equal(state, torch.get_rng_state())
    run = Run(tmp_path / "run")
    same, _ = run.model(run.dataset(), "last")
    assert torch.equal(dataset.test, run.dataset().test)
    assert not model.training
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    assert estimate(model, dataset.test, samples=3).log_likelihood.shape == (5,)


def test_a_custom_model_is_loaded_where_it_is_named(custom):
    with pytest.raises(ValueError, match="--model mine:make"):
        library.load(custom)
    assert "mine" not in sys.modules
    with pytest.raises(ValueError, match="mine:other"):
        library.load(custom, model="mine:other")
    assert library.load(str(custom), model="mine:make").model.sample((3,)).shape == (3, 1, 4, 4)


def test_the_folder_of_another_training_names_what_loads_it(tmp_path, images, vaepriors, capsys):
    dataset = data.load(str(images))
    model = VAE(networks.Encoder((1, 4, 4), [4], 2), networks.Decoder((1, 4, 4), [4], 2), StandardNormal(2))
    fit(model, objectives.ELBO(), dataset, epochs=1, store=Folder(tmp_path / "run"), accelerator="cpu")
    with pytest.raises(ValueError, match="load_weights"):
        library.load(tmp_path / "run")
    assert vaepriors("evaluate", tmp_path / "run") == 2
    assert "load_weights" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no run"):
        library.load(tmp_path)


# codes


def test_codes_are_the_means_of_the_encoder():
    torch.manual_seed(0)
    model = VAE(networks.Encoder((3,), [4], 2), networks.Decoder((3,), [4], 2), StandardNormal(2))
    x, seen = torch.randn(7, 3), []
    assert torch.equal(analysis.codes(model, x, progress=seen.append), model.encoder(x).mean)
    torch.testing.assert_close(analysis.codes(model, x, chunk=3), model.encoder(x).mean)
    assert seen == [7]
    with pytest.raises(ValueError, match="ConditionalVAE"):
        analysis.codes(model, x, condition=torch.zeros(7, 1))


def test_the_code_of_two_levels_has_the_mean_of_the_lower_one_at_that_of_the_upper_one():
    torch.manual_seed(0)
    encoder = networks.hierarchical_encoder((3,), [4, 4], 2)
    q, code = encoder(torch.zeros(5, 3)), point_estimate(encoder(torch.zeros(5, 3)))
    assert torch.equal(code[:, :2], q.first.mean)
    assert torch.equal(code[:, 2:], q.then(q.first.mean).mean)
