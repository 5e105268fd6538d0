"""`report.html` of a run: one page with everything that is known of it, and a sentence for what is missing."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from vaepriors.analysis import diagnose
from vaepriors.app.evaluation import check_likelihoods, summary
from vaepriors.app.measure import is_discrete
from vaepriors.app.origin import origin
from vaepriors.app.records import Record, command, examples_in_words, few_samples, records_of
from vaepriors.app.report import about, draws, evaluations, interpolations, latent_space, page
from vaepriors.app.report.conditions import conditions
from vaepriors.app.report.page import Part
from vaepriors.app.report.subject import Subject, as_conditions, measure
from vaepriors.app.run import Run
from vaepriors.conditional import AnyVAE
from vaepriors.data import Dataset
from vaepriors.data.dataset import Chosen
from vaepriors.likelihood import estimate
from vaepriors.limits import at_least_one
from vaepriors.numerics import fixed_numerics, keep_generators, seed_of
from vaepriors.vae import eval_mode
from vaepriors.words import counted

__all__ = ["report", "write_report"]


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
        number: The most test examples to measure; of more, a random subset, which is always the same.
        seed: Seed of all draws.

    Returns:
        The page and the folder.

    Raises:
        ValueError: If `out` does not end in .html or a file is in its way, `number` or `samples` is less than 1, or
            log p(x) of a test example is infinite or not a number.
    """
    path = Path(out)
    page.check_place(path)
    at_least_one(number=number, samples=samples)
    with eval_mode(model), keep_generators(model):
        torch.manual_seed(seed_of(seed, "report"))
        x, y, _, labels, rows = _test_examples(model, data, number)
        estimates = estimate(model, x, samples, condition=y)
        check_likelihoods(estimates.log_likelihood, cast(Tensor, rows))
        numbers = summary(estimates, data, is_discrete(model, data))
        result = {"split": "test", "samples": samples, "seed": seed, **numbers}
        record = Record("", result, estimates.log_likelihood.cpu().numpy())
        elbo, latent = measure(model, data, x, y, seed)
        subject = Subject(data.name, model, data, x, y, labels, elbo, latent, list(metrics), [record], x)
        sections = page.sections(_parts(subject))
    sentences = _diagnose(subject, result["effective_samples_mean"])
    parameters = sum(p.numel() for p in model.parameters())
    return page.write(path, data.name, f"{parameters:,} parameters.", sections, _numbers(subject), sentences)


@torch.no_grad()
def write_report(
    run: Run,
    number: int = 2000,
    which: str = "best",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write report.html into the run's folder, and its pictures into the folder report beside it; return both.

    The training may not be finished, and the run not evaluated. The ELBO's parts are those of the training set.

    Args:
        run: The run.
        number, which, seed: As for `vaepriors report`.
        progress: Called with the number of sections done and their total.
    """
    at_least_one(number=number)
    page.check_place(run / "report.html")
    data = run.dataset()
    model, values = run.model(data, which)
    torch.manual_seed(seed_of(seed, "report"))
    x, y, _, labels, _ = _test_examples(model, data, number)
    records, stale = records_of(run, model, values["epoch"], which)
    # damaged files are refused before the work
    metrics, *_ = run.metrics(), interpolations.interpolated(run), origin(run)
    elbo, latent = measure(model, data, x, y, seed)
    experiment, renewal = run.experiment(), command(run, {"checkpoint": which})
    implied = experiment.samples if experiment.objective == "iwae" else 0
    subject = Subject(
        run.folder.name, model, data, x, y, labels, elbo, latent, metrics, records, data.test, renewal,
        experiment.epochs, implied, run, which, values["epoch"],
    )  # fmt: skip
    sections = page.sections(_parts(subject), progress)
    title = f"{experiment.model}, {experiment.prior} prior, {Path(experiment.data).name}"
    title += f", given {experiment.condition}" if experiment.condition else ""
    subtitle = f"Model of epoch {values['epoch']} ({which}) of {len(subject.metrics)}, seed {experiment.seed}."
    effective = few_samples(records[0].result) if records else None
    sentences = stale + _diagnose(subject, effective)
    return page.write(run / "report.html", title, subtitle, sections, _numbers(subject), sentences)


def _test_examples(model: AnyVAE, data: Dataset, number: int) -> Chosen:
    """Test examples to measure, at the model."""
    chosen = data.few_test(number)
    x = chosen.x.to(next(model.parameters()))
    return chosen._replace(x=x, condition=as_conditions(chosen.condition, x))


def _diagnose(subject: Subject, effective_samples: float | None) -> list[str]:
    surgery = subject.latent.surgery if latent_space.is_divergence(subject) else None
    return diagnose(subject.latent.activity, surgery, effective_samples)


def _numbers(subject: Subject) -> list[tuple[str, str]]:
    numbers, elbo, measured = [], subject.elbo, "test"
    if subject.records:
        result = subject.records[0].result
        examples = examples_in_words(result)
        if (result["split"], result["n"]) != ("test", len(subject.x)):  # the numbers are of different examples
            examples = f"{counted(result['n'], 'example')} ({examples})"
            measured = counted(len(subject.x), "test example")
        numbers.append((f"log p(x), {examples}, nats", evaluations.likelihood_of(result)))
        if result["bits_per_dim"] is not None and subject.data.likelihood == "logistic256":
            numbers.append(("bits per dimension", f"{result['bits_per_dim']:.3f}"))
    for name, values in (("ELBO", elbo.elbo), ("rate", elbo.rate), ("distortion", elbo.distortion)):
        numbers.append((f"{name}, {measured}, nats", f"{values.mean().item():.2f}"))
    for name, values in subject.latent.activity.items():
        numbers.append((f"active units of {name}", f"{int((values > 0.01).sum())} of {len(values)}"))
    return numbers


def _parts(subject: Subject) -> dict[tuple[str, str], Iterator[Part]]:
    """What the sections hold, by key and title; those about a folder are empty without one."""
    return {
        ("training", "Training"): about.training(subject),
        ("likelihood", "Likelihood"): evaluations.likelihood(subject),
        ("samples", "Draws of the model"): draws.samples(subject),
        ("conditions", "Conditions"): conditions(subject),
        ("pseudo-inputs", "Pseudo-inputs"): draws.pseudo_inputs(subject),
        ("units", "Active units"): latent_space.units(subject),
        ("elbo", "The ELBO in parts"): latent_space.elbo(subject),
        ("codes", "Codes and prior"): latent_space.codes(subject),
        ("interpolations", "Interpolations"): interpolations.interpolations(subject),
        ("experiment", "Experiment"): about.experiment(subject),
    }
