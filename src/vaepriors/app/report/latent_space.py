"""The sections about the latent space: its units, the ELBO in parts, its codes."""

from collections.abc import Iterator
from typing import Any

import torch

from vaepriors.analysis import Surgery
from vaepriors.app.origin import Origin, origin
from vaepriors.app.report import figures, page
from vaepriors.app.report.page import Part, drawn
from vaepriors.app.report.subject import Subject, levels_of
from vaepriors.conditional import batches, given
from vaepriors.priors import TwoLevelPrior
from vaepriors.words import counted

__all__ = ["codes", "elbo", "is_divergence", "limits", "units"]

OF_COVARIATES = (
    "p(z1|z2, y) is given the covariates, and q(z) is the mean over all of them. So the marginal KL is no divergence "
    "here: it may be negative, and does not say what a better prior could gain."
)


def units(subject: Subject) -> Iterator[Part]:
    """Active units, and the divergence of each."""
    latent = subject.latent
    if not latent.activity:
        yield "One test example is measured; activity is a variance over several."
        return
    counts = ", ".join(f"{int((v > 0.01).sum())} of {len(v)} of {name}" for name, v in latent.activity.items())
    yield f"Active by the variance of their posterior mean over {len(subject.x)} test examples, above 0.01: {counts}."
    divergence = {name: values for name, values in latent.divergence.items() if values.isfinite().all()}
    if divergence:
        sums = ", ".join(f"{name} {values.sum().item():.2f}" for name, values in divergence.items())
        yield (
            f"Divergence of the units from the prior, summed over each level, in nats: {sums}; the rate of the same "
            f"model is {subject.elbo.rate.mean().item():.2f}. The sums of z differ from the rate where units depend on "
            "each other under the prior, as under a mixture: each unit is compared with its own marginal distribution."
        )
    if any(name.startswith("u") for name in divergence):
        yield "u are latent variables of the prior itself: their divergence, given z, is no part of the rate."
    if unknown := ", ".join(name for name in latent.divergence if name not in divergence):
        yield f"The divergence of the units of {unknown} is not shown: marginals of q(z|x) or p(z) are unknown there."
    yield drawn("units", figures.units(latent.activity, divergence), f"Units, sorted, by level: {counts} active.")


def elbo(subject: Subject) -> Iterator[Part]:
    """The ELBO of the training set in parts, and rate and distortion."""
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
    if surgery.draws < number:
        over += f" (by one draw each for {surgery.draws:,} of them)"
    yield f"-ELBO over {over} = {surgery.distortion + surgery.rate:.2f} nats = {parts} (Hoffman & Johnson 2016)."
    if subject.data.classes:
        yield "The last two are those given the class: q(z) is that of a class, and N the number of its examples."
    yield limits(surgery) if is_divergence(subject) else OF_COVARIATES
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


def is_divergence(subject: Subject) -> bool:
    """Whether the marginal KL is that of q(z), or of a class, from one p(z): not where p(z1|z2, y) sees covariates."""
    covariates = 0 if subject.y is None else subject.y.shape[-1] - len(subject.data.classes)
    return not covariates or not isinstance(subject.model.prior, TwoLevelPrior)


def _before_and_after(about: Origin, after: Surgery) -> page.Table:
    """The parts before and after the prior was refitted: only the marginal KL changes."""
    before: Any = about["surgery"]
    rows = []
    for name, each in ((f"{about['prior']['prior']}, of {about['run']}", Surgery(**before)), ("now", after)):
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
            "the marginal KL depends on N: it would be smaller with more examples, and does not say what a better "
            "prior could gain on new examples."
        )
    return (
        f"The mutual information is {gap:.2f} nats below log N = {surgery.log_n:.2f}, its largest value, so the "
        "marginal KL depends little on N. It is what a better prior could gain with this encoder and decoder."
    )


def codes(subject: Subject) -> Iterator[Part]:
    """Codes of test examples beside draws of the prior."""
    model, x = subject.model, subject.x
    where = levels_of(model, x, subject.y)
    codes = torch.cat([at.encoder(some).sample() for at, some in batches(model, x, subject.y, 500)])
    prior = given(model, subject.y).prior().sample((len(x),) if subject.y is None else ())
    if len(x) < 3:
        yield f"Only {counted(len(x), 'test example')} measured; a plane needs three."
        return
    labels = None if subject.labels is None or subject.labels.dim() != 1 else subject.labels
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
