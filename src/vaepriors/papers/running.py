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
    """Run jobs one after another in this process.

    Args:
        jobs: The jobs.
        options: Options of all of them.
        seconds: Time for all of them.
        report: Called with each job that was looked at in time, and its outcome.
        console: Where to show the progress.

    Returns:
        The outcomes, as of `run_job`.
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
        job: The job.
        options: How, and how much of it.
        until: A moment of `time.monotonic()` to stop at; at least an epoch, or some examples, are done.
        console: Where to show the progress.
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
            ended = _train(job, dataset, options, until, console)
            measurement = _measure(job, dataset, options, until, console)
            _record(job, ended, measurement)
            return "done"
    except Busy:
        return "in use"
    except Paused:
        return "paused"
    except FileNotFoundError as error:
        missing = job.row.missing()
        return f"needs {', '.join(missing)}" if missing else f"failed: {error}"
    except (ValueError, Diverged) as error:
        return f"failed: {error}"


def _train(job: Job, dataset: Dataset, options: RunOptions, until: float | None, console: Console | None) -> str:
    """Train the epochs that are left; return how the training ended: `finished` or `stopped early`."""
    experiment, source = job.experiment(options), job.source
    if source is not None:
        if not _how_it_ended(source.run, source.experiment(options)):
            with source.run.lock(create=True):
                _train(source, dataset, options, until, console)
        check_source(source.run, experiment, job.run)
    ended = _how_it_ended(job.run, experiment)
    if ended:
        return ended
    call = functools.partial(fit, experiment, dataset, job.run)
    if source is not None:
        call = functools.partial(refit, source.run, experiment, job.run)
    with TrainingBar(console, job.run.folder) if console is not None else nullcontext() as bar:
        callbacks = [] if bar is None else [bar]
        fabric, snapshots = make_fabric(experiment), job.row.snapshots
        outcome = call(fabric, callbacks, options.save_every, snapshots, until)
    if outcome.reason == "interrupted":
        raise KeyboardInterrupt
    if outcome.reason == "out of time":
        raise Paused(f"{job} is out of time")
    return outcome.reason


def _how_it_ended(run: Run, experiment: Experiment) -> str:
    """How the training of a run ended; empty if it has not."""
    run.check_folder(experiment)
    if not (run / "last.ckpt").is_file():
        return ""
    _, values = run.load_checkpoint("last")
    if values["waited"] > experiment.patience:
        return "stopped early"
    return "finished" if values["epoch"] >= experiment.epochs else ""


def _is_short(job: Job | None) -> bool:
    """Whether a job was trained for fewer epochs than planned, without an early stop."""
    return job is not None and not _how_it_ended(job.run, job.planned)


def _measure(
    job: Job, dataset: Dataset, options: RunOptions, until: float | None, console: Console | None
) -> Measurement:
    """Measure what the metric of the row needs."""
    run, row, measured_by = job.run, job.row, METRICS[job.row.metric].measured_by
    if measured_by == "angle":
        return measure_angle(run, dataset, row.which)
    if measured_by == "interpolation":
        with _bar(console, "pairs") as progress:
            return measure_smoothness(run, dataset, row.which, row.pairs, progress)
    numbers = _evaluate(job, dataset, options, until, console, "is", math.inf)
    files = [run / values_of(name_of(numbers))]
    if row.refined:
        refined = _evaluate(job, dataset, options, until, console, "refined", row.refined)
        files.append(run / values_of(name_of(refined)))
        by_is = np.load(files[0])[: refined["n"]]  # of the same examples
        numbers["refined"] = {**refined, "nll_by_is": -float(by_is.mean())}
    return Measurement(numbers, files)


def _bar(console: Console | None, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
    return counting_bar(console, what) if console is not None else nullcontext(lambda done, total: None)


def _evaluate(
    job: Job,
    dataset: Dataset,
    options: RunOptions,
    until: float | None,
    console: Console | None,
    method: str,
    most: float,
) -> dict[str, Any]:
    """Evaluate the first test examples, `most` at most, unless the run already has that evaluation of its model."""
    run, row = job.run, job.row
    number = int(min(most, options.number or math.inf, len(dataset.test)))
    model, values = run.model(dataset, row.which)
    for record in records_of(run, model, values["epoch"], row.which)[0]:
        old = record.result
        same = (old["split"], old["n"], old.get("method", "is"), old["samples"], old["seed"])
        if same == ("test", number, method, row.draws, 0) and record.log_likelihood is not None:
            return old
    with _bar(console, f"{row.draws} samples ({method})") as progress:
        return evaluate_run(
            run,
            row.draws,
            number=number if number < len(dataset.test) else None,
            which=row.which,
            accelerator=options.accelerator,
            progress=progress,
            until=until,
            save_every=options.save_every,
            method=method,
        )


def _record(job: Job, ended: str, measurement: Measurement) -> None:
    """Write the result, after its files: once there is a result, the job is done."""
    numbers, metrics = measurement.numbers, job.run.metrics()
    if (ended == "finished" and len(metrics) < job.planned.epochs) or _is_short(job.source):
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
