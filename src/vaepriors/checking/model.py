"""All findings about a model: its terms, its three parts, and its likelihood."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from vaepriors.checking.conditional import check_distribution, compare_numbers
from vaepriors.checking.report import Finding, Report, Verdict, decide, structural
from vaepriors.checking.subject import shift_of_normalizer
from vaepriors.distributions import outside, support_of
from vaepriors.likelihood import estimate
from vaepriors.vae import VAE, Terms

__all__ = ["check_model"]

DRAWS = 4  # of z for each x, where terms are compared one by one
MEMBERS = 2  # examples whose distributions are compared with their samplers


def check_model(model: Any, x: Tensor, reference: Callable[[Tensor], Tensor] | None, draws: int) -> tuple[Finding, ...]:
    """Check a model with `encoder`, `decoder` and `prior`, at data x."""
    with torch.no_grad():
        terms = _terms(model, x)
        findings = [_shapes(model, terms, x)]
        if not findings[0].passed:
            return tuple(findings)
        findings += [_bound(terms), *_recomputed(model, x, terms), _alone(model, x, terms)]
    findings.append(_gradients(model, x))
    findings += _parts(model, x, draws)
    if reference is not None:
        findings.append(_likelihood(model, x, reference, draws))
    return tuple(findings)


def _parts(model: Any, x: Tensor, draws: int) -> list[Finding]:
    """Encoder and decoder at the first examples, and the prior."""
    with torch.no_grad():
        z = model.encoder(x[:MEMBERS]).sample()
    fewer = max(200, draws // MEMBERS)
    cases: list[tuple[str, tuple[Tensor, ...], int]] = [
        ("prior", (), draws), ("encoder", (x[:MEMBERS],), fewer), ("decoder", (z[:1],), fewer),
    ]  # fmt: skip
    findings: list[Finding] = []
    for part, inputs, n in cases:
        make = getattr(model, part)
        module = make if isinstance(make, nn.Module) else None
        findings += Report(tuple(check_distribution(make, module, inputs, None, n))).prefixed(part)
    return findings


def _terms(model: Any, x: Tensor) -> Terms:
    """The model's own terms if it returns some, otherwise those of its three parts."""
    own = model if hasattr(model, "weigh") else VAE(model.encoder, model.decoder, model.prior)
    return own(x, DRAWS)


def _shapes(model: Any, terms: Terms, x: Tensor) -> Finding:
    expected, problems = (DRAWS, len(x)), []
    for name in ("log_likelihood", "log_q", "log_p"):
        term = getattr(terms, name)
        if tuple(term.shape) != expected:
            problems.append(f"{name} has shape {tuple(term.shape)}, expected {expected}")
        elif not term.isfinite().all():
            problems.append(f"{name} is not finite")
    if not problems and terms.z is not None:  # importing zuko switches off torch's own checks of values
        places = {"x": (model.decoder(terms.z[:, :1]), x), "z of the encoder": (model.prior(), terms.z)}
        problems = [
            f"some {name} is outside of the support {support_of(p)}"
            for name, (p, value) in places.items()
            if outside(p, value).any()
        ]
    return structural("terms", problems, "The terms are finite, one for each draw and example.")


def _bound(terms: Terms) -> Finding:
    log_weight = (terms.log_likelihood - terms.log_q + terms.log_p).double()
    expected = log_weight.logsumexp(0) - math.log(DRAWS)
    verdict = Verdict(
        "The bound is the log of the mean weight.", "The bound is not the log of the mean weight over the draws."
    )
    return compare_numbers("bound", terms.bound, expected, verdict)


def _recomputed(model: Any, x: Tensor, terms: Terms) -> list[Finding]:
    """The log-weights of the same draws, from a copy of the three parts in double precision."""
    if terms.z is None:
        return []
    try:
        parts = deepcopy((model.encoder, model.decoder, model.prior))
        encoder, decoder, prior = (part.double() for part in parts)
    except (RuntimeError, TypeError, AttributeError) as error:
        return [Finding("log-weights", None, float("nan"), 0.0, 0.0, f"The model cannot be copied: {error}")]
    x, z = x.double(), terms.z.double()
    p, first, shift = prior(), terms.log_likelihood - terms.log_q, None
    expected = decoder(z).log_prob(x) - encoder(x).log_prob(z)
    if torch.equal(p.log_prob(z), p.log_prob(z)):  # not an estimate
        first, expected, shift = first + terms.log_p, expected + p.log_prob(z), shift_of_normalizer(p, z)
    verdict = Verdict(
        "The log-weights are those of the three parts in double precision.",
        "The log-weights differ from log p(x|z) - log q(z|x) + log p(z) in double precision.",
    )
    return [compare_numbers("log-weights", first, expected, verdict, shift)]


def _alone(model: Any, x: Tensor, terms: Terms) -> Finding:
    """The terms of the last draw of the last example without the others; a recurrent layer sees those before it."""
    assert terms.z is not None
    z = terms.z[-1:, -1:]
    alone = model.decoder(z).log_prob(x[-1:]) - model.encoder(x[-1:]).log_prob(z)
    verdict = Verdict(
        "An example's terms do not depend on other examples or draws.",
        "An example's terms depend on other examples, other draws or the call: reshape around layers that mix them.",
    )
    return compare_numbers("alone", alone, (terms.log_likelihood - terms.log_q)[-1:, -1:], verdict)


def _gradients(model: Any, x: Tensor) -> Finding:
    """Gradients of the ELBO for all parameters."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    elbo = _terms(model, x).elbo.sum()
    if not named or not elbo.requires_grad:
        return structural("gradients", ["the ELBO has no gradient"] * bool(named), "There are no parameters.")
    gradients = torch.autograd.grad(elbo, list(named.values()), allow_unused=True)
    wrong = [name for name, g in zip(named, gradients, strict=True) if g is not None and not g.isfinite().all()]
    missing = [name for name, g in zip(named, gradients, strict=True) if g is None]
    if missing and not wrong:
        sentence = f"No gradient of the ELBO reaches {', '.join(missing)}: right only if they are not used."
        return Finding("gradients", None, float(len(missing)), 0.0, 0.0, sentence)
    problems = [f"the gradient of {name} is not finite" for name in wrong]
    return structural("gradients", problems, "Gradients of the ELBO reach all parameters and are finite.")


def _likelihood(model: Any, x: Tensor, reference: Callable[[Tensor], Tensor], draws: int) -> Finding:
    """log p(x) by importance sampling beside the reference, on average over the examples."""
    verdict = Verdict(
        "The reference and importance sampling agree on log p(x).",
        "The reference differs from importance sampling by this many nats for each x, on average: one of the two is "
        "wrong, such as by the log of another number of draws.",
        "Too few effective samples to compare log p(x).",
    )
    ours = estimate(VAE(model.encoder, model.decoder, model.prior), x, draws)
    with torch.no_grad():
        first, second = (reference(x).double().reshape(-1) for _ in range(2))
        shift = shift_of_normalizer(model.prior(), model.encoder(x).sample()).double().mean().abs()
    if first.shape != ours.log_likelihood.shape:
        return structural("log-likelihood", [f"the reference has shape {tuple(first.shape)}, expected ({len(x)},)"], "")
    theirs = (first + second) / 2 - ours.log_likelihood
    noise = (first - second).square().mean() / 2  # variance of the reference
    weights = 1 / ours.effective_samples - 1 / draws
    error = ((weights.sum() / len(x) + noise / 2) / len(x)).sqrt().hypot(shift)
    bias = float(weights.mean() + noise)  # of either, a logarithm of a mean
    blind = ours.effective_samples.median().expand(1) < 10
    return decide("log-likelihood", theirs.mean(), 0.0, error, verdict, tolerance=0.02 + bias, blind=blind)
