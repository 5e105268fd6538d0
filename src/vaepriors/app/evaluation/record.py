"""The evaluation of a run, in blocks of examples that can stop and resume."""

import hashlib
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaepriors import checkpoint
from vaepriors.analysis import active_units
from vaepriors.annealing import Annealing, Bounds, simulate
from vaepriors.app.files import choose_examples
from vaepriors.app.methods import method_of
from vaepriors.app.records import check_same_file, name_of, write_record
from vaepriors.app.run import Run
from vaepriors.conditional import AnyVAE, batches, given, unconditional
from vaepriors.data import LIKELIHOODS, Dataset
from vaepriors.devices import hardware, open_devices
from vaepriors.likelihood import Estimate, Method, bits_per_dim, check_sizes, weigh
from vaepriors.numerics import fixed_numerics, seed_of
from vaepriors.priors import VHP
from vaepriors.reading import check
from vaepriors.vae import eval_mode

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Paused", "digest_of", "evaluate_run", "measure_normalizer", "summary"]


_BLOCK = 10  # at least this many examples between two looks at the clock


class Paused(RuntimeError):
    """There was no time for all examples; the next call continues with the rest."""


class Partial(TypedDict):
    """Beside the tensor `found`, of shape (5, done), of evaluation.partial."""

    same: dict[str, Any]
    seconds: float


@fixed_numerics()
def evaluate_run(
    run: Run,
    samples: int | None = None,
    split: str = "test",
    number: int | None = None,
    chunk: int | None = None,
    which: str = "best",
    seed: int = 0,
    accelerator: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
    prior_samples: int | None = None,
    devices: int = 1,
    until: float | None = None,
    save_every: float = 30.0,
    method: str = "is",
    file: Path | None = None,
    **options: int | None,
) -> dict[str, Any]:
    """Evaluate a run's model; write evaluation.json, and log p(x) of each example as log_likelihood.npy.

    Another split, file, number of examples, method, model or seed has files of its own (see `vaepriors.app.records`).
    What is done is kept in evaluation.partial. When it was interrupted, the next call with the same arguments resumes
    it, and ends with the same numbers: draws follow from the seed and the place of the examples.

    Args:
        run: The run.
        samples: Draws of z for each example, 5,000 unless given; not for the method `ais`.
        split, number, chunk, which, seed, accelerator, prior_samples: As for `vaepriors evaluate`.
        progress: Called with the number of examples done and their total.
        devices: How many devices share the examples, each in a process of its own; only the first one writes.
        until: A moment of `time.monotonic()`. Stop after a block of examples if another one would end later.
        save_every: Seconds between checkpoints of the evaluation.
        method: `is`, `refined` or `ais` (see `vaepriors.app.methods`).
        file: Other data instead of a split, as for `vaepriors evaluate`.
        options: Those of the method: `refine_steps`, `chains`, `temperatures`, `simulated`.

    Returns:
        What evaluation.json holds. `nll`, its standard error over examples `nll_se`, `elbo`, `rate` and `distortion`
        are means in nats; `bits_per_dim` is None for densities; `model_digest` and `examples_digest` identify the model
        and the examples. If the prior has an estimated `normalizer`, its error `normalizer_se` is part of `nll_se`.
        With simulated examples, `gap` is the mean distance of the bounds on their log p(x).

    Raises:
        Paused: If it stopped because of `until`.
        Busy: If another process works in the folder.
    """
    estimator, chosen = _method_for(run, method, samples=samples, **options)
    fabric = open_devices(accelerator, devices)
    if os.environ.get("LOCAL_RANK", "0") == "0":  # the others are started by the first, which holds it then
        run.check_free()
    dataset = run.dataset()
    model, x, y, what = _load(run, dataset, which, split, file, number, prior_samples, chosen.get("simulated", 0))
    _check_devices(devices, len(x))
    what |= {"seed": seed, "samples": chosen.get("chains"), "method": method, **chosen}
    check_same_file(run, what)
    fabric.launch()
    x = x.to(next(model.to(fabric.device).parameters()))
    blocks = _InBlocks(fabric, run / f"{name_of(what)}.partial", {**what, "chunk": chunk}, progress, estimator)
    with run.lock(fabric.is_global_zero):
        estimates, bounds, seconds = blocks.estimate(model, x, y, until, save_every)
        log_likelihood = checkpoint.npy(estimates.log_likelihood)
        result = {**what, **summary(estimates, dataset), **_gap(bounds), **_units(model, x, y, seed)}
        result |= _work(fabric, seconds) | {"log_likelihood_sha256": hashlib.sha256(log_likelihood).hexdigest()}
        result |= measure_normalizer(model, x, result, estimator, chunk, y)
        if fabric.is_global_zero:
            write_record(run, result, log_likelihood)
    return result


def _check_devices(devices: int, examples: int) -> None:
    if devices > examples:
        raise ValueError(f"devices is {devices}, but there are only {examples} examples: choose fewer")


def _work(fabric: "Fabric", seconds: float) -> dict[str, Any]:
    """The time that it took, and the devices."""
    return {"seconds": round(seconds, 2), "device": hardware(fabric.device), "devices": fabric.world_size}


def _method_for(run: Run, method: str, **options: int | None) -> tuple[Method, dict[str, Any]]:
    """The method with its options. For a model with conditions, it simulates no examples unless asked."""
    estimator, chosen = method_of(method, **options)
    if chosen.get("simulated") and options.get("simulated") is None and run.experiment().condition:
        chosen["simulated"] = 0
    return estimator, chosen


def _load(
    run: Run,
    dataset: Dataset,
    which: str,
    split: str,
    file: Path | None,
    number: int | None,
    prior_samples: int | None,
    simulated: int,
) -> tuple[AnyVAE, Tensor, Tensor | None, dict[str, Any]]:
    """The model, the examples and their conditions, and what identifies them."""
    if simulated and dataset.conditions:
        raise ValueError(
            f"simulated is {simulated}, but the model is given conditions, which simulated examples do not have: give "
            "simulated 0"
        )
    model, values = run.model(dataset, which)
    prior_samples = _set_prior_samples(model, prior_samples)
    points, conditions = choose_examples(dataset, split, file)
    if number is not None and not 1 <= number <= len(points):
        whole = f"the {split} set" if file is None else file
        raise ValueError(f"number is {number}: choose 1 to {len(points)}, the size of {whole}")
    x = points[:number]
    y = None if conditions is None else conditions[: len(x)]
    return (
        model,
        x,
        y,
        {
            **({"split": split} if file is None else {"split": "file", "file": os.path.realpath(file)}),
            "number": None if len(x) == len(points) else len(x),
            "examples_digest": digest_of(x, y),
            "checkpoint": which,
            "epoch": values["epoch"],
            "model_digest": checkpoint.digest(checkpoint.module_tensors(model)),
            "prior_samples": prior_samples,
        },
    )


def _set_prior_samples(model: AnyVAE, samples: int | None) -> int | None:
    """Set the draws of u in the density of a `VHP`, if they are given; return them, or None without such a prior."""
    hierarchical = [part for part in model.modules() if isinstance(part, VHP)]
    if samples is not None and (samples < 1 or not hierarchical):
        raise ValueError(f"prior_samples is {samples}: it must be at least 1, and belongs to the prior vhp")
    for prior in hierarchical:
        prior.samples = samples or prior.samples
    return hierarchical[0].samples if hierarchical else None


def _units(model: AnyVAE, x: Tensor, y: Tensor | None, seed: int) -> dict[str, int | None]:
    torch.manual_seed(seed_of(seed, "activity"))
    first, one = next(batches(model, x, y, 1))
    return {
        "active_units": active_units(model, x, condition=y) if len(x) > 1 else None,
        "latent_units": first.encoder(one).sample().shape[-1],
    }


def _known(model: AnyVAE, seed: int) -> AnyVAE:
    """The model with the prior of an evaluation: an estimate that it needs follows from the seed, also after a stop."""
    torch.manual_seed(seed_of(seed, "prior"))
    return model.hold_prior()


class _Shifted(nn.Module):
    """A prior whose estimated constant is moved by its standard error."""

    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, *y: Tensor) -> Distribution:
        return self.prior(*y).shifted(1)


@torch.no_grad()
def measure_normalizer(
    model: AnyVAE,
    x: Tensor,
    result: dict[str, Any],
    method: Method,
    chunk: int | None,
    condition: Tensor | None = None,
) -> dict[str, Any]:
    """The prior's estimated normaliser, if it has one, and the error of the likelihood with its share.

    The normaliser is moved by its standard error, and log p(x) of at most 100 examples changes by its share on average.
    This share and that of the examples are independent.

    Args:
        model: The model.
        x: The examples.
        result: The evaluation, with `seed` and `nll_se`.
        method: How log p(x) is estimated.
        chunk, condition: As in `estimate`.

    Returns:
        `normalizer`, `normalizer_se` and a new `nll_se`; nothing for a prior without an estimated normaliser.
    """
    with eval_mode(model):
        known, means = _known(model, result["seed"]), []
        x, y = x[:100], None if condition is None else condition[:100]
        normalizer = getattr(given(known, None if y is None else y[0].to(x)).prior(), "normalizer", None)
        if normalizer is None:
            return {}
        chunk = check_sizes(model, x, method.draws, chunk)
        for each in (known, type(known)(known.encoder, known.decoder, _Shifted(known.prior))):
            torch.manual_seed(seed_of(result["seed"], "normalizer"))
            estimates = weigh(method, each, x, y, chunk, lambda images: None)
            means.append(estimates.log_likelihood.mean().item())
    share, spread = means[1] - means[0], result["nll_se"]
    return {
        "normalizer": normalizer.value.item(),
        "normalizer_se": normalizer.se.item(),
        "nll_se": None if spread is None else math.hypot(spread, share),
    }


def _gap(bounds: Bounds) -> dict[str, float | None]:
    """The mean distance of bounds on log p(x), with its standard error; nothing without simulated examples."""
    n, distance = len(bounds.lower), bounds.upper - bounds.lower
    error = distance.std().item() / math.sqrt(n) if n > 1 else None
    return {"gap": bounds.gap, "gap_se": error} if n else {}


class _InBlocks:
    """An estimate of many examples, a block of them on each device at a time, that can stop and resume.

    The simulated examples of annealed importance sampling follow the others: there the first two of the five numbers of
    an example are the bounds on its log p(x).

    Args:
        fabric: The devices, launched.
        path: The file of the finished examples.
        same: What decides the numbers, and must be the same to resume. The draws of a block follow from its seed and
            the place of the first example.
        progress: Called with the number of examples done and their total.
        method: What estimates.
    """

    def __init__(
        self, fabric: "Fabric", path: Path, same: dict[str, Any], progress: Callable[[int, int], None], method: Method
    ) -> None:
        self.fabric, self.path, self.same, self.progress, self.method = fabric, path, same, progress, method
        self.simulated: int = same.get("simulated", 0)

    @torch.no_grad()
    def estimate(
        self, model: AnyVAE, x: Tensor, y: Tensor | None, until: float | None, save_every: float
    ) -> tuple[Estimate, Bounds, float]:
        """The estimate, the bounds of simulated examples, and the seconds that they took, in all calls together."""
        draws, total = self.method.draws, len(x) + self.simulated
        chunk = check_sizes(model, x, draws, self.same["chunk"])
        size = min(max(_BLOCK, chunk // draws), -(-total // self.fabric.world_size))
        estimates, before = self._restored(total, x.device)
        began = saved = time.monotonic()
        with eval_mode(model):
            known = _known(model, self.same["seed"])
            simulated = self._simulate(known)
            try:
                while estimates.shape[1] < total:
                    now, done = time.monotonic(), estimates.shape[1]
                    part = self._block(known, x, y, simulated, done, size, chunk)
                    estimates = torch.cat([estimates, part], 1)[:, :total]
                    late = self._any(until is not None and 2 * time.monotonic() - now > until)
                    if late and estimates.shape[1] < total:
                        raise Paused(f"stopped after {estimates.shape[1]} of {total} examples: call again to continue")
                    if time.monotonic() - saved >= save_every:
                        self._save(estimates, before + time.monotonic() - began)
                        saved = time.monotonic()
            except (KeyboardInterrupt, Paused):
                self._save(estimates, before + time.monotonic() - began)
                raise
        bounds = Bounds(*estimates[:2, len(x) :])
        return Estimate(*estimates[:, : len(x)]), bounds, before + time.monotonic() - began

    def _simulate(self, model: AnyVAE) -> tuple[Tensor, Tensor] | None:
        """The simulated examples with their z, the same in each call; None without any."""
        torch.manual_seed(seed_of(self.same["seed"], "simulated"))
        return simulate(unconditional(model), model.prior(), self.simulated) if self.simulated else None

    def _any(self, late: bool) -> bool:
        """Whether some device is late."""
        votes: Any = self.fabric.all_reduce(torch.tensor(float(late), device=self.fabric.device), reduce_op="sum")
        return votes.item() > 0

    def _block(
        self,
        model: AnyVAE,
        x: Tensor,
        y: Tensor | None,
        simulated: tuple[Tensor, Tensor] | None,
        done: int,
        size: int,
        chunk: int,
    ) -> Tensor:
        """Estimates of the next examples, `size` on each device, of shape `(5, devices * size)`; zeros after them."""
        devices, first = self.fabric.world_size, done + size * self.fabric.global_rank

        def count(images: int) -> None:
            nonlocal done
            total = len(x) + self.simulated
            done += images * devices
            if self.fabric.is_global_zero:
                self.progress(min(done, total), total)

        torch.manual_seed(seed_of(self.same["seed"], "evaluation", first))
        part = torch.zeros(5, size, dtype=torch.float64, device=x.device)
        block = x[first : first + size]
        if len(block):  # none for the last devices of the last round
            condition = None if y is None else y[first : first + size]
            part[:, : len(block)] = torch.stack(weigh(self.method, model, block, condition, chunk, count))
        if simulated is not None and isinstance(self.method, Annealing):
            start, end = (max(place - len(x), 0) for place in (first, first + size))
            drawn, z = (each[start:end] for each in simulated)
            if len(drawn):
                bounds = self.method.bounds(unconditional(model), model.prior(), drawn, z, chunk)
                part[:2, len(block) : len(block) + len(drawn)] = torch.stack(bounds)
                count(len(drawn))
        if devices == 1:
            return part
        every: Any = self.fabric.all_gather(part)  # (devices, 5, size)
        return every.transpose(0, 1).flatten(1)

    def _restored(self, total: int, device: torch.device) -> tuple[Tensor, float]:
        """The finished examples and their seconds; a damaged file is renamed, and nothing is finished."""
        if self.fabric.is_global_zero and self.path.is_file():
            try:
                self._read(total)
            except ValueError as error:
                aside = self.path.with_name(f"{self.path.name}.damaged")
                os.replace(self.path, aside)
                print(f"{error}: renamed to {aside.name}, and the evaluation starts over", file=sys.stderr)
        self.fabric.barrier()
        nothing = torch.zeros(5, 0, dtype=torch.float64)
        estimates, seconds = self._read(total) if self.path.is_file() else (nothing, 0.0)
        return estimates.to(device), seconds

    def _read(self, n: int) -> tuple[Tensor, float]:
        """The estimates of the first examples; none if they are of another evaluation."""
        tensors, values = checkpoint.load(self.path)
        estimates = tensors.get("found", torch.zeros(0))
        try:
            check(values, Partial)
        except ValueError as error:
            raise checkpoint.Damaged(f"{self.path} is damaged: {error}") from error
        if estimates.dtype != torch.float64 or estimates.shape != (5, estimates.shape[-1]):
            raise checkpoint.Damaged(f"{self.path} is damaged: it holds {estimates.dtype} {tuple(estimates.shape)}")
        if values["same"] != self.same:
            return estimates[:, :0], 0.0
        if estimates.shape[1] > n:
            raise checkpoint.Damaged(f"{self.path} is damaged: it holds {estimates.shape[1]} of {n} examples")
        return estimates, values["seconds"]

    def _save(self, estimates: Tensor, seconds: float) -> None:
        if self.fabric.is_global_zero:
            checkpoint.save(self.path, {"found": estimates}, {"same": self.same, "seconds": seconds})


def summary(estimates: Estimate, dataset: Dataset) -> dict[str, Any]:
    """Means over examples of estimates, as numbers."""
    nll, n = -estimates.log_likelihood, len(estimates.log_likelihood)
    discrete = LIKELIHOODS[dataset.likelihood].discrete
    return {
        "n": n,
        "nll": nll.mean().item(),
        "nll_se": nll.std().item() / math.sqrt(n) if n > 1 else None,
        "elbo": estimates.elbo.mean().item(),
        "rate": estimates.rate.mean().item(),
        "distortion": estimates.distortion.mean().item(),
        "bits_per_dim": bits_per_dim(nll.mean().item(), dataset.event_shape.numel()) if discrete else None,
        "effective_samples_mean": estimates.effective_samples.mean().item(),
        "effective_samples_min": estimates.effective_samples.min().item(),
    }


def digest_of(x: Tensor, condition: Tensor | None = None) -> str:
    """The digest of examples: two evaluations with the same one are of the same examples in the same order.

    With conditions it is another one: log p(x|y) and log p(x) do not compare.
    """
    return checkpoint.digest({"x": x} if condition is None else {"x": x, "y": condition})
