"""The page of a comparison: the likelihoods, ELBOs and latent spaces of some runs on the same axes."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from vaepriors.app.report import figures, page
from vaepriors.app.report.compare import COLUMNS, Compared, notes, notes_on_elbos, rows, values_in
from vaepriors.app.report.page import Part, drawn

__all__ = ["write_comparison"]


def write_comparison(compared: Sequence[Compared], path: Path) -> list[Path]:
    """Write the page, and its pictures into the folder of its name beside it."""
    sections = page.sections(
        {
            ("numbers", "Numbers"): _numbers(compared),
            ("likelihood", "Likelihoods"): _likelihoods(compared),
            ("elbo", "The ELBO in parts"): _elbos(compared),
            ("components", "Number of components"): _by_components(compared),
            ("samples", "Draws of the models"): _samples(compared),
        }
    )
    return page.write(path, f"{len(compared)} runs", ", ".join(each.name for each in compared), sections)


def _numbers(compared: Sequence[Compared]) -> Iterator[Part]:
    yield from notes(compared)
    yield page.Table("numbers", rows(compared), list(COLUMNS))


def _likelihoods(compared: Sequence[Compared]) -> Iterator[Part]:
    values = {each.name: v for each in compared if (v := values_in(each)) is not None}
    if not values:
        yield "No run is evaluated yet: run vaepriors evaluate RUN."
        return
    means = ", ".join(f"{name} {each.mean():.1f}" for name, each in values.items())
    alt = f"Histograms of log p(x) of the examples; means: {means} nats."
    yield drawn("likelihood", figures.histogram(values), alt, alt)


def _elbos(compared: Sequence[Compared]) -> Iterator[Part]:
    parts = {each.name: each.surgery for each in compared if each.surgery is not None}
    if parts:
        words = "; ".join(
            f"{name}: distortion {each.distortion:.1f}, mutual information {each.mutual_information:.1f}, "
            f"marginal KL {each.marginal_kl:.1f}"
            for name, each in parts.items()
        )
        yield f"The bars are of one draw each for {max(each.draws for each in parts.values())} test examples."
        yield drawn("surgery", figures.surgeries(parts), f"-ELBO as bars of its parts, in nats. {words}.")
    else:
        yield "The parts of the ELBO need two test examples."
    points = {each.name: (each.elbo.rate.mean().item(), each.elbo.distortion.mean().item()) for each in compared}
    words = "; ".join(f"{name}: rate {rate:.1f}, distortion {error:.1f}" for name, (rate, error) in points.items())
    yield drawn("rate-distortion", figures.rate_distortion([], points), f"Rate and distortion. {words}.")


def _by_components(compared: Sequence[Compared]) -> Iterator[Part]:
    """Figures 2 and 3 of Tomczak & Welling 2018; none if the runs do not differ in K, or their ELBOs not compare."""
    elbo: dict[str, list[tuple[int, float]]] = defaultdict(list)
    active: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for each in compared:
        e = each.experiment
        if e.components is not None:
            kind = f"{e.model}, {e.prior}" + (f", {e.objective}" if e.objective != "elbo" else "")
            elbo[kind].append((e.components, each.elbo.elbo.mean().item()))
            active[kind].append((e.components, sum(float((v > 0.01).sum()) for v in each.activity.values())))
    if len({k for points in elbo.values() for k, _ in points}) < 2 or notes_on_elbos(compared):
        return
    words = "; ".join(f"{kind}: " + ", ".join(f"K = {k} {v:.1f}" for k, v in sorted(p)) for kind, p in elbo.items())
    yield drawn("elbo-components", figures.components(elbo, "ELBO, nats"), f"ELBO against K. {words}.")
    yield drawn("units-components", figures.components(active, "active units"), "Active units against K.")


def _samples(compared: Sequence[Compared]) -> Iterator[Part]:
    pictures = [each.samples for each in compared if each.samples is not None]
    if not pictures:
        yield "The data are not images."
    yield from pictures
