"""The scikit-learn estimator: scikit-learn's own checks, densities in the units of the data, searches and pipelines."""

import itertools
import math
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from vaepriors.estimator import VariationalAutoencoder
from vaepriors.training import Diverged

TINY = {"latent": 2, "hidden": (8,), "max_epochs": 2, "draws": 10, "batch_size": 20, "accelerator": "cpu"}


def tiny(**parameters):
    return VariationalAutoencoder(**{**TINY, "random_state": 0, **parameters})


@parametrize_with_checks([tiny(prior="mog", components=3)])
def test_scikit_learns_own_checks(estimator, check):
    """All of them; the one on the array API skips itself unless the environment variable SCIPY_ARRAY_API is set."""
    check(estimator)


def test_densities_are_of_the_data_as_given():
    """log p(a x + b) = log p(x) - sum_j log a_j: standardisation makes the two trainings the same."""
    x = np.random.default_rng(0).normal(size=(60, 3))
    a, b = np.array([0.01, 1.0, 4000.0]), np.array([5.0, 0.0, -1e4])
    plain, scaled = tiny().fit(x), tiny().fit(a * x + b)
    np.testing.assert_allclose(scaled.score_samples(a * x + b), plain.score_samples(x) - np.log(a).sum(), atol=1e-3)
    np.testing.assert_allclose(scaled.transform(a * x + b), plain.transform(x), atol=1e-4)
    np.testing.assert_allclose(scaled.sample(4), a * plain.sample(4) + b, rtol=1e-4)
    z = plain.transform(x)
    np.testing.assert_allclose(scaled.inverse_transform(z), a * plain.inverse_transform(z) + b, rtol=1e-3)


def test_a_column_far_from_zero_keeps_its_spread():
    """Single precision has steps of 8 near 1e8."""
    x = np.random.default_rng(0).normal(size=(60, 2))
    plain, far = tiny().fit(x), tiny().fit(x + 1e8)
    np.testing.assert_allclose(far.score_samples(x + 1e8), plain.score_samples(x), atol=1e-3)


def test_scores_are_the_density_by_draws_of_the_prior():
    """log mean p(x|z) over many z ~ p(z), which is exact enough for two latent variables."""
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(60, 1))
    model = tiny(draws=2000, max_epochs=60).fit(x)
    inner = x[np.abs(x[:, 0] - 3) < 4][:10]
    log_p, error = model.score_samples(inner, return_std=True)
    with torch.no_grad():
        torch.manual_seed(0)
        likelihood = model.model_.decoder(model.model_.prior().sample((20_000,)))
        u = torch.tensor((inner - model.mean_) / model.scale_)
        exact = torch.stack([likelihood.log_prob(row).logsumexp(0) for row in u]) - math.log(20_000)
    np.testing.assert_allclose(log_p, exact.numpy() - np.log(model.scale_).sum(), atol=4 * error.max() + 0.05)
    assert error.max() < 0.1
    assert model.score(inner) == pytest.approx(log_p.mean())


def test_scores_follow_from_the_seed_alone():
    """Also under a prior that estimates its constant by draws of its own."""
    x = np.random.default_rng(0).normal(size=(60, 3))
    model = tiny(prior="resampled").fit(x)
    torch.manual_seed(1)
    first = model.score_samples(x)
    torch.manual_seed(2)
    assert np.array_equal(model.score_samples(x), first)


def test_masses_of_bits_sum_to_one():
    bits = (np.random.default_rng(0).random((60, 3)) < 0.3).astype(float)
    model = tiny(draws=2000).fit(bits)
    assert model.likelihood_ == "bernoulli"
    every = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    log_p, error = model.score_samples(every, return_std=True)
    assert np.exp(log_p).sum() == pytest.approx(1, abs=4 * np.sqrt((np.exp(log_p) * error).sum() ** 2))
    assert set(np.unique(model.sample(5))) <= {0.0, 1.0}
    with pytest.raises(ValueError, match="row 1 of X has values outside of the support of bernoulli"):
        model.transform(np.array([[0.0, 1.0, 0.0], [0.5, 1.0, 0.0]]))


def test_counts_are_scored_and_drawn_as_counts():
    counts = np.random.default_rng(0).poisson([1.0, 5.0, 40.0], size=(60, 3)).astype(float)
    model = tiny(likelihood="negative_binomial", prior="vamp", components=5).fit(counts)
    assert (model.scale_ == 1).all()
    assert (model.score_samples(counts) < 0).all()  # logarithms of probabilities
    draws = model.sample(20)
    assert ((draws >= 0) & (draws == np.floor(draws))).all()
    with pytest.raises(ValueError, match="row 1 of X has values outside of the support of negative_binomial"):
        model.score_samples(np.array([[0.0, 1.0, 2.0], [0.0, 1.5, 2.0]]))


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_rare_categories_are_never_held_out(seed):
    codes = np.zeros((200, 2))
    codes[::20, 0] = np.arange(10)  # each in one row, except 0
    model = tiny(likelihood="categorical", random_state=seed).fit(codes)
    assert np.isfinite(model.score_samples(codes[::20])).all()


@pytest.mark.parametrize("code", [1.0, 7.0])
def test_a_category_that_no_training_row_has_is_refused(code):
    codes = np.arange(120).reshape(60, 2) % 3 * np.array([2.0, 1.0])  # 0, 2, 4 and 0, 1, 2
    model = tiny(likelihood="categorical").fit(codes)
    assert np.isfinite(model.score_samples(codes)).all()
    for method in (model.transform, model.score_samples):
        with pytest.raises(ValueError, match=f"row 1 of X has the category {code:.0f} in column 0"):
            method(np.array([[0.0, 1.0], [code, 1.0]]))


def test_it_stands_in_a_pipeline_and_a_search():
    x, y = load_breast_cancer(return_X_y=True)
    classifier = make_pipeline(tiny(latent=4, max_epochs=20, lr=0.01), LogisticRegression()).fit(x, y)
    assert classifier.score(x, y) > 0.85  # 0.63 are benign
    assert list(classifier[:-1].get_feature_names_out()) == [f"variationalautoencoder{i}" for i in range(4)]
    search = GridSearchCV(tiny(components=None), {"prior": ["standard", "mog", "vamp"]}, cv=2).fit(x[:60])
    assert search.best_params_["prior"] in ("standard", "mog", "vamp")
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_the_default_device_of_torch_does_not_matter():
    codes = np.arange(120).reshape(60, 2) % 3.0
    plain = tiny(likelihood="categorical", prior="vamp", components=3).fit(codes)
    with torch.device("meta"):  # as torch.set_default_device does
        model = tiny(likelihood="categorical", prior="vamp", components=3).fit(codes)
        z = model.transform(codes)
        assert np.array_equal(model.inverse_transform(z), plain.inverse_transform(z))
        assert np.array_equal(model.score_samples(codes), plain.score_samples(codes))
        assert np.array_equal(model.sample(5), plain.sample(5))


def test_threads_do_not_share_random_numbers():
    x = np.random.default_rng(0).normal(size=(60, 3))
    alone = tiny(max_epochs=10).fit(x).score_samples(x)
    with ThreadPoolExecutor(4) as pool:
        for scores in pool.map(lambda _: tiny(max_epochs=10).fit(x).score_samples(x), range(4)):
            assert np.array_equal(scores, alone)


def test_data_frames_in_and_out():
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    x = load_breast_cancer(as_frame=True).data[:40]
    codes = tiny().set_output(transform="pandas").fit_transform(x)
    assert isinstance(codes, pandas.DataFrame)
    assert list(codes.index) == list(x.index)


def test_a_fit_that_diverges_leaves_no_earlier_model():
    x = np.random.default_rng(0).normal(size=(40, 3))
    vae = VariationalAutoencoder(hidden=(8,), max_epochs=1, accelerator="cpu", random_state=0).fit(x)
    with pytest.raises(Diverged):
        vae.set_params(lr=1e30).fit(10 * x)
    with pytest.raises(NotFittedError):
        vae.score_samples(x)


def test_an_interruption_ends_the_fit_with_the_usual_error():
    x, handler = np.random.default_rng(0).normal(size=(200, 3)), signal.getsignal(signal.SIGINT)
    vae = VariationalAutoencoder(hidden=(8,), max_epochs=10**6, patience=10**6, accelerator="cpu", random_state=0)
    timer = threading.Thread(target=interrupt_training, args=(handler,), daemon=True)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        vae.fit(x)
    timer.join()


def interrupt_training(handler):
    """Ctrl-C as soon as a training handles it."""
    while signal.getsignal(signal.SIGINT) is handler:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


def test_options_of_the_training_take_effect():
    """Each changes the first step, or how many there are."""
    x = np.random.default_rng(0).normal(size=(60, 3))
    plain = tiny().fit(x).score(x)
    for option in ({"normalize": False}, {"adam_eps": 0.1}, {"epoch_steps": 1}, {"precision": "64-true"}):
        assert tiny(options=option).fit(x).score(x) != plain


def test_two_levels_have_both_means():
    x = np.random.default_rng(0).normal(size=(40, 3))
    model = tiny(model="hvae", prior="vamp", components=5, options={"weighted": True}).fit(x)
    assert model.transform(x).shape == (40, 4)
    assert model.inverse_transform(model.transform(x)).shape == x.shape
    assert len(model.metrics_) == model.n_iter_ == 2


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"prior": "vampire"}, "unknown prior 'vampire'"),
        ({"model": "mine:make"}, "unknown model 'mine:make': choose one of vae"),
        ({"likelihood": "poison"}, "unknown likelihood 'poison': choose one of auto"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        ({"options": {"latent": 3}}, "options has latent, which is a parameter"),
        ({"options": {"epochs": 3}}, "options has epochs, which is a parameter: give it as max_epochs"),
        ({"options": {"likelihood": "student"}}, "options has likelihood, which is a parameter"),
        ({"options": {"columns": "a=drop"}}, "unknown option 'columns'"),
        ({"accelerator": "tpu"}, "unknown accelerator 'tpu'"),
        ({"objective": "refit"}, "refit starts from a trained model"),
        ({"latent": 2.0}, "latent is 2.0: a whole number"),
        ({"hidden": (8.5,)}, "hidden is 8.5: give whole numbers"),
        ({"draws": 0}, "draws is 0"),
        ({"standardize": "no"}, "standardize is 'no': give True or False"),
        ({"prior": "vamp", "options": {"weighted": "no"}}, "weighted is 'no': give True or False"),
        ({"components": 3}, "components is 3, but the prior standard has no such option"),
        ({"prior": "vamp-data", "components": 100}, "only 36 training examples"),
        ({"model": "convhvae"}, "vectors|images"),
    ],
)
def test_a_wrong_parameter_is_one_clear_error(parameters, message):
    with pytest.raises(ValueError, match=message):
        tiny(**parameters).fit(np.random.default_rng(0).normal(size=(40, 3)))
