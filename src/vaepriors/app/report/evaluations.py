"""The section about the likelihood."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from vaepriors.app.files import spaced
from vaepriors.app.records import Record, examples_in_words, method_in_words, without_examples
from vaepriors.app.report import figures, page
from vaepriors.app.report.page import Part, drawn, sheet
from vaepriors.app.report.pictures import grid, tones
from vaepriors.app.report.subject import Subject
from vaepriors.words import counted

__all__ = ["likelihood", "likelihood_of"]


def likelihood(subject: Subject) -> Iterator[Part]:
    """log p(x) of the first evaluation, its examples, and the other evaluations."""
    if not subject.records:
        yield f"Not evaluated yet: run {subject.command}."
        return
    record, *others = subject.records
    result, values = record.result, record.log_likelihood
    yield (
        f"By {method_in_words(result)} for each of {counted(result['n'], 'example')} ({examples_in_words(result)}); "
        f"effective samples {result['effective_samples_mean']:.1f} on average, and "
        f"{result['effective_samples_min']:.1f} for the example with fewest."
    )
    yield from (_gap(each.result) for each in subject.records if "gap" in each.result)
    if values is not None:
        yield from _likelihood_pictures(subject, result, values)
    elif subject.run is not None:
        yield without_examples(subject.run, record)
    if others:
        yield _evaluations(subject.records)


def likelihood_of(result: dict[str, Any]) -> str:
    """log p(x) of an evaluation with its standard error, in nats."""
    error = "" if result["nll_se"] is None else f" ± {result['nll_se']:.2f}"
    return f"{-result['nll']:.2f}{error}"


def _gap(result: dict[str, Any]) -> str:
    error = "" if result["gap_se"] is None else f" ± {result['gap_se']:.2f}"
    return (
        f"By {method_in_words(result)}, the bounds on log p(x) from both sides are {result['gap']:.2f}{error} nats "
        f"apart on average, on {counted(result['simulated'], 'example')} that the model has drawn."
    )


def _evaluations(records: list[Record]) -> page.Table:
    rows = [
        [
            record.name,
            likelihood_of(record.result),
            examples_in_words(record.result),
            str(record.result["n"]),
            method_in_words(record.result),
            str(record.result["seed"]),
            f"{record.result['effective_samples_mean']:.1f}",
        ]
        for record in records
    ]
    head = ["file", "log p(x), nats", "split or file", "examples", "by", "seed", "effective samples"]
    return page.Table("evaluations of this model", rows, head)


def _likelihood_pictures(subject: Subject, result: dict[str, Any], values: np.ndarray) -> Iterator[page.Picture]:
    yield drawn(
        "likelihood",
        figures.histogram({"log p(x)": values}),
        f"Histogram of log p(x) of {len(values)} examples, from {values.min():.1f} to {values.max():.1f} nats, "
        f"with its mean at {values.mean():.1f}.",
        "log p(x) of each example; dashed: the mean.",
    )
    if not subject.data.has_images or result["split"] != "test" or len(values) > len(subject.tested):
        return
    places = spaced(len(values), len(subject.tested)) if result.get("spaced") else torch.arange(len(values))
    order, shown = np.argsort(values), min(10, len(values))
    for name, rows in (("hardest", order[:shown]), ("easiest", order[::-1][:shown])):
        numbers = ", ".join(f"{values[row]:.1f}" for row in rows)
        alt = f"The {shown} {name} examples, log p(x) from left to right {numbers}."
        images = grid(tones(subject.tested[places[rows.copy()]], subject.data), shown)
        yield sheet(name, images, alt, f"The {name}: {numbers} nats.")
