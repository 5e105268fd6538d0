"""Run a job: train, evaluate, record. It can be stopped at any moment and resumed.

What one process does not finish, the next one resumes, on another machine too if it sees the same folders. The process
that works on a run holds its lock (`Run.lock`), which the system frees when that process dies.

To follow a run of the command: `commands.run` makes the jobs; `run_here`, or `cluster.run_on_ray`, calls `run_job` for
each; `run_job` trains, measures and records. A row that refits another one first trains that, unless its run is there.
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console

from vaepriors import checkpoint
from vaepriors.app.evaluation import Paused, evaluate_run
from vaepriors.app.experiment import Experiment
from vaepriors.app.progress import TrainingBar
from vaepriors.app.records import name_of, records_of, values_of
from vaepriors.app.refit import check_source, refit
from vaepriors.app.run import Run
from vaepriors.app.terminal import counting_bar
from vaepriors.app.train import fit, make_fabric
from vaepriors.data import Dataset, load
from vaepriors.papers.jobs import Job, RunOptions
from vaepriors.papers.measures import Measurement, measure_angle, measure_smoothness
from vaepriors.papers.rows import METRICS
from vaepriors.store import Busy, session
from vaepriors.training import Diverged

__all__ = ["ALREADY_DONE", "run_here", "run_job"]

ALREADY_DONE = "already done"


def run_here(
    jobs: Sequence[Job],
    options: RunOptions,
    seconds: float | None,
    report: Callable[[Job, str], None],
    console: Console | None = None,
) -> list[str]:
    """Run jobs one after another in this process, within some seconds; return their outcomes, as of `run_job`.

    `report` is called with each job that was looked at in time, and its outcome.
    """
    until = None if seconds is None else time.monotonic() + seconds
    outcomes = []
    for job in jobs:
        late = until is not None and time.monotonic() >= until
        outcomes.append(run_job(job, options, until, console, start=not late))
        if not late:
            report(job, outcomes[-1])
    return outcomes


def run_job(
    job: Job,
    options: RunOptions,
    until: float | None = None,
    console: Console | None = None,
    start: bool = True,
) -> str:
    """Train, evaluate and record a job, or what is left of it.

    Args:
        options: How, and how much of it.
        until: A moment of `time.monotonic()` to stop at; at least an epoch, or some examples, are done.
        start: Whether there is time to start; if not, only look whether it is done.

    Returns:
        The outcome: `done`, `already done`, `paused`, `in use` (by another process), `needs ...` (files of its data),
        or `failed: ...`, for an error that concerns this job alone.
    """
    try:
        if job.is_done(options):
            return ALREADY_DONE
        if not start:
            return "paused"
        dataset = load(job.planned.data, seed=job.seed)
        with job.run.lock(create=True):
            checkpoint.sweep(job.path.parent, job.path.name)
            if job.is_done(options):  # another process has just finished it
                return ALREADY_DONE
            _Attempt(job, dataset, options, until, console).record()
            return "done"
    except Busy:
        return "in use"
    except Paused:
        return "paused"
    except FileNotFoundError as error:
        missing = job.row.missing()
        if not missing:
            return f"failed: {error}"
        remedy = f"vaepriors data fetch {job.planned.data} gets them, or says where they belong"
        return f"needs {', '.join(missing)}: {remedy}"
    except (ValueError, Diverged) as error:
        return f"failed: {error}"


@dataclass(frozen=True)
class _Attempt:
    """A job with its data, whose run is locked, and the time for it."""

    job: Job
    dataset: Dataset
    options: RunOptions
    until: float | None
    console: Console | None

    def train(self) -> str:
        """Train the epochs that are left; return how the training ended: `finished` or `stopped early`."""
        job, options = self.job, self.options
        experiment, source = job.experiment(options), job.source
        call = functools.partial(fit, experiment, self.dataset, job.run)
        if source is not None:
            if not _how_it_ended(source.run, source.experiment(options)):
                with source.run.lock(create=True):
                    replace(self, job=source).train()
            check_source(source.run, experiment, job.run)
            call = functools.partial(refit, source.run, experiment, job.run)
        ended = _how_it_ended(job.run, experiment)
        if ended:
            return ended
        with TrainingBar(self.console, job.run.folder) if self.console is not None else nullcontext() as bar:
            callbacks = [] if bar is None else [bar]
            outcome = call(make_fabric(experiment), callbacks, options.save_every, job.row.snapshots, self.until)
        if outcome.reason == "interrupted":
            raise KeyboardInterrupt
        if outcome.reason == "out of time":
            raise Paused(f"{job} is out of time")
        return outcome.reason

    def measure(self) -> Measurement:
        """Measure what the metric of the row needs."""
        run, row, measured_by = self.job.run, self.job.row, METRICS[self.job.row.metric].measured_by
        if measured_by == "angle":
            return measure_angle(run, self.dataset, row.which)
        if measured_by == "interpolation":
            with self._bar("pairs") as progress:
                return measure_smoothness(run, self.dataset, row.which, row.pairs, progress)
        numbers = self._evaluate("is", math.inf)
        files = [run / values_of(name_of(numbers))]
        if row.refined:
            refined = self._evaluate("refined", row.refined)
            files.append(run / values_of(name_of(refined)))
            by_is = np.load(files[0])[: refined["n"]]  # of the same examples
            numbers["refined"] = {**refined, "nll_by_is": -float(by_is.mean())}
        return Measurement(numbers, files)

    def _bar(self, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        return counting_bar(self.console, what) if self.console is not None else nullcontext(lambda done, total: None)

    def _evaluate(self, method: str, most: float) -> dict[str, Any]:
        """Evaluate the first test examples, `most` at most, unless the run already has that evaluation of its model."""
        run, row, options, size = self.job.run, self.job.row, self.options, len(self.dataset.test)
        number = int(min(most, options.number or math.inf, size))
        model, values = run.model(self.dataset, row.which)
        for record in records_of(run, model, values["epoch"], row.which)[0]:
            old = record.result
            same = (old["split"], old["n"], old.get("method", "is"), old["samples"], old["seed"])
            usual = record.log_likelihood is not None and not old.get("spaced")
            if usual and same == ("test", number, method, row.draws, 0):
                return old
        with self._bar(f"{row.draws} samples ({method})") as progress:
            return evaluate_run(
                run, row.draws, number=number if number < size else None, first=True, which=row.which,
                accelerator=options.accelerator, progress=progress, until=self.until, save_every=options.save_every,
                method=method,
            )  # fmt: skip

    def record(self) -> None:
        """Train, measure, and write the result after its files: once there is a result, the job is done."""
        job, ended, measurement = self.job, self.train(), self.measure()
        numbers, metrics, source = measurement.numbers, job.run.metrics(), job.source
        from_short = source is not None and not _how_it_ended(source.run, source.planned)
        if (ended == "finished" and len(metrics) < job.planned.epochs) or from_short:
            ended = "short"
        job.path.parent.mkdir(parents=True, exist_ok=True)
        for file in measurement.files:
            checkpoint.write_atomically(job.path.with_name(f"{job.path.stem}-{file.name}"), file.read_bytes())
        content = {
            "table": job.row.home[0],
            "row": job.row.home[1],
            "seed": job.seed,
            "complete": ended != "short" and numbers["n"] == job.test_size,
            "ended": ended,
            "epochs": len(metrics),
            "epochs_planned": job.planned.epochs,
            "hours": round(sum(line["seconds"] for line in metrics) / 3600, 3),
            "gib": max((line["memory"] for line in metrics if "memory" in line), default=None),
            **job.run.description(),
            "found": numbers,
            "measured": session(numbers["epoch"], torch.device("cpu")),
        }
        checkpoint.write_json(job.path, content)


def _how_it_ended(run: Run, experiment: Experiment) -> str:
    """How the training of a run ended; empty if it has not."""
    run.check_folder(experiment)
    if not run.has("last"):
        return ""
    _, values = run.load_checkpoint("last")
    if values["waited"] > experiment.patience:
        return "stopped early"
    return "finished" if values["epoch"] >= experiment.epochs else ""
