"""`report.html` of a run: one page with everything that is known of it, and a sentence for what is missing."""

import dataclasses
import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from vaepriors.analysis import Surgery, activity, diagnose, divergence_of_units, levels, responsibilities
from vaepriors.app.evaluation import summary
from vaepriors.app.origin import Origin, measure_surgery, origin
from vaepriors.app.records import Record, command, few_samples, method_in_words, records_of, without_examples
from vaepriors.app.report import figures, page
from vaepriors.app.report.conditions import conditions
from vaepriors.app.report.curves import curves
from vaepriors.app.report.page import Opening, Part, drawn, sheet
from vaepriors.app.report.pictures import draw, grid, reconstructions
from vaepriors.app.run import Run
from vaepriors.conditional import AnyVAE, batches, given
from vaepriors.data import Dataset
from vaepriors.distributions import point_estimate
from vaepriors.likelihood import Estimate, estimate
from vaepriors.limits import at_least_one
from vaepriors.networks.mixed import Column
from vaepriors.numerics import fixed_numerics, seed_of
from vaepriors.priors import TwoLevelPrior, VampPrior
from vaepriors.reading import read_json
from vaepriors.vae import eval_mode

__all__ = ["Latent", "limits", "look", "report", "write_report"]

PSEUDO = 48  # pseudo-inputs shown
GENERATED = 16  # images of each
COLUMNS = 24  # of a table shown


class Latent(NamedTuple):
    """What the latent space of a run does."""

    activity: dict[str, Tensor]  # variance of the posterior mean of each unit, by level
    divergence: dict[str, Tensor]  # of each unit from the prior, in nats, by level
    surgery: Surgery | None  # None with fewer than two examples
    number: int  # of examples in the surgery


@torch.no_grad()
def look(
    model: AnyVAE,
    x: Tensor,
    train: Tensor | None = None,
    seed: int = 0,
    *,
    condition: Tensor | None = None,
    train_condition: Tensor | None = None,
    groups: Tensor | None = None,
) -> Latent:
    """Measure a latent space.

    Args:
        model: The model.
        x: Examples, whose units are measured.
        train: Examples of the surgery, which needs many of them: x unless given.
        seed: Seed of the surgery's draws.
        condition, train_condition: The y of each x, for a `ConditionalVAE`.
        groups: The class of each example of the surgery (see `elbo_surgery`).
    """
    y = _as(condition, x)
    where = _levels(model, x, y)
    variances = activity(model, x, condition=y) if len(x) > 1 else None
    examples, of_examples = (x, y) if train is None else (train, train_condition)
    groups = None if groups is None else groups[: len(examples)]
    return Latent(
        {} if variances is None else {name: variances[place] for name, place in where.items()},
        divergence_of_units(model, x[:1000], condition=y),
        *measure_surgery(model, examples, seed, of_examples, groups),
    )


def _as(condition: Tensor | None, x: Tensor) -> Tensor | None:
    """The conditions of the first points of a split, of their type and device."""
    return None if condition is None else condition[: len(x)].to(x)


def _levels(model: AnyVAE, x: Tensor, y: Tensor | None) -> dict[str, slice]:
    at, one = next(batches(model, x, y, 1))
    return levels(at.encoder(one))


class _Subject(NamedTuple):
    """What the sections of a report are made from."""

    name: str
    model: AnyVAE
    data: Dataset
    x: Tensor  # test examples
    y: Tensor | None  # their conditions
    elbo: Estimate  # of these
    latent: Latent
    metrics: list[dict[str, Any]]
    records: list[Record]  # evaluations of this model
    command: str = ""  # that evaluates it
    epochs: int = 0  # planned
    implied: int = 0  # draws of the importance-weighted posterior to show; none for 0
    run: Run | None = None


@fixed_numerics()
@torch.no_grad()
def report(
    model: AnyVAE,
    data: Dataset,
    out: Path | str,
    *,
    metrics: Sequence[dict[str, Any]] = (),
    samples: int = 1000,
    number: int = 2000,
    seed: int = 0,
) -> list[Path]:
    """Write a page about any trained model: likelihoods, draws, pseudo-inputs, the latent space.

    Args:
        model: The model.
        data: Its data; the test examples are measured, and the parts of the ELBO on the training set.
        out: The page, a file that ends in .html; its pictures go into a folder of the same name beside it.
        metrics: The lines of the training (`Outcome.metrics`), for its curves.
        samples: Draws of z for each example in log p(x).
        number: The most test examples to measure.
        seed: Seed of all draws.

    Returns:
        The page and the folder.

    Raises:
        ValueError: If `out` does not end in .html, or `number` or `samples` is less than 1.
    """
    path = Path(out)
    if path.suffix != ".html":
        raise ValueError(f"out is {path}: give a file that ends in .html")
    at_least_one(number=number, samples=samples)
    with eval_mode(model), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "report"))
        parameter = next(model.parameters())
        x = data.test[:number].to(parameter)
        y = _as(data.conditions.get("test"), x)
        estimates = estimate(model, x, samples, condition=y)
        result = {"split": "test", "samples": samples, "seed": seed, **summary(estimates, data)}
        record = Record("", result, estimates.log_likelihood.cpu().numpy())
        elbo, latent = _measure(model, data, x, seed)
        subject = _Subject(data.name, model, data, x, y, elbo, latent, list(metrics), [record])
        sections = page.sections(_parts(subject))
    sentences = diagnose(latent.activity, latent.surgery, result["effective_samples_mean"])
    parameters = sum(p.numel() for p in model.parameters())
    text = page.render(data.name, f"{parameters:,} parameters.", _numbers(subject), sentences, sections)
    return page.write(path, text, sections)


def _measure(model: AnyVAE, data: Dataset, x: Tensor, seed: int) -> tuple[Estimate, Latent]:
    """The ELBO of test examples by one draw each, and the latent space."""
    train, of_train, groups = data.fixed_train()
    y = data.conditions.get("test")
    latent = look(model, x, train, seed, condition=y, train_condition=of_train, groups=groups)
    return estimate(model, x, samples=1, condition=_as(y, x)), latent


@torch.no_grad()
def write_report(
    run: Run,
    number: int = 2000,
    which: str = "best",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write report.html into the run's folder, and its pictures into the folder report beside it.

    Args:
        run: The run; its training may not be finished, and it may not be evaluated.
        number, which, seed: As for `vaepriors report`. The ELBO's parts are those of the training set.
        progress: Called with the number of sections done and their total.

    Returns:
        The page and the folder.

    Raises:
        ValueError: If there is no run, or no model of it yet.
    """
    at_least_one(number=number)
    data = run.dataset()
    model, values = run.model(data, which)
    torch.manual_seed(seed_of(seed, "report"))
    x = data.test[:number].to(next(model.parameters()))
    records, stale = records_of(run, model, values["epoch"], which)
    metrics, *_ = run.metrics(), interpolated(run), origin(run)  # damaged files are refused before the work
    elbo, latent = _measure(model, data, x, seed)
    experiment, renewal = run.experiment(), command(run, {"checkpoint": which})
    implied = experiment.samples if experiment.objective == "iwae" else 0
    y = _as(data.conditions.get("test"), x)
    subject = _Subject(
        run.folder.name, model, data, x, y, elbo, latent, metrics, records, renewal, experiment.epochs, implied, run
    )
    sections = page.sections(_parts(subject), progress)
    title = f"{experiment.model}, {experiment.prior} prior, {Path(experiment.data).name}"
    title += f", given {experiment.condition}" if experiment.condition else ""
    subtitle = f"Model of epoch {values['epoch']} ({which}) of {len(subject.metrics)}, seed {experiment.seed}."
    effective = few_samples(records[0].result) if records else None
    sentences = stale + diagnose(subject.latent.activity, subject.latent.surgery, effective)
    text = page.render(title, subtitle, _numbers(subject), sentences, sections)
    return page.write(run / "report.html", text, sections)


def interpolated(run: Run) -> dict[str, Any] | None:
    """The result of `interpolate`; None if it has not been called.

    Raises:
        ValueError: If the file is damaged.
    """
    file, remedy = run / "interpolation.json", f"interpolate again: {_command('interpolate', run)}"
    return read_json(file, Measured, remedy, more=True) if file.is_file() else None


class Smoothness(TypedDict):
    """Over pairs."""

    mean: float
    sd: float


class Measured(TypedDict):
    """What a report needs of interpolation.json."""

    nodes: int
    neighbors: int
    graphs: int
    pairs: int
    pairs_without_path: int
    smoothness: dict[Literal["graph", "graph_resampled", "straight"], Smoothness]


def _numbers(subject: _Subject) -> list[tuple[str, str]]:
    numbers, elbo = [], subject.elbo
    if subject.records:
        result = subject.records[0].result
        numbers.append((f"log p(x), {result['split']}, nats", likelihood_of(result)))
        if result["bits_per_dim"] is not None and subject.data.likelihood == "logistic256":
            numbers.append(("bits per dimension", f"{result['bits_per_dim']:.3f}"))
    for name, values in (("ELBO", elbo.elbo), ("rate", elbo.rate), ("distortion", elbo.distortion)):
        numbers.append((f"{name}, test, nats", f"{values.mean().item():.2f}"))
    for name, values in subject.latent.activity.items():
        numbers.append((f"active units of {name}", f"{int((values > 0.01).sum())} of {len(values)}"))
    return numbers


def _parts(subject: _Subject) -> dict[tuple[str, str], Iterator[Part]]:
    """What the sections hold, by key and title; those about a folder are empty without one."""
    return {
        ("training", "Training"): _training(subject),
        ("likelihood", "Likelihood"): _likelihood(subject),
        ("samples", "Draws of the model"): _samples(subject),
        ("conditions", "Conditions"): conditions(subject.model, subject.data, subject.x),
        ("pseudo-inputs", "Pseudo-inputs"): _pseudo_inputs(subject),
        ("units", "Active units"): _units(subject),
        ("elbo", "The ELBO in parts"): _elbo(subject),
        ("codes", "Codes and prior"): _codes(subject),
        ("interpolations", "Interpolations"): _interpolations(subject),
        ("experiment", "Experiment"): _experiment(subject),
    }


def _training(subject: _Subject) -> Iterator[Part]:
    if not subject.metrics:
        if subject.run is not None:
            yield "No epoch has ended yet."
        return
    last = subject.metrics[-1]
    best = min(subject.metrics, key=lambda line: line["valid_loss"])
    epochs = "1 epoch" if len(subject.metrics) == 1 else f"{len(subject.metrics)} epochs"
    duration = duration_in_words(sum(line["seconds"] for line in subject.metrics))
    yield (
        f"{epochs} in {duration}. The best validation loss is {best['valid_loss']:.2f} "
        f"nats, of epoch {best['epoch']}; the last one {last['valid_loss']:.2f}."
    )
    if len(subject.metrics) < subject.epochs:
        yield "The training ended before the last epoch: stopped early, interrupted, or still running."
    names = "losses, rate, distortion" + (", the weight of the divergence" if "beta" in last else "")
    yield drawn("training", curves(subject.metrics), f"Curves over the epochs: {names}.", f"By epoch: {names}.")


def likelihood_of(result: dict[str, Any]) -> str:
    """log p(x) of an evaluation with its standard error, in nats."""
    error = "" if result["nll_se"] is None else f" ± {result['nll_se']:.2f}"
    return f"{-result['nll']:.2f}{error}"


def _likelihood(subject: _Subject) -> Iterator[Part]:
    if not subject.records:
        yield f"Not evaluated yet: run {subject.command}."
        return
    record, *others = subject.records
    result, values = record.result, record.log_likelihood
    yield (
        f"By {method_in_words(result)} for each of {result['n']} examples ({result['split']}); effective "
        f"samples {result['effective_samples_mean']:.1f} on average, and {result['effective_samples_min']:.1f} for the "
        "example with fewest."
    )
    yield from (_gap(each.result) for each in subject.records if "gap" in each.result)
    if values is not None:
        yield from _likelihood_pictures(subject, result["split"], values)
    elif subject.run is not None:
        yield without_examples(subject.run, record)
    if others:
        yield _evaluations(subject.records)


def _gap(result: dict[str, Any]) -> str:
    error = "" if result["gap_se"] is None else f" ± {result['gap_se']:.2f}"
    return (
        f"By {method_in_words(result)}, the bounds on log p(x) from both sides are {result['gap']:.2f}{error} nats "
        f"apart on average, on {result['simulated']} examples that the model has drawn."
    )


def _evaluations(records: list[Record]) -> page.Table:
    rows = [
        [
            record.name,
            likelihood_of(record.result),
            *[str(record.result[name]) for name in ("split", "n")],
            method_in_words(record.result),
            str(record.result["seed"]),
            f"{record.result['effective_samples_mean']:.1f}",
        ]
        for record in records
    ]
    head = ["file", "log p(x), nats", "split", "examples", "by", "seed", "effective samples"]
    return page.Table("evaluations of this model", rows, head)


def _likelihood_pictures(subject: _Subject, split: str, values: np.ndarray) -> Iterator[page.Picture]:
    yield drawn(
        "likelihood",
        figures.histogram({"log p(x)": values}),
        f"Histogram of log p(x) of {len(values)} examples, from {values.min():.1f} to {values.max():.1f} nats, "
        f"with its mean at {values.mean():.1f}.",
        "log p(x) of each example; dashed: the mean.",
    )
    if not subject.data.has_images or split != "test" or len(values) > len(subject.data.test):
        return
    order, shown = np.argsort(values), min(10, len(values))
    for name, rows in (("hardest", order[:shown]), ("easiest", order[::-1][:shown])):
        numbers = ", ".join(f"{values[row]:.1f}" for row in rows)
        alt = f"The {shown} {name} examples, log p(x) from left to right {numbers}."
        yield sheet(name, grid(subject.data.test[rows.copy()], shown), alt, f"The {name}: {numbers} nats.")


def _samples(subject: _Subject) -> Iterator[Part]:
    model, x = subject.model, subject.x
    number = 64 if subject.data.has_images else 500
    drawn_x, _ = draw(model, subject.data, number)
    if subject.data.columns:
        yield from _columns(subject.data, x, drawn_x)
        return
    if not subject.data.has_images:
        alt = "Mean and standard deviation of each coordinate, of test examples and of draws of the model."
        yield "The data are vectors, not images: their coordinates are compared."
        yield drawn("samples", figures.coordinates(x, drawn_x), alt, alt)
        return
    yield sheet("samples", grid(drawn_x, 16), "64 images drawn from the model.", "Drawn from the prior, decoded.")
    alt = "Test examples, each above its reconstruction."
    yield sheet("reconstructions", reconstructions(model, x[:20], subject.y), alt, alt)


def _columns(data: Dataset, x: Tensor, drawn_x: Tensor) -> Iterator[Part]:
    """The marginals of the columns of a table, in the test examples and in draws of the model."""
    shown = data.columns[:COLUMNS]
    yield f"The data are a table: {len(shown)} of its {len(data.columns)} columns are compared."
    alt = "Histograms of columns: test examples in blue, draws of the model in orange."
    yield drawn("samples", figures.marginals(shown, x, drawn_x), alt, alt)
    rows = []
    for place, column in enumerate(shown):
        cells = [each[:, place] for each in (x, drawn_x)]
        missing = f"{cells[0].isnan().double().mean().item():.1%}"
        rows.append([column.name, column.kind, *(_marginal(each[~each.isnan()], column) for each in cells), missing])
    yield page.Table("columns", rows, ["column", "kind", "test examples", "draws of the model", "missing"])


def _marginal(cells: Tensor, column: Column) -> str:
    """Mean and standard deviation of a column, or the shares of its most frequent categories."""
    if not len(cells):
        return "none"
    if not column.categories:
        return f"{cells.double().mean().item():.5g} ± {cells.double().std(correction=0).item():.3g}"
    shares = torch.bincount(cells.long(), minlength=len(column.categories)) / len(cells)
    first = shares.argsort(descending=True)[:4].tolist()
    return ", ".join(f"{column.categories[code]} {shares[code]:.0%}" for code in first)


def _pseudo_inputs(subject: _Subject) -> Iterator[Part]:
    model = subject.model
    over = model.prior.top if isinstance(model.prior, TwoLevelPrior) else model.prior
    top = over if subject.y is None else getattr(over, "part", over)
    if not isinstance(top, VampPrior):
        yield "The prior has none: it is not a VampPrior."
        return
    if not subject.data.has_images:
        yield f"The prior has {len(top.pseudo_inputs)}; they are not shown: the data are not images."
        return
    inputs = top.inputs()
    place = next(iter(_levels(model, subject.x, subject.y).values()))
    mixture = top() if subject.y is None else over(subject.data.conditions["train"].mean(0).to(subject.x))
    weights = mixture.logits.softmax(0)
    at, some = next(batches(model, subject.x, subject.y, 500))
    shares = responsibilities(mixture, at.encoder(some).sample()[:, place])
    rank = shares if top.logits is None else weights
    order = rank.sort(descending=True, stable=True).indices[:PSEUDO].tolist()
    of = f"{len(order)} of {len(inputs)}" if len(order) < len(inputs) else f"All {len(inputs)}"
    if top.logits is not None:
        yield f"{of}, in the order of their weights, which are given in percent."
    else:
        yield f"{of}. All have the same weight; they are in the order of their share in the codes of test examples."
    yield f"Each opens to {GENERATED} images generated from it: z drawn from its posterior, and decoded."
    if top.bounds is not None:
        share = top.clamped_share().item()
        yield f"{percent_in_words(share)} of their pixels are at a bound, where they get no gradient."
    for k in order:
        yield _opening(model, top, k, percent_in_words(rank[k].item()), subject.data.classes)


def _opening(model: AnyVAE, top: VampPrior, k: int, percent: str, classes: tuple[int | str, ...]) -> Opening:
    """A pseudo-input, which opens to images generated from it; with conditions, given its own."""
    u, number = top.inputs()[k : k + 1], k + 1
    z = top.posteriors(slice(k, k + 1)).sample((GENERATED,)).squeeze(1)
    y = () if top.conditions is None else (top.conditions()[k],)
    if isinstance(model.prior, TwoLevelPrior):
        z = torch.cat([z, model.prior.bottom(z, *y).sample()], -1)
    if y and classes:
        percent += f", class {classes[int(y[0][: len(classes)].argmax())]}"
    small = max(1, round(96 / u.shape[-1])) * u.shape[-1]
    images = grid(point_estimate(given(model, *y or (None,)).decoder(z)), 8)
    return Opening(
        f"{number}: {percent}",
        sheet(f"pseudo-{number}", grid(u), f"Pseudo-input {number}, {percent}.", width=small),
        sheet(f"generated-{number}", images, f"{GENERATED} images generated from pseudo-input {number}."),
    )


def _units(subject: _Subject) -> Iterator[Part]:
    latent = subject.latent
    if not latent.activity:
        yield "The test set has one example; activity is a variance over several."
        return
    counts = ", ".join(f"{int((v > 0.01).sum())} of {len(v)} of {name}" for name, v in latent.activity.items())
    yield f"Active by the variance of their posterior mean over {len(subject.x)} test examples, above 0.01: {counts}."
    divergence = {name: values for name, values in latent.divergence.items() if values.isfinite().all()}
    if divergence:
        sums = ", ".join(f"{name} {values.sum().item():.2f}" for name, values in divergence.items())
        yield (
            f"Divergence of the units from the prior, summed over each level, in nats: {sums}; the rate of the same "
            f"model is {subject.elbo.rate.mean().item():.2f}. The sums differ from the rate where units depend on each "
            "other under the prior, as under a mixture: each unit is compared with its own marginal distribution."
        )
    if unknown := ", ".join(latent.divergence.keys() - divergence.keys()):
        yield f"The divergence of the units of {unknown} is not shown: the prior has no known marginals there."
    yield drawn("units", figures.units(latent.activity, divergence), f"Units, sorted, by level: {counts} active.")


def _elbo(subject: _Subject) -> Iterator[Part]:
    surgery = subject.latent.surgery
    if surgery is None:
        yield "The training set has one example; two are needed."
        return
    parts = (
        f"distortion {surgery.distortion:.2f}, mutual information {surgery.mutual_information:.2f} "
        f"± {surgery.mutual_information_se:.2f}, marginal KL {surgery.marginal_kl:.2f} ± {surgery.marginal_kl_se:.2f}"
    )
    number, size = subject.latent.number, len(subject.data.train)
    over = f"all {size:,} training examples"
    if number < size:
        over = f"{number:,} of {size:,} training examples chosen at random"
    yield f"-ELBO over {over} = {surgery.distortion + surgery.rate:.2f} nats = {parts} (Hoffman & Johnson 2016)."
    if subject.data.classes:
        yield "The last two are those given the class: q(z) is that of a class, and N the number of its examples."
    yield limits(surgery)
    yield drawn("surgery", figures.surgeries({subject.name: surgery}), f"-ELBO as bars of its parts, in nats: {parts}.")
    rate, distortion = subject.elbo.rate.mean().item(), subject.elbo.distortion.mean().item()
    points = {"test examples": (rate, distortion), "training": (surgery.rate, surgery.distortion)}
    yield drawn(
        "rate-distortion",
        figures.rate_distortion(subject.metrics, points),
        f"Rate {rate:.2f} and distortion {distortion:.2f} nats of test examples, {surgery.rate:.2f} and "
        f"{surgery.distortion:.2f} of training examples, and of each epoch.",
        "Rate and distortion; dotted: the same ELBO.",
    )
    about = None if subject.run is None else origin(subject.run)
    if about is not None and about["surgery"] is not None:
        yield _before_and_after(about, surgery)


def _before_and_after(about: Origin, after: Surgery) -> page.Table:
    """The parts before and after the prior was refitted: only the marginal KL changes."""
    assert about["surgery"] is not None
    rows = []
    for name, each in ((f"{about['prior']['prior']}, of {about['run']}", Surgery(**about["surgery"])), ("now", after)):
        pairs = (each.mutual_information, each.mutual_information_se), (each.marginal_kl, each.marginal_kl_se)
        parts = [f"{value:.2f} ± {error:.2f}" for value, error in pairs]
        rows.append([name, f"{each.distortion:.2f}", f"{each.rate:.2f}", *parts])
    head = ["prior", "distortion", "rate", "mutual information", "marginal KL"]
    return page.Table("before and after the prior was refitted, on the same draws if --seed is 0", rows, head)


def limits(surgery: Surgery) -> str:
    """What the marginal KL says of the prior: little where the number of examples limits it."""
    gap = surgery.log_n - surgery.mutual_information
    if surgery.limited_by_n:
        return (
            f"The mutual information is only {gap:.2f} nats below log N = {surgery.log_n:.2f}, its largest value, so "
            "the marginal KL depends on N. It is at least the rate less log N "
            f"({surgery.rate - surgery.log_n:.2f} nats), would be smaller with more examples, and does not say what a "
            "better prior could gain on new examples."
        )
    return (
        f"The mutual information is {gap:.2f} nats below log N = {surgery.log_n:.2f}, its largest value, so the "
        "marginal KL depends little on N. It is what a better prior could gain with this encoder and decoder."
    )


def _codes(subject: _Subject) -> Iterator[Part]:
    model, x = subject.model, subject.x
    where = _levels(model, x, subject.y)
    codes = torch.cat([at.encoder(some).sample() for at, some in batches(model, x, subject.y, 500)])
    prior = given(model, subject.y).prior().sample((len(x),) if subject.y is None else ())
    if len(x) < 3:
        yield f"The test set has {len(x)} examples; a plane needs three."
        return
    labels = subject.data.labels.get("test")
    labels = None if labels is None or labels.dim() != 1 else labels[: len(x)]
    if labels is None:
        yield "The data have no labels, so all codes have one colour."
    for name, place in where.items():
        projected = "" if codes[:, place].shape[1] <= 2 else ", projected on the codes' two principal components"
        alt = f"Codes {name} of {len(x)} test examples beside as many draws of the prior{projected}."
        yield drawn(f"codes-{name}", figures.scatter(codes[:, place], prior[:, place], labels), alt, alt)
    if list(where) == ["z"] and codes.shape[1] == 2 and subject.implied > 1:
        one = given(model, None if subject.y is None else subject.y[0])
        alt = f"Posterior of one test example: q(z|x), what {subject.implied} draws make of it, and p(z|x)."
        yield drawn("implied", figures.implied(one, x[0], subject.implied), alt, alt)


def _interpolations(subject: _Subject) -> Iterator[Part]:
    run = subject.run
    if run is None:
        return
    result = interpolated(run)
    if result is None:
        yield f"None yet: run {_command('interpolate', run)}."
        return
    words = {"graph": "along paths", "graph_resampled": "along 50 points of them", "straight": "along straight lines"}
    rows = [[words[name], f"{v['mean']:.4f} ± {v['sd']:.4f}"] for name, v in result["smoothness"].items()]
    yield (
        f"Through {result['graphs']} graphs of {result['nodes']} draws of the prior, each joined to its "
        f"{result['neighbors']} nearest; {result['pairs_without_path']} of {result['graphs'] * result['pairs']} pairs "
        "have no path. Lower is smoother."
    )
    for name, alt in (
        ("interpolation", "Interpolations: along the path above the straight line, for each pair."),
        ("graph", "The graph of draws of the prior in the latent plane, with some paths."),
    ):
        if (run / f"{name}.png").is_file():
            yield page.Picture(name, (run / f"{name}.png").read_bytes(), alt, alt)
    yield page.Table("smoothness", rows, ["smoothness (lower is smoother)", "mean ± standard deviation"])


def _experiment(subject: _Subject) -> Iterator[Part]:
    run = subject.run
    if run is None:
        return
    parameters = sum(p.numel() for p in subject.model.parameters())
    sizes = ", ".join(f"{len(getattr(subject.data, split))} {split}" for split in ("train", "valid", "test"))
    yield (
        f"{parameters:,} parameters; {sizes}; examples of shape {tuple(subject.data.event_shape)}, likelihood "
        f"{subject.data.likelihood}."
    )
    if memory := max((line.get("memory", 0.0) for line in subject.metrics), default=0.0):
        yield f"The training used at most {memory:.2f} GiB of memory."
    sessions = [
        [
            str(each["after_epoch"]),
            each["started"],
            each["commit"] or "unknown",
            ", ".join(f"{name} {version}" for name, version in each["versions"].items()),
            each["hardware"],
        ]
        for each in run.description()["sessions"]
    ]
    yield page.Table("sessions", sessions, ["after epoch", "started", "commit", "versions", "hardware"])
    values = dataclasses.asdict(run.experiment())  # None where the chosen entries have no such option
    options = [[name, _word(value)] for name, value in values.items() if value is not None]
    yield page.Table("options", options, ["option", "value"])


def duration_in_words(seconds: float) -> str:
    """Seconds in a unit that is easy to read.

    >>> duration_in_words(8.2), duration_in_words(90), duration_in_words(9000)
    ('8.2 seconds', '1.5 minutes', '2.5 hours')
    """
    size, unit = (3600, "hours") if seconds >= 3600 else (60, "minutes") if seconds >= 60 else (1, "seconds")
    return f"{seconds / size:.1f} {unit}"


def percent_in_words(share: float) -> str:
    """A share in percent, without powers of ten.

    >>> percent_in_words(0.123), percent_in_words(1.2e-36), percent_in_words(0.0)
    ('12.3 %', '< 0.1 %', '0 %')
    """
    return "0 %" if share == 0 else "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def _command(name: str, run: Run) -> str:
    """A command on a run, as one types it into a shell."""
    return shlex.join(["vaepriors", name, str(run.folder)])


def _word(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)
