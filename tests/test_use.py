"""Trained models in use: loaded in Python, codes of their data, and new data."""

import json
import os
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import vaepriors as library
from conftest import TINY
from vaepriors import VAE, Folder, StandardNormal, analysis, data, estimate, fit, networks, objectives
from vaepriors.app.records import command, read_records
from vaepriors.app.report.likelihoods import by_kind
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
    with torch.device("meta"):  # as torch.set_default_device does
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


# evaluate --file


def test_the_test_set_in_another_file_has_the_same_likelihoods(levels, tmp_path, vaepriors, capsys):
    run = Run(shutil.copytree(levels, tmp_path / "run"))
    np.save(tmp_path / "new.npy", run.dataset().test)
    words = ["evaluate", run.folder, "--samples", "5", "--accelerator", "cpu"]
    assert vaepriors(*words) == 0
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    for options, name in ([], "new"), (["--method", "refined", "--refine-steps", "2"], "new-refined-2-refine-steps"):
        assert vaepriors(*words, "--file", tmp_path / "new.npy", *options) == 0
        assert f"evaluation-file-{name}.json" in "".join(capsys.readouterr().out.split())
    assert before.items() <= {path.name: path.read_bytes() for path in run.folder.iterdir()}.items()
    whole, new = (json.loads((run / f"evaluation{name}.json").read_text()) for name in ("", "-file-new"))
    assert (new["split"], new["file"]) == ("file", str(tmp_path / "new.npy"))
    assert new["examples_digest"] == whole["examples_digest"]
    assert new["nll"] == whole["nll"]
    log_p, of_file = (np.load(run / f"log_likelihood{name}.npy") for name in ("", "-file-new"))
    assert np.array_equal(log_p, of_file)
    assert command(run, new) == f"vaepriors evaluate {run.folder} --samples 5 --file {tmp_path / 'new.npy'}"
    assert read_records(run)[0].name == "evaluation.json"
    assert vaepriors("report", run.folder, "--number", "5") == 0
    assert "new.npy" in (run / "report.html").read_text()


def test_outliers_of_a_new_file_have_the_lowest_likelihoods(tmp_path, vaepriors):
    x = np.random.default_rng(0).normal(size=(50, 3))
    np.save(tmp_path / "mine.npy", x)
    np.save(tmp_path / "new.npy", np.concatenate([x[:3], 9 + x[:1]]))
    run = tmp_path / "run"
    assert vaepriors("train", "--data", tmp_path / "mine.npy", *TINY, "--epochs", "1", "--out", run) == 0
    words = ["evaluate", run, "--samples", "5", "--accelerator", "cpu", "--file", tmp_path / "new.npy"]
    assert vaepriors(*words) == 0
    assert np.load(run / "log_likelihood-file-new.npy").argmin() == 3
    assert vaepriors(*words, "--number", "2") == 0
    assert json.loads((run / "evaluation-file-new-2.json").read_text())["n"] == 2
    assert not (run / "evaluation.json").exists()


def test_runs_are_compared_on_the_same_file_only(levels, tmp_path, vaepriors):
    a, b = (Run(shutil.copytree(levels, tmp_path / name)) for name in "ab")
    x = a.dataset().test
    for run, new in (a, x), (b, 1 - x):
        (tmp_path / run.folder.name).mkdir(exist_ok=True)
        np.save(tmp_path / f"{run.folder.name}.npy", new)
        os.replace(tmp_path / f"{run.folder.name}.npy", tmp_path / "new.npy")
        assert vaepriors("evaluate", run.folder, "--samples", "5", "--file", tmp_path / "new.npy") == 0
    kinds = [set(by_kind(read_records(run))) for run in (a, b)]
    assert not kinds[0] & kinds[1]
    assert vaepriors("evaluate", a.folder, "--samples", "5", "--file", tmp_path / "new.npy") == 0  # its content changed
    kinds = [set(by_kind(read_records(run))) for run in (a, b)]
    assert kinds[0] == kinds[1]


def test_a_mistake_in_an_evaluation_of_a_file(levels, in_folder, vaepriors, capsys):
    run = shutil.copytree(levels, in_folder / "run")
    os.mkdir("other")
    x = Run(run).dataset().test
    for name, array in {"new.npy": x, "other/new.npy": x, "vectors.npy": x.flatten(1), "two.npy": 2 * x}.items():
        np.save(name, array)
    words = ["evaluate", run, "--samples", "2", "--accelerator", "cpu", "--file"]
    assert vaepriors(*words, "new.npy") == 0
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    for options, sentence in (
        (["other/new.npy"], "is the evaluation of"),
        (["new.npy", "--split", "train"], "split is train"),
        (["new.npy", "--number", "6"], "1 to 5, the size of new.npy"),
        (["vectors.npy"], "(16,)"),
        (["two.npy"], "probabilities in [0, 1]"),
    ):
        assert vaepriors(*words, *options) == 2
        message = capsys.readouterr().err
        assert sentence in message
        assert message.count("\n") == 1
        assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.filterwarnings("default")
def test_a_warning_about_another_file_is_one_line_of_the_command(tmp_path, vaepriors, capsys):
    colours = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 4), dtype=np.uint8)
    for name, pixels in (("first", colours[..., :3]), ("second", colours[:2])):
        (tmp_path / name).mkdir()
        for number, each in enumerate(pixels):
            Image.fromarray(each).save(tmp_path / name / f"{number:02}.png")
    options = ("--hidden", 4, "--latent", 2, "--epochs", 1, "--accelerator", "cpu")
    assert vaepriors("train", "--data", tmp_path / "first", "--out", tmp_path / "run", *options) == 0
    capsys.readouterr()
    assert vaepriors("encode", tmp_path / "run", "--file", tmp_path / "second", "--out", tmp_path / "z.npy") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vaepriors: warning: second: transparent pixels")
