"""`vaepriors reproduce list | run | show`."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.table import Table as Grid

from vaepriors.app.cost import hours
from vaepriors.app.progress import make_console
from vaepriors.checkpoint import write_atomically
from vaepriors.papers import cluster
from vaepriors.papers.rows import Row, select, table, tables
from vaepriors.papers.show import cells, fill, head, markdown, printed, shown
from vaepriors.papers.work import Limits, Work

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
    """List the tables, or the rows of one: where each stands, what it needs, what it costs here.

    The hours are a rough estimate of all epochs and the evaluation of one seed; early stopping makes most runs shorter.

    Args:
        name: A table; all of them, in a line each, unless given.
        row: Only the rows of these names or patterns, such as 'caltech101-*'.
        seeds: Seeds 0, 1, ... looked at.
        runs: Folder of the runs.
        results: Folder of the results.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}: at least 1 is needed")
    if name is None and row:
        raise ValueError(f"row is {' '.join(row)}, but there is no table: name one of {', '.join(tables())}")
    if name is None:
        grid = Grid("table", "what", "from", "rows", "with results", box=None)
        for each in tables().values():
            measured = sum(shown(one, results) is not None for one in each.rows)
            source = f"{each.paper.split(',')[0]}, {each.source}"
            grid.add_row(each.name, each.title, source, f"{len(each.rows)}", f"{measured}")
        console.print(grid)
        return 0
    device = "cuda" if torch.cuda.is_available() else "cpu"
    grid = Grid("row", "data", table(name).heading, "state of each seed", f"hours a seed ({device})", box=None)
    with console.status("counting operations", spinner="line"):
        for found in select(name, row):
            grid.add_row(*_line(found, seeds, runs, results, device))
    console.print(grid)
    return 0


def _line(row: Row, seeds: int, runs: Path, results: Path, device: str) -> list[str]:
    paper = "" if row.paper is None else printed(row.paper)
    if row.experiment is None:
        return [row.name, "", paper, f"cited: {row.cited}", ""]
    missing = row.missing()
    states = [Work(row, seed, runs, results).state() for seed in range(seeds)]
    counted = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    state = ", ".join(counted) + (f"; needs {', '.join(missing)}" if missing else "")
    if row.home != (row.table, row.name):
        state += f" (as {'/'.join(row.home)})"
    return [row.name, row.experiment.data, paper, state, f"{hours(row.experiment, row.draws, device):.2g}"]


def run(
    name: tyro.conf.Positional[str],
    row: tuple[str, ...] = (),
    seeds: int = 1,
    budget: str | None = None,
    epochs: int | None = None,
    number: int | None = None,
    runs: Path = RUNS,
    results: Path = RESULTS,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    compile: bool = False,  # the option's name, as of train
    graph: bool = False,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    workers: int | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
) -> int:
    """Train, evaluate and record the rows of a table; what was begun goes on, what is done is not done again.

    Args:
        name: A table (see `vaepriors reproduce list`).
        row: Only the rows of these names or patterns, such as 'caltech101-*'.
        seeds: Seeds 0, 1, ...
        budget: Time for all of it, such as 90s, 8m or 1h30m: it stops after an epoch, or some test examples.
        epochs: At most so many epochs: less than the paper, and the result says so.
        number: Only the first so many test examples; the result says so.
        runs: Folder of the runs.
        results: Folder of the results.
        accelerator: cpu, cuda, or auto.
        compile: Compile the model.
        graph: Replay the step as one CUDA graph.
        engine: local (one after another, here), or ray (many at a time, on a cluster; needs the extra `ray`).
        address: Of the Ray cluster: auto for that of this machine; a local one is started unless given.
        workers: Runs at the same time on a local Ray; as many as the processors allow unless given.
        cpus: Processors of a run under Ray; 1 unless given.
        gpus: GPUs of a run under Ray, none unless given; 0.25 lets four share one.
    """
    for field, value in (("seeds", seeds), ("epochs", epochs), ("number", number), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"{field} is {value}: at least 1 is needed")
    for field, given in (("address", address), ("workers", workers), ("cpus", cpus), ("gpus", gpus)):
        if given is not None and engine != "ray":
            raise ValueError(f"{field} belongs to the engine ray, not to {engine}: add --engine ray")
        if isinstance(given, float) and not given > 0:
            raise ValueError(f"{field} is {given:g}: a positive number is needed")
    if address is not None and workers is not None:
        raise ValueError("workers is for a local Ray; the cluster at an address has its own: leave one of them out")
    seconds = None if budget is None else seconds_of(budget)
    works = _works(select(name, row), seeds, runs.absolute(), results.absolute())
    if not works:
        raise ValueError(f"these rows of {name} are numbers of others: there is nothing to run")
    limits = Limits(epochs, number, accelerator, compile, graph)
    if engine == "ray":
        outcomes = cluster.run_on_ray(works, limits, seconds, _tell, address, workers, cpus or 1, gpus or 0)
    else:
        outcomes = _run_here(works, limits, seconds)
    if "paused" in outcomes:
        console.print("the time is over: the same command goes on")
    return int(any(outcome.startswith("failed") for outcome in outcomes))


def _works(rows: Sequence[Row], seeds: int, runs: Path, results: Path) -> list[Work]:
    """Every run once, all rows of a seed before the next seed."""
    works: dict[Path, Work] = {}
    for seed in range(seeds):
        for each in rows:
            if each.experiment is not None:
                work = Work(each, seed, runs, results)
                works.setdefault(work.path, work)
    return list(works.values())


def _run_here(works: Sequence[Work], limits: Limits, seconds: float | None) -> list[str]:
    until = None if seconds is None else time.monotonic() + seconds
    outcomes: list[str] = []
    for work in works:
        if until is not None and time.monotonic() >= until:
            outcomes.append("done before" if work.is_done(limits) else "paused")
            continue
        outcomes.append(work.try_to_do(limits, until, console))
        _tell(work, outcomes[-1])
    return outcomes


def _tell(work: Work, outcome: str) -> None:
    console.print(f"{work}: {outcome}" + (f", recorded in {work.path}" if outcome == "done" else ""))


def seconds_of(budget: str) -> float:
    """Seconds of a time such as 90s, 8m, 1h30m.

    Raises:
        ValueError: If it is no time, or none at all.

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
    """Show paper beside ours.

    Args:
        name: A table; all of them unless given.
        results: Folder of the results.
        measured: Only rows of which there is a result.
        plain: As Markdown.
        write: Put the tables between the marks of these files instead; the marks say which tables.
    """
    if write and (name is not None or measured or plain):
        raise ValueError(
            "write fills the tables that the marks in its files name: leave out the table and other options"
        )
    for path in write:
        if not path.is_file():
            raise ValueError(f"{path} is not there: give a file with marks such as <!-- table kth-1: begin -->")
    for path in write:
        write_atomically(path, fill(path.read_text(encoding="utf-8"), results).encode())
    for each in [] if write else [table(name)] if name else tables().values():
        if plain:
            console.print(markdown(each, results, "measured" if measured else "all"))
            continue
        grid = Grid(*head(each), title=f"{each.title} ({each.paper.split(',')[0]}, {each.source})", box=None)
        for found in each.rows:
            number = shown(found, results)
            if number is not None or not measured:
                grid.add_row(*cells(found, number))
        console.print(grid)
    return 0


COMMANDS: dict[str, Callable[..., int]] = {"list": list_rows, "run": run, "show": show}
