"""Recorded results: files of JSON, read and checked, and what they say of a row."""

import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np

from vaepriors.app.records import name_of, values_of
from vaepriors.data import CATALOGUE
from vaepriors.papers.rows import METRICS, Row
from vaepriors.reading import check, read_json, read_npy

__all__ = ["Summary", "read_result", "summarize"]


class Numbers(TypedDict):
    """What was measured, beside the metric of the row."""

    n: int


class Machine(TypedDict):
    """What tables show of a session."""

    hardware: str


class Trained(TypedDict):
    """What tables show of an experiment."""

    data: Literal[tuple(CATALOGUE)]  # type: ignore[valid-type]


class Result(TypedDict):
    """What tables need of a result."""

    seed: int
    complete: bool
    ended: str
    epochs: int
    epochs_planned: int
    hours: float
    experiment: Trained
    sessions: list[Machine]
    found: Numbers


class Difference(NamedTuple):
    """The mean difference to another row, example by example, over the seeds that both have."""

    value: float
    error: float  # standard error
    seeds: int


class Summary(NamedTuple):
    """The results of a row, over its seeds."""

    value: float
    error: float | None  # standard error
    seeds: tuple[int, ...]
    short: str  # how much less than the paper's protocol was done, in words
    remark: str  # what the number must be read together with
    epochs: str
    hours: float  # mean over seeds
    hardware: str
    paired: Difference | None = None  # to the row that it is against
    refined: tuple[float, float | None] | None = None  # the value by refined posteriors, and its standard error
    refined_remark: str = ""
    refined_paired: Difference | None = None
    refined_seeds: int = 0


def read_result(path: Path, *metrics: str) -> dict[str, Any]:
    """The content of a recorded result, which must hold the numbers of these names."""
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


def summarize(row: Row, results: Path) -> Summary | None:
    """What is recorded of a row: its complete results, or else the shorter ones; None if there are none."""
    recorded = _read_results(row, results)
    complete = [result for result in recorded if result["complete"]]
    chosen = complete or recorded
    if not chosen:
        return None
    numbers = [result["found"] for result in chosen]
    refined = [each["refined"] for each in numbers if "refined" in each and METRICS[row.metric].of_likelihood]
    return Summary(
        *_mean(row, numbers),
        tuple(result["seed"] for result in chosen),
        "" if complete else _describe_shortness(chosen),
        _remark(numbers),
        _range([result["epochs"] for result in chosen]),
        statistics.mean(result["hours"] for result in chosen),
        "; ".join(sorted({result["sessions"][-1]["hardware"] for result in chosen})),
        _paired(row, results, bool(complete)),
        _mean(row, refined) if refined else None,
        _remark_refined(row, refined, len(numbers)) if refined else "",
        _paired(row, results, bool(complete), "refined"),
        len(refined),
    )


def _mean(row: Row, numbers: Sequence[dict[str, Any]]) -> tuple[float, float | None]:
    """The mean over seeds of the metric, and its standard error: over seeds, or for one seed over test examples."""
    metric = METRICS[row.metric]
    values = [metric.sign * each[metric.key] for each in numbers]
    if len(values) == 1:
        return values[0], metric.standard_error(numbers[0])
    return statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))


def _remark_refined(row: Row, refined: Sequence[dict[str, Any]], seeds: int) -> str:
    """How many seeds it is of, if not of all, and what draws from the encoder give for the same examples."""
    metric = METRICS[row.metric]
    few = [f"{len(refined)} of {seeds} seeds"] * (len(refined) < seeds)
    values = [metric.sign * each[metric.key] * each["nll_by_is"] / each["nll"] for each in refined]
    return "; ".join([*few, f"by draws from the encoder {statistics.mean(values):.{metric.digits}f}"])


def _paired(row: Row, results: Path, complete: bool, part: str = "") -> Difference | None:
    r"""The mean over test examples n and seeds s of the difference of the metric to the row that it is against.

    The variance of this mean has two parts, of the examples and of the seeds:

    $$\frac{1}{N} \mathrm{Var}_n\, \bar d_n + \frac{1}{S} \mathrm{Var}_s\, \bar d_s$$

    The second is unknown with one seed, and left out. None unless both rows have log p(x) of the same examples, of
    complete runs or of others, as `complete` says.
    """
    if row.against is None or row.against == row.home:
        return None
    ours, theirs = (_read_examples(home, results, complete, part) for home in (row.home, row.against))
    seeds = [seed for seed in ours if seed in theirs and ours[seed][0] == theirs[seed][0]]
    if not seeds:
        return None
    metric, numbers = METRICS[row.metric], ours[seeds[0]][1]
    unit = -metric.sign * numbers[metric.key] / numbers["nll"]  # of the metric in nats
    differences = np.stack([ours[seed][2] - theirs[seed][2] for seed in seeds])  # (S, N)
    variance = differences.mean(0).var(ddof=1) / differences.shape[1]
    if len(seeds) > 1:
        variance += differences.mean(1).var(ddof=1) / len(seeds)
    return Difference(unit * float(differences.mean()), abs(unit) * math.sqrt(variance), len(seeds))


def _read_examples(
    home: tuple[str, str], results: Path, complete: bool, part: str
) -> dict[int, tuple[str, dict[str, Any], np.ndarray]]:
    """By seed of a run, complete or not: digest of its test examples, its numbers, and log p(x) of each example.

    The home is table and name of the row, and the part is `refined`, or empty for all of the numbers.
    """
    table, name = home
    examples = {}
    for path in results.glob(f"{table}/{name}-*.json"):
        seed = path.stem.removeprefix(f"{name}-")
        result = read_result(path) if seed.isdecimal() else {}
        numbers = result["found"] if result.get("complete") is complete else {}
        numbers = numbers.get(part, {}) if part else numbers
        if "examples_digest" not in numbers:  # no such part, or of a version that did not keep the examples
            continue
        values = path.with_name(f"{path.stem}-{values_of(name_of(numbers))}")
        if values.is_file():
            remedy = "restore it, or delete it and its .json"
            array = read_npy(values, numbers["log_likelihood_sha256"], (numbers["n"],), remedy)
            examples[int(seed)] = numbers["examples_digest"], numbers, array
    return examples


def _read_results(row: Row, results: Path) -> list[dict[str, Any]]:
    """All results of a row, by seed."""
    table, name = row.home
    recorded = []
    for path in results.glob(f"{table}/{name}-*.json"):
        if re.fullmatch(r"\d+", path.stem.removeprefix(f"{name}-")):
            recorded.append(read_result(path, METRICS[row.metric].key))
    return sorted(recorded, key=lambda result: result["seed"])


def _describe_shortness(results: Sequence[dict[str, Any]]) -> str:
    parts = []
    if any(result["ended"] == "short" for result in results):
        planned = results[0]["epochs_planned"]
        parts.append(f"{_range([result['epochs'] for result in results])} of {planned} epochs")
    examples = CATALOGUE[results[0]["experiment"]["data"]].form.sizes[2]
    fewest = min(result["found"]["n"] for result in results)
    if fewest < examples:
        parts.append(f"{fewest} of {examples} test examples")
    return ", ".join(parts)


def _remark(numbers: Sequence[dict[str, Any]]) -> str:
    """How often codes go round once while the angle does; which pairs have a path, and how smooth other paths are."""
    winding = [each["winding"] for each in numbers if "winding" in each]
    if len(winding) == 1:
        return f"winding number {winding[0]}"
    if winding:
        return f"winding number ±1 in {sum(abs(each) == 1 for each in winding)} of {len(winding)} seeds"
    paths = [each["interpolation"] for each in numbers if "interpolation" in each]
    if not paths:
        return ""
    resampled, straight = (
        statistics.mean(each["smoothness"][name]["mean"] for each in paths) for name in ("graph_resampled", "straight")
    )
    lost = sum(each["pairs_without_path"] for each in paths)
    total = sum(each["graphs"] * each["pairs"] for each in paths)
    return f"50 points of the path {resampled:.4f}, straight line {straight:.4f}; no path for {lost} of {total} pairs"


def _range(numbers: Sequence[int]) -> str:
    return f"{min(numbers)}" if min(numbers) == max(numbers) else f"{min(numbers)}-{max(numbers)}"
