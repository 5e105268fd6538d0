"""Trained models in use: loaded in Python, codes of their data, and new data."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch

import vaepriors as library
from conftest import TINY
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


# encode


@pytest.fixture(scope="module")
def levels(tmp_path_factory, train):
    """A run with two levels, on probabilities that become bits."""
    folder = tmp_path_factory.mktemp("levels") / "run"
    assert train(folder, "--model", "hvae", "--epochs", "1") == 0
    return folder


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_encode_writes_the_codes_of_a_split(levels, tmp_path, vaepriors, capsys, split):
    for name in ("codes.npy", "codes.csv"):
        assert vaepriors("encode", levels, "--out", tmp_path / name, "--split", split, "--accelerator", "cpu") == 0
    model, dataset = library.load(levels)
    x = getattr(dataset, split)
    expected = analysis.codes(model, data.binarize_once(x) if split == "train" else x).numpy()
    assert f"{len(x)} codes of 4 numbers" in capsys.readouterr().out
    assert np.array_equal(np.load(tmp_path / "codes.npy"), expected)
    table = pd.read_csv(tmp_path / "codes.csv", dtype=np.float32)
    assert list(table) == ["z1", "z2", "z3", "z4"]
    assert np.array_equal(table.to_numpy(), expected)


def test_the_codes_of_the_same_data_in_another_file_are_the_same(levels, tmp_path, vaepriors):
    np.save(tmp_path / "new.npy", Run(levels).dataset().test)  # bits, whose probabilities are 0 and 1
    for name, options in (("a.npy", []), ("b.npy", ["--file", tmp_path / "new.npy"])):
        assert vaepriors("encode", levels, "--out", tmp_path / name, "--accelerator", "cpu", *options) == 0
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_each_example_is_encoded_given_its_own_condition(tmp_path, vaepriors):
    x, labels = np.random.default_rng(0).random((30, 3), dtype=np.float32), np.arange(30) % 3
    np.savez(tmp_path / "mine.npz", train=x, train_labels=labels)
    run, new = tmp_path / "run", tmp_path / "new.npz"
    options = ["--data", tmp_path / "mine.npz", "--likelihood", "gaussian", "--condition", "labels", "--epochs", "1"]
    assert vaepriors("train", *options, *TINY, "--out", run) == 0
    model, dataset = library.load(run)
    test = dataset.labels["test"]
    np.savez(new, train=dataset.test, train_labels=test)
    for name, options in (("a.npy", []), ("b.npy", ["--file", new])):
        assert vaepriors("encode", run, "--out", tmp_path / name, "--accelerator", "cpu", *options) == 0
        expected = model(dataset.conditions["test"]).encoder(dataset.test).mean.detach()
        assert np.array_equal(np.load(tmp_path / name), expected)
    np.savez(new, train=dataset.test, train_labels=(test + 1) % 3)
    assert vaepriors("encode", run, "--out", tmp_path / "c.npy", "--file", new, "--accelerator", "cpu") == 0
    assert not np.array_equal(np.load(tmp_path / "c.npy"), expected)


def test_rows_of_a_table_and_a_custom_model_are_encoded(custom, tmp_path, vaepriors):
    table = pd.DataFrame({"a": np.random.default_rng(0).normal(size=40), "sex": ["f", "m"] * 20})
    table.to_csv(tmp_path / "mine.csv", index=False)
    run, out = tmp_path / "table", tmp_path / "codes.npy"
    assert vaepriors("train", "--data", tmp_path / "mine.csv", *TINY, "--epochs", "1", "--out", run) == 0
    assert vaepriors("encode", run, "--out", out, "--file", tmp_path / "mine.csv", "--accelerator", "cpu") == 0
    codes, (model, dataset) = np.load(out), library.load(run)
    rows = [[a, "fm".index(sex)] for a, sex in table.itertuples(index=False)]
    assert np.array_equal(codes, analysis.codes(model, torch.tensor(rows).float()))
    out = tmp_path / "custom.npy"
    assert vaepriors("encode", custom, "--out", out, "--accelerator", "cpu", "--model", "mine:make") == 0
    model, dataset = library.load(custom, model="mine:make")
    assert np.array_equal(np.load(out), model.encoder(dataset.test).mean.detach())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--out codes.txt", ["codes.txt", ".npy or .csv"]),
        ("--out old.npy", ["old.npy", "exists already"]),
        ("--out none/codes.npy", ["none", "no folder"]),
        ("--out codes.npy --file old.npy --split train", ["split is train", "old.npy"]),
        ("--out codes.npy --file old.npy", ["old.npy", "(3,)", "(1, 4, 4)"]),
        ("--out codes.npy --file missing.npy", ["missing.npy", "does not exist"]),
        ("--out codes.npy --which first", ["'first'"]),
        ("", ["--out"]),
    ],
)
def test_a_mistake_in_encode(levels, in_folder, vaepriors, capsys, options, words):
    np.save("old.npy", np.zeros((2, 3)))
    assert vaepriors("encode", levels, *options.split()) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert message.count("\n") == 1
    assert [path.name for path in in_folder.iterdir()] == ["old.npy"]
