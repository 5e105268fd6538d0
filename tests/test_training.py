"""`fit` for models that anyone made: no names, no command line."""

import math
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

from reference import Call
from vaepriors import Folder, fit, load_weights
from vaepriors.data import Dataset
from vaepriors.objectives import ELBO, IWAE, REWO, Objective
from vaepriors.priors import StandardNormal, VampPrior
from vaepriors.store import Memory
from vaepriors.training import Callback, Diverged
from vaepriors.vae import VAE

SHORT = {"epochs": 4, "batch_size": 20, "accelerator": "cpu", "save_every": 0.0}


class Encoder(nn.Module):
    """Torch's own layers and torch's own distribution."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 4))

    def forward(self, x):
        loc, log_scale = self.layers(x).chunk(2, -1)
        return Independent(Normal(loc, log_scale.exp(), validate_args=True), 1)  # which zuko switches off


@pytest.fixture(scope="module")
def data():
    x = torch.randn(90, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.3, 0.1])
    return Dataset("gaussian", x[:50], x[50:70], x[70:], "gaussian")


def model_of(data, prior="vamp"):
    torch.manual_seed(0)
    encoder = Encoder()
    decoder = nn.Sequential(nn.Linear(2, 3), Call(lambda loc: Independent(Normal(loc, 0.3), 1)))
    vamp = prior == "vamp"
    return VAE(encoder, decoder, VampPrior(encoder, data.train[:5], bounds=None) if vamp else StandardNormal(2))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def numbers(outcome):
    return [
        {name: value for name, value in line.items() if name not in ("seconds", "memory")} for line in outcome.metrics
    ]


@pytest.mark.parametrize(
    "objective",
    [lambda: ELBO(warmup=2), lambda: IWAE(5, "dreg"), lambda: REWO(kappa=0.5)],
    ids=["elbo", "iwae", "rewo"],
)
def test_a_training_in_memory_and_one_that_is_resumed_from_a_folder_are_the_same(tmp_path, data, objective):
    whole = fit(model := model_of(data), objective(), data, **SHORT)
    assert whole.reason == "finished"
    assert [line["epoch"] for line in whole.metrics] == [1, 2, 3, 4]
    for number in range(4):  # each call trains one epoch
        resumed = model_of(data)
        outcome = fit(resumed, objective(), data, **SHORT, store=Folder(tmp_path / "run"), deadline=0.0)
        assert outcome.reason == ("out of time" if number < 3 else "finished")
    assert numbers(outcome) == numbers(whole)
    assert outcome == whole
    assert torch.equal(weights(model), weights(resumed))
    for which, best in (("best", whole.load_best(model)), ("last", resumed)):
        fresh = load_weights(model_of(data), tmp_path / "run", which)
        assert not fresh.training
        assert torch.equal(weights(fresh), weights(best))


def test_the_warm_up_of_the_objective_counts_epochs(data):
    outcome = fit(model_of(data), ELBO(warmup=4), data, **SHORT)
    assert [line["beta"] for line in outcome.metrics] == pytest.approx([0.25, 0.5, 0.75, 1.0])


class Mean(Objective):
    """The mean of x, whatever the model; it keeps in which mode it and the encoder were."""

    def __init__(self):
        super().__init__(samples=1)
        self.modes = []

    def forward(self, model, x):
        self.modes.append((model.encoder.training, self.training))
        terms = model(x, 1)
        return x.mean() + 0 * terms.rate.mean(), terms


def test_losses_are_means_over_all_examples_and_validation_is_in_evaluation_mode():
    train, valid = torch.arange(50.0)[:, None].expand(50, 3), (torch.arange(700) >= 500).float()[:, None].expand(700, 3)
    data, objective = Dataset("gaussian", train, valid, valid, "gaussian"), Mean()
    (line,) = fit(model_of(data, "normal"), objective, data, **SHORT | {"epochs": 1, "batch_size": 25}).metrics
    assert line["loss"] == pytest.approx(24.5)
    assert line["valid_loss"] == pytest.approx(2 / 7)  # of batches of 500 and 200
    assert objective.modes == [(True, True)] * 2 + [(False, False)] * 2


def test_each_epoch_has_noise_of_its_own():
    same = torch.ones(50, 3)
    data = Dataset("gaussian", same, same[:1], same[:1], "gaussian")
    options = SHORT | {"lr": 1e-30, "batch_size": 50}
    losses = [line["loss"] for line in fit(model_of(data, "normal"), ELBO(), data, **options).metrics]
    assert len({round(loss, 3) for loss in losses}) == 4


@pytest.mark.parametrize("make", [lambda: ELBO(warmup=4), lambda: REWO(kappa=0.5)], ids=["elbo", "rewo"])
def test_an_objective_may_train_several_models(data, make):
    objective = make()
    fit(model_of(data), objective, data, **SHORT | {"batch_size": 10})
    again, fresh = (fit(model_of(data), each, data, **SHORT) for each in (objective, make()))
    assert numbers(again) == numbers(fresh)


def test_the_state_of_the_process_neither_matters_nor_changes(data):
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before, model = torch.get_rng_state(), model_of(data)
        state = torch.get_rng_state()
        losses.append(fit(model, ELBO(), data, **SHORT).best_loss)
        assert torch.equal(torch.get_rng_state(), state)
        assert not torch.equal(before, state)
    assert losses[0] == losses[1]


def test_the_default_device_of_torch_does_not_matter(data):
    model, objective = model_of(data), ELBO()
    with torch.device("meta"):  # as torch.set_default_device does
        outcome = fit(model, objective, data, **SHORT)
    assert numbers(outcome) == numbers(fit(model_of(data), ELBO(), data, **SHORT))


def test_a_training_takes_gradients_where_they_are_off(data):
    expected = fit(model_of(data), ELBO(), data, epochs=1)
    with torch.no_grad():
        assert numbers(fit(model_of(data), ELBO(), data, epochs=1)) == numbers(expected)


def test_the_store_refuses_another_training(tmp_path, data):
    other = Dataset("other", data.train + 1, data.valid, data.test, "gaussian")
    for store in (Folder(tmp_path / "run"), Memory()):
        fit(model_of(data), ELBO(), data, **SHORT, store=store)
        for arguments, options, words in [
            ((model_of(data), ELBO(), data), {"lr": 1e-3}, "lr 0.0005, not 0.001"),
            ((model_of(data), ELBO(), other), {}, "other is not the data set"),
            ((model_of(data), ELBO(warmup=2), data), {}, r"objective .*warmup=0.* not .*warmup=2"),
            ((model_of(data), ELBO(steps_per_epoch=2), data), {}, "not .*steps_per_epoch=2"),
            ((model_of(data, "standard"), ELBO(), data), {}, "another model"),
            ((model_of(data), ELBO(), data), {"epochs": 2}, "epochs is 2"),
        ]:
            with pytest.raises(ValueError, match=words) as caught:
                fit(*arguments, **SHORT | options, store=store)
            assert "previous.ckpt" not in str(caught.value)  # which is of the same training
        assert fit(model_of(data), ELBO(), data, **SHORT | {"epochs": 5}, store=store).epoch == 5


def test_after_a_training_without_a_checkpoint_its_folder_takes_another(tmp_path, data):
    store = Folder(tmp_path / "run")
    for _ in range(2):
        with pytest.raises(Diverged, match="lower lr"):
            fit(model_of(data), ELBO(), data, **SHORT, lr=1e30, normalize=False, store=store)
    other = Dataset("other", data.train + 1, data.valid, data.test, "gaussian")
    fresh = fit(model_of(data), ELBO(), other, **SHORT, lr=1e-3)
    assert numbers(fit(model_of(data), ELBO(), other, **SHORT, lr=1e-3, store=store)) == numbers(fresh)
    assert fit(model_of(data), ELBO(), other, **SHORT, lr=1e-3, store=store).epoch == 4


def test_a_training_in_memory_resumes_from_its_checkpoint_after_an_error(data):
    class Failing(Callback):
        def epoch(self, line):
            if line["epoch"] == 3:
                raise RuntimeError("no disk")

    whole, store = fit(model_of(data), ELBO(), data, **SHORT), Memory()
    fit(model_of(data), ELBO(), data, **SHORT | {"epochs": 1}, store=store)
    with pytest.raises(RuntimeError, match="no disk"):
        fit(model_of(data), ELBO(), data, **SHORT | {"save_every": 60.0}, store=store, callbacks=[Failing()])
    assert numbers(fit(model_of(data), ELBO(), data, **SHORT, store=store)) == numbers(whole)


def test_numbers_of_numpy_are_those_of_python(tmp_path, data):
    options = {"lr": np.float32(0.5), "seed": np.int64(3), "warmup": np.int64(1), "epoch_steps": np.int64(2)}
    options |= {"normalize": np.bool_(False), "devices": np.int64(1)}
    outcome = fit(model_of(data), ELBO(), data, **SHORT | options, store=Folder(tmp_path / "run"))
    plain = {"lr": 0.5, "seed": 3, "warmup": 1, "epoch_steps": 2, "normalize": False}
    assert outcome == fit(model_of(data), ELBO(), data, **SHORT | plain)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"lr": "1e-3"}, "lr is '1e-3'"),
        ({"seed": None}, "seed is None"),
        ({"batch_size": None}, "batch_size is None"),
        ({"patience": None}, "patience is None"),
        ({"accelerator": "gpu"}, "unknown accelerator 'gpu'"),
        ({"patience": -1}, "patience is -1"),
        ({"precision": "16"}, "precision '16'"),
        ({"compile": "no"}, "compile is 'no': give True or False"),
        ({"best_from": "end"}, "best_from 'end'"),
        ({"best_from": "warmup", "epochs": 2, "warmup": 3}, "fewer than the 3 of the warm-up"),
    ],
)
def test_settings_out_of_range_are_refused(data, options, words):
    with pytest.raises(ValueError, match=words):
        fit(model_of(data), ELBO(), data, **SHORT | options)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"objective": ELBO}, r"objective is ELBO.*ELBO\(\)"),
        ({"data": torch.utils.data.DataLoader([0])}, "data is a DataLoader.*Dataset"),
        ({"store": "runs/a"}, r"Folder\('runs/a'\)"),
        ({"callbacks": [print]}, "callbacks has <built-in function print>.*Callback"),
        ({"callbacks": print}, "callbacks has <built-in function print>: give a list"),
        ({"callbacks": [Callback]}, "callbacks has <class.*instances"),
        ({"callbacks": Callback()}, "callbacks has .*give a list"),
    ],
)
def test_arguments_of_another_type_are_refused(data, change, words):
    with pytest.raises(ValueError, match=words):
        fit(**{"model": model_of(data), "objective": ELBO(), "data": data, "epochs": 1} | change)


def test_a_model_whose_parameters_are_all_frozen_is_refused(data):
    model = model_of(data)
    model.encoder.requires_grad_(False)
    fit(model, ELBO(), data, **SHORT)
    with pytest.raises(ValueError, match="all parameters to train are frozen"):
        fit(model.requires_grad_(False), ELBO(), data, **SHORT)


@pytest.mark.parametrize("width", [16, 20])
def test_a_decoder_that_takes_a_batch_for_its_features_is_refused(tmp_path, data, width):
    """BatchNorm1d takes z of shape (1, 20, features) as 20 features, which fits by accident if there are 20."""
    model, store = model_of(data), Folder(tmp_path / "run")
    norm = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 2))
    model.decoder = nn.Sequential(norm, model.decoder)
    valid = Dataset("gaussian", data.train[:40], data.valid, data.test, "gaussian")
    with pytest.raises(ValueError, match="any leading dimensions"):
        fit(model, ELBO(), valid, **SHORT, store=store)
    assert not store.exists()


def test_a_distribution_that_torch_refuses_after_a_while_has_diverged(tmp_path, data):
    model, store = model_of(data), Folder(tmp_path / "run")

    class Break(Callback):
        def epoch(self, line):
            if line["epoch"] == 2:
                nn.init.constant_(model.encoder.layers[0].weight, math.nan)

    with pytest.raises(Diverged, match=r"distribution of epoch 3 .*epoch 2 is kept as best"):
        fit(model, ELBO(), data, **SHORT | {"save_every": 30.0}, store=store, callbacks=[Break()])
    assert load_weights(model, store).encoder.layers[0].weight.isfinite().all()
    with pytest.raises(Diverged, match="epoch 2 is kept as best in the store, if fit was given one"):
        fit(model, ELBO(), data, **SHORT, callbacks=[Break()])


def test_no_epoch_begins_that_would_end_after_the_deadline(data):
    class Slow(Callback):
        def epoch(self, line):
            time.sleep(0.3)

    outcome = fit(model_of(data), ELBO(), data, **SHORT, callbacks=[Slow()], deadline=time.monotonic() + 0.5)
    assert (outcome.epoch, outcome.reason) == (1, "out of time")


def test_a_snapshot_of_an_epoch_that_is_over_is_refused(data):
    store = Memory()
    fit(model_of(data), ELBO(), data, **SHORT | {"epochs": 2}, store=store)
    for epoch in (1, 2):
        with pytest.raises(ValueError, match=f"snapshots has epoch {epoch}"):
            fit(model_of(data), ELBO(), data, **SHORT, store=store, snapshots={epoch})


def test_callbacks_are_called(data):
    calls = []

    class Note(Callback):
        def start(self, epoch, epochs, steps):
            calls.append(("start", epoch, epochs, steps))

        def epoch(self, line):
            calls.append(("epoch", line["epoch"]))
            model.train()(data.test, 3)

    model = model_of(data)
    outcome = fit(model, ELBO(), data, **SHORT, callbacks=[Note()])
    assert not model.training
    assert numbers(outcome) == numbers(fit(model_of(data), ELBO(), data, **SHORT))
    assert calls == [("start", 0, 4, 3), ("epoch", 1), ("epoch", 2), ("epoch", 3), ("epoch", 4)]


def test_a_training_that_stopped_in_its_warm_up_has_no_best_model(data):
    model = model_of(data)
    outcome = fit(model, ELBO(warmup=3), data, **SHORT, warmup=3, best_from="warmup", deadline=0.0)
    with pytest.raises(ValueError, match=r"no epoch up to 1 .*out of time"):
        outcome.load_best(model)


def test_weights_that_are_not_there_or_of_another_model_are_refused(tmp_path, data):
    with pytest.raises(ValueError, match=r"no best\.ckpt yet"):
        load_weights(model_of(data), tmp_path)
    fit(model_of(data), ELBO(), data, **SHORT, store=Folder(tmp_path / "run"))
    with pytest.raises(ValueError, match="another model"):
        load_weights(model_of(data, "standard"), tmp_path / "run")
