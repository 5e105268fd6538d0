"""The command line: every mistake is one sentence and exit status 2 before any work; and what the commands write."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from conftest import TINY
from vaepriors import __version__ as package_version
from vaepriors import checkpoint
from vaepriors.__main__ import leave_at_once
from vaepriors.app.run import MAY_CHANGE, Run
from vaepriors.data import CATALOGUE

WITHOUT_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, train):
    """A finished run of two epochs, not to be written to."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train(folder, "--prior", "vamp", "--components", "5", "--epochs", "2") == 0
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.fixture
def here(tmp_path):
    """An empty working directory."""
    (tmp_path / "here").mkdir()
    with contextlib.chdir(tmp_path / "here"):
        yield tmp_path / "here"


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sentence(capsys):
    """The one line on standard error, beside warnings."""
    lines = capsys.readouterr().err.splitlines(keepends=True)
    err = "".join(line for line in lines if not line.startswith("vaepriors: warning: "))
    assert err.startswith("vaepriors: "), err
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    return err


# Mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--data digitz", ["'digitz'", "did you mean 'digits'?"]),
        ("--model hvea", ["'hvea'", "did you mean hvae?"]),
        ("--prior vampp", ["'vampp'", "did you mean vamp?"]),
        ("--objective elbow", ["'elbow'", "did you mean elbo?"]),
        ("--pseudo-inputs nois --prior vamp", ["'nois'", "did you mean noise?"]),
        ("--components 5", ["components is 5", "standard", "mog or vamp or vamp-data"]),
        ("--prior mog --components 0", ["components is 0", "at least 1"]),
        ("--weighted", ["weighted", "standard", "vamp or vamp-data"]),
        ("--prior mog --weighted", ["weighted", "mog", "vamp or vamp-data"]),
        ("--prior mog --pseudo-inputs data", ["pseudo_inputs", "mog"]),
        ("--prior-samples 5", ["prior_samples", "vhp", "standard"]),
        ("--prior mog --prior-hidden 5", ["prior_hidden", "vhp", "mog"]),
        ("--prior vhp --prior-samples 0", ["prior_samples is 0", "at least 1"]),
        ("--prior vhp --components 5", ["components is 5", "vhp"]),
        ("--objective rewo", ["rewo", "needs kappa", "0.18"]),
        ("--objective rewo --kappa -1", ["kappa is -1.0", "positive"]),
        ("--objective rewo --kappa 0.1 --model pixelhvae", ["rewo", "PixelCNN", "another model"]),
        ("--kappa 0.1", ["kappa", "rewo", "elbo"]),
        ("--nu 2", ["nu", "rewo", "elbo"]),
        ("--estimator dreg", ["estimator", "iwae", "elbo"]),
        ("--objective iwae --estimator reinforce", ["'reinforce'", "plain, stl, dreg"]),
        ("--sigma 0.1", ["sigma is 0.1", "bernoulli", "gaussian"]),
        ("--latent 0", ["latent is 0", "at least 1"]),
        ("--hidden 8 0", ["hidden is 8 0", "at least 1"]),
        ("--hidden", ["hidden is none", "at least 1 layer"]),
        ("--hidden 8 b", ["--hidden is '8', 'b': whole numbers are needed"]),
        ("--epoch-steps b", ["--epoch-steps is 'b': a whole number is needed"]),
        ("--sigma b", ["--sigma is 'b': a number is needed"]),
        ("--snapshots b", ["vaepriors: --snapshots is 'b', which does not fit"]),
        ("--model hvae --hidden 300 200 100", ["hidden is 300 200 100", "1 to 2 layers"]),
        ("--model strided", ["8 x 8", "multiples of 16", "model conv"]),
        ("--epochs 0", ["epochs is 0", "at least 1"]),
        ("--epoch-steps 0", ["epoch_steps is 0", "at least 1"]),
        ("--samples 0", ["samples is 0", "at least 1"]),
        ("--lr -1", ["lr is -1.0", "positive"]),
        ("--lr nan", ["lr is nan", "positive"]),
        ("--patience -1", ["patience is -1", "negative"]),
        ("--batch-size 10 --devices 3", ["batch_size 10", "3 devices", "multiple"]),
        pytest.param("--accelerator cuda", ["cuda", "choose cpu or auto"], marks=WITHOUT_CUDA),
        ("--prior vamp-data --components 1298", ["components is 1298", "1297", "choose fewer"]),
        ("--prior vamp-data --components 1298 --tensorboard", ["components is 1298", "1297", "choose fewer"]),
        ("--likelihood weibull", ["'weibull'", "bernoulli, logistic256, gaussian"]),
        ("--likelihood gaussian", ["likelihood is gaussian", "digits", "bernoulli"]),
        ("--prior mog --components 1000000000000", ["1000000000000", "PiB", "VAEPRIORS_MEMORY"]),
        ("--prior vamp --components 1000000000000", ["1000000000000", "PiB"]),
        ("--latent 9223372036854775808", ["9223372036854775808", "at most"]),
        ("--latent 1000000000", ["latent 1000000000", "TiB"]),
        ("--hidden 1000000000", ["1000000000", "TiB"]),
        ("--hidden 1000000000 1000000000 --model hvae", ["1000000000", "EiB"]),
        ("--samples 1000000000000000", ["samples 1000000000000000", "EiB"]),
        ("--prior vhp --prior-latent 1000000000", ["prior_latent 1000000000", "TiB"]),
        ("--prior vhp --prior-samples 1000000000000000", ["prior_samples 1000000000000000", "EiB"]),
        ("--samples " + 400 * "9", ["samples is 999", "at most"]),
        ("--epochs 9223372036854775808", ["epochs is 9223372036854775808", "at most"]),
        ("--devices 5000 --batch-size 5000", ["devices is 5000", "processors"]),
        ("--data missing.npy", ["missing.npy", "does not exist"]),
        ("--data digits.txt", ["digits.txt", ".npy, .npz"]),
        ("--out file", ["file", "--out"]),
        ("--save-every nan", ["save_every is nan", "0 or more"]),
        ("--save-every -1", ["save_every is -1.0", "0 or more"]),
        ("--snapshots 1 -3", ["epoch -3", "1 to 2000"]),
        ("--epochs 5 --snapshots 6", ["epoch 6", "1 to 5"]),
    ],
)
def test_a_mistake_in_train(here, vaepriors, capsys, options, words):
    (here / "file").write_text("")
    assert vaepriors("train", *options.split()) == 2
    message = sentence(capsys)
    assert all(word in message for word in words), message
    assert os.listdir(here) == ["file"]


def pickled(path):
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)


def truncated(path):
    np.save(path, np.zeros((50, 9)))
    path.write_bytes(path.read_bytes()[:-100])


OWN_FILES = {
    "NaN": (lambda path: np.save(path, np.where(np.eye(50) > 0, np.nan, 0.5)), ["NaN", "row 0"]),
    "integers": (lambda path: np.save(path, np.arange(500).reshape(50, 10)), ["int64", "uint8"]),
    "one example": (lambda path: np.save(path, np.zeros((1, 4))), ["empty", "at least one"]),
    "a vector": (lambda path: np.save(path, np.zeros(4)), ["(4,)", "(N, D)"]),
    "truncated": (truncated, ["cannot be read"]),
    "pickled": (pickled, ["pickled"]),
}


@pytest.mark.parametrize("fault", OWN_FILES)
def test_a_custom_file_with_a_fault(here, vaepriors, capsys, fault):
    write, words = OWN_FILES[fault]
    write(here / "mine.npy")
    assert vaepriors("train", "--data", "mine.npy") == 2
    message = sentence(capsys)
    assert all(word in message for word in ["mine.npy", *words]), message
    assert os.listdir(here) == ["mine.npy"]


def test_train_says_what_it_took_and_where_that_looks_wrong(here, vaepriors, capsys):
    np.save(here / "mine.npy", 255 * np.random.default_rng(0).integers(0, 2, (40, 4, 4), dtype=np.uint8))
    tiny = [*TINY, "--epochs", "1", "--data", "mine.npy"]
    assert vaepriors("train", *tiny, "--out", "gray") == 0
    out, err = capsys.readouterr()
    assert out.lstrip().startswith("mine.npy: 40 images 1 x 4 x 4, uint8 -> logistic256, split 32/4/4\n")
    assert err.count("\n") == 1
    assert "--likelihood bernoulli" in err
    assert vaepriors("train", *tiny, "--out", "bits", "--likelihood", "bernoulli") == 0
    out, err = capsys.readouterr()
    assert "uint8 -> bernoulli, split" in out
    assert not err
    assert Run(here / "bits").dataset().likelihood == "bernoulli"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train --nosuch 1", ["--nosuch", "vaepriors train --help"]),
        ("train --learning-rate 0.1", ["--learning-rate", "--lr?", "vaepriors train --help"]),
        ("train --K 5", ["--K", "--components?"]),
        ("train --device cpu", ["--device", "--accelerator"]),
        ("train --batchsize=10", ["--batchsize", "--batch-size?"]),
        ("train --batch_sise 10", ["--batch_sise", "--batch-size?"]),
        ("train --epochs many", ["--epochs", "'many'", "vaepriors train --help"]),
        ("train --components many", ["--components", "'many'", "whole number"]),
        ("train --lr", ["--lr", "value"]),
        ("evaluate", ["PATH", "missing", "vaepriors evaluate --help"]),
        ("evaluate run other", ["'other'", "vaepriors evaluate --help"]),
        ("evaluate run --split tset", ["--split", "'tset'", "'test'"]),
        ("data", ["list", "missing", "vaepriors data --help"]),
        ("data lsit", ["'lsit'", "'list'"]),
        ("reproduce rnu", ["'rnu'", "run?", "vaepriors reproduce --help"]),
        ("reproduce show --seed", ["--seed", "vaepriors reproduce show --help"]),
        ("trian", ["'trian'", "train?", "vaepriors --help"]),
        ("nosuch", ["'nosuch'", "evaluate", "vaepriors --help"]),
        ("--nosuch", ["--nosuch", "vaepriors --help"]),
        ("", ["train", "vaepriors --help"]),
    ],
)
def test_an_unknown_command_gets_a_hint(here, vaepriors, capsys, arguments, words):
    assert vaepriors(*arguments.split()) == 2
    error = sentence(capsys)
    assert all(word in error for word in words), error
    assert not os.listdir(here)


@pytest.mark.parametrize("command", ["evaluate", "sample", "impute --out a", "interpolate", "report", "compare run"])
def test_a_seed_below_zero_is_refused(here, vaepriors, capsys, command):
    assert vaepriors(*command.split(), "run", "--seed", "-1") == 2
    assert "seed is -1" in sentence(capsys)
    assert not os.listdir(here)


def test_slow_imports_wait_until_they_are_needed():
    """Not for the library, nor for a help text or a mistake after it."""
    library = "VAE, networks, objectives, priors, optim, estimate, data, analysis, fit, Folder"
    program = f"""
import sys
import vaepriors
{", ".join(f"vaepriors.{name}" for name in library.split(", "))}
print("loaded", *sys.modules)
from vaepriors.cli import main
for words in (["--help"], ["train", "--nosuch"]):
    try:
        main(words)
    except SystemExit:
        print("loaded", *sys.modules)
"""
    end = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    loaded = [set(line.split()) for line in end.stdout.splitlines() if line.startswith("loaded ")]
    slow = {"matplotlib", "sklearn", "networkx", "lightning_fabric", "jinja2"}
    for modules, heavy in zip(loaded, (slow | {"tyro", "rich"}, slow, slow), strict=True):
        assert not modules & heavy


def test_the_version_is_that_of_the_package_and_torch(vaepriors, capsys):
    assert vaepriors("--version") == 0
    assert capsys.readouterr().out.split() == ["vaepriors", f"{package_version},", "torch", torch.__version__]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("evaluate nowhere", ["nowhere", "no run"]),
        ("sample nowhere", ["nowhere", "no run"]),
        ("evaluate RUN --samples 0", ["samples is 0", "at least 1"]),
        ("evaluate RUN --chunk 0", ["chunk is 0", "at least 1"]),
        ("evaluate RUN --number 0", ["number is 0", "1 to 5"]),
        ("evaluate RUN --number 6", ["number is 6", "1 to 5"]),
        pytest.param("evaluate RUN --accelerator cuda", ["cuda", "choose cpu or auto"], marks=WITHOUT_CUDA),
        ("sample RUN --number 0", ["number is 0", "at least 1"]),
        ("evaluate RUN --samples 1000000000000000 --chunk 1000000000000000", ["1000000000000000 pairs", "chunk"]),
        ("evaluate RUN --devices 5000", ["devices is 5000", "processors"]),
        ("sample RUN --number 1000000000000", ["1000000000000 draws", "TiB"]),
        ("sample RUN --number " + 400 * "9", ["999 draws", "EiB"]),
        ("sample RUN --seed 18446744073709551616", ["seed is 18446744073709551616"]),
        ("interpolate RUN --nodes 1000000000000", ["1000000000000 nodes", "PiB"]),
        ("interpolate nowhere", ["nowhere", "no run"]),
        ("interpolate RUN --pairs 0", ["pairs is 0", "at least 1"]),
        ("interpolate RUN --graphs 0", ["graphs is 0", "at least 1"]),
        ("interpolate RUN --nodes 5 --neighbors 5", ["5 neighbours", "(5, 2)"]),
        ("interpolate RUN --which epoch-7", ["no epoch-7.ckpt"]),
        ("interpolate RUN --nodes 0", ["nodes is 0", "at least 1"]),
        ("interpolate RUN --neighbors 0", ["neighbors is 0", "at least 1"]),
        ("report RUN --which ../run/best", ["'../run/best'", "best, last, or epoch-N"]),
        ("compare RUN RUN2 --which ../run/best", ["'../run/best'", "best, last, or epoch-N"]),
        ("interpolate RUN --which ../run/best", ["'../run/best'", "best, last, or epoch-N"]),
        ("data list digits", ["no names", "digits", "fetch"]),
        ("data fetch", ["nothing to fetch", "digits"]),
        ("data fetch nosuch", ["'nosuch'", "digits"]),
        ("data fetch digitz", ["did you mean 'digits'?"]),
        ("data fetch mnist", ["'static_mnist' or 'dynamic_mnist'"]),
        ("sample RUN --which epoch-7", ["no epoch-7.ckpt"]),
        ("evaluate RUN --which epoch-7", ["no epoch-7.ckpt"]),
    ],
)
def test_a_mistake_in_another_command(here, vaepriors, trained, copy, capsys, arguments, words):
    before = content(copy)
    folders = {"RUN": copy, "RUN2": trained}
    assert vaepriors(*(folders.get(word, word) for word in arguments.split())) == 2
    message = sentence(capsys)
    assert all(word in message for word in words), message
    assert content(copy) == before
    assert not os.listdir(here)


@pytest.mark.parametrize("command", ["evaluate", "sample"])
@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_run_without_a_whole_best_model(vaepriors, copy, capsys, command, damage):
    (copy / "best.ckpt").write_bytes((copy / "best.ckpt").read_bytes()[:-1])
    if damage == "missing":
        (copy / "best.ckpt").unlink()
    before = content(copy)
    assert vaepriors(command, copy) == 2
    assert "best.ckpt" in sentence(capsys)
    assert content(copy) == before


def test_an_option_that_is_looked_at_first_is_refused_like_any_other(vaepriors, capsys):
    assert vaepriors("train", "--out") == 2
    assert "--out needs a value" in sentence(capsys)


def test_a_run_is_neither_overwritten_nor_changed(train, trained, copy, capsys):
    same = ["--prior", "vamp", "--components", "5", "--epochs", "2"]
    for options, words in [
        (same, ["already holds a run", "--resume", "--out"]),
        ([*same, "--resume", "--lr", "0.1"], ["lr 0.0005, not 0.1", "another --out"]),
        ([*same, "--resume", "--seed", "1"], ["seed 0, not 1"]),
        (["--resume", "--prior", "mog"], ["prior vamp, not mog"]),
        (["--resume", "--prior", "standard", "--components", "None"], ["prior vamp, not standard"]),
        (["--resume", "--snapshots", "1"], ["epoch 1", "2 epochs are trained"]),
    ]:
        assert train(copy, *options) == 2
        message = sentence(capsys)
        assert all(word in message for word in words), message
        assert content(copy) == content(trained)


# Runs


def test_the_default_folder_says_what_was_run(here, vaepriors, images, capsys):
    options = ["--model", "hvae", "--prior", "mog", "--components", "3", "--seed", "7", "--epochs", "1"]
    assert vaepriors("train", "--data", images, *TINY, *options) == 0
    assert [path.name for path in (here / "runs").iterdir()] == ["squares-hvae-mog-7"]
    assert "run in runs/squares-hvae-mog-7" in capsys.readouterr().out
    assert len(Run("runs/squares-hvae-mog-7").metrics()) == 1


def test_resume_starts_a_run_where_there_is_none(tmp_path, train):
    assert train(tmp_path / "run", "--epochs", "1", "--resume") == 0
    assert Run(tmp_path / "run").description()["sessions"][0]["after_epoch"] == 0


def test_resume_without_options_starts_no_run(tmp_path, vaepriors, capsys):
    """A mistyped folder would start a training on the default data."""
    assert vaepriors("train", "--out", tmp_path / "typo", "--resume") == 2
    assert "typo holds no run" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "typo").exists()


def test_resume_of_a_finished_run_says_so_and_changes_no_number(vaepriors, trained, copy, capsys):
    assert vaepriors("train", "--out", copy, "--resume") == 0
    assert "finished after epoch 2" in capsys.readouterr().out
    for name in ("metrics.jsonl", "last.ckpt", "best.ckpt"):
        assert (copy / name).read_bytes() == (trained / name).read_bytes()
    assert Run(copy).experiment() == Run(trained).experiment()


def test_resume_with_more_epochs_ends_like_a_longer_run(tmp_path, vaepriors, train, copy):
    assert vaepriors("train", "--out", copy, "--resume", "--epochs", "3") == 0
    assert train(tmp_path / "long", "--prior", "vamp", "--components", "5", "--epochs", "3") == 0
    for name in ("last.ckpt", "best.ckpt"):
        (actual, values), (expected, expected_values) = (checkpoint.load(f / name) for f in (copy, tmp_path / "long"))
        assert values == expected_values
        assert actual.keys() == expected.keys()
        assert all(torch.equal(actual[key], expected[key]) for key in actual.keys() - {"metrics.lines"})
    assert Run(copy).experiment() == Run(tmp_path / "long").experiment()
    assert [s["after_epoch"] for s in Run(copy).description()["sessions"]] == [0, 2]


def test_evaluate_writes_its_numbers_and_repeats_them(vaepriors, trained, copy, capsys):
    results = []
    for seed in (0, 0, 1):
        assert vaepriors("evaluate", copy, "--samples", "20", "--seed", seed, "--accelerator", "cpu") == 0
        name = f"-test-seed-{seed}" * (seed != 0)
        result = json.loads((copy / f"evaluation{name}.json").read_text())
        results.append((result, np.load(copy / f"log_likelihood{name}.npy")))
    (one, log_likelihood), (same, again), (other, _) = results
    fields = "split n samples nll nll_se elbo rate distortion bits_per_dim active_units seconds device"
    assert set(fields.split()) <= one.keys()
    assert (one["split"], one["n"], one["samples"]) == ("test", 5, 20)
    assert one["epoch"] == checkpoint.load(copy / "best.ckpt")[1]["epoch"]
    assert log_likelihood.shape == (5,)
    assert one["nll"] == pytest.approx(-log_likelihood.mean(), rel=1e-12)
    assert one["nll_se"] == pytest.approx(log_likelihood.std(ddof=1) / 5**0.5, rel=1e-12)
    assert one["bits_per_dim"] == pytest.approx(one["nll"] / 16 / np.log(2), rel=1e-12)
    assert one["elbo"] == pytest.approx(-one["rate"] - one["distortion"], rel=1e-6)
    assert -one["nll"] >= one["elbo"]
    assert 0 <= one["active_units"] <= one["latent_units"] == 2
    assert {**one, "seconds": 0} == {**same, "seconds": 0}
    assert (log_likelihood == again).all()
    assert one["nll"] != other["nll"]
    assert f"{-one['nll']:.3f} ± {one['nll_se']:.3f} nats" in capsys.readouterr().out


def test_evaluate_of_one_example_has_no_standard_error(vaepriors, copy, capsys):
    assert vaepriors("evaluate", copy, "--samples", "20", "--number", "1", "--accelerator", "cpu") == 0
    result = json.loads((copy / "evaluation-test-1.json").read_text())
    assert (result["n"], result["nll_se"]) == (1, None)
    assert f"{-result['nll']:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize(("split", "n"), [("train", 23), ("valid", 6)])
def test_evaluate_another_split_and_the_last_model(vaepriors, copy, split, n):
    options = ["--split", split, "--which", "last", "--samples", "2", "--accelerator", "cpu"]
    assert vaepriors("evaluate", copy, *options) == 0
    result = json.loads((copy / f"evaluation-{split}-last.json").read_text())
    assert (result["split"], result["checkpoint"], result["n"]) == (split, "last", n)
    assert not (copy / "evaluation.json").exists()


@pytest.mark.parametrize(("samples", "few"), [(9, True), (2000, False)])
def test_evaluate_says_when_its_number_cannot_be_trusted(vaepriors, copy, capsys, samples, few):
    assert vaepriors("evaluate", copy, "--samples", samples, "--accelerator", "cpu") == 0
    output = capsys.readouterr().out
    result = json.loads((copy / "evaluation.json").read_text())
    assert (result["effective_samples_mean"] < 10) == few
    assert ("--refine-steps" in output) == few
    assert str(copy / "evaluation.json") in output


@pytest.mark.parametrize("command", [["evaluate", "--samples", "2", "--accelerator", "cpu"], ["sample"]])
def test_a_snapshot_is_evaluated_and_drawn_from(vaepriors, copy, command):
    shutil.copy(copy / "best.ckpt", copy / "epoch-2.ckpt")
    assert vaepriors(command[0], copy, "--which", "epoch-2", *command[1:]) == 0
    assert (copy / {"evaluate": "evaluation-test-epoch-2.json", "sample": "samples.npy"}[command[0]]).is_file()


def test_sample_writes_draws_and_pictures_and_repeats_them(vaepriors, copy, capsys):
    draws = []
    for seed in (0, 0, 1):
        assert vaepriors("sample", copy, "--number", "7", "--seed", seed) == 0
        files = capsys.readouterr().out.split()
        draws.append(np.load(copy / "samples.npy"))
    names = ("samples.npy", "samples.png", "reconstructions.png", "pseudo_inputs.png", "curves.png")
    assert files == [str(copy / name) for name in names]
    assert all((copy / file).read_bytes().startswith(b"\x89PNG") for file in files[1:])
    assert draws[0].shape == (7, 1, 4, 4)
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()


def test_a_name_is_shown_as_it_is(tmp_path, vaepriors, trained, capsys):
    name = "_a[/x]b [red] $\\q$ :smile: " + os.fsdecode(b"\xff")
    run = shutil.copytree(trained, tmp_path / name)
    plain = name.encode(errors="backslashreplace").decode()  # what no terminal can show
    options = {
        "train": ["--resume", "--out"],
        "evaluate": ["--samples", "2", "--accelerator", "cpu"],
        "sample": ["--number", "2"],
        "report": ["--number", "5"],
        "compare": ["--number", "5", "--out", tmp_path / name / "all.html", trained],
    }
    for command, words in options.items():
        assert vaepriors(command, *words, run) == 0
        assert plain in unwrapped(capsys), command
    assert vaepriors("evaluate", run / "none") == 2
    assert plain in sentence(capsys)


def unwrapped(capsys):
    """What was printed, without the breaks of lines in the cells of a table."""
    return "".join(re.sub(r"[│┃]\n?", "", capsys.readouterr().out).split("\n"))


def test_a_stream_of_plain_signs_gets_plain_signs(copy, vaepriors):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(stream):
        assert vaepriors("evaluate", copy, "--samples", "2", "--accelerator", "cpu") == 0
        assert vaepriors("train", "--help") == 0
    stream.flush()
    text = stream.buffer.getvalue().decode("ascii")
    assert " +- " in text
    assert "--snapshots" in text


@pytest.fixture
def interruptible():
    """Ctrl-C as Python starts with it: what is started in the background of a script ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_that_a_library_drops_while_it_is_imported_ends_the_process():
    left = []
    with leave_at_once(left.append), contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert left == [130]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("start", [["-m", "vaepriors"], ["-c", "from vaepriors.__main__ import main; main()"]])
def test_ctrl_c_while_torch_is_loaded_is_one_sentence(tmp_path, start):
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, *start, "data", "list"]
    end = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60)
    assert (end.returncode, end.stdout, end.stderr) == (130, "", "vaepriors: interrupted\n")


def test_python_without_docstrings_runs_the_commands(run):
    command = [sys.executable, "-OO", "-m", "vaepriors", "sample", run.folder]
    end = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (end.returncode, end.stderr) == (0, ""), end.stderr


def test_custom_vectors_do_not_fit_convolutions(here, vaepriors, capsys):
    np.save("mine.npy", np.random.default_rng(0).normal(size=(30, 3)))
    assert vaepriors("train", "--data", "mine.npy", "--model", "convhvae") == 2
    message = sentence(capsys)
    assert all(word in message for word in ["needs images", "(3,)", "choose a dense model"]), message
    assert os.listdir(here) == ["mine.npy"]


def test_a_pixelcnn_from_training_to_samples(tmp_path, vaepriors, train, capsys):
    run = tmp_path / "run"
    assert train(run, "--model", "pixelhvae", "--prior", "vamp", "--components", "5", "--epochs", "1") == 0
    assert vaepriors("evaluate", run, "--samples", "7", "--accelerator", "cpu") == 0
    draws = []
    for _ in range(2):
        assert vaepriors("sample", run, "--number", "4") == 0
        draws.append(np.load(run / "samples.npy"))
    assert draws[0].shape == (4, 1, 4, 4)
    assert set(np.unique(draws[0])) == {0, 1}  # draws of pixels, not means
    assert (draws[0] == draws[1]).all()
    assert {"samples.png", "reconstructions.png", "pseudo_inputs.png"} <= set(content(run))


@pytest.mark.parametrize(
    ("array", "event_shape", "files"),
    [
        (np.random.default_rng(0).normal(size=(30, 3)), (3,), {"samples.npy", "curves.png"}),
        (
            np.random.default_rng(0).integers(0, 256, (30, 3, 4, 2), dtype=np.uint8),
            (3, 4, 2),
            {"samples.npy", "samples.png", "reconstructions.png", "curves.png"},
        ),
    ],
)
def test_custom_vectors_and_colour_images_from_training_to_samples(tmp_path, vaepriors, array, event_shape, files):
    np.save(tmp_path / "mine.npy", array)
    run = tmp_path / "run"
    assert vaepriors("train", "--data", tmp_path / "mine.npy", "--out", run, *TINY, "--epochs", "1") == 0
    trained = set(content(run))
    assert vaepriors("sample", run, "--number", "4") == 0
    assert set(content(run)) - trained == files
    assert np.load(run / "samples.npy").shape == (4, *event_shape)
    assert vaepriors("evaluate", run, "--samples", "3", "--accelerator", "cpu") == 0
    result = json.loads((run / "evaluation.json").read_text())
    assert (result["bits_per_dim"] is None) == (event_shape == (3,))


def test_interpolate_writes_its_numbers_and_repeats_them(vaepriors, copy, capsys):
    results = []
    for _ in range(2):
        assert vaepriors("interpolate", copy, "--nodes", "40", "--neighbors", "5", "--graphs", "2", "--pairs", "3") == 0
        results.append(json.loads((copy / "interpolation.json").read_text()))
    output = capsys.readouterr().out
    assert "lower is smoother" in output
    assert results[0] == results[1]
    result = results[0]
    assert [sum(each) for each in result["components"]] == [40, 40]
    assert set(result["smoothness"]) == {"graph", "graph_resampled", "straight"}
    for numbers in result["smoothness"].values():
        assert numbers["mean"] == pytest.approx(np.mean(numbers["mean_of_each"]))
        assert len(numbers["sd_of_each"]) == 16
        assert numbers["mean"] > 0
    for picture in ("interpolation.png", "graph.png"):  # z is in a plane
        assert (copy / picture).read_bytes().startswith(b"\x89PNG")
        assert str(copy / picture) in output


def test_interpolate_reports_a_graph_in_pieces(tmp_path, vaepriors, train, capsys):
    """Of a mixture whose second component is far from the first, and from all codes."""
    assert train(tmp_path / "run", "--prior", "mog", "--components", "2", "--epochs", "1") == 0
    best = tmp_path / "run" / "best.ckpt"
    weights, values = checkpoint.load(best)
    weights["model.prior.loc"] = torch.tensor([[0.0, 0.0], [1000.0, 1000.0]])
    checkpoint.save(best, weights, values, of=checkpoint.owner(best))
    options = ["--nodes", "40", "--neighbors", "5", "--graphs", "1", "--pairs", "3"]
    assert vaepriors("interpolate", tmp_path / "run", *options) == 0
    assert "1 of 1 graphs are not connected: components of [" in capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "interpolation.json").read_text())
    assert len(result["components"][0]) == 2
    assert sum(result["components"][0]) == 40


def test_evaluate_a_hierarchical_prior_with_other_draws(tmp_path, vaepriors, train, copy, capsys):
    run = tmp_path / "run"
    assert train(run, "--prior", "vhp", "--prior-hidden", "8", "--prior-samples", "3", "--epochs", "1") == 0
    results = []
    for options, used in ([], 3), (["--prior-samples", "1"], 1):
        assert vaepriors("evaluate", run, "--samples", "20", "--accelerator", "cpu", *options) == 0
        results.append(json.loads((run / "evaluation.json").read_text()))
        assert results[-1]["prior_samples"] == used
    assert results[0]["nll"] != results[1]["nll"]
    capsys.readouterr()
    assert vaepriors("evaluate", copy, "--prior-samples", "2", "--accelerator", "cpu") == 2
    assert "belongs to the prior vhp" in sentence(capsys)


def test_interpolated_vectors_are_curves(tmp_path, vaepriors):
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(30, 3)))
    run = tmp_path / "run"
    options = [*TINY, "--epochs", "1", "--prior", "vhp", "--prior-hidden", "8", "--objective", "rewo", "--kappa", "0.5"]
    assert vaepriors("train", "--data", tmp_path / "mine.npy", "--out", run, *options) == 0
    assert vaepriors("interpolate", run, "--nodes", "30", "--neighbors", "9", "--graphs", "1", "--pairs", "1") == 0
    assert (run / "interpolation.png").is_file()
    line = Run(run).metrics()[-1]
    assert {"beta", "error", "error_average", "error_bound"} <= set(line)


@pytest.mark.parametrize("width", ["80", "160"])  # where the options stand in one column, and in two
def test_an_unknown_option_is_named_in_any_terminal(vaepriors, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    assert vaepriors("train", "--data", "digits", "--latent", "3", "--modle", "vae") == 2
    assert "unknown option --modle: did you mean --model?" in capsys.readouterr().err


def test_data_lists_and_fetches(vaepriors, capsys):
    assert vaepriors("data", "list") == 0
    listed = capsys.readouterr().out.split()
    assert set(CATALOGUE) <= set(listed)
    assert vaepriors("data", "fetch", "digits") == 0
    assert "digits" in capsys.readouterr().out


FLAGS = """data model prior components weighted objective samples latent hidden epochs warmup patience batch-size
lr seed out resume devices nodes precision compile graph prior-samples prior-hidden lr-stages adam-eps
estimator kappa nu sigma snapshots likelihood"""


def test_help_has_every_option(vaepriors, capsys):
    assert vaepriors("train", "--help") == 0
    output = capsys.readouterr().out
    assert [flag for flag in FLAGS.split() if f"--{flag}" not in output] == []


def test_help_of_resume_has_every_option_that_may_change(vaepriors, capsys):
    assert vaepriors("train", "--help") == 0
    output = capsys.readouterr().out
    assert all(f" {field}" in output[output.index("--resume") :] for field in MAY_CHANGE)


def test_a_divergence_names_what_can_be_done(tmp_path, vaepriors, capsys):
    x = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    x[:, 0] += 1e30
    np.savez(tmp_path / "mine.npz", train=x, valid=x, test=x)
    options = ["--data", tmp_path / "mine.npz", "--no-standardize", "--out", tmp_path / "run", "--epochs", "1"]
    assert vaepriors("train", *options, *TINY) == 1
    message = sentence(capsys)
    assert all(word in message for word in ("lr 0.0005", "--out", "training point", "1e+30", "scale")), message


def test_tensorboard_gets_every_number(tmp_path, train):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert train(tmp_path / "run", "--epochs", "2", "--tensorboard") == 0
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    events = accumulator.EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    for name in ("loss", "rate", "distortion", "valid_loss", "beta"):
        expected = [(line["epoch"], line[name]) for line in Run(tmp_path / "run").metrics()]
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert logged == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected]


def test_a_line_break_in_a_name_is_shown_escaped(vaepriors, capsys):
    assert vaepriors("train", "--best-from", "a\nb") == 2
    assert "a\\nb" in sentence(capsys)
