r"""A new prior for the encoder and decoder of a trained run (see `objectives.PriorFit`).

The new run is like any other one: its experiment has the objective `refit`, and the weights that it starts from are its
first checkpoint. One more file, refit.json, says where they came from (see `app.origin`).
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vaepriors import checkpoint
from vaepriors.app.cost import check_memory
from vaepriors.app.custom import is_custom
from vaepriors.app.experiment import PRIORS, Data, Experiment, Machine, Model, load_data
from vaepriors.app.origin import Origin, measure_surgery, origin
from vaepriors.app.run import Run
from vaepriors.app.train import make_fabric, prepare
from vaepriors.training import Callback, Outcome

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["check_source", "options_of_prior", "refit", "refitted"]

KEPT = {field.name for part in (Data, Model, Machine) for field in dataclasses.fields(part)} | {"batch_size", "seed"}


def refitted(experiment: Experiment, **changes: Any) -> Experiment:
    """The experiment that fits a new prior to the model of another one.

    Data, networks, devices, batch size and seed are the same. Everything else has defaults of its own, unless changed.

    >>> new = refitted(Experiment(latent=8, prior="mog", components=7, objective="iwae", samples=50), prior="flow")
    >>> new.prior, new.components, new.latent, new.objective, new.samples
    ('flow', None, 8, 'refit', 1)
    """
    if is_custom(experiment.model):
        raise ValueError(
            f"the model {experiment.model} is custom and returns its own prior: call vaepriors.fit with "
            "VAE(encoder, decoder, prior) and objectives.PriorFit()"
        )
    kept = {name: value for name, value in experiment.given().items() if name in KEPT}
    ours = {"objective": "refit", "warmup": 0, "epochs": 500, "patience": 20, "lr": 1e-3}
    new = Experiment(**{**kept, **ours, **changes})
    if options_of_prior(new) == options_of_prior(experiment):
        raise ValueError(f"the run has the prior {new.prior} with these options already: choose another prior")
    return new


def options_of_prior(experiment: Experiment) -> dict[str, Any]:
    """The prior of an experiment, with its options."""
    own = PRIORS[experiment.prior].options if experiment.prior in PRIORS else ()
    return {name: getattr(experiment, name) for name in ("prior", *own)}


def refit(
    source: Run,
    experiment: Experiment,
    run: Run,
    fabric: "Fabric | None" = None,
    callbacks: Sequence[Callback] = (),
    save_every: float = 30.0,
    snapshots: Collection[int] = (),
    deadline: float | None = None,
) -> Outcome:
    """Fit a new prior to the best model of a run, or resume that.

    Args:
        source: The run whose encoder and decoder, and p(z1|z2) to start from, are taken.
        experiment: What to run, of `refitted`.
        run: Where to write.
        fabric: Devices, launched; made from the experiment if not given.
        callbacks, save_every, snapshots, deadline: As for `vaepriors.fit`.
    """
    check_source(source, experiment, run)
    dataset = source.dataset()
    model, values = source.model(dataset)
    fabric = make_fabric(experiment) if fabric is None else fabric
    check_memory(experiment, dataset, fabric.device)
    training = prepare(experiment, dataset, run, fabric, callbacks)
    _copy(model, training.model)
    with run.lock(fabric.is_global_zero, create=True):
        if fabric.is_global_zero and not run.has("last"):
            x, condition, groups, *_ = dataset.fixed_train()
            surgery, number = measure_surgery(model, x, condition=condition, groups=groups)
            about: Origin = {
                "run": source.folder.resolve().name,
                "epoch": values["epoch"],
                "model_sha256": _digest_of_model(source),
                "prior": options_of_prior(source.experiment()),
                "number": number,
                "surgery": None if surgery is None else surgery._asdict(),
            }
            checkpoint.write_json(run / "refit.json", about)
        return training.run(save_every, snapshots, deadline, save_start=True)


def check_source(source: Run, experiment: Experiment, run: Run) -> None:
    """Refuse a source without a model to start from, or another one than the run was begun from, before the work."""
    before = source.experiment()
    if source.folder.resolve() == run.folder.resolve():
        raise ValueError(f"{run.folder} is the run that is refitted: choose another --out")
    if experiment.seed != before.seed and source.dataset().digest() != load_data(experiment).digest():
        raise ValueError(
            f"seed {experiment.seed} splits {experiment.data} in another way than {before.seed}: leave it out"
        )
    run.check_folder(experiment)
    sha256, about = _digest_of_model(source), origin(run)
    if run.has("last") and (about is None or about["model_sha256"] != sha256):
        raise ValueError(
            f"{run.folder} was begun from another model than the best one of {source.folder}: choose another --out, or "
            f"remove {run.folder} to start again"
        )


def _digest_of_model(run: Run) -> str:
    """That of the tensors of its best model, without the model's code."""
    tensors, _ = run.load_checkpoint("best")
    return checkpoint.digest({name.removeprefix("model."): tensor for name, tensor in tensors.items()})


@torch.no_grad()
def _copy(source: nn.Module, model: nn.Module) -> None:
    """Copy encoder, decoder and the lower level of the prior."""
    tensors = checkpoint.module_tensors(source)
    for name, own in checkpoint.module_tensors(model).items():
        if name.startswith(("encoder.", "decoder.", "prior.bottom.")):
            own.copy_(tensors[name])
