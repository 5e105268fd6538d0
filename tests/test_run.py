"""The folder of a run: what it says of itself, and what cannot be read is one sentence."""

import dataclasses
import json
import subprocess

import pytest
import torch

from vaepriors import checkpoint, run
from vaepriors.data import load
from vaepriors.experiment import Experiment, build
from vaepriors.run import Run, seed_of

OTHER = Experiment(
    data="mine.npy",
    model="hvae",
    prior="vamp",
    components=7,
    likelihood="gaussian",
    weighted=True,
    pseudo_inputs="data",
    samples=2,
    latent=3,
    hidden=(5, 4),
    epochs=6,
    warmup=1,
    patience=2,
    init="glorot",
    best_from="warmup",
    batch_size=12,
    lr=0.1,
    normalize=False,
    seed=8,
    accelerator="cpu",
    devices=2,
    nodes=3,
    precision="64-true",
    compile=True,
    graph=True,
)
HIERARCHICAL = Experiment(
    prior="vhp", prior_samples=4, prior_hidden=(6, 5), prior_latent=2, objective="rewo", kappa=0.3, nu=2.0, sigma=0.1
)
WEIGHTED = Experiment(objective="iwae", samples=5, estimator="dreg", lr_stages=8, adam_eps=1e-4)


def test_an_experiment_comes_back_as_it_was(tmp_path):
    default, others = Experiment(), (OTHER, HIERARCHICAL, WEIGHTED)
    told_apart = lambda name: any(getattr(other, name) != getattr(default, name) for other in others)  # noqa: E731
    assert all(told_apart(field.name) for field in dataclasses.fields(Experiment))
    for number, other in enumerate(others):
        Run(tmp_path / str(number)).write_description(other, [])
        assert Run(tmp_path / str(number)).experiment() == other
    folder = Run(tmp_path / "a" / "b")
    assert not folder.exists()
    folder.write_description(OTHER, [run.session(0, torch.device("cpu"))])
    assert folder.exists()
    assert folder.experiment() == OTHER
    (session,) = folder.description()["sessions"]
    assert session["after_epoch"] == 0
    assert session["versions"]["torch"] == torch.__version__
    assert "threads" in session["hardware"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no run"),
        ("{", "not readable as JSON"),
        ("{}", "experiment.json"),
        ('{"experiment": {"hidden": [8], "colour": 1}}', "colour"),
        ('{"experiment": {"hidden": [8], "model": "ae"}}', "unknown model 'ae'"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, content, message):
    if content is not None:
        (tmp_path / "experiment.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        Run(tmp_path).experiment()
    assert "\n" not in str(caught.value)


def test_fields_that_are_newer_than_the_run_take_their_defaults(tmp_path):
    (tmp_path / "experiment.json").write_text('{"experiment": {"hidden": [7], "seed": 3}}')
    assert Run(tmp_path).experiment() == Experiment(hidden=(7,), seed=3)


def test_a_line_cut_short_is_left_out_and_later_epochs_are_dropped(tmp_path):
    folder = Run(tmp_path)
    assert folder.metrics() == []
    lines = [{"epoch": epoch, "loss": epoch / 3} for epoch in (1, 2, 3)]
    for line in lines:
        folder.add_metrics(line)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-8])
    assert folder.metrics() == lines[:2]
    folder.keep_metrics(2)
    folder.add_metrics(lines[2])
    assert folder.metrics() == lines
    folder.keep_metrics(1)
    assert path.read_text() == json.dumps(lines[0]) + "\n"


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_a_model_comes_back_with_its_numbers_and_leaves_the_random_state_alone(tmp_path, precision):
    experiment = Experiment(prior="vamp", components=5, hidden=(8,), latent=2, precision=precision)
    digits, folder = load("digits"), Run(tmp_path)
    model, _ = build(experiment, digits)
    model = model.double() if precision == "64-true" else model
    folder.write_description(experiment, [])
    own = {f"model.{name}": tensor for name, tensor in checkpoint.module_tensors(model).items()}
    checkpoint.save(tmp_path / "best.ckpt", own | {"optimizer.0.step": torch.zeros(1)}, {"epoch": 4})
    before = torch.get_rng_state()
    loaded, values = folder.model(digits)
    assert torch.equal(torch.get_rng_state(), before)
    assert values == {"epoch": 4}
    assert not loaded.training
    assert loaded.prior.encoder is loaded.encoder
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"has no last\.ckpt"):
        folder.model(digits, "last")


def test_seeds_are_63_bits_and_differ_between_all_parts():
    seeds = [seed_of(*parts) for parts in ((0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1), (0, "a"))]
    assert len(set(seeds)) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(0, "weights") == 4194789700723333633  # the numbers of published runs hang on it


def test_the_commit_is_that_of_the_code_and_not_of_a_repository_around_it(tmp_path, monkeypatch):
    """Installed into the virtual environment of another project, say."""

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    try:
        git("init")
    except OSError:
        pytest.skip("git is not installed")
    package = tmp_path / ".venv" / "vaepriors"
    package.mkdir(parents=True)
    (package / "run.py").write_text("")
    (tmp_path / ".gitignore").write_text(".venv\n")
    git("add", ".gitignore")
    git("commit", "-m", "Start")
    monkeypatch.setattr(run, "__file__", str(package / "run.py"))
    assert run._commit() is None
    git("add", "--force", ".venv")
    git("commit", "-m", "Add the code")
    commit = run._commit()
    assert len(commit) == 12
    (package / "run.py").write_text("# changed")
    assert run._commit() == commit + "+"
