"""A table of priors in brief: a line for each prior, a column for each data set and model.

A number is the mean difference of log p(x) to the row with the standard prior, in nats, by refined posteriors and over
the same test examples, with its standard error and the number of seeds. Positive is better; the best of a column is
bold. The standard prior has its own log p(x).
"""

import dataclasses
from pathlib import Path

from vaepriors.app.choices import markdown_table
from vaepriors.papers.results import Summary, summarize
from vaepriors.papers.rows import Row, Table
from vaepriors.reading import read_json

__all__ = ["by_prior"]

COSTS = "benchmarks/priors.json"  # in the folder of the results


def by_prior(table: Table, results: Path) -> str:
    """A table of priors in brief, as above; the name of each row is that of its data set, its model and its prior."""
    groups: dict[str, dict[str, Summary]] = {}
    steps = _steps(results)
    costs: dict[str, str] = {}
    for row in table.rows:
        group, prior = _names(row)
        summary = summarize(dataclasses.replace(row, metric="log_likelihood"), results)
        if summary is None or summary.short or summary.refined is None:
            continue
        if row.against not in (None, row.home) and summary.refined_paired is None:
            continue  # its own log p(x) would stand among differences
        groups.setdefault(group, {})[prior] = summary
        assert row.experiment is not None
        costs[prior] = "" if row.refit else steps.get(row.experiment.prior, "")
    best = {group: max(of, key=lambda prior: (of[prior].refined_paired or (0.0,))[0]) for group, of in groups.items()}
    lines = [
        [f"`{prior}`", *(_cell(groups[group].get(prior), prior == best[group]) for group in groups), cost]
        for prior, cost in costs.items()
    ]
    return markdown_table(["prior", *groups, "time of a step"], lines) + "\n" if lines else "No row has been run yet.\n"


def _names(row: Row) -> tuple[str, str]:
    """Data set and model, and prior, of a row."""
    assert row.experiment is not None
    start = f"{row.experiment.data}-{row.experiment.model}-"
    return start.removesuffix("-"), row.name.removeprefix(start)


def _cell(summary: Summary | None, best: bool) -> str:
    if summary is None or summary.refined is None:
        return ""
    if summary.refined_paired is None:
        (value, error), number, sign = summary.refined, summary.refined_seeds, ""
    else:
        (value, error, number), sign = summary.refined_paired, "+"
    text = f"{value:{sign}.2f}" + ("" if error is None else f" ± {error:.2f}")
    seeds = "" if number == 1 else f" ({number} seeds)"
    return (f"**{text}**" if best else text) + seeds


def _steps(results: Path) -> dict[str, str]:
    """The recorded time of a training step with each prior, as a multiple of that with the standard one."""
    path = results / COSTS
    if not path.is_file():
        return {}
    cases = read_json(path, dict, "restore it, or run benchmarks/priors.py again")["cases"]
    return {case["prior"]: f"{case['ratio']:.1f}" for case in cases}
