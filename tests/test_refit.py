"""A new prior for a trained model: what is trained and what stands still, the new run, and its mistakes."""

import contextlib
import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal
from torch.optim.lr_scheduler import LambdaLR

from reference import Call
from test_train import two
from vaepriors import checkpoint
from vaepriors.app import train as app_train
from vaepriors.app.origin import measure_surgery
from vaepriors.app.refit import refit, refitted
from vaepriors.app.report.compare import compare
from vaepriors.app.run import Run
from vaepriors.data import binarize_once, load
from vaepriors.distributions import DiagonalNormal
from vaepriors.objectives import PriorFit
from vaepriors.optim import adam
from vaepriors.priors import MixtureOfGaussians, StandardNormal, VampPrior
from vaepriors.training import Callback, fit
from vaepriors.vae import VAE

OPTIONS = {"flow": ["--transforms", "1", "--bins", "2", "--prior-hidden", "4"], "vamp": ["--components", "3"]}
SHORT = ["--epochs", "3", "--accelerator", "cpu"]


@pytest.fixture(scope="module", params=["vae", "hvae"])
def source(request, train, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "run"
    assert train(folder, "--epochs", "2", "--warmup", "0", "--model", request.param) == 0
    return folder


def weights(folder, which="best"):
    tensors, _ = Run(folder).load_checkpoint(which)
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}


def test_one_normal_converges_to_the_moments_of_the_codes():
    """For q(z|x) = N(A x, I/4), the best diagonal normal has the mean and the variances of q(z)."""
    torch.manual_seed(0)
    x = torch.randn(2000, 3, dtype=torch.float64) + 1
    a = torch.tensor([[1.0, 0.5, 0.0], [0.0, -1.0, 2.0]], dtype=torch.float64)
    encoder = Call(lambda x: DiagonalNormal(x @ a.T, torch.full((*x.shape[:-1], 2), 0.5, dtype=x.dtype)))
    decoder = Call(lambda z: Independent(Normal(z @ a, 1.0), 1))
    model = VAE(encoder, decoder, MixtureOfGaussians(2, 1).double())
    objective = PriorFit(samples=10)
    optimizer = adam(model, objective, lr=0.1)
    scheduler = LambdaLR(optimizer, lambda step: 1 - step / 300)
    for _ in range(300):
        optimizer.zero_grad()
        objective(model, x)[0].backward()
        optimizer.step()
        scheduler.step()
    codes = x @ a.T
    torch.testing.assert_close(model.prior.loc[0].detach(), codes.mean(0), atol=0.02, rtol=0)
    variance = codes.var(0, correction=0) + 0.25
    torch.testing.assert_close(model.prior.log_var[0].exp().detach(), variance, atol=0, rtol=0.02)


class Careless(nn.Module):
    """An encoder whose buffers and draws depend on its mode."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 2))

    def forward(self, x):
        loc = self.layers(x)
        return DiagonalNormal(loc, torch.ones_like(loc))


def plain(z):
    return Independent(Normal(z[..., :1, None, None].expand(*z.shape[:-1], 1, 8, 8), 1.0), 3)


def test_fit_changes_the_prior_alone_and_leaves_the_model_trainable():
    digits = load("digits")
    encoder = Careless()
    model = VAE(encoder, Call(plain), VampPrior(encoder.eval(), digits.train[:5], weighted=True))
    before = {name: tensor.clone() for name, tensor in checkpoint.module_tensors(model).items()}
    fit(model, PriorFit(), digits, epochs=1, lr=0.01, accelerator="cpu")
    changed = {n for n, t in checkpoint.module_tensors(model).items() if not torch.equal(t, before[n])}
    assert changed == {"prior.pseudo_inputs", "prior.logits"}
    assert all(p.requires_grad for p in model.parameters())


def test_evaluations_differ_by_the_prior_alone():
    digits = load("digits")
    model = VAE(Careless().eval(), Call(plain), MixtureOfGaussians(2, 3))
    objective = PriorFit().eval()
    losses, before = [], torch.get_rng_state()
    for _ in range(2):
        losses.append(objective(model, digits.test[:50])[0])
        assert torch.equal(torch.get_rng_state(), before)
        before = torch.manual_seed(1).get_state()
    assert losses[0].equal(losses[1])


def test_a_prior_without_parameters_cannot_be_fitted():
    model = VAE(Careless(), nn.Identity(), StandardNormal(2))
    with pytest.raises(ValueError, match="the prior has no parameters"):
        adam(model, PriorFit())


@pytest.mark.parametrize("prior", ["flow", "vamp"])
def test_every_command_knows_a_refitted_run(source, vaepriors, tmp_path, prior):
    new = tmp_path / "new"
    assert vaepriors("refit", source, "--prior", prior, *OPTIONS[prior], "--out", new, *SHORT, "--lr", "0.01") == 0
    old, now = weights(source), weights(new)
    assert all(now[n].equal(old[n]) for n in old if n.startswith(("model.encoder.", "model.decoder.")))
    assert weights(new, "last").keys() == now.keys()
    lines = Run(new).metrics()
    assert lines[-1]["valid_loss"] < lines[0]["valid_loss"]
    about = json.loads((new / "refit.json").read_text())
    assert (about["run"], about["prior"]["prior"]) == ("run", "standard")
    assert about["model_sha256"] == checkpoint.digest({n.removeprefix("model."): t for n, t in old.items()})
    assert vaepriors("evaluate", new, "--samples", "5", "--accelerator", "cpu") == 0
    assert vaepriors("sample", new, "--number", "2") == 0
    assert vaepriors("report", new, "--number", "5") == 0
    page = (new / "report.html").read_text()
    assert f"{about['surgery']['rate']:.2f}" in page
    assert "The losses are rates" in page
    assert vaepriors("compare", source, new, "--number", "5", "--out", tmp_path / "page.html") == 0
    assert vaepriors("train", "--out", new, "--resume", "--epochs", "4") == 0
    assert len(Run(new).metrics()) == 4


def surgery_of(folder):
    run = Run(folder)
    return measure_surgery(run.model(run.dataset())[0], binarize_once(run.dataset().train))[0]


def test_only_the_marginal_kl_falls(source, vaepriors, tmp_path):
    assert (
        vaepriors(
            "refit",
            source,
            "--prior",
            "mog",
            "--components",
            "3",
            "--out",
            tmp_path / "new",
            *SHORT[2:],
            "--epochs",
            "40",
            "--lr",
            "0.02",
        )
        == 0
    )
    before, after = json.loads((tmp_path / "new" / "refit.json").read_text())["surgery"], surgery_of(tmp_path / "new")
    assert (after.distortion, after.mutual_information) == (before["distortion"], before["mutual_information"])
    assert after.marginal_kl < before["marginal_kl"]
    assert after.rate < before["rate"]


def test_compared_runs_differ_by_the_prior_alone_though_it_draws(source, vaepriors, tmp_path):
    words = ["--prior", "resampled", "--truncation", "3", "--out", tmp_path / "new", *SHORT]
    assert vaepriors("refit", source, *words) == 0
    before, after = compare([Run(source), Run(tmp_path / "new")])
    assert torch.equal(before.elbo.distortion, after.elbo.distortion)
    assert not torch.equal(before.elbo.rate, after.elbo.rate)
    assert before.surgery.distortion == after.surgery.distortion


def test_an_interrupted_refit_is_resumed_to_the_identical_numbers(source, vaepriors, tmp_path):
    words = ["refit", source, "--prior", "vamp", *OPTIONS["vamp"], "--accelerator", "cpu", "--out"]
    assert vaepriors(*words, tmp_path / "straight", "--epochs", "4") == 0
    assert vaepriors(*words, tmp_path / "stopped", "--epochs", "2") == 0
    assert vaepriors(*words, tmp_path / "stopped", "--epochs", "4", "--resume") == 0
    straight, stopped = weights(tmp_path / "straight", "last"), weights(tmp_path / "stopped", "last")
    assert all(stopped[name].equal(tensor) for name, tensor in straight.items())


def test_a_refit_that_was_killed_before_its_first_epoch_is_resumed(source, tmp_path):
    """The weights that it starts from are its first checkpoint."""

    class Killed(Exception):
        pass

    class Killer(Callback):
        def start(self, *_):
            raise Killed

    experiment = refitted(Run(source).experiment(), prior="mog", components=3, epochs=2)
    for folder, callbacks in (("straight", []), ("killed", [Killer()])):
        with contextlib.suppress(Killed):
            refit(Run(source), experiment, Run(tmp_path / folder), callbacks=callbacks)
    killed = Run(tmp_path / "killed")
    assert killed.metrics() == []
    app_train.fit(experiment, killed.dataset(), killed)
    straight, resumed = weights(tmp_path / "straight", "last"), weights(killed.folder, "last")
    assert all(resumed[name].equal(tensor) for name, tensor in straight.items())


def refit_by_two(source, folder):
    experiment = refitted(Run(source).experiment(), prior="vamp", components=3, epochs=1, devices=2)
    fabric = app_train.make_fabric(experiment)
    fabric.launch()
    refit(Run(source), experiment, Run(folder), fabric)


def test_two_devices_train_the_prior_alone(source, tmp_path, processes):
    assert processes(*two(refit_by_two, source, tmp_path / "new")) == [0, 0]
    old, now = weights(source), weights(tmp_path / "new")
    assert all(now[n].equal(old[n]) for n in old if n.startswith(("model.encoder.", "model.decoder.")))


def test_a_seed_that_splits_the_data_in_another_way_is_refused(vaepriors, tmp_path, capsys):
    np.save(tmp_path / "own.npy", np.random.default_rng(0).random((40, 3), dtype=np.float32))
    words = ["--data", tmp_path / "own.npy", "--hidden", "4", "--latent", "2", "--epochs", "1", "--warmup", "0"]
    assert vaepriors("train", *words, "--out", tmp_path / "run", "--accelerator", "cpu") == 0
    assert vaepriors("refit", tmp_path / "run", "--prior", "mog", "--seed", "7") == 2
    assert "seed 7" in capsys.readouterr().err


def test_a_refit_is_beside_its_run_however_that_is_named(source, vaepriors, tmp_path):
    shutil.copytree(source, tmp_path / "run")
    words = ["--prior", "mog", "--components", "3", "--epochs", "1", "--accelerator", "cpu"]
    with contextlib.chdir(tmp_path / "run"):
        assert vaepriors("refit", ".", *words) == 0
    assert Run(tmp_path / "run-refit-mog").experiment().prior == "mog"


def test_a_refit_belongs_to_the_model_that_it_was_begun_from(source, vaepriors, tmp_path, capsys):
    old = tmp_path / "old"
    shutil.copytree(source, old)
    words = ["refit", old, "--prior", "mog", "--components", "3", "--out", tmp_path / "new", "--accelerator", "cpu"]
    assert vaepriors(*words, "--epochs", "1") == 0
    tensors, values = Run(old).load_checkpoint("best")
    Run(old).save_checkpoint("best", {name: tensor + 0.1 for name, tensor in tensors.items()}, values)
    assert vaepriors(*words, "--epochs", "2", "--resume") == 2
    assert "another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prior", "standard"], "choose another prior"),
        (["--prior", "mog", "--transforms", "3"], "transforms"),
        (["--prior", "mog", "--out", "{source}"], "another --out"),
        (["--prior", "mog", "--components", "3", "--seed", "5", "--out", "{new}", "--lr", "0"], "lr"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_run(source, vaepriors, tmp_path, capsys, words, message):
    words = [word.format(source=source, new=tmp_path / "new") for word in words]
    out = [] if "--out" in words else ["--out", tmp_path / "new"]
    before = sorted(source.iterdir())
    assert vaepriors("refit", source, *words, *out) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new" / "experiment.json").exists()
    assert sorted(source.iterdir()) == before


def test_only_a_trained_run_is_refitted_and_only_by_refit(source, train, vaepriors, tmp_path, capsys):
    assert vaepriors("refit", tmp_path / "none", "--prior", "mog", "--out", tmp_path / "new") == 2
    assert "holds no run" in capsys.readouterr().err
    shutil.copytree(source, tmp_path / "young")
    (tmp_path / "young" / "best.ckpt").unlink()
    assert vaepriors("refit", tmp_path / "young", "--prior", "mog", "--out", tmp_path / "new") == 2
    assert "best.ckpt" in capsys.readouterr().err
    assert train(tmp_path / "new", "--objective", "refit", "--prior", "mog") == 2
    assert "vaepriors refit" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
