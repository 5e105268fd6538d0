"""The tables of the papers as data: each row an experiment, a metric, the paper's number, and where it stands.

A file of `tables/` has some tables, and what their rows share:

    paper = "authors, year, title"
    [sets.NAME]                 what every row on that data set has
    [[tables]]                  name, title, source ("Table 1") and metric
    [tables.common]             what every row of the table has
    [tables.rows]
    "NAME" = { paper = -83.19, data = "static_mnist", model = "hvae", prior = "vamp" }

A row goes over common, over the set, over the defaults of `Experiment`. Besides the experiment's options it may have
`paper` (the number), `metric`, `note`, `draws` (of the evaluation; 5,000 unless given, 0 for the pendulum's angle),
`which` (the model that is measured: best unless given), `snapshots` (epochs whose model is kept), and in place of
options `cited` (a number of others: whose) or `same` (TABLE/ROW whose run serves here, too). A row with both shows that
run beside the number of others. A table may have `heading`, the name of its column of numbers (`paper` unless given).
"""

import dataclasses
import difflib
import fnmatch
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from vaepriors import data
from vaepriors.app.experiment import Experiment

__all__ = ["METRICS", "Metric", "Row", "Table", "select", "table", "tables"]

OPTIONS = {field.name for field in dataclasses.fields(Experiment)}
ROW_KEYS = {"paper", "metric", "note", "draws", "which", "snapshots", "cited", "same"}


class Metric(NamedTuple):
    """A number of a table: how it is called, and how it is read from what was found."""

    title: str
    key: str  # in the record of the evaluation
    sign: int  # of the number beside the record's
    larger_is_better: bool
    digits: int
    close: float | None  # the most that a difference to a paper may be without a look at it


METRICS = {
    "log_likelihood": Metric("log p(x), nats", "nll", -1, True, 2, 0.5),
    "negative_log_likelihood": Metric("-log p(x), nats", "nll", 1, False, 2, 0.5),
    "bits_per_dim": Metric("bits per dimension", "bits_per_dim", 1, False, 3, 0.03),
    "elbo": Metric("ELBO, nats", "elbo", 1, True, 2, 0.5),
    "active_units": Metric("active units", "active_units", 1, True, 1, None),
    "angle_error": Metric("mean absolute error, radians", "angle_error", 1, False, 3, None),
}


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        table, name: Where it stands.
        metric: A name of `METRICS`.
        paper: The paper's number; None if it has none.
        source: The paper's table.
        experiment: What to run; None for a cited number.
        home: Table and name of the row whose run it is: its own, or that which `same` names.
        draws: Of z for each example in the evaluation; 0 where the pendulum's angle is measured instead.
        which: The model measured, `best` or `last`.
        snapshots: Epochs whose model is kept for pictures.
        cited: Whose number it is, if it is not the paper's own.
        note: What a reader must know besides.
    """

    table: str
    name: str
    metric: str
    paper: float | None
    source: str
    experiment: Experiment | None
    home: tuple[str, str]
    draws: int = 5000
    which: str = "best"
    snapshots: tuple[int, ...] = ()
    cited: str = ""
    note: str = ""

    def missing(self) -> tuple[str, ...]:
        """The files of its data that are neither in $VAEPRIORS_DATA nor in the cache."""
        return () if self.experiment is None else data.missing(self.experiment.data)


@dataclass(frozen=True)
class Table:
    """A table of a paper; `heading` names the column of its numbers."""

    name: str
    title: str
    paper: str
    source: str
    rows: tuple[Row, ...]
    heading: str = "paper"


@cache
def tables() -> dict[str, Table]:
    """All tables, by name.

    Raises:
        ValueError: If a file of them is wrong.
    """
    files = sorted(resources.files("vaepriors.papers").joinpath("tables").iterdir(), key=lambda file: file.name)
    return read([file.read_text(encoding="utf-8") for file in files if file.name.endswith(".toml")])


def read(texts: Sequence[str]) -> dict[str, Table]:
    """Tables from the texts of files; a row may have the run of a table of another file."""
    raw = {found["name"]: (content, found) for content in map(tomllib.loads, texts) for found in content["tables"]}
    return {
        name: Table(
            name,
            found["title"],
            content["paper"],
            found["source"],
            tuple(_row(raw, name, row) for row in found["rows"]),
            found.get("heading", "paper"),
        )
        for name, (content, found) in raw.items()
    }


Raw = dict[str, tuple[dict[str, Any], dict[str, Any]]]


def _merged(raw: Raw, table: str, name: str) -> dict[str, Any]:
    content, found = raw[table]
    own = {**found.get("common", {}), **found["rows"][name]}
    return {"metric": found["metric"], **content.get("sets", {}).get(own.get("data"), {}), **own}


def _row(raw: Raw, table: str, name: str) -> Row:
    where, values = f"row {table}/{name}", _merged(raw, table, name)
    unknown = sorted(set(values) - OPTIONS - ROW_KEYS)
    if unknown:
        raise ValueError(f"{where} has the unknown keys {unknown}")
    home, run = (table, name), values
    if "same" in values:
        own = sorted(set(raw[table][1]["rows"][name]) & OPTIONS)
        if own:
            raise ValueError(f"{where} is the same as {values['same']} and has the options {own}: choose one")
        other, _, its = values["same"].partition("/")
        if other not in raw or its not in raw[other][1]["rows"] or {"same", "cited"} & set(raw[other][1]["rows"][its]):
            raise ValueError(f"{where} is the same as {values['same']}, which is no row with a run of its own")
        home, run = (other, its), _merged(raw, other, its)
    if values["metric"] not in METRICS:
        raise ValueError(f"{where} has the metric {values['metric']}: choose one of {', '.join(METRICS)}")
    options: Any = {key: tuple(v) if isinstance(v, list) else v for key, v in run.items() if key in OPTIONS}
    return Row(
        table,
        name,
        values["metric"],
        values.get("paper"),
        raw[table][1]["source"],
        None if "cited" in values else Experiment(**options),
        home,
        run.get("draws", 5000),
        run.get("which", "best"),
        tuple(run.get("snapshots", ())),
        values.get("cited", ""),
        values.get("note", ""),
    )


def table(name: str) -> Table:
    """A table by name.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in tables():
        near = difflib.get_close_matches(name, tables(), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown table '{name}': choose one of {', '.join(tables())}{hint}")
    return tables()[name]


def select(name: str, patterns: Sequence[str] = ()) -> list[Row]:
    """The rows of a table whose names match one of the patterns (such as `caltech101-*`); all of them without one.

    Raises:
        ValueError: If a pattern matches no row.
    """
    rows = table(name).rows
    for pattern in patterns:
        if not any(_matching(rows, pattern)):
            near = difflib.get_close_matches(pattern, [row.name for row in rows], n=1)
            hint = f" (did you mean {near[0]}?)" if near else f": it has {', '.join(row.name for row in rows)}"
            raise ValueError(f"{name} has no row '{pattern}'{hint}")
    return [row for row in rows if not patterns or any(fnmatch.fnmatchcase(row.name, p) for p in patterns)]


def _matching(rows: Sequence[Row], pattern: str) -> Iterator[Row]:
    return (row for row in rows if fnmatch.fnmatchcase(row.name, pattern))
