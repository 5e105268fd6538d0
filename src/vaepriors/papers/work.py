"""A row with a seed as work to be done: train, evaluate, record; stopped at any moment, and gone on with.

    RUNS/TABLE/ROW/SEED/        the run, as `vaepriors train` makes it
    RESULTS/TABLE/ROW-SEED.json what is kept of it

What a process does not finish, the next one resumes, on another machine too, if it finds the same folders. The process
that works on a run holds its lock (`Run.lock`), which the system frees when that process dies.
"""

import dataclasses
import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from rich.console import Console

from vaepriors import checkpoint
from vaepriors.analysis import angle_regression
from vaepriors.app.evaluation import Paused, evaluate_run
from vaepriors.app.experiment import Experiment
from vaepriors.app.progress import TrainingBar, counting_bar
from vaepriors.app.run import Run
from vaepriors.app.train import fit, make_fabric
from vaepriors.data import CATALOGUE, Dataset, load
from vaepriors.devices import hardware
from vaepriors.papers.rows import Row
from vaepriors.reading import check, read_json
from vaepriors.store import Busy, session
from vaepriors.training import Diverged

__all__ = ["Limits", "Work"]


@dataclass(frozen=True)
class Limits:
    """How much less than the paper's protocol is asked for, and how it is computed.

    Attributes:
        epochs: At most so many epochs.
        number: Only the first so many test examples.
        accelerator, compile, graph: As in `Experiment`.
        save_every: Seconds between checkpoints, and between savings of an evaluation.
    """

    epochs: int | None = None
    number: int | None = None
    accelerator: str = "auto"
    compile: bool = False
    graph: bool = False
    save_every: float = 30.0


class Work:
    """A row with a seed.

    Args:
        row: A row with an experiment.
        seed: The seed.
        runs: Folder of the runs.
        results: Folder of the results.
    """

    def __init__(self, row: Row, seed: int, runs: Path, results: Path) -> None:
        assert row.experiment is not None
        self.row, self.seed = row, seed
        self.planned = dataclasses.replace(row.experiment, seed=seed)
        table, name = row.home
        self.run = Run(runs / table / name / str(seed))
        self.path = results / table / f"{name}-{seed}.json"

    def __str__(self) -> str:
        return f"{'/'.join(self.row.home)}, seed {self.seed}"

    def experiment(self, limits: Limits) -> Experiment:
        epochs = min(self.planned.epochs, limits.epochs or self.planned.epochs)
        return dataclasses.replace(
            self.planned, epochs=epochs, accelerator=limits.accelerator, compile=limits.compile, graph=limits.graph
        )

    def result(self) -> dict[str, Any] | None:
        """What has been recorded.

        Raises:
            ValueError: If its file cannot be read.
        """
        return read_result(self.path) if self.path.is_file() else None

    def is_done(self, limits: Limits) -> bool:
        """Whether there is a result of as much as is asked for."""
        result = self.result()
        if result is None:
            return False
        trained = result["ended"] != "short" or result["epochs"] >= self.experiment(limits).epochs
        return trained and result["found"]["n"] >= min(limits.number or math.inf, self._test_size())

    def _test_size(self) -> int:
        return CATALOGUE[self.planned.data].form.sizes[2]

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
            return f"short, {result['epochs']}/{self.planned.epochs} epochs"
        return f"epoch {epochs}/{self.planned.epochs}" if epochs else "to do"

    def do(self, limits: Limits, until: float | None = None, console: Console | None = None) -> str:
        """Do what is left of it; what came of it: `done`, `done before`, `taken` by another process, or `paused`.

        Args:
            limits: Less than the whole.
            until: A moment of `time.monotonic()` to stop at; at least an epoch, or some examples, are done.
            console: Where to show the progress.

        Raises:
            ValueError: If its data are wrong, or the folder has another run.
            FileNotFoundError: If its data cannot be had.
            Diverged: If a loss is not finite.
        """
        if self.is_done(limits):
            return "done before"
        dataset = load(self.planned.data, seed=self.seed)
        try:
            with self.run.lock(create=True):
                checkpoint.sweep(self.path.parent, self.path.name)
                if self.is_done(limits):  # by another process since
                    return "done before"
                return self._do(dataset, limits, until, console)
        except Busy:
            return "taken"

    def try_to_do(self, limits: Limits, until: float | None = None, console: Console | None = None) -> str:
        """As `do`, with `failed: ...` or `needs ...` in place of an error that concerns this row alone."""
        missing = self.row.missing()
        try:
            return self.do(limits, until, console)
        except FileNotFoundError as error:
            return f"needs {', '.join(missing)}" if missing else f"failed: {error}"
        except (ValueError, Diverged) as error:
            return f"failed: {error}"

    def _do(self, dataset: Dataset, limits: Limits, until: float | None, console: Console | None) -> str:
        experiment = self.experiment(limits)
        ended = self._ended(experiment)
        if not ended:
            bar = TrainingBar(console, self.run.folder) if console is not None else nullcontext()
            with bar as callback:
                report = fit(
                    experiment,
                    dataset,
                    self.run,
                    make_fabric(experiment),
                    [callback] if callback is not None else [],
                    limits.save_every,
                    self.row.snapshots,
                    until,
                )
            if report.reason == "interrupted":
                raise KeyboardInterrupt
            if report.reason == "out of time":
                return "paused"
            ended = report.reason
        counting = counting_bar(console, f"{self.row.draws} samples") if console is not None else nullcontext()
        try:
            with counting as progress:
                found = self._measure(dataset, limits, until, progress or (lambda done, total: None))
        except Paused:
            return "paused"
        self._record(found, ended)
        return "done"

    def _ended(self, experiment: Experiment) -> str:
        """How the training came to its end, if it has."""
        self.run.check_folder(experiment)
        if not (self.run / "last.ckpt").is_file():
            return ""
        _, values = self.run.load_checkpoint("last")
        if values["waited"] > experiment.patience:
            return "stopped early"
        return "finished" if values["epoch"] >= experiment.epochs else ""

    def _measure(
        self, dataset: Dataset, limits: Limits, until: float | None, progress: Callable[[int, int], None]
    ) -> dict[str, Any]:
        row = self.row
        if not row.draws:
            return measure_angle(self.run, dataset, row.which)
        accelerator, number = limits.accelerator, limits.number and min(limits.number, len(dataset.test))
        return evaluate_run(
            self.run,
            row.draws,
            number=number,
            which=row.which,
            accelerator=accelerator,
            progress=progress,
            until=until,
            save_every=limits.save_every,
        )

    def _record(self, found: dict[str, Any], ended: str) -> None:
        metrics = self.run.metrics()
        if ended == "finished" and len(metrics) < self.planned.epochs:
            ended = "short"
        content = {
            "table": self.row.home[0],
            "row": self.row.home[1],
            "seed": self.seed,
            "complete": ended != "short" and found["n"] == self._test_size(),
            "ended": ended,
            "epochs": len(metrics),
            "epochs_planned": self.planned.epochs,
            "hours": round(sum(line["seconds"] for line in metrics) / 3600, 3),
            "gib": max((line["memory"] for line in metrics if "memory" in line), default=None),
            **self.run.description(),
            "found": found,
            "measured": session(found["epoch"], torch.device("cpu")),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_atomically(self.path, (json.dumps(content, indent=2) + "\n").encode())


class Found(TypedDict):
    """What was measured, beside the metric of the row."""

    n: int


class Computed(TypedDict):
    """What is shown of a session."""

    hardware: str


class Ran(TypedDict):
    """What is shown of an experiment."""

    data: Literal[tuple(CATALOGUE)]  # type: ignore[valid-type]


class Result(TypedDict):
    """What is needed of a file of the results."""

    seed: int
    complete: bool
    ended: str
    epochs: int
    epochs_planned: int
    hours: float
    experiment: Ran
    sessions: list[Computed]
    found: Found


def read_result(path: Path, *metrics: str) -> dict[str, Any]:
    """The content of a file of the results.

    Args:
        path: The file.
        metrics: Names of numbers that it must hold.

    Raises:
        ValueError: If it cannot be read, or lacks something.
    """
    remedy = "restore or delete it"
    result = read_json(path, Result, remedy, more=True)
    if not result["sessions"]:
        raise ValueError(f"{path} is damaged: it has no sessions; {remedy}")
    errors = {"nll", "nll_se"} if result["found"].get("nll_se") is not None else set()
    for name in [*metrics, *sorted(errors)]:
        try:
            check(result["found"].get(name), float, f"found.{name}")
        except ValueError as error:
            raise ValueError(f"{path} is damaged, or of another version: {error}; {remedy}") from error
    return result


@torch.no_grad()
def measure_angle(run: Run, dataset: Dataset, which: str) -> dict[str, Any]:
    """What a run has learned of the pendulum's angle (Klushyn et al. 2019, table 1), on the test set.

    Args:
        run: The run.
        dataset: Its data, with the angles as labels.
        which: `best`, `last`, or `epoch-N` of a snapshot.
    """
    model, values = run.model(dataset, which)
    z = model.encoder(dataset.test).mean
    found = angle_regression(z, dataset.labels["test"])
    last = run.metrics()[values["epoch"] - 1]
    return {
        "split": "test",
        "checkpoint": which,
        "epoch": values["epoch"],
        "n": len(dataset.test),
        "angle_error": found.error,
        "winding": found.winding,
        "reconstruction_error": (model.decoder(z).mean - dataset.test).square().mean().sqrt().item(),
        "beta": last.get("beta"),
        "valid_loss": last["valid_loss"],
        "device": hardware(torch.device("cpu")),
    }
