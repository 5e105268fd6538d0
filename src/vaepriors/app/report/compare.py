"""Runs side by side: what is measured of each, a table of it, and sentences about the table."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaepriors.analysis import Surgery, diagnose
from vaepriors.app.evaluation import digest_of
from vaepriors.app.evaluation.normalizer import hold_seeded_prior
from vaepriors.app.measure import is_discrete
from vaepriors.app.records import (
    OPTIONS,
    Record,
    command,
    examples_in_words,
    few_samples,
    method_in_words,
    records_of,
    without_examples,
)
from vaepriors.app.report import page
from vaepriors.app.report.evaluations import likelihood_of
from vaepriors.app.report.likelihoods import (
    Measure,
    by_kind,
    common_kind,
    measure_in_words,
    measure_of,
    paired_difference,
)
from vaepriors.app.report.page import sheet
from vaepriors.app.report.pictures import draw, grid, tones
from vaepriors.app.report.subject import as_conditions, levels_of, look
from vaepriors.app.run import Run
from vaepriors.conditional import AnyVAE
from vaepriors.data import Dataset
from vaepriors.likelihood import Estimate, estimate
from vaepriors.limits import at_least_one
from vaepriors.numerics import seed_of
from vaepriors.words import counted

__all__ = ["COLUMNS", "Compared", "compare", "notes", "notes_on_elbos", "rows", "values_in"]

COLUMNS = (
    "run", "log p(x)", "difference", "ELBO", "rate", "distortion", "active units", "epoch", "data", "model", "prior",
    "K",
)  # fmt: skip


class Compared(NamedTuple):
    """What is compared of a run."""

    run: Run
    which: str
    name: str
    experiment: Any
    epoch: int
    record: Record | None  # the evaluation of the model
    comparable: bool  # with those of the other runs
    measure: Measure  # what log p(x) is of
    test: str  # digest of the test examples that are measured
    stale: list[str]  # sentences about evaluations of other models
    elbo: Estimate  # of the test examples, with one draw each
    surgery: Surgery | None  # of the same examples in all runs
    activity: dict[str, torch.Tensor]
    samples: page.Picture | None


def _draws(model: AnyVAE, data: Dataset, name: str, place: int) -> page.Picture | None:
    """Images drawn from a model, if the data are images."""
    if not data.has_images:
        return None
    images, _ = draw(model, data, 32)
    return sheet(f"samples-{place}", grid(tones(images, data), 16), f"32 images drawn from {name}.", name)


@torch.no_grad()
def compare(
    runs: Sequence[Run],
    number: int = 2000,
    which: str = "best",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Compared]:
    """Look at each run.

    Args:
        runs: At least two.
        number, which, seed: As for `vaepriors compare`.
        progress: Called with the number of runs done and their total.
    """
    if len(runs) < 2:
        raise ValueError(f"compare needs at least two runs, not {len(runs)}: name more folders")
    at_least_one(number=number)
    names = _names([run.folder for run in runs])
    models = []
    for run in runs:  # a mistake in the last run is reported before the first is measured
        data = run.dataset()
        model, values = run.model(data, which)
        records, stale = records_of(run, model, values["epoch"], which)
        measure = measure_of(run.experiment(), data, is_discrete(model, data))
        models.append((data, model, values["epoch"], measure, by_kind(records, measure), stale))
    kind = common_kind([kinds for *_, kinds, _ in models])
    most_levels = max(_levels(data, model) for data, model, *_ in models)
    compared = []
    for done, (run, name, (data, model, epoch, measure, kinds, stale)) in enumerate(
        zip(runs, names, models, strict=True), 1
    ):
        x, condition, groups, *_ = data.few_test(number)
        test = digest_of(x, condition)
        x = x.to(next(model.parameters()))
        elbo = _elbo(model, x, condition, seed)
        latent = look(model, x, seed=seed, condition=condition, groups=groups, most_levels=most_levels)
        record = kinds.get(kind) or next(iter(kinds.values()), None)
        compared.append(
            Compared(
                run, which, name, run.experiment(), epoch, record, kind in kinds, measure, test, stale,
                elbo, latent.surgery, latent.activity, _draws(model, data, name, done),
            )
        )  # fmt: skip
        progress(done, len(runs))
    return compared


def _elbo(model: AnyVAE, x: Tensor, condition: Tensor | None, seed: int) -> Estimate:
    """The ELBO by one draw each: the same z for all models with one encoder, also if their priors draw when called."""
    known = hold_seeded_prior(model, seed)
    torch.manual_seed(seed_of(seed, "report"))
    return estimate(known, x, samples=1, condition=as_conditions(condition, x))


def _levels(data: Dataset, model: AnyVAE) -> int:
    x = data.test[:1]
    return len(levels_of(model, x, as_conditions(data.conditions.get("test"), x)))


def _names(folders: list[Path]) -> list[str]:
    """The shortest ends of their paths that tell them apart."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ValueError("a run is named twice: name different runs")
    length = next(n for n in range(1, 100) if len({path.parts[-n:] for path in paths}) == len(paths))
    return ["/".join(path.parts[-length:]) for path in paths]


def rows(compared: Sequence[Compared]) -> list[list[str]]:
    """The columns of `COLUMNS` for each run: empty where unknown. `notes` has the numbered remarks."""
    table, apart = [], _apart(compared)
    for each in compared:
        experiment = each.experiment
        units = ", ".join(f"{name} {int((v > 0.01).sum())}/{len(v)}" for name, v in each.activity.items())
        numbers = (each.elbo.elbo, each.elbo.rate, each.elbo.distortion)
        remark = f" ({apart.index(each.name) + 1})" if each.name in apart else ""
        table.append(
            [
                each.name,
                "" if each.record is None else f"{likelihood_of(each.record.result)}{remark}",
                _difference(each, _reference(compared)),
                *(f"{number.mean().item():.2f}" for number in numbers),
                units,
                str(each.epoch),
                Path(experiment.data).name,
                experiment.model,
                experiment.prior,
                "" if experiment.components is None else str(experiment.components),
            ]
        )
    return table


def _apart(compared: Sequence[Compared]) -> list[str]:
    """Runs whose evaluation does not compare with the others'."""
    return [each.name for each in compared if each.record is not None and not each.comparable]


def _reference(compared: Sequence[Compared]) -> Compared | None:
    """The first run that has log p(x) of each of the common examples."""
    return next((each for each in compared if values_in(each) is not None), None)


def values_in(each: Compared) -> np.ndarray | None:
    return each.record.log_likelihood if each.record is not None and each.comparable else None


def _difference(each: Compared, reference: Compared | None) -> str:
    values, others = values_in(each), None if reference is None else values_in(reference)
    if values is None or others is None or each is reference:
        return ""
    mean, error = paired_difference(values, others)
    return f"{mean:+.2f}" + ("" if error is None else f" ± {error:.2f}")


def notes(compared: Sequence[Compared]) -> list[str]:
    """Sentences about the numbers in the table."""
    sentences = ["log p(x), ELBO, rate and distortion in nats; the last three on test examples, with one draw each."]
    sentences += _notes_on_kinds(compared)
    sentences += [f"{each.name}: {sentence}" for each in compared for sentence in each.stale]
    for each in compared:
        if each.record is not None:
            if each.record.log_likelihood is None:
                sentences.append(f"{each.name}: {without_examples(each.run, each.record)}")
            few = diagnose({}, effective_samples=few_samples(each.record.result))
            sentences += [f"{each.name}: {sentence}" for sentence in few]
    return sentences + notes_on_elbos(compared)


def notes_on_elbos(compared: Sequence[Compared]) -> list[str]:
    """Why ELBO, rate and distortion do not compare, if they do not."""
    if len({each.test for each in compared}) > 1:
        return ["ELBO, rate and distortion do not compare: they are of different test examples, or conditions."]
    if len({each.measure for each in compared}) > 1:
        words = ", ".join(f"{each.name} ({measure_in_words(each.measure)})" for each in compared)
        return [f"ELBO and distortion do not compare: they are of different likelihoods, {words}."]
    return []


def _notes_on_kinds(compared: Sequence[Compared]) -> list[str]:
    """Which evaluations the table shows, which of them do not compare, and which are missing."""
    first = next((each for each in compared if each.record is not None and each.comparable), None)
    common = None if first is None else first.record
    if first is None or common is None:
        return _missing(compared, {})
    sentences, reference = [f"log p(x) is {_words(common)}."], _reference(compared)
    if reference is not None and sum(values_in(each) is not None for each in compared) > 1:
        sentences.append(
            f"difference is the mean of log p(x) minus that of {reference.name} over the same examples, with its "
            "standard error."
        )
    sentences += _notes_on_prior_samples(compared)
    apart = ("checkpoint", "prior_samples")
    options = {name: value for name, value in common.result.items() if name in OPTIONS and name not in apart}
    by_name = {each.name: each for each in compared}
    for number, name in enumerate(_apart(compared), 1):
        sentences.append(f"({number}) {name} does not compare with the others: {_why(by_name[name], first, options)}")
    return sentences + _missing(compared, options)


def _notes_on_prior_samples(compared: Sequence[Compared]) -> list[str]:
    """That the densities of VHPs are estimated by different numbers of draws, if they are."""
    records = {each.name: each.record for each in compared if each.record is not None and each.comparable}
    numbers = {name: n for name, record in records.items() if (n := record.result["prior_samples"]) is not None}
    if len(set(numbers.values())) < 2:
        return []
    words = ", ".join(f"{number} of {name}" for name, number in numbers.items())
    return [
        f"The density of the prior vhp is estimated from different numbers of draws, {words}; with fewer draws "
        "log p(x) is lower."
    ]


def _why(each: Compared, first: Compared, options: dict[str, Any]) -> str:
    """Why an evaluation does not compare with that of the first run that does."""
    assert each.record is not None
    assert first.record is not None
    if each.measure != first.measure:
        own, other = measure_in_words(each.measure), measure_in_words(first.measure)
        return "its columns have other kinds." if own == other else f"its likelihood is of {own}, not of {other}."
    others = each.test != first.test and "file" not in first.record.result  # no evaluation mends that
    if others or _words(each.record) == _words(first.record):
        return "its examples are not the same, or their conditions are not."
    return f"it is {_words(each.record)}. Run {command(each.run, {**options, 'checkpoint': each.which})}."


def _missing(compared: Sequence[Compared], options: dict[str, Any]) -> list[str]:
    lines = [
        f"{each.name} ({command(each.run, {**options, 'checkpoint': each.which})})"
        for each in compared
        if each.record is None and not each.stale
    ]
    return [f"Not evaluated yet: {', '.join(lines)}."] if lines else []


def _words(record: Record) -> str:
    result = record.result
    examples = f"{counted(result['n'], 'example')} ({examples_in_words(result)})"
    return f"of {examples} by {method_in_words(result)}, seed {result['seed']}"
