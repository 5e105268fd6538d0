"""`fit`, which makes a training of its arguments and runs it."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from vaepriors.conditional import AnyVAE
from vaepriors.data import Dataset
from vaepriors.devices import open_devices
from vaepriors.objectives import Objective
from vaepriors.store import Memory, Store
from vaepriors.training.loop import Training
from vaepriors.training.outcome import Callback, Outcome
from vaepriors.training.rates import MakeOptimizer, MakeScheduler
from vaepriors.training.settings import Settings
from vaepriors.words import a_type

__all__ = ["fit"]


def fit(
    model: AnyVAE,
    objective: Objective,
    data: Dataset,
    *,
    epochs: int = 100,
    batch_size: int = 100,
    lr: float = 5e-4,
    lr_stages: int = 1,
    adam_eps: float = 1e-8,
    normalize: bool = True,
    optimizer: MakeOptimizer | None = None,
    scheduler: MakeScheduler | None = None,
    warmup: int = 0,
    patience: int = 50,
    best_from: str = "start",
    seed: int = 0,
    epoch_steps: int | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    precision: str = "32-true",
    compile: bool = False,  # as torch names it
    graph: bool = False,
    store: Store | None = None,
    callbacks: Sequence[Callback] = (),
    save_every: float = 30.0,
    snapshots: Collection[int] = (),
    deadline: float | None = None,
) -> Outcome:
    """Train a model, or resume its training if the store has a checkpoint.

    The model's parts may be any modules that return distributions. It runs under `fixed_numerics` and draws all noise
    from `seed`, so its numbers depend neither on settings made elsewhere in the process nor on torch's random state,
    which it leaves as it was. A training that was stopped and resumed ends with the numbers of an uninterrupted one.

    Args:
        model: The model; it is moved to the device, converted to `precision` (a model in float64 needs `64-true`), and
            has the weights of the last epoch afterwards.
        objective: The objective. Its warm-up counts epochs here, unless it was given `steps_per_epoch`; a new training
            starts again from its first state.
        data: Training and validation examples; with conditions for a `ConditionalVAE`.
        epochs: Epochs at most.
        batch_size: Examples in a step, over all devices.
        lr: Learning rate of Adam.
        lr_stages: Stages of 1, 3, 9, ... epochs over which the learning rate falls to a tenth; constant for 1.
        adam_eps: What Adam adds to the root of the second moment.
        normalize: Divide each gradient by its norm before Adam.
        optimizer: Called with the list of parameters to train, returns the optimiser to use instead of Adam, such as
            `torch.optim.AdamW`, or `lambda parameters: torch.optim.SGD(parameters, 0.01, momentum=0.9)`. Its learning
            rate and all else are its own, and the gradients are not normalised.
        scheduler: Called with the optimiser, returns a scheduler of `torch.optim.lr_scheduler` to use instead of
            `lr_stages`. Each of its steps is an epoch; `ReduceLROnPlateau` sees the validation loss.
        warmup: Epochs before early stopping counts: at least those of the objective's warm-up.
        patience: Stop after more epochs than this without a better validation loss.
        best_from: Whether an epoch of the warm-up may give the best model: `start` (yes) or `warmup` (no).
        seed: Seed of the order of the data and of all noise. Initial weights are the model's own.
        epoch_steps: Steps of an epoch, where a pass over all examples is too long between two checkpoints or too short;
            a pass unless given. The next epoch continues the same pass.
        accelerator: `cpu`, `cuda`, or `auto`: cuda where there is one.
        devices: Devices on each node.
        nodes: Nodes (started by torchrun or SLURM).
        precision: `32-true`, `64-true`, or `bf16-mixed`. Log-densities are never in bfloat16.
        compile: Compile the model with torch.compile.
        graph: On one CUDA device, replay the training step as one CUDA graph.
        store: Where checkpoints and metrics are kept: `Folder(path)`, or in memory unless given.
        callbacks: Called as the training goes on.
        save_every: Seconds between checkpoints, which are written at the end of an epoch.
        snapshots: Epochs whose model is kept as `epoch-N`; when resumed, ones still to come, or kept already.
        deadline: A moment of `time.monotonic()`: stop after an epoch if another one would end later. At least one epoch
            is trained; the next call resumes.

    Returns:
        How it ended, with the metrics of all epochs and the best weights. The model has those of the last epoch, and is
        in evaluation mode. Ctrl-C or SIGTERM ends it after the epoch, with "interrupted" as `reason`.

    Raises:
        ValueError: If a setting is out of its range, if an argument is of another type, if all parameters to train are
            frozen, if the optimiser leaves some out, if the data have conditions and the model is not conditional, or
            the other way round, or if the store has another training or damaged files.
        Diverged: If a loss is not finite, or torch refuses a distribution whose parameters became NaN; the last
            checkpoint, of an epoch before, is kept in the store.
        OSError: If the disk is full; the last checkpoint is kept.

    >>> from vaepriors import VAE, data, networks, objectives, priors
    >>> digits = data.load("digits")
    >>> encoder, decoder = networks.Encoder((1, 8, 8), [32], 4), networks.Decoder((1, 8, 8), [32], 4)
    >>> model = VAE(encoder, decoder, priors.VampPrior(encoder, digits.train[:20]))
    >>> fit(model, objectives.ELBO(warmup=2), digits, epochs=2, accelerator="cpu").reason
    'finished'
    """
    given = locals()
    settings = Settings(**{field.name: given[field.name] for field in dataclasses.fields(Settings)})
    _check_arguments(objective, data, store, callbacks)
    fabric = open_devices(accelerator, devices, nodes, precision)
    fabric.launch()
    store = Memory() if store is None else store
    training = Training(
        model, objective, data, settings, fabric, store, callbacks, optimizer=optimizer, scheduler=scheduler
    )
    return training.run(save_every, snapshots, deadline)


def _check_arguments(objective: Objective, data: Dataset, store: Store | None, callbacks: Sequence[Callback]) -> None:
    """Refuse what looks right in a call, such as a class, a `DataLoader` or a path, and would fail far from it."""
    if not isinstance(objective, Objective):
        name = getattr(objective, "__name__", type(objective).__name__)
        raise ValueError(
            f"objective is {name}: give an instance of an objective, such as objectives.ELBO(), or of a class "
            "derived from objectives.Objective"
        )
    if not isinstance(data, Dataset):
        raise ValueError(
            f"data is {a_type(data)}: give Dataset(name, train, valid, test, likelihood), or call the "
            "objective in a loop over your own batches"
        )
    if isinstance(store, (str, Path)):
        raise ValueError(f"store is {a_type(store)}: give Folder({str(store)!r})")
    several = isinstance(callbacks, Sequence)
    for callback in callbacks if several else [callbacks]:
        if not (several and isinstance(callback, Callback)):
            raise ValueError(
                f"callbacks has {callback!r}: give a list of instances of classes derived from training.Callback"
            )
