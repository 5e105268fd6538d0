"""What is checked of any sampler and density, before their distributions are compared."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors.checking.continuous import features_of
from vaepriors.checking.report import Finding, Verdict, decide, structural
from vaepriors.checking.subject import RealSubject, Subject

__all__ = ["check_gradients", "check_order", "check_reparametrised", "check_shapes", "check_values", "repeats"]

CALLS, PLACES = 64, 5  # calls of the sampler, and draws of each


def check_shapes(subject: Subject) -> Finding:
    """Shapes of `sample` and `log_prob` for any leading dimensions; a wrong one would broadcast silently."""
    problems = []
    batch = tuple(subject.batch_shape)
    for leading in ((), (1,), (3,), (2, 3)):
        shape = (*leading, *batch, *subject.event_shape)
        z = subject.distribution.sample(torch.Size(leading))
        if tuple(z.shape) != shape:
            problems.append(f"sample({leading}) has shape {tuple(z.shape)}, expected {shape}")
            continue
        log_prob = subject.distribution.log_prob(z)
        if tuple(log_prob.shape) != (*leading, *batch):
            problems.append(f"log_prob of z {shape} has shape {tuple(log_prob.shape)}, expected {(*leading, *batch)}")
    return structural("shapes", problems, "Samples and log-densities have the shapes that they should have.")


def check_values(subject: Subject, z: Tensor, draws: int) -> Finding:
    """Samples are as many as asked for, finite and within the support, and their log-densities are finite."""
    if len(z) != draws:
        return structural("values", [f"sample returned {len(z)} draws where {draws} were asked for"], "")
    outside = int((~subject.inside(z)).sum())
    problems = [f"{outside} of {len(z) * subject.members} samples are not finite or outside of {subject.support}"] * (
        outside > 0
    )
    if not outside:
        infinite = int((~subject.log_prob(z).isfinite()).sum())
        problems += [f"log_prob is not finite at {infinite} of {len(z) * subject.members} samples"] * (infinite > 0)
    return structural("values", problems, "Samples are within the support, and their log-densities are finite.")


def repeats(subject: Subject, z: Tensor) -> bool:
    """Whether two calls of `log_prob` agree to rounding."""
    first, second = (subject.log_prob(z[:20]) for _ in range(2))
    return torch.allclose(first, second, rtol=1e-5, atol=1e-5, equal_nan=True)


def check_gradients(distribution: Distribution, z: Tensor, module: nn.Module | None, continuous: bool) -> Finding:
    """Gradients of the log-density reach z and the parameters, and are finite."""
    named = {} if module is None else {name: p for name, p in module.named_parameters() if p.requires_grad}
    points = z.detach().clone().requires_grad_(continuous)
    log_prob = distribution.log_prob(points)
    inputs = [*([points] if continuous else []), *named.values()]
    names = [*(["z"] if continuous else []), *named]
    if not log_prob.requires_grad:
        if continuous and not named:
            sentence = "log_prob has no gradient: right only if it is constant in z."
            return Finding("gradients", None, 1.0, 0.0, 0.0, sentence)
        problems = ["log_prob has no gradient"] if named else []
        return structural("gradients", problems, "There is nothing to differentiate in.")
    gradients = dict(zip(names, torch.autograd.grad(log_prob.sum(), inputs, allow_unused=True), strict=True))
    missing = [name for name, gradient in gradients.items() if gradient is None]
    wrong = [name for name, gradient in gradients.items() if gradient is not None and not gradient.isfinite().all()]
    problems = [f"the gradient of {name} is not finite" for name in wrong]
    if missing and set(missing) >= ({"z"} & set(names)) and ("z" in missing or len(missing) == len(names)):
        problems.append(f"no gradient reaches {', '.join(missing)}")
    elif missing:
        sentence = f"No gradient reaches {', '.join(missing)}: right only if log_prob does not depend on them."
        return Finding("gradients", False if problems else None, float(len(missing)), 0.0, 0.0, sentence)
    return structural("gradients", problems, "Gradients reach all parameters and are finite.")


def check_order(subject: Subject, z: Tensor) -> Finding:
    """Draws do not depend on their place in a call, nor on the number of draws in it."""
    size = torch.Size((PLACES,))
    with torch.no_grad():
        few = torch.stack([subject.distribution.sample(size) for _ in range(CALLS)])  # (calls, places, *batch, *event)
    of_many = z.double().reshape(len(z), subject.members, -1)
    features = features_of(of_many, coordinates=8)
    of_few = features(few.double().reshape(CALLS * PLACES, subject.members, -1)).unflatten(0, (CALLS, PLACES))
    rest = (of_few.sum(1, keepdim=True) - of_few) / (PLACES - 1)
    by_place = of_few - rest  # (calls, places, B, F)
    by_number = of_few.mean(1) - features(of_many).mean(0)  # (calls, B, F)
    every = torch.cat([by_place.flatten(1), by_number.flatten(1)], 1)
    error = every.std(0) / math.sqrt(CALLS) * 1.3 + 0.01  # the errors themselves are of 64 calls
    return decide(
        "order", every.mean(0), 0.0, error,
        Verdict(
            "Draws do not depend on their place in a call, nor on the number of draws.",
            "Draws depend on their place in a call or on the number of draws: components may be taken in order.",
        ),
    )  # fmt: skip


def check_reparametrised(subject: Subject, z: Tensor) -> list[Finding]:
    """`rsample` draws as `sample` does, and `rsample_and_log_prob` returns the density of its draw."""
    if not getattr(subject.distribution, "has_rsample", False):
        return []
    n = min(2000, len(z))
    with torch.no_grad():
        draws = subject.distribution.rsample(torch.Size((n,)))
    flat = [each.double().reshape(len(each), subject.members, -1) for each in (z, draws)]
    a, b = map(features_of(flat[0]), flat)
    error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    same = Verdict(
        "rsample draws from the distribution of sample.", "rsample draws from another distribution than sample."
    )
    return [decide("rsample", b.mean(0) - a.mean(0), 0.0, error, same, tolerance=1e-3), *_joint(subject)]


def _joint(subject: Subject) -> list[Finding]:
    joint = getattr(subject.distribution, "rsample_and_log_prob", None)
    if joint is None:
        return []
    with torch.no_grad():
        z, log_prob = joint((200,))
        again = subject.distribution.log_prob(z)
        beside = subject.distribution.log_prob(z.nextafter(z.roll(1, 0)))
    same = Verdict(
        "rsample_and_log_prob returns the density of its draw.",
        "rsample_and_log_prob returns another number than log_prob of the same draw.",
    )
    rounding = (beside - again).abs().mean(0)  # of z, whose own density may be more exact
    accepted = 1e-2 + 1e-3 * again.abs() + 10 * rounding
    difference = (log_prob - again).double()
    return [decide("joint draw", difference, 0.0, 0.0, same, excess=(difference.abs() / accepted).double())]


def real_subject(distribution: Distribution, calls: int) -> RealSubject | None:
    """The distribution as one over R^D, or None if no map onto its support is known."""
    try:
        return RealSubject(distribution, calls)
    except ValueError:
        return None
