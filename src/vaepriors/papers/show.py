"""The papers' numbers beside ours, for the terminal and as Markdown.

The number of a row is the mean over its seeds, and ± its standard error: over the seeds or, for one seed, over the test
examples. Where a run is shorter than the paper's protocol, the row says by how much; such runs are shown only until
there is a complete one. The difference is to the paper's number; in a table without one, it is the mean difference to
another row over the same test examples.
"""

import re
from pathlib import Path
from typing import Any, Literal

from vaepriors.app.choices import markdown_table
from vaepriors.papers.results import Difference, Summary, summarize
from vaepriors.papers.rows import METRICS, Row, Table, table
from vaepriors.papers.short import by_prior

__all__ = ["fill", "markdown"]

MARK = re.compile(
    r"(<!-- table (?P<name>\S+)(?: (?P<only>measured|finished|short))?: begin -->\n).*?(<!-- table (?P=name): end -->)",
    re.DOTALL,
)
HEAD = (
    "row", "metric", "paper", "ours", "difference", "refined", "refined difference", "seeds", "epochs", "hours",
    "hardware",
)  # fmt: skip
OPTIONAL = ("paper", "difference", "refined", "refined difference")  # left out where no row has any
BRIEF = 8  # columns of a table of finished rows: without epochs, hours and hardware
Only = Literal["all", "measured", "finished"]


def format_paper(number: float) -> str:
    """A paper's number, with at least two decimals, as papers have it.

    >>> format_paper(-84.5), format_paper(4.569)
    ('-84.50', '4.569')
    """
    return f"{number:.2f}" if round(number, 2) == number else f"{number}"


def head(table: Table) -> list[str]:
    """`HEAD`, with the table's own name for its column of numbers."""
    return [table.heading if title == "paper" else title for title in HEAD]


def cells(row: Row, summary: Summary | None) -> list[str]:
    """The columns of `HEAD`."""
    metric = METRICS[row.metric]
    paper = "" if row.paper is None else format_paper(row.paper)
    name = row.name + (f" ({row.cited})" if row.cited else "") + (f": {row.note}" if row.note else "")
    if summary is None:
        return [name, metric.title, paper, *[""] * 8]
    digits = metric.digits
    ours = _with_error((summary.value, summary.error), digits)
    difference = _difference(summary.paired, digits, len(summary.seeds))
    if row.paper is not None:
        difference = "" if summary.short else f"{summary.value - row.paper:+.{digits}f}"
    remarks = "; ".join(filter(None, (summary.short, summary.remark)))
    ours += f" ({remarks})" if remarks else ""
    paired = _difference(summary.refined_paired, digits, summary.refined_seeds)
    refined = [_with_error(summary.refined, digits), paired]
    refined[0] += f" ({summary.refined_remark})" if summary.refined_remark else ""
    seeds, hours = f"{len(summary.seeds)}", f"{summary.hours:.2f}"
    return [name, metric.title, paper, ours, difference, *refined, seeds, summary.epochs, hours, summary.hardware]


def _with_error(number: tuple[float, float | None] | None, digits: int) -> str:
    """A number with its standard error; empty without a number."""
    if number is None:
        return ""
    value, error = number
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _difference(difference: Difference | None, digits: int, seeds: int) -> str:
    """A difference with its standard error, and of how many of a row's seeds it is, if not of all."""
    if difference is None:
        return ""
    value, error, number = difference
    of = f" ({number} of {seeds} seeds)" if number < seeds else ""
    return f"{value:+.{digits}f} ± {error:.{digits}f}{of}"


def markdown(table: Table, results: Path, only: Only = "all") -> str:
    """A paper's table in Markdown, with our numbers; the same files give the same text.

    Args:
        table: The table.
        results: Folder of the results.
        only: Which rows: `all`, `measured` (of which there is a result), or `finished` (of which there is a complete
            run); the last in brief, without epochs, hours and hardware.
    """
    rows = [cells(row, summary) for row in table.rows if _is_in(summary := summarize(row, results), only)]
    if not rows:
        return f"No row of it has been {'finished' if only == 'finished' else 'run'} yet.\n"
    same = len({row[1] for row in rows}) == 1
    titles = head(table)[: BRIEF if only == "finished" else None]
    without = {i for i, title in enumerate(HEAD) if title in OPTIONAL and not any(row[i] for row in rows)}
    keep = [i for i in range(len(titles)) if not (same and i == 1) and i not in without]
    caption = f"{table.title} ({table.paper}, {table.source}){f': {rows[0][1]}' if same else ''}."
    return f"{caption}\n\n{markdown_table([titles[i] for i in keep], [[row[i] for i in keep] for row in rows])}\n"


def _is_in(summary: Summary | None, only: Only) -> bool:
    return only == "all" or (summary is not None and (only == "measured" or not summary.short))


def fill(text: str, results: Path) -> str:
    """Fill the tables of a text from the results: each between its two marks, as in
    `<!-- table kth-1: begin -->` and `<!-- table kth-1: end -->`. The first may name the rows to show, as in
    `<!-- table kth-1 measured: begin -->` or `<!-- table kth-1 finished: begin -->` (see `markdown`), or be
    `<!-- table priors short: begin -->` for a table of priors in brief (see `by_prior`).

    Raises:
        ValueError: If there is no such table, or no mark.
    """

    def replace(match: re.Match[str]) -> str:
        only: Any = match["only"] or "all"
        named = table(match["name"])
        return match[1] + (by_prior(named, results) if only == "short" else markdown(named, results, only)) + match[4]

    filled, number = MARK.subn(replace, text)
    if not number:
        raise ValueError("the text has no marks such as <!-- table kth-1: begin --> and <!-- table kth-1: end -->")
    return filled
