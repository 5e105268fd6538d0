"""Custom models on the command line: named by the user, in the very command, and imported only then."""

import json
import shutil
import sys

import pytest

from vaepriors.app.run import Run

CODE = """
from vaepriors import VAE, networks, priors

def make(data, latent=3, hidden=(6,), components=4, depth=1):
    shape = data.event_shape
    encoder, decoder = networks.Encoder(shape, hidden, latent), networks.Decoder(shape, hidden, latent)
    return VAE(encoder, decoder, priors.MixtureOfGaussians(latent, components))

def broken(data):
    return data

def unknown(data, width):
    return None
"""
MODEL = "custom_models:make"
GRAPH = ["--nodes", "20", "--neighbors", "9", "--graphs", "1", "--pairs", "2"]
SHORT = ["--batch-size", "10", "--accelerator", "cpu", "--warmup", "0", "--epochs", "1"]


@pytest.fixture
def here(in_folder):
    (in_folder / "custom_models.py").write_text(CODE)
    yield in_folder
    sys.modules.pop("custom_models", None)


def test_every_command_works_on_a_custom_model(here, vaepriors, images):
    named = ["--model", MODEL]
    assert vaepriors("train", "--data", images, "--out", "run", *SHORT, *named, "--components", "5") == 0
    experiment = Run("run").experiment()
    assert (experiment.latent, experiment.hidden, experiment.components) == (3, (6,), 5)
    assert json.loads((here / "run" / "experiment.json").read_text())["experiment"]["model"] == MODEL
    assert vaepriors("train", "--out", "run", "--resume", "--epochs", "2", *named) == 0
    assert vaepriors("evaluate", "run", "--samples", "5", "--accelerator", "cpu", *named) == 0
    assert vaepriors("sample", "run", "--number", "2", *named) == 0
    assert vaepriors("interpolate", "run", *named, *GRAPH) == 0
    assert vaepriors("report", "run", "--number", "5", *named) == 0
    shutil.copytree("run", "other")
    assert vaepriors("compare", "run", "other", "--number", "5", "--out", "page.html", *named) == 0


def test_a_run_imports_nothing_unless_the_user_names_it(here, vaepriors, images, capsys):
    assert vaepriors("train", "--data", images, "--out", "run", *SHORT, "--model", MODEL) == 0
    shutil.copytree("run", "other")
    del sys.modules["custom_models"]
    marker = here / "imported"
    (here / "custom_models.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n{CODE}")
    commands = ["evaluate run", "sample run", "report run", "interpolate run", "train --out run --resume --epochs 2"]
    for command in [*commands, "compare run other"]:
        assert vaepriors(*command.split()) == 2
        assert f"--model {MODEL}" in capsys.readouterr().err
    assert not marker.exists()
    assert vaepriors("sample", "run", "--number", "2", "--model", MODEL) == 0
    assert marker.exists()
    assert str(here) not in sys.path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "custom_models:none"], "no function 'none'"),
        (["--model", "no_such_module:make"], "no_such_module"),
        (["--model", "custom_models:broken"], "returned a Dataset"),
        (["--model", "custom_models:unknown"], "the parameter width"),
        (["--model", MODEL, "--weighted"], "weighted is yes"),
        (["--model", MODEL, "--prior", "vamp"], "returns its own"),
        (["--model", MODEL, "--components", "0"], "components is 0"),
    ],
)
def test_a_mistake_with_a_custom_model_is_one_sentence(here, vaepriors, images, capsys, options, words):
    assert vaepriors("train", "--data", images, "--out", "run", *SHORT, *options) == 2
    err = capsys.readouterr().err.splitlines()
    assert words in err[-1]
    assert not (here / "run").exists()


def test_another_model_than_that_of_the_run_is_refused(here, vaepriors, train, capsys):
    assert train("run", "--epochs", "1") == 0
    assert vaepriors("evaluate", "run", "--model", MODEL) == 2
    assert "model vae, not custom_models:make" in capsys.readouterr().err


def test_a_custom_model_is_compared_with_one_of_the_list(here, vaepriors, images, train, capsys):
    assert vaepriors("train", "--data", images, "--out", "run", *SHORT, "--model", MODEL) == 0
    assert train("listed", "--epochs", "1") == 0
    compare = ["compare", "run", "listed", "--number", "5", "--out", "page.html", "--model"]
    assert vaepriors(*compare, MODEL) == 0
    capsys.readouterr()
    assert vaepriors(*compare, MODEL, "hvae") == 2
    assert "no run was trained with the model hvae: they have custom_models:make, vae" in capsys.readouterr().err


def test_the_command_that_repairs_a_run_names_its_custom_model(here, vaepriors, images, capsys):
    assert vaepriors("train", "--data", images, "--out", "run", *SHORT, "--model", MODEL) == 0
    (here / "run" / "best.ckpt").write_bytes(b"damaged")
    assert vaepriors("sample", "run", "--model", MODEL) == 2
    command = f"vaepriors train --out run --resume --model {MODEL}"
    assert command in capsys.readouterr().err
    assert vaepriors(*command.split()[1:]) == 0
    assert vaepriors("sample", "run", "--number", "2", "--model", MODEL) == 0
