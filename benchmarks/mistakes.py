"""Wrong implementations that published programs have, their effect in nats, and what `vaepriors.check` says of each.

    python benchmarks/mistakes.py --out results/benchmarks/mistakes.json
    python benchmarks/mistakes.py --render        # the outputs in docs/check.md, from that file

The tests check the same implementations. Each is a small change of a right one, which the check must pass.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily

from vaepriors import VAE, StandardNormal, VampPrior, check, estimate, networks
from vaepriors.app.choices import between_marks
from vaepriors.checking import Report
from vaepriors.checkpoint import write_atomically, write_json
from vaepriors.distributions import DiagonalNormal, DiscretizedLogistic, NormalMixture, Shape
from vaepriors.store import session

ROOT = Path(__file__).parents[1]
PAGE, RECORDED = ROOT / "docs" / "check.md", ROOT / "results" / "benchmarks" / "mistakes.json"
K, D = 6, 3  # components and dimensions of the mixture
DRAWS, BATCHES = 1000, 10  # of the likelihood: draws of z, and the mini-batches in which they are taken


class SumOfMarginals(NormalMixture):
    """logsumexp over components for each dimension, then the sum over dimensions."""

    def log_prob(self, value: Tensor) -> Tensor:
        return self.marginal_log_prob(value).sum(-1)


class VarianceAsDeviation(NormalMixture):
    """exp(log variance) in the place of the standard deviation, in the density alone."""

    def log_prob(self, value: Tensor) -> Tensor:
        return NormalMixture(self.loc, self.scale**2).log_prob(value)


class RootTwice(NormalMixture):
    """The square root of a scale that is one already, in the density alone."""

    def log_prob(self, value: Tensor) -> Tensor:
        return NormalMixture(self.loc, self.scale.sqrt()).log_prob(value)


class StandardDraws(NormalMixture):
    """Draws of N(0, I)."""

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return torch.randn(*sample_shape, *self.event_shape)


class FirstComponents(NormalMixture):
    """Draws of the components in order, the first n of them."""

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        k = (torch.arange(shape.numel()) % len(self.loc)).reshape(shape)
        return self.loc[k] + self.scale[k] * torch.randn_like(self.loc[k])


class Coupling(Distribution):
    """u ~ N(0, I), z = [u1, exp(s(u1)) u2 + t(u1)], with 2 numbers in each half."""

    arg_constraints = {}
    support = DiagonalNormal.support
    counted = 1  # how often log |du/dz| is added

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.s, self.t = (torch.randn(2, 2, generator=generator) / 2 for _ in range(2))
        super().__init__(torch.Size(), torch.Size([4]), validate_args=False)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        u1, u2 = torch.randn(*sample_shape, 4).split(2, -1)
        return torch.cat([u1, (0.5 + (u1 @ self.s).tanh()).exp() * u2 + u1 @ self.t], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        u1, z2 = value.split(2, -1)
        s = 0.5 + (u1 @ self.s).tanh()
        u = torch.cat([u1, (z2 - u1 @ self.t) * (-s).exp()], -1)
        return DiagonalNormal(torch.zeros(4), torch.ones(4)).log_prob(u) - self.counted * s.sum(-1)


class CouplingOfEachDimension(Coupling):
    """The log-determinant, one number for each draw, added before the sum over dimensions."""

    counted = 4


class WithoutTails(DiscretizedLogistic):
    """The mass between the two ends of a bin, also for the first and the last bin."""

    def log_prob(self, value: Tensor) -> Tensor:
        low = (value * self.levels).floor() / self.levels
        upper, lower = ((end - self.loc) / self.log_scale.exp() for end in (low + 1 / self.levels, low))
        return (upper.sigmoid() - lower.sigmoid() + 1e-7).log()


def mixture(kind: type[NormalMixture] = NormalMixture) -> NormalMixture:
    generator = torch.Generator().manual_seed(0)
    loc = 2 * torch.randn(K, D, generator=generator)
    return kind(loc, 0.3 + 0.5 * torch.rand(K, D, generator=generator))


def image(kind: type[DiscretizedLogistic] = DiscretizedLogistic, batch: Shape = ()) -> Independent:
    """8 x 8 pixels, of which a quarter is black and a quarter is white."""
    loc = torch.linspace(0, 1, 64).mul(2).sub(0.5).clamp(0, 1).expand(*batch, 64).unflatten(-1, (8, 8))
    return Independent(kind(loc, torch.full((8, 8), -3.0)), 2)


class WidePrior(nn.Module):
    """A VampPrior with exp(log variance) in the place of the standard deviation, in density and sampler alike."""

    def __init__(self, right: VampPrior) -> None:
        super().__init__()
        self.right = right

    def forward(self) -> NormalMixture:
        p = self.right()
        return NormalMixture(p.loc, p.scale**2)


def vamp_prior() -> VampPrior:
    torch.manual_seed(0)
    encoder = networks.Encoder((16,), [16], latent=2)
    nn.init.constant_(encoder.head.log_var.bias, -2.0)  # as after some training
    return VampPrior(encoder, torch.rand(5, 16))


def mixture_of_posteriors(prior: VampPrior) -> MixtureSameFamily:
    """The reference for a VampPrior, of torch's own classes."""
    q = prior.encoder(prior.inputs())
    components = Independent(torch.distributions.Normal(q.mean, q.stddev), 1)
    return MixtureSameFamily(Categorical(logits=torch.zeros(len(q.mean))), components)


def model() -> tuple[VAE, Tensor]:
    torch.manual_seed(0)
    encoder, decoder = networks.Encoder((16,), [16], latent=2), networks.Decoder((16,), [16], latent=2)
    return VAE(encoder, decoder, StandardNormal(2)), torch.rand(10, 16).round()


def likelihood(vae: VAE, divisor: int) -> Callable[[Tensor], Tensor]:
    """x -> log p(x) from mini-batches of draws."""

    def log_likelihood(x: Tensor) -> Tensor:
        log_w = torch.cat([vae(x, DRAWS // BATCHES).log_weight for _ in range(BATCHES)])
        return log_w.logsumexp(0) - math.log(divisor)

    return log_likelihood


@dataclass(frozen=True)
class Mistake:
    """A mistake, the check of a program that has it, and of one that has not; effect: () -> nats."""

    wrong: Callable[[int], Report]
    right: Callable[[int], Report]
    sees: tuple[str, ...]  # findings that must fail
    effect: Callable[[], float]


def _mixture_mistake(kind: type[NormalMixture], *sees: str) -> Mistake:
    return Mistake(
        lambda seed: check(mixture(kind), seed=seed), lambda seed: check(mixture(), seed=seed), sees,
        lambda: _difference(mixture(kind), mixture()),
    )  # fmt: skip


@torch.no_grad()
def _difference(wrong: Any, right: Any, n: int = 20_000) -> float:
    """Mean of log p_wrong - log p over draws of the right sampler."""
    torch.manual_seed(0)
    z = right.sample((n,))
    return (wrong.log_prob(z) - right.log_prob(z)).mean().item()


@torch.no_grad()
def _divergence(draws: Any, right: NormalMixture, n: int = 20_000) -> float:
    """KL of the distribution of the draws, a known one, from the density."""
    torch.manual_seed(0)
    z = draws.sample((n,))
    return (draws.log_prob(z) - right.log_prob(z)).mean().item()


def _first_components() -> float:
    """KL of two draws' distribution from the density: those of two components out of K."""
    right = mixture()
    return _divergence(NormalMixture(right.loc[:2], right.scale[:2]), right)


def _likelihood_effect() -> float:
    vae, x = model()
    with torch.no_grad():
        return (likelihood(vae, DRAWS // BATCHES)(x) - estimate(vae, x, 10_000).log_likelihood).mean().item()


def _vamp_effect() -> float:
    prior = vamp_prior()
    return _difference(WidePrior(prior)(), prior())


def _check_vamp(wrong: bool, seed: int) -> Report:
    prior = vamp_prior()
    return check(WidePrior(prior) if wrong else prior, reference=mixture_of_posteriors(prior), seed=seed)


def _check_likelihood(divisor: int, seed: int) -> Report:
    vae, x = model()
    return check(vae, x, reference=likelihood(vae, divisor), seed=seed)


MISTAKES = {
    "marginals": _mixture_mistake(SumOfMarginals, "bridge", "score"),
    "variance": _mixture_mistake(VarianceAsDeviation, "bridge", "score", "moves"),
    "variance-in-both": Mistake(
        lambda seed: _check_vamp(True, seed), lambda seed: _check_vamp(False, seed), ("reference",), _vamp_effect
    ),
    "root": _mixture_mistake(RootTwice, "regions", "bridge", "score", "moves"),
    "standard-draws": Mistake(
        lambda seed: check(mixture(StandardDraws), seed=seed), lambda seed: check(mixture(), seed=seed),
        ("bridge", "score", "moves"),
        lambda: _divergence(DiagonalNormal(torch.zeros(D), torch.ones(D)), mixture()),
    ),
    "first-components": Mistake(
        lambda seed: check(mixture(FirstComponents), seed=seed), lambda seed: check(mixture(), seed=seed),
        ("order",), _first_components,
    ),
    "log-determinant": Mistake(
        lambda seed: check(CouplingOfEachDimension(), seed=seed), lambda seed: check(Coupling(), seed=seed),
        ("normalisation", "bridge", "score", "moves"),
        lambda: _difference(CouplingOfEachDimension(), Coupling()),
    ),
    "mini-batch": Mistake(
        lambda seed: _check_likelihood(DRAWS // BATCHES, seed), lambda seed: _check_likelihood(DRAWS, seed),
        ("log-likelihood",), _likelihood_effect,
    ),
    "tails": Mistake(
        lambda seed: check(image(WithoutTails), seed=seed), lambda seed: check(image(), seed=seed),
        ("masses", "levels"), lambda: _difference(image(WithoutTails), image()),
    ),
}  # fmt: skip


def measure(name: str) -> dict[str, Any]:
    """The effect of a mistake, and the findings of its check."""
    mistake = MISTAKES[name]
    keys = ("name", "status", "number", "error", "expected", "meaning")
    findings = [{key: getattr(finding, key) for key in keys} for finding in mistake.wrong(0)]
    passed = mistake.right(0).passed
    return {"effect": mistake.effect(), "findings": findings, "right_passes": passed}


def render(result: dict[str, Any]) -> str:
    """The effect, and the lines of the report that are of interest: those that failed."""
    failed = [f for f in result["findings"] if f["status"] == "FAILED"]
    rows = [["finding", "result", "number", "error", "expected"]]
    for f in failed:
        error = f"{f['error']:.2g}" if f["error"] else ""
        rows.append([f["name"], f["status"], f"{f['number']:.4g}", error, f"{f['expected']:g}"])
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["    " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    passed = sum(f["status"] == "passed" for f in result["findings"])
    return f"Effect: {result['effect']:+.2f} nats. The check ({passed} other findings passed):\n\n" + "\n".join(lines)


def rendered(text: str, recorded: dict[str, Any]) -> str:
    """The text of docs/check.md with its outputs made anew."""
    for name, result in recorded["mistakes"].items():
        text = between_marks(text, f"mistake {name}", render(result))
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--render", action="store_true", help="only put the recorded outputs into docs/check.md")
    given = parser.parse_args()
    if given.render:
        write_atomically(PAGE, rendered(PAGE.read_text(), json.loads(RECORDED.read_text())).encode())
        return
    results = {}
    for name in MISTAKES:
        results[name] = measure(name)
        print(f"{name}\n{render(results[name])}\n")
    if given.out:
        write_json(given.out, {"session": session(0, torch.device("cpu")), "mistakes": results})


if __name__ == "__main__":
    main()
