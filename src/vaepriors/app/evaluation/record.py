"""What an evaluation of a run computes, and what it records."""

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vaepriors import checkpoint
from vaepriors.analysis import active_units
from vaepriors.annealing import Bounds
from vaepriors.app.evaluation.blocks import InBlocks
from vaepriors.app.evaluation.normalizer import measure_normalizer
from vaepriors.app.files import choose_examples, spaced
from vaepriors.app.measure import is_discrete
from vaepriors.app.methods import method_of
from vaepriors.app.records import check_same_file, name_of, write_record
from vaepriors.app.run import Run
from vaepriors.conditional import AnyVAE, batches
from vaepriors.data import Dataset
from vaepriors.devices import hardware, is_first, open_devices
from vaepriors.likelihood import Estimate, bits_per_dim
from vaepriors.numerics import fixed_numerics, seed_of
from vaepriors.priors import VHP

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["digest_of", "evaluate_run", "summary"]


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
    first: bool = False,
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
        first: Whether `number` examples are the first ones, as in the tables of `results/`, and not evenly spaced.
        options: Those of the method: `refine_steps`, `chains`, `temperatures`, `simulated`.

    Returns:
        What evaluation.json holds. `nll`, its standard error over examples `nll_se`, `elbo`, `rate` and `distortion`
        are means in nats; `bits_per_dim` is None for densities; `model_digest` and `examples_digest` identify the model
        and the examples. If the prior has an estimated `normalizer`, its error `normalizer_se` is part of `nll_se`.
        With simulated examples, `gap` is the mean distance of the bounds on their log p(x). A model with conditions
        draws them given those of the evaluated examples, in their order, and from the first again if they are more.

    Raises:
        ValueError: If log p(x) of an example is infinite or not a number.
        Paused: If it stopped because of `until`.
        Busy: If another process works in the folder.
    """
    estimator, chosen = method_of(method, samples=samples, **options)
    fabric, dataset = _open(run, accelerator, devices)
    model, x, y, rows, what = _load(run, dataset, which, split, file, number, first, prior_samples)
    if devices > len(x):
        raise ValueError(f"devices is {devices}, but there are only {len(x)} examples: choose fewer")
    what |= {"seed": seed, "samples": chosen.get("chains"), "method": method, **chosen}
    check_same_file(run, what)
    fabric.launch()
    x = x.to(next(model.to(fabric.device).parameters()))
    blocks = InBlocks(fabric, run / f"{name_of(what)}.partial", {**what, "chunk": chunk}, progress, estimator, rows)
    with run.lock(fabric.is_global_zero):
        estimates, bounds, seconds = blocks.estimate(model, x, y, until, save_every)
        log_likelihood = checkpoint.npy(estimates.log_likelihood)
        numbers = summary(estimates, dataset, is_discrete(model, dataset))
        result = {**what, **numbers, **_gap(bounds), **_units(model, x, y, seed)}
        result |= _work(fabric, seconds) | {"log_likelihood_sha256": hashlib.sha256(log_likelihood).hexdigest()}
        result |= measure_normalizer(model, x, result, estimator, chunk, y)
        if fabric.is_global_zero:
            write_record(run, result, log_likelihood)
    return result


def _open(run: Run, accelerator: str, devices: int) -> tuple["Fabric", Dataset]:
    """The devices and the data, of a run that no other process works in."""
    fabric = open_devices(accelerator, devices)
    if is_first():  # the others start when it holds the folder
        run.check_free()
    return fabric, run.dataset()


def _work(fabric: "Fabric", seconds: float) -> dict[str, Any]:
    """The time that it took, and the devices."""
    return {"seconds": round(seconds, 2), "device": hardware(fabric.device), "devices": fabric.world_size}


def _load(
    run: Run,
    dataset: Dataset,
    which: str,
    split: str,
    file: Path | None,
    number: int | None,
    first: bool,
    prior_samples: int | None,
) -> tuple[AnyVAE, Tensor, Tensor | None, Tensor, dict[str, Any]]:
    """The model, the examples, their conditions and rows, and what identifies them."""
    model, values = run.model(dataset, which)
    prior_samples = _set_prior_samples(model, prior_samples)
    points, conditions = choose_examples(dataset, split, file)
    if number is not None and not 1 <= number <= len(points):
        whole = f"the {split} set" if file is None else file
        raise ValueError(f"number is {number}: choose 1 to {len(points)}, the size of {whole}")
    number = len(points) if number is None else number
    some = number < len(points)
    rows = torch.arange(number) if first else spaced(number, len(points))
    x = points[rows] if some else points[:]
    y = None if conditions is None else conditions[rows]
    what = {
        **({"split": split} if file is None else {"split": "file", "file": os.path.realpath(file)}),
        "number": number if some else None,
        **({"spaced": True} if some and not first else {}),
        "examples_digest": digest_of(x, y),
        "checkpoint": which,
        "epoch": values["epoch"],
        "model_digest": checkpoint.digest(checkpoint.module_tensors(model)),
        "prior_samples": prior_samples,
    }
    return model, x, y, rows, what


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


def _gap(bounds: Bounds) -> dict[str, float | None]:
    """The mean distance of bounds on log p(x), with its standard error; nothing without simulated examples."""
    n, distance = len(bounds.lower), bounds.upper - bounds.lower
    error = distance.std().item() / math.sqrt(n) if n > 1 else None
    return {"gap": bounds.gap, "gap_se": error} if n else {}


def summary(estimates: Estimate, dataset: Dataset, discrete: bool) -> dict[str, Any]:
    """Means over examples of estimates, as numbers; those of probabilities also in bits per dimension."""
    nll, n = -estimates.log_likelihood, len(estimates.log_likelihood)
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
