"""Paper beside ours: what has been recorded of a table, for the terminal and as Markdown.

A row's number is the mean over its seeds. What stands behind it as ± is its standard error: over the seeds, or over the
test examples if there is but one. Where a run is short of the paper's protocol, the row says by how much; such runs are
shown only as long as there is no whole one.
"""

import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vaepriors.data import CATALOGUE
from vaepriors.papers.rows import METRICS, Row, Table, tables
from vaepriors.papers.work import read_result

__all__ = ["Shown", "fill", "markdown", "shown"]

MARK = re.compile(
    r"(<!-- table (?P<name>\S+)(?: (?P<only>measured|finished))?: begin -->\n).*?(<!-- table (?P=name): end -->)",
    re.DOTALL,
)
HEAD = ("row", "metric", "paper", "ours", "difference", "seeds", "epochs", "hours", "hardware")
BRIEF = 6  # columns of a table of finished rows: without epochs, hours and hardware
Only = Literal["all", "measured", "finished"]


class Shown(NamedTuple):
    """What is recorded of a row."""

    value: float
    error: float | None  # standard error
    seeds: tuple[int, ...]
    short: str  # what it lacks to the paper's protocol, in words
    winding: str  # of the pendulum's angle, in words: an error is read together with it
    epochs: str
    hours: float  # mean over seeds
    hardware: str


def shown(row: Row, results: Path) -> Shown | None:
    """The recorded number of a row, or None.

    Raises:
        ValueError: If a file of the results cannot be read.
    """
    recorded = _recorded(row, results)
    whole = [result for result in recorded if result["complete"]]
    chosen = whole or recorded
    if not chosen:
        return None
    metric = METRICS[row.metric]
    values = [metric.sign * result["found"][metric.key] for result in chosen]
    found = chosen[0]["found"]
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
    elif found.get("nll_se") is None or row.metric in ("elbo", "active_units"):
        error = None
    else:
        error = abs(found["nll_se"] * found[metric.key] / found["nll"])  # the same in bits
    return Shown(
        statistics.mean(values),
        error,
        tuple(result["seed"] for result in chosen),
        "" if whole else _short(chosen),
        _winding([result["found"]["winding"] for result in chosen if "winding" in result["found"]]),
        _range([result["epochs"] for result in chosen]),
        statistics.mean(result["hours"] for result in chosen),
        "; ".join(sorted({result["sessions"][-1]["hardware"] for result in chosen})),
    )


def _recorded(row: Row, results: Path) -> list[dict[str, Any]]:
    table, name = row.home
    found = []
    for path in results.glob(f"{table}/{name}-*.json"):
        if re.fullmatch(r"\d+", path.stem.removeprefix(f"{name}-")):
            found.append(read_result(path, METRICS[row.metric].key))
    return sorted(found, key=lambda result: result["seed"])


def _short(results: Sequence[dict[str, Any]]) -> str:
    parts = []
    if any(result["ended"] == "short" for result in results):
        planned = results[0]["epochs_planned"]
        parts.append(f"{_range([result['epochs'] for result in results])} of {planned} epochs")
    examples = CATALOGUE[results[0]["experiment"]["data"]].form.sizes[2]
    fewest = min(result["found"]["n"] for result in results)
    if fewest < examples:
        parts.append(f"{fewest} of {examples} test examples")
    return ", ".join(parts)


def _winding(numbers: Sequence[int]) -> str:
    """How often codes go round once while the angle does; nothing where it is not recorded."""
    if len(numbers) == 1:
        return f"winding number {numbers[0]}"
    return f"winding number ±1 in {sum(abs(n) == 1 for n in numbers)} of {len(numbers)} seeds" if numbers else ""


def _range(numbers: Sequence[int]) -> str:
    return f"{min(numbers)}" if min(numbers) == max(numbers) else f"{min(numbers)}-{max(numbers)}"


def printed(number: float) -> str:
    """A paper's number, with two decimals at the least, as papers have it.

    >>> printed(-84.5), printed(4.569)
    ('-84.50', '4.569')
    """
    return f"{number:.2f}" if round(number, 2) == number else f"{number}"


def head(table: Table) -> list[str]:
    """`HEAD`, with the table's own name for its column of numbers."""
    return [table.heading if title == "paper" else title for title in HEAD]


def cells(row: Row, found: Shown | None) -> list[str]:
    """The columns of `HEAD`."""
    metric = METRICS[row.metric]
    paper = "" if row.paper is None else printed(row.paper)
    name = row.name + (f" ({row.cited})" if row.cited else "") + (f": {row.note}" if row.note else "")
    if found is None:
        return [name, metric.title, paper, *[""] * 6]
    digits = metric.digits
    ours = f"{found.value:.{digits}f}" + ("" if found.error is None else f" ± {found.error:.{digits}f}")
    difference = "" if row.paper is None or found.short else f"{found.value - row.paper:+.{digits}f}"
    seeds = f"{len(found.seeds)}"
    hours = f"{found.hours:.2f}"
    remarks = "; ".join(filter(None, (found.short, found.winding)))
    ours += f" ({remarks})" if remarks else ""
    return [name, metric.title, paper, ours, difference, seeds, found.epochs, hours, found.hardware]


def markdown(table: Table, results: Path, only: Only = "all") -> str:
    """A table in Markdown: the same files give the same text.

    Args:
        table: The table.
        results: Folder of the results.
        only: Which rows: `all`, `measured` (of which there is a result), or `finished` (of which there is a complete
            run); the last in brief, without epochs, hours and hardware.
    """
    rows = [cells(row, each) for row in table.rows if _is_in(each := shown(row, results), only)]
    if not rows:
        return f"No row of it has been {'finished' if only == 'finished' else 'run'} yet.\n"
    same = len({row[1] for row in rows}) == 1
    titles = head(table)[: BRIEF if only == "finished" else None]
    keep = [i for i in range(len(titles)) if not (same and i == 1)]
    lines = [f"{table.title} ({table.paper}, {table.source}){f': {rows[0][1]}' if same else ''}.", ""]
    lines.append("| " + " | ".join(titles[i] for i in keep) + " |")
    lines.append("|" + "---|" * len(keep))
    lines += ["| " + " | ".join(row[i] for i in keep) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _is_in(found: Shown | None, only: Only) -> bool:
    return only == "all" or (found is not None and (only == "measured" or not found.short))


def fill(text: str, results: Path) -> str:
    """A text with its tables as the results have them: each between its two marks, as in
    `<!-- table kth-1: begin -->` and `<!-- table kth-1: end -->`. The first may name the rows to show, as in
    `<!-- table kth-1 measured: begin -->` or `<!-- table kth-1 finished: begin -->` (see `markdown`).

    Raises:
        ValueError: If there is no such table, or no mark at all.
    """

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in tables():
            raise ValueError(f"there is no table {name}: choose one of {', '.join(tables())}")
        only: Any = match["only"] or "all"
        return match[1] + markdown(tables()[name], results, only) + match[4]

    filled, number = MARK.subn(replace, text)
    if not number:
        raise ValueError("no mark such as <!-- table kth-1: begin --> ... <!-- table kth-1: end --> was found")
    return filled
