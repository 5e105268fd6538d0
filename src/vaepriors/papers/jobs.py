"""A row with a seed as a job: its files, and where it stands.

    RUNS/TABLE/ROW/SEED/            the run, as `vaepriors train` or `vaepriors refit` makes it
    RESULTS/TABLE/ROW-SEED.json     its result, with pictures such as ROW-SEED-path.png beside it, and
                                    ROW-SEED-log_likelihood.npy, log p(x) of each test example

`running.run_job` makes them.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaepriors.app.experiment import Experiment
from vaepriors.app.run import Run
from vaepriors.data import CATALOGUE
from vaepriors.papers.results import read_result
from vaepriors.papers.rows import Row

__all__ = ["Job", "RunOptions"]


@dataclass(frozen=True)
class RunOptions:
    """How a job is computed, and how much less of it than the paper's protocol.

    Attributes:
        epochs: At most this many epochs.
        number: Only the first test examples, this many.
        accelerator, compile, graph: As in `Experiment`.
        save_every: Seconds between checkpoints, and between savings of an evaluation.
    """

    epochs: int | None = None
    number: int | None = None
    accelerator: str = "auto"
    compile: bool = False
    graph: bool = False
    save_every: float = 30.0


@dataclass(frozen=True)
class Job:
    """A row that has an experiment, with a seed, and the folders of the runs and of the results."""

    row: Row
    seed: int
    runs: Path
    results: Path

    def __str__(self) -> str:
        return f"{'/'.join(self.row.home)}, seed {self.seed}"

    @property
    def planned(self) -> Experiment:
        """The whole experiment of the row."""
        assert self.row.experiment is not None
        return self.row.experiment.replace(seed=self.seed)

    @property
    def run(self) -> Run:
        return Run(self.runs.joinpath(*self.row.home) / str(self.seed))

    @property
    def path(self) -> Path:
        """The file of its result."""
        table, name = self.row.home
        return self.results / table / f"{name}-{self.seed}.json"

    @property
    def test_size(self) -> int:
        return CATALOGUE[self.planned.data].form.sizes[2]

    def experiment(self, options: RunOptions) -> Experiment:
        """The experiment as the options limit it."""
        epochs = min(self.planned.epochs, options.epochs or self.planned.epochs)
        return self.planned.replace(
            epochs=epochs, accelerator=options.accelerator, compile=options.compile, graph=options.graph
        )

    def result(self) -> dict[str, Any] | None:
        """The recorded result, if there is one."""
        return read_result(self.path) if self.path.is_file() else None

    @property
    def source(self) -> "Job | None":
        """The job whose model this one refits."""
        return None if self.row.refit is None else dataclasses.replace(self, row=self.row.refit)

    def is_done(self, options: RunOptions) -> bool:
        """Whether the recorded result has as many epochs and test examples as the options ask for.

        A result without the evaluation by refined posteriors, from before its row asked for it, gets it where the model
        still is.
        """
        result = self.result()
        if result is None:
            return False
        asked = options.epochs is not None and result["epochs"] >= self.experiment(options).epochs
        trained = result["ended"] != "short" or asked
        refined = not self.row.refined or "refined" in result["found"] or not self.run.has("best")
        return trained and refined and result["found"]["n"] >= min(options.number or math.inf, self.test_size)

    def state(self) -> str:
        """Where it stands, in words."""
        result = self.result()
        if result is not None and result["complete"]:
            return "done"
        if self.run.is_busy():
            return "running"
        if any(self.run.folder.glob("evaluation*.partial")):
            return "evaluating"
        epochs = len(self.run.metrics())
        if result is not None and result["epochs"] >= epochs:
            number = result["found"]["n"]
            examples = f", {number}/{self.test_size} test examples" * (number < self.test_size)
            return f"short, {result['epochs']}/{self.planned.epochs} epochs{examples}"
        return f"epoch {epochs}/{self.planned.epochs}" if epochs else "to do"
