"""All findings about one distribution."""

import math
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.checking.continuous import compare_densities
from vaepriors.checking.discrete import compare_masses, grid_of
from vaepriors.checking.report import Finding, Verdict, decide, limit, structural
from vaepriors.checking.sampler import (
    check_gradients,
    check_order,
    check_reparametrised,
    check_shapes,
    check_values,
    real_subject,
    repeats,
)
from vaepriors.checking.subject import BLOCKS, Subject, shift_of_normalizer, variance_of_mean

__all__ = ["check_distribution", "compare_numbers"]

CALLS = 16  # of a density that is estimated; their mean is one as well, with less noise

Maker = Callable[..., Distribution]
ReferenceDensity = Callable[[Tensor], Tensor]


def check_distribution(
    make: Maker, module: nn.Module | None, inputs: tuple[Tensor, ...], reference: ReferenceDensity | None, draws: int
) -> list[Finding]:
    """Check the distribution that `make(*inputs)` returns.

    Args:
        make: Inputs -> distribution.
        module: The module that makes it, if it is one.
        inputs: What the module is called with.
        reference: z -> log p(z), if known.
        draws: Draws for each comparison.
    """
    with torch.no_grad():
        subject = Subject(make(*inputs))
        findings = [check_shapes(subject)]
        if not findings[0].passed:
            return findings
        n = draws + draws // 2
        z = subject.sample(n)
        findings.append(check_values(subject, z, n))
        if not findings[1].passed:
            return findings
        random = not repeats(subject, z)
        values = grid_of(subject, z)
    findings.append(check_gradients(make(*inputs), z[:20], module, values is None))
    with torch.no_grad():
        findings += [check_order(subject, z), *_compare(subject, z, values, draws, random)]
        if not random:
            findings += check_reparametrised(subject, z) + _precision(module, inputs, z[:200])
        if reference is not None:
            findings.append(_reference(subject, z[:draws], reference, random))
    return findings


def _compare(subject: Subject, z: Tensor, values: Tensor | None, draws: int, random: bool) -> list[Finding]:
    if values is not None:
        return compare_masses(subject, z, values)
    real = real_subject(subject.distribution, CALLS if random else 1)
    if real is None:
        sentence = f"No smooth map onto the support {subject.support} is known."
        return [Finding("normalisation", None, float("nan"), 1.0, 0.0, sentence)]
    if (z.std(0) < 32 * torch.finfo(z.dtype).eps * z.abs().amax(0)).any():
        sentence = f"The draws are as close to each other as {z.dtype} numbers are: check it in double precision."
        return [Finding("normalisation", None, float("nan"), 1.0, 0.0, sentence)]
    return compare_densities(real, z, draws, random)


def _precision(module: nn.Module | None, inputs: tuple[Tensor, ...], z: Tensor) -> list[Finding]:
    """Compare a module in single precision with its copy in double precision."""
    if module is None or z.dtype == torch.float64:
        return []
    try:
        double = deepcopy(module).double()(*(x.double() for x in inputs)).log_prob(z.double())
    except (RuntimeError, TypeError, ValueError) as error:
        sentence = f"The module cannot be copied in double precision: {str(error).splitlines()[0]}"
        return [Finding("precision", None, float("nan"), 0.0, 0.0, sentence)]
    distribution = module(*inputs)
    single, shift = distribution.log_prob(z), shift_of_normalizer(distribution, z)
    verdict = Verdict(
        "Single and double precision agree.", "log_prob in single precision differs from the same in double precision."
    )
    return [compare_numbers("precision", single, double, verdict, shift)]


def compare_numbers(
    name: str, numbers: Tensor, expected: Tensor, verdict: Verdict, shift: Tensor | None = None
) -> Finding:
    """Compare log-densities that should be equal to single precision; the finding shows their largest difference.

    Args:
        name: Name of the finding.
        numbers, expected: The log-densities.
        verdict: Its sentences.
        shift: The standard error of each by a constant that each of the two has estimated.
    """
    if numbers.shape != expected.shape:
        return structural(name, [f"shapes {tuple(numbers.shape)} and {tuple(expected.shape)} differ"], "")
    difference = numbers.double() - expected.double()
    accepted = 0.01 + 1e-4 * expected.double().abs()
    if shift is not None:
        accepted = accepted + limit(1) * math.sqrt(2) * shift.double().abs()
    excess = difference.abs() / accepted
    return decide(name, difference, 0.0, 0.0, verdict, excess=excess)


def _reference(subject: Subject, z: Tensor, reference: ReferenceDensity, random: bool) -> Finding:
    verdict = Verdict("The density is that of the reference.", "The density is not that of the reference (nats).")
    expected = getattr(reference, "log_prob", reference)(z)
    if not random:
        shift = shift_of_normalizer(subject.distribution, z)
        return compare_numbers("reference", subject.distribution.log_prob(z), expected, verdict, shift)
    ratio = (subject.log_prob(z, BLOCKS) - expected.double().reshape(len(z), -1)).exp()  # its mean is 1 at each z
    error = variance_of_mean(ratio, BLOCKS).sqrt()
    effective = ratio.sum(0).square() / ratio.square().sum(0)
    return decide("reference", ratio.mean(0), 1.0, error, verdict, tolerance=2e-3, blind=effective < 200)
