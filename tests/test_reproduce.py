"""The scripts of reproduce/: every method trains on stand-in data, and the table is made of what has finished."""

import importlib.util
import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from vaepriors.data import Dataset
from vaepriors.data.pendulum import render

FOLDER = Path(__file__).parents[1] / "reproduce"


@pytest.fixture
def script(monkeypatch):
    """A script, imported as if it were run."""

    def run(name):
        monkeypatch.syspath_prepend(FOLDER)
        spec = importlib.util.spec_from_file_location(f"reproduce_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return run


def stand_in(name):
    torch.manual_seed(0)
    if name == "pendulum":
        angles = 2 * math.pi * torch.rand(60)
        x, labels = render(angles), {"train": angles, "valid": angles, "test": angles}
        return Dataset("pendulum", x, x, x, "gaussian", labels=labels)
    x = torch.rand(60, 50)
    return Dataset("cmu_motion", x, x, x, "gaussian", segments=lambda x: x[:, :24].view(-1, 4, 2, 3))


@pytest.mark.parametrize("name", ["pendulum", "motion"])
def test_every_method_trains_and_the_table_has_those_that_finished(tmp_path, monkeypatch, script, name):
    module, data = script(name), stand_in(name)
    for place in ("vaepriors.cli.load", "vaepriors.run.load"):
        monkeypatch.setattr(place, lambda name, seed: data)
    if name == "motion":
        once = module.interpolate_run
        monkeypatch.setattr(module, "interpolate_run", lambda run, which: once(run, 40, 12, 1, 3, which))
    runs, out = tmp_path / "runs", tmp_path / "out"
    module.table(runs, out)
    assert len((out / "table.md").read_text().splitlines()) == 2  # of nothing, its head
    module.train(module.rows(list(module.METHODS), [0], epochs=1), runs)
    for path in runs.glob("*/experiment.json"):
        assert json.loads(path.read_text())["experiment"]["latent"] == 2
    unfinished = sorted(runs.iterdir())[0]
    content = json.loads((unfinished / "experiment.json").read_text())
    content["experiment"]["epochs"] = 2
    (unfinished / "experiment.json").write_text(json.dumps(content))
    module.table(runs, out)
    rows = (out / "table.md").read_text().splitlines()[2:]
    assert len(rows) == len(module.METHODS) - 1
    assert len(list(out.glob("*.json"))) == len(rows)
    assert not (out / f"{unfinished.name}.json").exists()
    assert len(list(out.glob("*.png"))) >= len(rows)


def test_the_pendulum_is_measured_at_the_epoch_of_a_snapshot(tmp_path, monkeypatch, script):
    """Which is what a run of as many epochs gives, whether this one has finished or not."""
    module, data = script("pendulum"), stand_in("pendulum")
    for place in ("vaepriors.cli.load", "vaepriors.run.load"):
        monkeypatch.setattr(place, lambda name, seed: data)
    module.train(module.rows(["elbo"], [0], epochs=4), tmp_path / "long")
    module.train(module.rows(["elbo"], [0], epochs=3), tmp_path / "short")
    module.table(tmp_path / "long", tmp_path / "a", epoch=3)
    module.table(tmp_path / "short", tmp_path / "b")
    a, b = (json.loads((tmp_path / name / "pendulum-elbo-0.json").read_text()) for name in "ab")
    assert a["epoch"] == b["epoch"] == 3
    assert a["angle_error"] == b["angle_error"]
    assert a["valid_loss"] == b["valid_loss"]
    module.table(tmp_path / "long", tmp_path / "c", epoch=17)
    assert len((tmp_path / "c" / "table.md").read_text().splitlines()) == 2


def test_every_row_of_the_image_sets_trains_and_is_evaluated(tmp_path, monkeypatch, script):
    module = script("images")
    torch.manual_seed(0)
    x = torch.rand(20, 1, 8, 8).round()
    data = Dataset("bits", x, x[:5], x[:3], "bernoulli", pseudo=(0.5, 0.1))
    for place in ("vaepriors.cli.load", "vaepriors.run.load"):
        monkeypatch.setattr(place, lambda name, seed: data)
    some = list(itertools.product(module.DATA, module.METHODS))
    assert len(module.rows(list(module.DATA), list(module.METHODS), [0], [])) == len(some) == 20
    runs, out = tmp_path / "runs", tmp_path / "out"
    for method in module.METHODS:  # the rows of the other sets differ in kappa alone
        module.train(module.rows(["fashion_mnist"], [method], [0], ["--epochs", "1"]), runs)
    module.table(runs, out, samples=10)
    rows = (out / "table.md").read_text().splitlines()[2:]
    assert len(rows) == len(module.METHODS)
    assert "| fashion_mnist | VHP + REWO | 0 | 225.37 | " in rows[0]
    rewo = json.loads((out / "fashion_mnist-conv-rewo-0.json").read_text())
    assert rewo["experiment"]["kappa"] == 0.31
    assert rewo["evaluation"]["samples"] == 10
