"""The tables of the papers as data: each row an experiment, a metric, the paper's number, and where it stands.

A file of `tables/` has some tables, and what their rows share:

    paper = "authors, year, title"
    [sets.NAME]                 what every row on that data set has
    [[tables]]                  name, title, source ("Table 1") and metric
    [tables.common]             what every row of the table has
    [tables.rows]
    "NAME" = { paper = -83.19, data = "static_mnist", model = "hvae", prior = "vamp" }

A row overrides common, which overrides the set, which overrides the defaults of `Experiment`. Besides options of the
experiment a row may have

    paper       the paper's number
    metric      a name of `METRICS`, where it is not the table's
    note        what a reader must know
    draws       draws of z for each example in the evaluation (default 5,000)
    refined     also evaluate this many test examples, the first ones, by the method `refined` (default none)
    pairs       pairs of test examples in each graph of an interpolation (default 100)
    which       the model that is measured, best (default) or last
    snapshots   epochs whose model is kept for pictures
    refit       TABLE/ROW: fit a new prior to the model of that row, of the same seed (see `app.refit`); the row's own
                options are those of the prior and its training, and nothing is taken from `common` but how it is
                measured
    same        TABLE/ROW: show the run of that row; then the row has no options of its own
    cited       whose number it is; then the row has no run, unless `same` names one to compare with
    against     a row of the same table and data: show the difference to it, example by example

A table may have `heading`, the name of its column of numbers (`paper` unless given).
"""

import dataclasses
import fnmatch
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, NamedTuple

from vaepriors import data
from vaepriors.app.choices import check_choice
from vaepriors.app.experiment import Experiment
from vaepriors.app.refit import refitted

__all__ = ["METRICS", "Metric", "Row", "Table", "select", "table", "tables"]

OPTIONS = {field.name for field in dataclasses.fields(Experiment)}
ROW_KEYS = {
    "paper", "metric", "note", "draws", "refined", "pairs", "which", "snapshots", "cited", "same", "against", "refit",
}  # fmt: skip


class Metric(NamedTuple):
    """A number that tables show: its title, and where it is in a recorded result.

    Attributes:
        title: Of its column.
        key: Its name in the result.
        error: The name of a standard error in the result: that of the number, or of one proportional to it.
        sign: 1, or -1 if the table shows the negative.
        digits: After the decimal point.
        measured_by: What computes it (see `measures`).
    """

    title: str
    key: str
    error: str = ""
    sign: int = 1
    digits: int = 2
    measured_by: Literal["evaluation", "angle", "interpolation"] = "evaluation"

    @property
    def of_likelihood(self) -> bool:
        """Whether it is proportional to the mean of log p(x), which refined posteriors estimate better."""
        return self.error == "nll_se"

    def standard_error(self, result: dict[str, Any]) -> float | None:
        """The standard error of a recorded number, if there is one.

        >>> METRICS["bits_per_dim"].standard_error({"nll": 100.0, "nll_se": 1.0, "bits_per_dim": 4.0})
        0.04
        """
        error = result.get(self.error)
        return None if error is None else abs(error * result[self.key] / result[self.error.removesuffix("_se")])


METRICS = {
    "log_likelihood": Metric("log p(x), nats", "nll", "nll_se", sign=-1),
    "negative_log_likelihood": Metric("-log p(x), nats", "nll", "nll_se"),
    "bits_per_dim": Metric("bits per dimension", "bits_per_dim", "nll_se", digits=3),
    "elbo": Metric("ELBO, nats", "elbo"),
    "active_units": Metric("active units", "active_units", digits=1),
    "angle_error": Metric("mean absolute error, radians", "angle_error", digits=3, measured_by="angle"),
    "smoothness": Metric(
        "smoothness (low is smooth)", "smoothness", "smoothness_se", digits=4, measured_by="interpolation"
    ),
}


@dataclass(frozen=True)
class Row:
    """A row of a table: the keys above, with their defaults, and what follows from them.

    Attributes:
        paper: The paper's number; None if it has none.
        source: The paper's table.
        experiment: What to run; None for a cited number.
        home: Table and name of the row that has the run: this one, or the one that `same` names.
        draws: 0 if the metric comes from no evaluation.
        against: The home of that row; None for none.
        refit: The row whose model is refitted; None for a training from the start.
    """

    table: str
    name: str
    metric: str
    paper: float | None
    source: str
    experiment: Experiment | None
    home: tuple[str, str]
    draws: int = 5000
    refined: int = 0
    pairs: int = 100
    which: str = "best"
    snapshots: tuple[int, ...] = ()
    cited: str = ""
    against: tuple[str, str] | None = None
    note: str = ""
    refit: "Row | None" = None

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
    """All tables, by name."""
    files = sorted(resources.files("vaepriors.papers").joinpath("tables").iterdir(), key=lambda file: file.name)
    return read([file.read_text(encoding="utf-8") for file in files if file.name.endswith(".toml")])


def read(texts: Sequence[str]) -> dict[str, Table]:
    """Tables from the texts of TOML files; a row may refer to the run of a table of another file."""
    raw = {table["name"]: (content, table) for content in map(tomllib.loads, texts) for table in content["tables"]}
    return {
        name: Table(
            name,
            table["title"],
            content["paper"],
            table["source"],
            tuple(_read_row(raw, name, row) for row in table["rows"]),
            table.get("heading", "paper"),
        )
        for name, (content, table) in raw.items()
    }


Raw = dict[str, tuple[dict[str, Any], dict[str, Any]]]


def _merge(raw: Raw, table: str, name: str) -> dict[str, Any]:
    """All values of a row: those of its set, its table and its own."""
    content, values = raw[table]
    own = {**values.get("common", {}), **values["rows"][name]}
    if "refit" in own:
        own["data"] = _merge(raw, *_other_home(raw, table, name, "refit")).get("data", Experiment.data)
    merged = {"metric": values["metric"], **content.get("sets", {}).get(own.get("data"), {}), **own}
    if merged["metric"] not in METRICS:
        raise ValueError(f"row {table}/{name} has the metric {merged['metric']}: choose one of {', '.join(METRICS)}")
    return merged


def _read_row(raw: Raw, table: str, name: str) -> Row:
    where, values = f"row {table}/{name}", _merge(raw, table, name)
    unknown = sorted(set(values) - OPTIONS - ROW_KEYS)
    if unknown:
        raise ValueError(f"{where} has the unknown keys {unknown}")
    home = _find_home(raw, table, name)
    run = _merge(raw, *home)
    measured_by, of_run = (METRICS[each["metric"]].measured_by for each in (values, run))
    if measured_by != of_run:
        raise ValueError(f"{where} needs the {measured_by} of {'/'.join(home)}, which has the {of_run} only")
    source = _read_row(raw, *_other_home(raw, *home, "refit")) if "refit" in run else None
    return Row(
        table,
        name,
        values["metric"],
        values.get("paper"),
        raw[table][1]["source"],
        None if "cited" in values else _read_experiment(raw, home, source),
        home,
        run.get("draws", 5000) if of_run == "evaluation" else 0,
        run.get("refined", 0) if METRICS[run["metric"]].of_likelihood else 0,
        run.get("pairs", 100),
        run.get("which", "best"),
        tuple(run.get("snapshots", ())),
        values.get("cited", ""),
        _find_home(raw, table, values["against"]) if "against" in values else None,
        values.get("note", ""),
        source,
    )


def _read_experiment(raw: Raw, home: tuple[str, str], source: Row | None) -> Experiment:
    """What the row of a run is to run."""
    table, name = home
    values = _merge(raw, table, name) if source is None else raw[table][1]["rows"][name]
    options: Any = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key in OPTIONS}
    if source is None:
        return Experiment(**options)
    assert source.experiment is not None
    try:
        return refitted(source.experiment, **options)
    except ValueError as error:
        raise ValueError(f"row {table}/{name}: {error}") from error


def _find_home(raw: Raw, table: str, name: str) -> tuple[str, str]:
    """Table and name of the row whose run this row shows."""
    where, rows = f"row {table}/{name}", raw[table][1]["rows"]
    if name not in rows:
        raise ValueError(f"table {table} has no row {name}, which a row of it is against")
    own = rows[name]
    if "same" not in own:
        return table, name
    options = sorted(set(own) & OPTIONS)
    if options:
        raise ValueError(f"{where} is the same as {own['same']} and has the options {options}: choose one")
    return _other_home(raw, table, name, "same")


def _other_home(raw: Raw, table: str, name: str, key: str) -> tuple[str, str]:
    """Table and name of the row that `same` or `refit` names, which must have a run of its own."""
    named = raw[table][1]["rows"][name][key]
    other, _, row = named.partition("/")
    keys = {"same", "cited"} if key == "same" else {"same", "cited", "refit"}
    if other not in raw or row not in raw[other][1]["rows"] or keys & set(raw[other][1]["rows"][row]):
        verb = "is the same as" if key == "same" else "refits"
        raise ValueError(f"row {table}/{name} {verb} {named}, which is no row with a run of its own")
    return other, row


def table(name: str) -> Table:
    """A table by name."""
    check_choice("table", name, tables())
    return tables()[name]


def select(name: str, patterns: Sequence[str] = ()) -> list[Row]:
    """The rows of a table whose names match one of the patterns (such as `caltech101-*`); all of them without one."""
    rows = table(name).rows
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(row.name, pattern) for row in rows):
            check_choice(f"row of {name}", pattern, [row.name for row in rows])
    return [row for row in rows if not patterns or any(fnmatch.fnmatchcase(row.name, p) for p in patterns)]
