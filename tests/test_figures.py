"""The scripts of reproduce/: every method trains on stand-in data, and the pictures are made of what has finished."""

import json
import math

import pytest
import torch

import motion
import pendulum
from vaepriors.app.experiment import Experiment
from vaepriors.app.run import Run
from vaepriors.app.train import fit
from vaepriors.data import Dataset
from vaepriors.data.pendulum import render


def test_every_method_of_the_motions_trains_and_the_table_has_those_that_finished(tmp_path, monkeypatch):
    x = torch.rand(60, 50, generator=torch.Generator().manual_seed(0))
    data = Dataset("cmu_motion", x, x, x, "gaussian", segments=lambda x: x[:, :24].view(-1, 4, 2, 3))
    for place in ("vaepriors.cli.load", "vaepriors.app.run.load"):
        monkeypatch.setattr(place, lambda name, seed, likelihood: data)
    once = motion.interpolate_run
    monkeypatch.setattr(motion, "interpolate_run", lambda run, which: once(run, 40, 12, 1, 3, which))
    runs, out = tmp_path / "runs", tmp_path / "out"
    motion.table(runs, out)
    assert len((out / "table.md").read_text().splitlines()) == 2  # of nothing, its head
    motion.train(motion.rows(list(motion.METHODS), [0], epochs=1), runs)
    unfinished = sorted(runs.iterdir())[0]
    content = json.loads((unfinished / "experiment.json").read_text())
    content["experiment"]["epochs"] = 2
    (unfinished / "experiment.json").write_text(json.dumps(content))
    motion.table(runs, out)
    rows = (out / "table.md").read_text().splitlines()[2:]
    assert len(rows) == len(motion.METHODS) - 1
    assert len(list(out.glob("*.json"))) == len(rows)
    assert not (out / f"{unfinished.name}.json").exists()
    assert len(list(out.glob("*.png"))) == 2 * len(rows)


def test_the_table_of_motions_is_that_of_the_recorded_files(pytestconfig):
    out = pytestconfig.rootpath / "results" / "motion"
    assert (out / "table.md").read_text() == motion.render(out) + "\n"


@pytest.mark.parametrize("options", [{"objective": "rewo", "kappa": 0.1}, {"objective": "elbo"}])
def test_a_run_of_the_pendulum_has_its_two_pictures(tmp_path, monkeypatch, options):
    angles = 2 * math.pi * torch.rand(60, generator=torch.Generator().manual_seed(0))
    x = render(angles)
    data = Dataset("pendulum", x, x, x, "gaussian", labels={"train": angles, "valid": angles, "test": angles})
    folder = tmp_path / "runs" / "rewo" / "3"
    common = {"data": "pendulum", "model": "mlp", "prior": "vhp", "hidden": (8,), "latent": 2, "sigma": 0.1}
    fit(Experiment(**common, **options, epochs=3, accelerator="cpu"), data, Run(folder), snapshots=(1, 2))
    monkeypatch.setattr("vaepriors.app.run.load", lambda name, seed, likelihood: data)
    (folder.parent / "3.lock").touch()
    arguments = ["pendulum.py", str(folder), str(folder.parent / "3.lock"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", arguments)
    pendulum.main()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "pendulum-rewo-3-path.png", "pendulum-rewo-3.png",
    ]  # fmt: skip
    titles = [axis.get_title() for axis in pendulum.picture(Run(folder), data).axes]
    assert [title for title in titles if "epoch" in title] == ["epoch 1", "epoch 2", "epoch 3"]
    assert ("error and its bound" in titles) == ("kappa" in options)
    before = pendulum.picture(Run(folder), data, "epoch-2")
    assert [axis.get_title() for axis in before.axes if "epoch" in axis.get_title()] == ["epoch 1", "epoch 2"]
