"""Runs side by side: a table, and a page with their likelihoods, ELBOs and latent spaces on the same axes."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vaepriors.distributions import mean_or_draw
from vaepriors.latent import Surgery
from vaepriors.report import figures, page
from vaepriors.report.page import Section, drawn, sheet
from vaepriors.report.pictures import grid
from vaepriors.report.run import evaluated, look
from vaepriors.run import Run, seed_of

__all__ = ["COLUMNS", "Compared", "compare", "rows", "write_comparison"]

COLUMNS = ("run", "data", "model", "prior", "K", "epoch", "log p(x)", "ELBO", "rate", "distortion", "active units")


class Compared(NamedTuple):
    """What is compared of a run."""

    name: str
    experiment: Any
    epoch: int
    evaluation: dict[str, Any] | None
    log_likelihood: Any
    surgery: Surgery | None
    activity: dict[str, torch.Tensor]
    metrics: list[dict[str, Any]]
    samples: page.Picture | None


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
        number: At the most so many test examples are measured.
        which: The model of each: best, last, or epoch-N of a snapshot.
        seed: Seed of all draws.
        progress: Called with the number of runs done and their total.

    Raises:
        ValueError: If there are fewer than two, or one of them is no run, or has no model yet.
    """
    if len(runs) < 2:
        raise ValueError(f"{len(runs)} run cannot be compared: name at least two")
    names = _names([run.folder for run in runs])
    models = []
    for run in runs:  # a mistake in the last is told before the first is measured
        data = run.dataset()
        models.append((data, *run.model(data, which)))
    found = []
    for done, (run, name, (data, model, values)) in enumerate(zip(runs, names, models, strict=True), 1):
        torch.manual_seed(seed_of(seed, "report"))
        latent = look(model, data.test[:number].to(next(model.parameters())))
        evaluation, log_likelihood = evaluated(run)
        picture = None
        if data.has_images:
            drawn_x = mean_or_draw(model.decoder(model.prior().sample((32,))))
            picture = sheet(f"samples-{done}", grid(drawn_x, 16), f"32 images drawn from {name}.", name)
        found.append(
            Compared(
                name, run.experiment(), values["epoch"], evaluation, log_likelihood, latent.surgery, latent.activity,
                run.metrics(), picture,
            )
        )  # fmt: skip
        progress(done, len(runs))
    return found


def _names(folders: list[Path]) -> list[str]:
    """The shortest ends of their paths that tell them apart."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ValueError("a run is named twice: compare it with another")
    length = next(n for n in range(1, 100) if len({path.parts[-n:] for path in paths}) == len(paths))
    return ["/".join(path.parts[-length:]) for path in paths]


def rows(found: Sequence[Compared]) -> list[list[str]]:
    """The columns of `COLUMNS` for each run; what is not known is left empty."""
    table = []
    for each in found:
        evaluation, surgery, experiment = each.evaluation, each.surgery, each.experiment
        error = "" if evaluation is None or evaluation["nll_se"] is None else f" ± {evaluation['nll_se']:.2f}"
        units = ", ".join(f"{name} {int((v > 0.01).sum())}/{len(v)}" for name, v in each.activity.items())
        numbers = [-surgery.distortion - surgery.rate, surgery.rate, surgery.distortion] if surgery else []
        table.append(
            [
                each.name,
                Path(experiment.data).name,
                experiment.model,
                experiment.prior,
                "" if experiment.components is None else str(experiment.components),
                str(each.epoch),
                "" if evaluation is None else f"{-evaluation['nll']:.2f}{error}",
                *([f"{number:.2f}" for number in numbers] or [""] * 3),
                units,
            ]
        )
    return table


def write_comparison(found: Sequence[Compared], path: Path) -> list[Path]:
    """Write the page, and its pictures into the folder of its name beside it."""
    sections = [_numbers(found), _likelihoods(found), _elbos(found), _by_components(found), _samples(found)]
    title = f"{len(found)} runs"
    text = page.render(title, ", ".join(each.name for each in found), [], [], sections)
    return page.write(path, text, sections)


def _numbers(found: Sequence[Compared]) -> Section:
    missing = [each.name for each in found if each.evaluation is None]
    text = ["log p(x), ELBO, rate and distortion in nats; the last three on test examples, with one draw each."]
    if missing:
        text.append(f"Not evaluated yet (vaepriors evaluate): {', '.join(missing)}.")
    sets = {each.experiment.data for each in found}
    if len(sets) > 1:
        text.append("The runs are of different data: their likelihoods do not compare.")
    return Section("numbers", "Numbers", text, tables=[page.Table("numbers", rows(found), list(COLUMNS))])


def _likelihoods(found: Sequence[Compared]) -> Section:
    values = {each.name: each.log_likelihood for each in found if each.log_likelihood is not None}
    if not values:
        return Section("likelihood", "Likelihoods", ["No run is evaluated yet: vaepriors evaluate RUN does it."])
    means = ", ".join(f"{name} {each.mean():.1f}" for name, each in values.items())
    alt = f"Histograms of log p(x) of the examples; means: {means} nats."
    return Section("likelihood", "Likelihoods", [], [drawn("likelihood", figures.histogram(values), alt, alt)])


def _elbos(found: Sequence[Compared]) -> Section:
    parts = {each.name: each.surgery for each in found if each.surgery is not None}
    if not parts:
        return Section("elbo", "The ELBO in parts", ["There is a single test example: two are needed."])
    points = {name: (each.rate, each.distortion) for name, each in parts.items()}
    words = "; ".join(
        f"{name}: distortion {each.distortion:.1f}, mutual information {each.mutual_information:.1f}, "
        f"marginal KL {each.marginal_kl:.1f}"
        for name, each in parts.items()
    )
    pictures = [
        drawn("surgery", figures.surgeries(parts), f"-ELBO as bars of its parts, in nats. {words}."),
        drawn("rate-distortion", figures.rate_distortion([], points), f"Rate and distortion. {words}."),
    ]
    return Section("elbo", "The ELBO in parts", [], pictures)


def _by_components(found: Sequence[Compared]) -> Section:
    """Figures 2 and 3 of Tomczak & Welling 2018, where there are runs that differ in K."""
    elbo: dict[str, list[tuple[int, float]]] = defaultdict(list)
    active: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for each in found:
        e = each.experiment
        if e.components is not None and each.surgery is not None:
            kind = f"{e.model}, {e.prior}" + (f", {e.objective}" if e.objective != "elbo" else "")
            elbo[kind].append((e.components, -each.surgery.distortion - each.surgery.rate))
            active[kind].append((e.components, sum(float((v > 0.01).sum()) for v in each.activity.values())))
    if len({k for points in elbo.values() for k, _ in points}) < 2:
        return Section("components", "Number of components", ["The runs do not differ in their number of components."])
    words = "; ".join(f"{kind}: " + ", ".join(f"K = {k} {v:.1f}" for k, v in sorted(p)) for kind, p in elbo.items())
    return Section(
        "components",
        "Number of components",
        [],
        [
            drawn("elbo-components", figures.components(elbo, "ELBO, nats"), f"ELBO against K. {words}."),
            drawn("units-components", figures.components(active, "active units"), "Active units against K."),
        ],
    )


def _samples(found: Sequence[Compared]) -> Section:
    pictures = [each.samples for each in found if each.samples is not None]
    text = [] if pictures else ["The data are no images."]
    return Section("samples", "Draws of the models", text, pictures)
