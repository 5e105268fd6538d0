"""The folder of a run: what it says of itself, and what cannot be read is one sentence."""

import dataclasses
import json
import math
import subprocess

import pytest
import torch

from vaepriors import checkpoint
from vaepriors.app import run
from vaepriors.app.experiment import Experiment, build
from vaepriors.app.run import Run
from vaepriors.data import load
from vaepriors.numerics import seed_of
from vaepriors.store import commit_of, session

OTHER = Experiment(
    data="mine.npy",
    standardize=False,
    model="hvae",
    prior="vamp",
    components=7,
    condition="labels",
    pseudo_conditions="own",
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
    epoch_steps=4,
    stream="no",
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
FLOW = Experiment(prior="flow", transforms=2, bins=4)
TILTED = Experiment(prior="snis", base="flow", flow="maf", transforms=2, proposals=16)
RESAMPLED = Experiment(model="mlp", posterior_scale=0.05, prior="resampled", base="vamp", components=7, truncation=5)
EXEMPLAR = Experiment(prior="exemplar", exemplars=7, data="mine.npy", likelihood="student", df=3.0)
SIZED = Experiment(data="mine.npy", likelihood="poisson", size_factors="total")
COUNTS = Experiment(data="mine.h5ad", likelihood="multinomial", total=7, columns="a=drop", layer="raw")
GIVEN = Experiment(condition="labels", prior="vamp", pseudo_conditions="own", image_size=8)
WEIGHTED = Experiment(objective="iwae", samples=5, estimator="dreg", lr_stages=8, adam_eps=1e-4)


def test_an_experiment_comes_back_as_it_was(tmp_path):
    default = Experiment()
    others = (OTHER, HIERARCHICAL, WEIGHTED, FLOW, TILTED, RESAMPLED, EXEMPLAR, COUNTS, GIVEN, SIZED)
    told_apart = lambda name: any(getattr(other, name) != getattr(default, name) for other in others)  # noqa: E731
    assert all(told_apart(field.name) for field in dataclasses.fields(Experiment))
    for number, other in enumerate(others):
        Run(tmp_path / str(number)).write_settings(vars(other), [], "")
        assert Run(tmp_path / str(number)).experiment() == other
    folder = Run(tmp_path / "a" / "b")
    assert not folder.exists()
    folder.write_settings(vars(OTHER), [session(0, torch.device("cpu"))], "")
    assert folder.exists()
    assert folder.experiment() == OTHER
    (stored,) = folder.description()["sessions"]
    assert stored["after_epoch"] == 0
    assert stored["versions"]["torch"] == torch.__version__
    assert "threads" in stored["hardware"]


def described(experiment, data="a"):
    """What experiment.json holds of an experiment, apart from its options."""
    return {"data_sha256": data, "sha256": run.identity(experiment, data), "sessions": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no run"),
        ("{", "not readable as JSON"),
        ("[]", "experiment.json"),
        ("{}", "experiment is missing"),
        ({"experiment": {"colour": 1}}, "colour"),
        ({"experiment": {"model": "ae"}}, "unknown model 'ae'"),
        ({"experiment": {"latent": "2"}}, "latent is '2', not of type int"),
        ({"experiment": {"hidden": [8, None]}}, "hidden is .*null"),
        ({"experiment": {"latent": 41}}, "does not match its digest"),
        ({"experiment": {}, "data_sha256": "b"}, "does not match its digest"),
        ({"experiment": {}, "sessions": [{"after_epoch": 0}]}, "sessions.started is missing"),
        ({"experiment": {}, "colour": 1}, "'colour' is unknown"),
    ],
)
def test_an_unreadable_file_is_one_sentence(tmp_path, content, message):
    if isinstance(content, dict):
        content = json.dumps(described(Experiment()) | content)
    if content is not None:
        (tmp_path / "experiment.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        Run(tmp_path).experiment()
    assert "\n" not in str(caught.value)


def test_fields_that_are_newer_than_the_run_take_their_defaults(tmp_path):
    content = {"experiment": {"hidden": [7], "seed": 3}} | described(Experiment(hidden=(7,), seed=3))
    (tmp_path / "experiment.json").write_text(json.dumps(content))
    assert Run(tmp_path).experiment() == Experiment(hidden=(7,), seed=3)


def test_options_that_may_change_are_not_in_the_identity():
    one = run.identity(Experiment(), "a")
    assert run.identity(Experiment(data="elsewhere/other", epochs=3, patience=1, devices=2), "a") == one
    assert len({one, run.identity(Experiment(), "b"), run.identity(Experiment(seed=1), "a")}) == 3


def line_of(epoch, **more):
    return {"epoch": epoch, "loss": 1 / 3, "rate": 0.1, "distortion": 1, "valid_loss": 2.5, "seconds": 0.5} | more


def test_a_line_cut_short_is_left_out_and_later_epochs_are_dropped(tmp_path, capsys):
    folder = Run(tmp_path)
    assert folder.metrics() == []
    lines = [line_of(epoch, beta=None, error=math.inf) for epoch in (1, 2, 3)]
    for line in lines:
        folder.add_metrics(line)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-8])
    assert folder.metrics() == lines[:2]
    texts = [json.dumps(line) + "\n" for line in lines]
    folder.write_metrics(texts[:2], known=True)
    assert path.read_text() == "".join(texts[:2])
    assert capsys.readouterr().err == ""
    path.write_text(texts[1])
    folder.write_metrics(texts[:2], known=True)
    assert path.read_text() == "".join(texts[:2])
    assert "metrics.jsonl was damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    ["", "{}", "[]", "{", "9" * 5000, "[" * 100_000, "\0", json.dumps(line_of(3)),
     *[json.dumps(line_of(2, **wrong)) for wrong in ({"loss": "1"}, {"beta": []}, {"valid_loss": math.nan})]],
)  # fmt: skip
def test_a_damaged_line_of_the_metrics_is_named_with_its_number(tmp_path, line):
    lines = [json.dumps(line_of(1)), line, json.dumps(line_of(3))]
    (tmp_path / "metrics.jsonl").write_text("".join(each + "\n" for each in lines))
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged in line 2 .* --resume") as caught:
        Run(tmp_path).metrics()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_a_model_comes_back_with_its_numbers_and_leaves_the_random_state_alone(tmp_path, precision):
    experiment = Experiment(prior="vamp", components=5, hidden=(8,), latent=2, precision=precision)
    digits, folder = load("digits"), Run(tmp_path)
    model, _ = build(experiment, digits)
    model = model.double() if precision == "64-true" else model
    folder.write_settings(vars(experiment), [], digits.digest())
    own = {f"model.{name}": tensor for name, tensor in checkpoint.module_tensors(model).items()}
    folder.save_checkpoint("best", own | {"optimizer.0.step": torch.zeros(1)}, {"epoch": 4, "loss": 0.5})
    before = torch.get_rng_state()
    loaded, values = folder.model(digits)
    assert torch.equal(torch.get_rng_state(), before)
    assert values == {"epoch": 4, "loss": 0.5}
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


def test_the_commit_is_that_of_the_code_and_not_of_a_repository_around_it(tmp_path):
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
    (package / "__init__.py").write_text("")
    (tmp_path / ".gitignore").write_text(".venv\n")
    git("add", ".gitignore")
    git("commit", "-m", "Start")
    assert commit_of(package) is None
    git("add", "--force", ".venv")
    git("commit", "-m", "Add the code")
    commit = commit_of(package)
    assert len(commit) == 12
    (package / "__init__.py").write_text("# changed")
    assert commit_of(package) == commit + "+"
