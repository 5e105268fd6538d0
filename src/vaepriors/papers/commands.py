"""`vaepriors reproduce list | run | show`."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.table import Table as Grid

from vaepriors.app.cost import hours
from vaepriors.app.groups import Accelerator
from vaepriors.app.terminal import make_console
from vaepriors.checkpoint import write_atomically
from vaepriors.limits import at_least_one
from vaepriors.papers.cluster import run_on_ray
from vaepriors.papers.jobs import Job, RunOptions
from vaepriors.papers.results import summarize
from vaepriors.papers.rows import Row, select, table, tables
from vaepriors.papers.running import ALREADY_DONE, run_here
from vaepriors.papers.show import cells, fill, format_paper, head, markdown

__all__ = ["COMMANDS", "seconds_of"]

RUNS, RESULTS = Path("runs/reproduce"), Path("results")
console = make_console()
Name = tyro.conf.Positional[str | None]


def list_rows(
    name: Name = None,
    row: tuple[str, ...] = (),
    seeds: int = 3,
    runs: Path = RUNS,
    results: Path = RESULTS,
) -> int:
    """List the tables, or the rows of one: the state of each seed, the files it needs, the hours it costs here.

    The hours are a rough estimate of all epochs and the evaluation of one seed; early stopping makes most runs shorter.

    Args:
        name: A table; all of them by default, a line each.
        row: Only the rows of these names or patterns, such as 'caltech101-*'.
        seeds: How many seeds to look at: 0, 1, ...
        runs: Folder of the runs.
        results: Folder of the results.
    """
    at_least_one(seeds=seeds)
    if name is None and row:
        raise ValueError(f"row is {' '.join(row)}, but there is no table: name one of {', '.join(tables())}")
    if name is None:
        grid = Grid("table", "what", "from", "rows", "with results", box=None)
        for each in tables().values():
            measured = sum(summarize(one, results) is not None for one in each.rows)
            source = f"{each.paper.split(',')[0]}, {each.source}"
            grid.add_row(each.name, each.title, source, f"{len(each.rows)}", f"{measured}")
        console.print(grid)
        return 0
    device = "cuda" if torch.cuda.is_available() else "cpu"
    grid = Grid("row", "data", table(name).heading, "state of each seed", f"hours a seed ({device})", box=None)
    with console.status("counting operations", spinner="line"):
        for one in select(name, row):
            grid.add_row(*_describe(one, seeds, runs, results, device))
    console.print(grid)
    return 0


def _describe(row: Row, seeds: int, runs: Path, results: Path, device: str) -> list[str]:
    """The cells of a row in the list."""
    paper = "" if row.paper is None else format_paper(row.paper)
    if row.experiment is None:
        return [row.name, "", paper, f"cited: {row.cited}", ""]
    missing = row.missing()
    states = [Job(row, seed, runs, results).state() for seed in range(seeds)]
    counted = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    state = ", ".join(counted) + (f"; needs {', '.join(missing)}" if missing else "")
    if row.home != (row.table, row.name):
        state += f" (as {'/'.join(row.home)})"
    cost = float(f"{hours(row.experiment, row.draws, device):.2g}")
    return [row.name, row.experiment.data, paper, state, f"{cost:g}"]


def run(
    name: tyro.conf.Positional[str],
    row: tuple[str, ...] = (),
    seeds: int = 1,
    budget: str | None = None,
    epochs: int | None = None,
    number: int | None = None,
    runs: Path = RUNS,
    results: Path = RESULTS,
    accelerator: Accelerator = "auto",
    compile: bool = False,  # the option's name, as of train
    graph: bool = False,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    workers: int | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
) -> int:
    """Train, evaluate and record the rows of a table. Interrupted runs are resumed; finished rows are not run again.

    Args:
        name: A table (see `vaepriors reproduce list`).
        row: Only the rows of these names or patterns, such as 'caltech101-*'.
        seeds: How many seeds to run: 0, 1, ...
        budget: Time for everything, such as 90s, 8m or 1h30m; it stops after an epoch, or some test examples.
        epochs: At most this many epochs. If that is less than in the paper, the result says so.
        number: Evaluate only this many test examples, the first ones; the result says so.
        runs: Folder of the runs.
        results: Folder of the results.
        accelerator: cpu, cuda, or auto.
        compile: Compile the model.
        graph: Replay the step as one CUDA graph.
        engine: local (one after another, here), or ray (many at a time, on a cluster; needs the extra `ray`).
        address: Of the Ray cluster: auto for the one of this machine. By default a local one is started.
        workers: Runs at the same time on a local Ray; by default as many as the processors allow.
        cpus: Processors of a run under Ray; 1 by default.
        gpus: GPUs of a run under Ray, none by default; 0.25 lets four share one.
    """
    at_least_one(seeds=seeds, epochs=epochs, number=number, workers=workers)
    _check_ray(engine, {"address": address, "workers": workers, "cpus": cpus, "gpus": gpus})
    seconds = None if budget is None else seconds_of(budget)
    jobs = _list_jobs(select(name, row), seeds, runs.absolute(), results.absolute())
    if not jobs:
        raise ValueError(f"these rows of {name} are numbers of others: there is nothing to run")
    options = RunOptions(epochs, number, accelerator, compile, graph)
    if engine == "ray":
        outcomes = run_on_ray(jobs, options, seconds, _report, address, workers, cpus or 1, gpus or 0)
    else:
        outcomes = run_here(jobs, options, seconds, _report, console)
    return _conclude(name, outcomes)


def _check_ray(engine: str, of_ray: dict[str, str | float | None]) -> None:
    """Refuse options of Ray without Ray, or that contradict each other."""
    for option, given in of_ray.items():
        if given is not None and engine != "ray":
            raise ValueError(f"{option} belongs to the engine ray, not to {engine}: add --engine ray")
        if isinstance(given, float) and not given > 0:
            raise ValueError(f"{option} is {given:g}: a positive number is needed")
    if of_ray["address"] is not None and of_ray["workers"] is not None:
        raise ValueError("workers is for a local Ray; the cluster at an address has its own: leave one of them out")


def _list_jobs(rows: Sequence[Row], seeds: int, runs: Path, results: Path) -> list[Job]:
    """Every run once, all rows of a seed before the next seed."""
    jobs: dict[Path, Job] = {}
    for seed in range(seeds):
        for row in rows:
            if row.experiment is not None:
                job = Job(row, seed, runs, results)
                jobs.setdefault(job.path, job)
    return list(jobs.values())


def _report(job: Job, outcome: str) -> None:
    """Print the outcome of a job."""
    if outcome == "done":
        console.print(f"{job}: done, recorded in {job.path}")
    elif outcome == ALREADY_DONE:
        console.print(f"{job}: already done, not run again; delete {job.path} to repeat it")
    else:
        console.print(f"{job}: {outcome}")


def _conclude(name: str, outcomes: Sequence[str]) -> int:
    """Say what remains to be done; return the exit status."""
    if "paused" in outcomes:
        console.print("out of time: run the same command to continue")
    if set(outcomes) == {ALREADY_DONE}:
        console.print(f"nothing was run: all results are there; see them with vaepriors reproduce show {name}")
    return int(any(outcome.startswith(("failed", "needs")) for outcome in outcomes))


def seconds_of(budget: str) -> float:
    """Seconds of a time such as 90s, 8m, 1h30m, not zero.

    >>> seconds_of("1h30m")
    5400.0
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", budget)
    hours, minutes, seconds = (float(part or 0) for part in (match.groups() if match else ("", "", "")))
    total = 3600 * hours + 60 * minutes + seconds
    if not total > 0:
        raise ValueError(f"budget is {budget!r}: give a time such as 90s, 8m or 1h30m")
    return total


def show(
    name: Name = None,
    results: Path = RESULTS,
    measured: bool = False,
    plain: Annotated[bool, tyro.conf.arg(name="markdown")] = False,
    write: tuple[Path, ...] = (),
) -> int:
    """Show the papers' numbers beside ours.

    Args:
        name: A table; all of them by default.
        results: Folder of the results.
        measured: Only rows that have a result.
        plain: Print Markdown.
        write: Fill the marks in these files with tables instead of printing; the marks name the tables.
    """
    if write and (name is not None or measured or plain):
        raise ValueError(
            "write fills the tables that the marks in its files name: leave out the table and other options"
        )
    for path in write:
        if not path.is_file():
            raise ValueError(f"{path} does not exist: give a file with marks such as <!-- table kth-1: begin -->")
    for path in write:
        write_atomically(path, fill(path.read_text(encoding="utf-8"), results).encode())
    for each in [] if write else [table(name)] if name else tables().values():
        if plain:
            console.print(markdown(each, results, "measured" if measured else "all"))
            continue
        grid = Grid(*head(each), title=f"{each.title} ({each.paper.split(',')[0]}, {each.source})", box=None)
        for row in each.rows:
            summary = summarize(row, results)
            if summary is not None or not measured:
                grid.add_row(*cells(row, summary))
        console.print(grid)
    return 0


COMMANDS: dict[str, Callable[..., int]] = {"list": list_rows, "run": run, "show": show}
