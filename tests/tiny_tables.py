"""Tables with tiny rows on small stand-ins of the data sets, for the tests of the papers' tables."""

import dataclasses
import math
import os
import signal

import torch

from vaepriors import data
from vaepriors.app.experiment import Experiment
from vaepriors.app.run import Run
from vaepriors.data.pendulum import render
from vaepriors.papers import Job, Row, RunOptions, Table
from vaepriors.papers.rows import read

CPU = RunOptions(accelerator="cpu")

TEXT = """
paper = "Somebody 2020, a paper"

[[tables]]
name = "tiny"
title = "Digits"
source = "Table 7"
metric = "log_likelihood"
[tables.common]
data = "digits"
hidden = [8]
latent = 2
epochs = 3
warmup = 0
batch_size = 10
draws = 200
[tables.rows]
"standard" = { paper = -20.0 }
"vamp" = { paper = -19.5, prior = "vamp", components = 4 }
"again" = { paper = -20.1, same = "tiny/standard", metric = "elbo", note = "the same" }
"other" = { paper = -18.0, cited = "Others 2019" }

[[tables]]
name = "angle"
title = "Angle"
source = "Table 1"
metric = "angle_error"
[tables.common]
data = "pendulum"
model = "mlp"
prior = "vhp"
hidden = [8]
latent = 2
epochs = 3
sigma = 0.1
snapshots = [1, 2]
which = "last"
[tables.rows]
"elbo" = { paper = 0.5 }
"rewo" = { objective = "rewo", kappa = 0.1 }
"iwae" = { objective = "iwae", samples = 2 }

[[tables]]
name = "smooth"
title = "Smoothness"
source = "Figure 8"
metric = "smoothness"
[tables.rows.elbo]
data = "pendulum"
model = "mlp"
hidden = [8]
latent = 2
epochs = 1
sigma = 0.1
which = "last"
pairs = 1

[[tables]]
name = "refits"
title = "Digits, refitted"
source = "ours"
metric = "log_likelihood"
[tables.common]
draws = 200
[tables.rows]
"mog" = { refit = "tiny/standard", prior = "mog", components = 3, epochs = 2 }

[[tables]]
name = "refined"
title = "Digits"
source = "Table 8"
metric = "log_likelihood"
[tables.rows]
"vae" = { data = "digits", hidden = [8], latent = 1, epochs = 1, warmup = 0, batch_size = 10, draws = 50, refined = 3 }
"""


def tiny_tables() -> dict[str, Table]:
    return read([TEXT])


def tiny_entries() -> dict[str, data.Entry]:
    """Entries of the catalogue with few points, under the names of `digits` and `pendulum`."""
    digits = data.stand_in("digits", 24)
    angles = 2 * math.pi * torch.rand(40, generator=torch.Generator().manual_seed(0))
    x = render(angles)
    swing = data.Dataset("pendulum", x, x, x, "gaussian", labels={"train": angles, "valid": angles, "test": angles})
    return {"digits": _entry(digits), "pendulum": _entry(swing)}


def _entry(dataset: data.Dataset) -> data.Entry:
    entry, sizes = data.CATALOGUE[dataset.name], (len(dataset.train), len(dataset.valid), len(dataset.test))
    return dataclasses.replace(entry, load=lambda seed: dataset, form=entry.form._replace(sizes=sizes))


def job_of(table, name, folder, seed=0):
    """The job of a tiny row."""
    (row,) = [row for row in tiny_tables()[table].rows if row.name == name]
    return Job(row, seed, folder / "runs", folder / "results")


class RunThatDies(Run):
    """A run whose process dies with its first checkpoint, once it is written."""

    def save_checkpoint(self, which, tensors, values):
        super().save_checkpoint(which, tensors, values)
        if which == "last" and values["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class JobThatDies(Job):
    """A job that a second process must resume."""

    @property
    def run(self):
        return RunThatDies(super().run.folder)


def job_of_digits(folder, seed, kind=Job):
    """Three epochs on the real digits, which every process can load."""
    options = {"hidden": (8,), "latent": 2, "epochs": 3, "warmup": 0, "accelerator": "cpu"}
    row = Row("t", "a", "log_likelihood", None, "", Experiment(data="digits", **options), ("t", "a"), draws=20)
    return kind(row, seed, folder / "runs", folder / "results")


def content(result):
    """A result without its times and machines."""
    numbers = {key: value for key, value in result["found"].items() if key != "seconds"}
    return {**result, "found": numbers, "hours": 0, "gib": 0, "sessions": [], "measured": {}}
