"""The sections with draws of the model and with its pseudo-inputs."""

from collections.abc import Iterator

import torch
from torch import Tensor

from vaepriors.analysis import responsibilities
from vaepriors.app.report import figures, page
from vaepriors.app.report.likelihoods import Measure, measure_of
from vaepriors.app.report.page import Opening, Part, drawn, sheet
from vaepriors.app.report.pictures import draw, extremes, grid, reconstructions, tones
from vaepriors.app.report.subject import Subject, levels_of
from vaepriors.conditional import AnyVAE, batches, given
from vaepriors.data import Dataset
from vaepriors.distributions import point_estimate
from vaepriors.networks.mixed import Column
from vaepriors.priors import TwoLevelPrior, VampPrior

__all__ = ["percent_in_words", "pseudo_inputs", "samples"]

PSEUDO = 48  # pseudo-inputs shown
GENERATED = 16  # images of each
COLUMNS = 24  # of a table shown


def samples(subject: Subject) -> Iterator[Part]:
    """Draws of the model beside test examples."""
    model, x = subject.model, subject.x
    number = 64 if subject.data.has_images else 500
    drawn_x, _ = draw(model, subject.data, number)
    if subject.run is not None and not subject.data.has_images:
        yield from _usual(measure_of(subject.run.experiment(), subject.data, True))
    if subject.data.columns:
        yield from _columns(subject.data, x, drawn_x)
        return
    if not subject.data.has_images:
        alt = "Mean and standard deviation of each coordinate, of test examples and of draws of the model."
        yield "The data are vectors, not images: their coordinates are compared."
        yield drawn("samples", figures.coordinates(x, drawn_x), alt, alt)
        return
    low, high = extremes(subject.data)
    if (low, high) != (0, 1):
        yield f"In pictures, {low:.4g} is black and {high:.4g} white: the extremes of the test examples."
    images = grid(tones(drawn_x, subject.data), 16)
    yield sheet("samples", images, "64 images drawn from the model.", "Drawn from the prior, decoded.")
    alt = "Test examples, each above its reconstruction."
    yield sheet("reconstructions", reconstructions(model, subject.data, x[:20], subject.y), alt, alt)


def _usual(measure: Measure) -> Iterator[str]:
    """What draws do not repeat of the data, if the density of counts is given it."""
    if given_what := [part for part in measure if part.startswith("given")]:
        yield (
            f"log p(x) is {' and '.join(given_what)}. All draws have the usual one, so their counts vary less than "
            "those of the test examples."
        )


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


def pseudo_inputs(subject: Subject) -> Iterator[Part]:
    """The pseudo-inputs of a VampPrior, each with images generated from it."""
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
    place = next(iter(levels_of(model, subject.x, subject.y).values()))
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
    y, of_test = subject.y, ""
    if top.conditions is None and y is not None:
        y, of_test = y[torch.arange(GENERATED) % len(y)], ", given the conditions of test examples"
    yield f"Each opens to {GENERATED} images generated from it: z drawn from its posterior, and decoded{of_test}."
    if top.bounds is not None:
        share = top.clamped_share().item()
        yield f"{percent_in_words(share)} of their pixels are at a bound, where they get no gradient."
    for k in order:
        own = y if top.conditions is None else top.conditions()[k]
        yield _opening(model, top, k, percent_in_words(rank[k].item()), own, subject.data)


def _opening(model: AnyVAE, top: VampPrior, k: int, percent: str, y: Tensor | None, data: Dataset) -> Opening:
    """A pseudo-input, which opens to images generated from it; with conditions, given y: its own, or one for each."""
    u, number = top.inputs()[k : k + 1], k + 1
    z = top.posteriors(slice(k, k + 1)).sample((GENERATED,)).squeeze(1)
    if isinstance(model.prior, TwoLevelPrior):
        z = torch.cat([z, model.prior.bottom(z, *() if y is None else (y,)).sample()], -1)
    if y is not None and y.dim() == 1 and (classes := data.classes):
        percent += f", class {classes[int(y[: len(classes)].argmax())]}"
    small = max(1, round(96 / u.shape[-1])) * u.shape[-1]
    images = grid(tones(point_estimate(given(model, y).decoder(z)), data), 8)
    return Opening(
        f"{number}: {percent}",
        sheet(f"pseudo-{number}", grid(tones(u, data)), f"Pseudo-input {number}, {percent}.", width=small),
        sheet(f"generated-{number}", images, f"{GENERATED} images generated from pseudo-input {number}."),
    )


def percent_in_words(share: float) -> str:
    """A share in percent, without powers of ten.

    >>> percent_in_words(0.123), percent_in_words(1.2e-36), percent_in_words(0.0)
    ('12.3 %', '< 0.1 %', '0 %')
    """
    return "0 %" if share == 0 else "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
