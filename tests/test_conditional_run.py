"""Runs whose model is given a condition: training, resuming, drawing, evaluating, reporting."""

import json
import math

import numpy as np
import pytest
import torch

from conftest import TINY
from vaepriors.app.evaluation import Paused, evaluate_run
from vaepriors.app.interpolation import interpolate_run
from vaepriors.app.run import Run

OWN = ["--prior", "vamp", "--components", "5", "--pseudo-conditions", "own"]


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """A .npz of 23, 6 and 5 images of 4 x 4 probabilities of three classes, with a covariate."""
    generator = np.random.default_rng(0)
    path, arrays = tmp_path_factory.mktemp("data") / "labelled.npz", {}
    for split, n in {"train": 23, "valid": 6, "test": 5}.items():
        arrays[split] = generator.random((n, 4, 4), dtype=np.float32)
        arrays[f"{split}_labels"] = np.array([2, 3, 7] * 8)[:n]
        arrays[f"{split}_covariates"] = generator.normal(size=n)
    np.savez(path, **arrays)
    return path


@pytest.fixture
def train_given(vaepriors, labelled):
    def run(folder, *options):
        return vaepriors("train", "--data", labelled, "--condition", "both", "--out", folder, *TINY, *options)

    return run


def test_a_resumed_run_ends_with_the_same_bits(train_given, tmp_path):
    assert train_given(tmp_path / "a", *OWN, "--epochs", "3") == 0
    for epochs in (1, 3):
        assert train_given(tmp_path / "b", *OWN, "--epochs", epochs, "--resume") == 0
    first, second = (Run(tmp_path / name).load_checkpoint("last")[0] for name in "ab")
    same = {name for name in first if not name.startswith("metrics") and first[name].equal(second[name])}
    assert same == {name for name in first if not name.startswith("metrics")}


@pytest.mark.parametrize(
    "options", [OWN, ["--model", "hvae", "--prior", "vamp", "--components", "4"]], ids=["own", "learned"]
)
def test_a_run_is_evaluated_drawn_and_reported_given_its_conditions(vaepriors, train_given, tmp_path, options):
    folder = tmp_path / "run"
    assert train_given(folder, *options, "--epochs", "1") == 0
    assert vaepriors("evaluate", folder, "--samples", "7", "--chunk", "9") == 0
    assert vaepriors("sample", folder, "--number", "4", "--condition", "7", "0.5") == 0
    assert np.load(folder / "samples-conditions.npy").tolist() == [[0, 0, 1, 0.5]] * 4
    assert vaepriors("sample", folder, "--number", "4") == 0
    rows = np.load(folder / "samples-conditions.npy")
    trained = Run(folder).dataset().conditions["train"].numpy()
    assert all((row == trained).all(1).any() for row in rows)
    assert (folder / "by_condition.png").is_file()
    graph = ["--nodes", "40", "--neighbors", "12", "--graphs", "1", "--pairs", "1"]
    assert vaepriors("interpolate", folder, *graph, "--condition", "3", "0.5") == 0
    assert json.loads((folder / "interpolation.json").read_text())["condition"] == ["3", "0.5"]
    assert vaepriors("report", folder) == 0
    page = (folder / "report.html").read_text()
    assert "All are given 3 0.5" in page
    assert "I(z; y)" in page
    assert "2; 3; 7" in page
    assert "log p(x)" in page


def test_an_interpolation_joins_examples_of_the_class_and_is_given_the_condition(train_given, tmp_path):
    assert train_given(tmp_path / "a", *OWN, "--epochs", "1") == 0
    run = Run(tmp_path / "a")
    dataset = run.dataset()
    model, _ = run.model(dataset)
    _, (first,) = interpolate_run(run, nodes=40, neighbors=12, graphs=1, pairs=1, condition=("3", "0.5"))
    own = dataset.conditions["test"][[1, 4]]  # the test examples of the class 3
    ends = dataset.test[[1, 4]]
    order = [0, 1] if first.ends[0].equal(ends[0]) else [1, 0]
    assert first.ends.equal(ends[order])
    with torch.no_grad():
        codes = model(own[order]).encoder(first.ends).mean
        decoded = model(torch.tensor([0, 1, 0, 0.5])).decoder(first.path).mean
    torch.testing.assert_close(first.path[[0, -1]], codes)
    torch.testing.assert_close(first.decoded, decoded)


def test_a_refitted_run_keeps_the_conditions(vaepriors, train_given, tmp_path):
    assert train_given(tmp_path / "a", "--epochs", "1") == 0
    assert (
        vaepriors("refit", tmp_path / "a", *OWN, "--out", tmp_path / "b", "--epochs", "1", "--accelerator", "cpu") == 0
    )
    model, _ = Run(tmp_path / "b").model(Run(tmp_path / "b").dataset())
    before, _ = Run(tmp_path / "a").model(Run(tmp_path / "a").dataset())
    for own, source in zip(model.decoder.parameters(), before.decoder.parameters(), strict=True):
        assert own.equal(source)


CODE = """
from torch import nn
from vaepriors import ConditionalVAE, Ignoring, StandardNormal, networks

def make(data, latent=2):
    encoder = networks.Appended(networks.Encoder((16 + 3,), [4], latent), 3, view=nn.Flatten(-3))
    decoder = networks.Appended(networks.Decoder(data.event_shape, [4], latent + 3), 3)
    return ConditionalVAE(encoder, decoder, Ignoring(StandardNormal(latent)))
"""


def test_a_custom_model_is_given_conditions(vaepriors, labelled, in_folder, capsys):
    (in_folder / "given_models.py").write_text(CODE)
    named = ["--model", "given_models:make"]
    options = [*named, "--data", labelled, "--epochs", "1", "--accelerator", "cpu", "--batch-size", "10"]
    assert vaepriors("train", "--condition", "labels", "--out", "a", *options) == 0
    assert vaepriors("evaluate", "a", "--samples", "3", *named) == 0
    assert vaepriors("train", "--out", "b", *options) == 2
    assert "return a vaepriors.VAE" in capsys.readouterr().err


MISTAKES = {
    "no class": (["--pseudo-conditions", "own", "--prior", "vamp"], "add condition labels"),
    "few components": (["--condition", "labels", *OWN, "--components", "2"], "3 classes"),
    "no such condition": (["--condition", "label"], "did you mean labels"),
    "another prior": (["--condition", "labels", "--prior", "mog", "--pseudo-conditions", "own"], "prior vamp"),
    "base": (
        ["--condition", "labels", "--prior", "snis", "--base", "vamp", "--pseudo-conditions", "own"],
        "prior vamp",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_sentence_before_any_work(vaepriors, labelled, tmp_path, capsys, name):
    options, words = MISTAKES[name]
    assert vaepriors("train", "--data", labelled, "--out", tmp_path / "run", *TINY, *options) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_condition_that_a_command_does_not_take_is_refused(vaepriors, train_given, train, tmp_path, capsys):
    assert train_given(tmp_path / "a", "--epochs", "1") == 0
    assert train(tmp_path / "b", "--epochs", "1") == 0
    for words, *command in (
        ("--condition with that of the paths", "interpolate", tmp_path / "a"),
        ("1 test example of the class 7", "interpolate", tmp_path / "a", "--condition", "7", "0"),
        ("has no conditions", "interpolate", tmp_path / "b", "--condition", "7"),
        ("class of 2, 3, 7", "sample", tmp_path / "a", "--condition", "4", "0"),
        ("has no conditions", "sample", tmp_path / "b", "--condition", "4"),
    ):
        assert vaepriors(*command) == 2
        assert words in capsys.readouterr().err


def test_examples_are_simulated_given_the_conditions_of_the_evaluated_ones(vaepriors, train_given, tmp_path):
    assert train_given(tmp_path / "a", *OWN, "--epochs", "1") == 0
    run, few = Run(tmp_path / "a"), {"chains": 1, "temperatures": 2}
    straight = evaluate_run(run, method="ais", chunk=10, simulated=6, **few)
    assert math.isfinite(straight["gap"])
    with pytest.raises(Paused, match="10 of 11"):
        evaluate_run(run, method="ais", chunk=10, simulated=6, until=0.0, **few)
    again = evaluate_run(run, method="ais", chunk=10, simulated=6, **few)
    assert {**again, "seconds": 0} == {**straight, "seconds": 0}
    annealed = ["--method", "ais", "--chains", "1", "--temperatures", "2"]
    assert vaepriors("evaluate", run.folder, *annealed, "--number", "2") == 0
    (other,) = run.folder.glob("evaluation-test-2-*.json")
    assert json.loads(other.read_text())["simulated"] == 100
