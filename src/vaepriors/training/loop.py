r"""Training: the loop, early stopping, checkpoints.

    for each epoch:  draw the order of the examples; for each batch:  loss, terms = objective(model, x)
                     validation loss at weight 1; a line of metrics; now and then a checkpoint

The training set stays on the device, or on disk if it is too large; a batch is a selection of rows, and probabilities
become pixels on the device, anew at every visit. Shapes never change: the last batch of an epoch is filled up from the
epoch's first examples. No step reads the device; sums are read once an epoch.
"""

import dataclasses
import functools
import json
import math
import signal
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vaepriors import checkpoint
from vaepriors.compilation import Graphed, compiled
from vaepriors.conditional import AnyVAE, batches, check_condition, given
from vaepriors.data import Dataset
from vaepriors.data.batches import Order, feed
from vaepriors.devices import open_devices, peak_memory
from vaepriors.limits import at_least_one
from vaepriors.numerics import fixed_numerics, seed_of
from vaepriors.objectives import Objective
from vaepriors.optim import adam, set_rate, staged_rate
from vaepriors.priors import VampPrior
from vaepriors.store import Memory, Store, session

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Callback", "Diverged", "Losses", "Outcome", "Settings", "Training", "binarize", "fit"]

Trained = TypeVar("Trained", bound=nn.Module)
PRECISIONS = ("32-true", "64-true", "bf16-mixed")


class Diverged(RuntimeError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    epoch: int
    best_epoch: int
    best_loss: float
    reason: str  # "finished", "stopped early", "interrupted" or "out of time"
    metrics: list[dict[str, Any]] = field(default_factory=list, repr=False, compare=False)
    best: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)  # the weights of the best epoch

    def load_best(self, model: Trained) -> Trained:
        """Load the weights of the best epoch into the model that was trained; return it in evaluation mode."""
        if self.best:
            checkpoint.load_module(model, self.best)
        return model.eval()


class Callback:
    """Called as a training goes on; does nothing. Derive from it for a progress bar."""

    def start(self, epoch: int, epochs: int, steps: int) -> None:
        """Training starts after `epoch`, for at most `epochs` of `steps` steps."""

    def steps(self, n: int) -> None:
        """n more steps were issued."""

    def epoch(self, line: dict[str, Any]) -> None:
        """An epoch ended with this line of metrics."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the numbers of a training, beside model, objective and data; see `fit`.

    Raises:
        ValueError: If a value is out of its range.
    """

    epochs: int = 100
    batch_size: int = 100
    lr: float = 5e-4
    lr_stages: int = 1
    adam_eps: float = 1e-8
    normalize: bool = True
    warmup: int = 0
    patience: int = 50
    best_from: str = "start"
    seed: int = 0
    epoch_steps: int | None = None
    precision: str = "32-true"
    compile: bool = False
    graph: bool = False

    def __post_init__(self) -> None:
        at_least_one(epochs=self.epochs, epoch_steps=self.epoch_steps)
        at_least_one(batch_size=self.batch_size, lr_stages=self.lr_stages)
        for name in ("warmup", "patience", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it cannot be negative")
        for name in ("lr", "adam_eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: a positive number is needed")
        for name, choices in (("precision", PRECISIONS), ("best_from", ("start", "warmup"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(choices)}")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.precision == "64-true" else torch.float32

    def fixed(self) -> dict[str, Any]:
        """The settings that may not change when a training is resumed."""
        may_change = {"epochs", "patience", "compile", "graph"}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in may_change}


@dataclass
class State:
    """Where a training stands, apart from the tensors of model, optimiser and objective."""

    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    waited: int = 0  # epochs since the best one, for early stopping
    best: dict[str, Tensor] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)  # the lines of metrics.jsonl

    def values(self) -> dict[str, Any]:
        # JSON has no infinity
        best_loss = self.best_loss if math.isfinite(self.best_loss) else None
        return {"epoch": self.epoch, "best_loss": best_loss, "best_epoch": self.best_epoch, "waited": self.waited}


class Losses(nn.Module):
    """Rows of the training set -> (loss, rate, distortion), in one module for DDP, autocast and the compiler.

    The data are selected here because Fabric rounds the floating-point inputs of a module to its precision.

    Args:
        model: The model.
        objective: The objective.
        data: The training set, on the device of the model: `data[rows]` are some of its points.
        dynamic: Whether the data are probabilities, to be binarised anew in each call.
        conditions: The y of each point, for a conditional model.
    """

    def __init__(
        self,
        model: AnyVAE,
        objective: Objective,
        data: Any,
        dynamic: bool = False,
        conditions: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.data, self.dynamic = data, dynamic  # no buffer: it is not saved, and the same on all devices
        self.conditions = conditions

    def forward(self, rows: Tensor) -> Tensor:
        x = self.data[rows]
        model = given(self.model, None if self.conditions is None else self.conditions[rows])
        loss, terms = self.objective(model.without(rows), binarize(x) if self.dynamic else x)
        return torch.stack([loss, terms.rate.mean(), terms.distortion.mean()])


def binarize(probabilities: Tensor) -> Tensor:
    """Independent Bernoulli draws, as numbers 0 and 1 of the same dtype.

    >>> binarize(torch.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    return (torch.rand_like(probabilities) < probabilities).to(probabilities.dtype)


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
        model: The model; it is moved to the device and has the weights of the last epoch afterwards.
        objective: The objective. Its warm-up counts epochs here, unless it was given `steps_per_epoch`.
        data: Training and validation examples; with conditions for a `ConditionalVAE`.
        epochs: Epochs at most.
        batch_size: Examples in a step, over all devices.
        lr: Learning rate of Adam.
        lr_stages: Stages of 1, 3, 9, ... epochs over which the learning rate falls to a tenth; constant for 1.
        adam_eps: What Adam adds to the root of the second moment.
        normalize: Divide each gradient by its norm before Adam.
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
        snapshots: Epochs whose model is kept as `epoch-N`.
        deadline: A moment of `time.monotonic()`: stop after an epoch if another one would end later. At least one epoch
            is trained; the next call resumes.

    Returns:
        How it ended, with the metrics of all epochs and the best weights.

    Raises:
        ValueError: If a setting is out of its range, if the data have conditions and the model is not conditional, or
            the other way round, or if the store has another training or damaged files.
        Diverged: If a loss is not finite; the last checkpoint, of an epoch before, is kept.
        OSError: If the disk is full; the last checkpoint is kept.

    >>> from vaepriors import VAE, data, networks, objectives, priors
    >>> digits = data.load("digits")
    >>> encoder, decoder = networks.Encoder((1, 8, 8), [32], 4), networks.Decoder((1, 8, 8), [32], 4)
    >>> model = VAE(encoder, decoder, priors.VampPrior(encoder, digits.train[:20]))
    >>> fit(model, objectives.ELBO(warmup=2), digits, epochs=2, accelerator="cpu").reason
    'finished'
    """
    settings = Settings(
        epochs=epochs, batch_size=batch_size, lr=lr, lr_stages=lr_stages, adam_eps=adam_eps, normalize=normalize,
        warmup=warmup, patience=patience, best_from=best_from, seed=seed, epoch_steps=epoch_steps, precision=precision,
        compile=compile, graph=graph,
    )  # fmt: skip
    fabric = open_devices(accelerator, devices, nodes, precision)
    fabric.launch()
    training = Training(model, objective, data, settings, fabric, Memory() if store is None else store, callbacks)
    return training.run(save_every, snapshots, deadline)


class Training:
    """The parts of one training. They read and write the store only in `run`, which locks it.

    Args:
        model, objective, data, callbacks: As for `fit`.
        settings: The settings.
        fabric: Devices, launched.
        store: Where checkpoints and metrics are kept.
        description: What the store records, and compares when the training is resumed: the settings unless given.
    """

    def __init__(
        self,
        model: AnyVAE,
        objective: Objective,
        data: Dataset,
        settings: Settings,
        fabric: "Fabric",
        store: Store,
        callbacks: Sequence[Callback] = (),
        description: dict[str, Any] | None = None,
    ) -> None:
        if settings.batch_size % fabric.world_size:
            raise ValueError(
                f"batch_size {settings.batch_size} cannot be shared equally by {fabric.world_size} devices: choose a "
                "multiple"
            )
        self.settings, self.store, self.fabric, self.callbacks, self.data = settings, store, fabric, callbacks, data
        self.order = self._order()
        objective.count_epochs(self.steps)
        self.model: AnyVAE = model.to(fabric.device, settings.dtype)
        self.objective: Objective = objective.to(fabric.device)
        graph = _graph(settings, fabric)
        self.optimizer = adam(
            self.model, self.objective, settings.lr, normalize=settings.normalize, eps=settings.adam_eps,
            capturable=graph,
        )  # fmt: skip
        self.fixed = self.objective.fixed(self.model)
        trained = {id(p) for p in self.objective.trained(self.model)}
        self.frozen = [p for p in self.model.parameters() if p.requires_grad and id(p) not in trained]
        for p in self.frozen:  # of several devices, each parameter that requires a gradient must get one
            p.requires_grad_(False)
        self.description = settings.fixed() if description is None else description
        self.state, self.saved = State(), 0  # the latter is the epoch of the last checkpoint
        self.feed = feed(data.train, fabric.device, settings.dtype)
        self.valid = data.valid[fabric.global_rank :: fabric.world_size].to(fabric.device, settings.dtype)
        losses: Any = Losses(self.model, self.objective, self.feed.points, data.dynamic, self.conditions.get("train"))
        if settings.compile:
            losses = compiled(losses)
        self.losses, self.wrapped_optimizer = fabric.setup(losses, self.optimizer, move_to_device=False)
        self.step = Graphed(self._step) if graph else self._step

    @functools.cached_property
    def conditions(self) -> dict[str, Tensor]:
        """The conditions of the training set and of this device's validation examples; empty without any."""
        fabric, of = self.fabric, self.data.conditions
        check_condition(self.model, of.get("train"))
        shares = {"train": slice(None), "valid": slice(fabric.global_rank, None, fabric.world_size)}
        return {split: of[split][share].to(self.valid) for split, share in shares.items()} if of else {}

    @fixed_numerics()
    def run(
        self,
        save_every: float = 30.0,
        snapshots: Collection[int] = (),
        deadline: float | None = None,
        save_start: bool = False,
    ) -> Outcome:
        """Train until the end, or until something stops it; the store is locked meanwhile.

        Args:
            save_every, snapshots, deadline: As for `fit`.
            save_start: Write a checkpoint before the first epoch: the initial weights do not follow from the settings.
        """
        cuda = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=cuda), self.store.lock(self.fabric.is_global_zero, create=True):
                self._open_store()
                if save_start and self.state.epoch == 0:
                    self._save()
                return self._run(save_every, snapshots, deadline)
        finally:
            for p in self.frozen:
                p.requires_grad_(True)

    def _open_store(self) -> None:
        """Go to where the last checkpoint left off; write only when all is restored and nothing is amiss."""
        if self.fabric.is_global_zero:
            self.store.check(self.description, self.data)
        self.state = self._restore()
        if self.settings.epochs < self.state.epoch:
            raise ValueError(
                f"epochs is {self.settings.epochs}, but {self.state.epoch} epochs are trained already: give more"
            )
        if self.fabric.is_global_zero:
            here = session(self.state.epoch, self.fabric.device)
            self.store.begin(self.description, self.data, here, self.state.metrics)
        self.fabric.barrier()

    def _run(self, save_every: float, snapshots: Collection[int], deadline: float | None) -> Outcome:
        settings, state = self.settings, self.state
        for callback in self.callbacks:
            callback.start(state.epoch, settings.epochs, self.steps)
        saved = time.monotonic()
        with _Interruption() as interruption:
            reason = self._stopped_early()
            while not reason and state.epoch < settings.epochs:
                began = time.monotonic()
                valid_loss = self._epoch(state.epoch + 1)
                if state.epoch in snapshots:
                    self._save_model(f"epoch-{state.epoch}", checkpoint.module_tensors(self.model), valid_loss)
                late = deadline is not None and 2 * time.monotonic() - began > deadline
                stop = interruption.asked(self.fabric, late) if state.epoch < settings.epochs else ""
                reason = self._stopped_early() or stop
                if time.monotonic() - saved >= save_every and not reason and state.epoch < settings.epochs:
                    self._save()
                    saved = time.monotonic()
            self._save()
        metrics = [json.loads(line) for line in state.metrics]
        return Outcome(state.epoch, state.best_epoch, state.best_loss, reason or "finished", metrics, state.best)

    def _stopped_early(self) -> str:
        return "stopped early" if self.state.waited > self.settings.patience else ""

    def _epoch(self, epoch: int) -> float:
        """One pass over the data, its line of metrics, and its validation loss."""
        started = time.perf_counter()
        # of one epoch, seed and device; the order of the examples is the same on all devices
        torch.manual_seed(seed_of(self.settings.seed, "noise", epoch, self.fabric.global_rank))
        set_rate(self.optimizer, staged_rate(self.settings.lr, epoch, self.settings.lr_stages))
        loss, rate, distortion = self._pass(self._batches(epoch))
        valid_loss = self._validate()
        if not (math.isfinite(loss) and math.isfinite(valid_loss)):
            self._save_best()  # it may be younger than the last checkpoint
            best = f"the model of epoch {self.state.best_epoch} is kept as best"
            raise Diverged(
                f"the loss of epoch {epoch} is not a number (training {loss}, validation {valid_loss}): "
                f"{best if self.state.best else 'no epoch before it gave a model'}; "
                f"lower lr {self.settings.lr} or lengthen the warm-up"
            )
        line = {"epoch": epoch, "loss": loss, "rate": rate, "distortion": distortion, "valid_loss": valid_loss}
        line |= {name: value.item() for name, value in self._extra_metrics().items()}
        line["seconds"] = round(time.perf_counter() - started, 4)
        line["memory"] = round(peak_memory(self.fabric.device), 3)
        self._judge(epoch, valid_loss)
        self.state.metrics.append(json.dumps(line) + "\n")
        if self.fabric.is_global_zero:
            self.store.add_metrics(line)
        for callback in self.callbacks:
            callback.epoch(line)
        return valid_loss

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.order.steps

    def _order(self) -> Order:
        """The rows of each batch, on all devices together: a whole number of them for each."""
        number, devices, settings = len(self.data.train), self.fabric.world_size, self.settings
        share = min(settings.batch_size // devices, -(-number // devices))
        seed = functools.partial(seed_of, settings.seed, "order")
        return Order(number, share * devices, seed, settings.epoch_steps)

    def _batches(self, epoch: int) -> Iterator[Tensor]:
        """This device's rows of each batch, of the same number each time."""
        rows = self.order.epoch(epoch)
        share = self.order.size // self.fabric.world_size
        first = self.fabric.global_rank * share
        return self.feed.batches(rows[:, first : first + share])

    def _pass(self, batches: Iterator[Tensor]) -> list[float]:
        """A step for each batch; the means of loss, rate and distortion over the epoch and all devices."""
        self.model.train()
        for part in self.fixed:
            part.eval()
        self.objective.train()
        sums = torch.zeros(3, dtype=torch.float64, device=self.fabric.device)
        tick = max(1, self.steps // 50)
        for number, rows in enumerate(batches, 1):
            sums += self.step(rows)
            if number % tick == 0:
                for callback in self.callbacks:
                    callback.steps(tick)
        means = self.fabric.all_reduce(sums / self.steps, reduce_op="mean")
        return means.tolist()  # type: ignore[union-attr]

    def _step(self, rows: Tensor) -> Tensor:
        """A step on these rows of the training set; its loss, rate and distortion, left on the device."""
        self.wrapped_optimizer.zero_grad()
        losses = self.losses(rows)
        self.fabric.backward(losses[0])
        self.wrapped_optimizer.step()
        return losses.detach()

    @torch.no_grad()
    def _validate(self) -> float:
        """Mean loss of the validation set in evaluation mode, over all devices."""
        self.model.eval()
        self.objective.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.fabric.device)
        known = self.model.hold_prior()  # its components may cost more than the examples
        for model, x in batches(known, self.valid, self.conditions.get("valid"), 500):  # none on a device of a tiny set
            loss, _ = self.objective(model, x)
            sums += torch.stack([loss.double() * len(x), sums.new_tensor(len(x))])
        total, count = self.fabric.all_reduce(sums, reduce_op="sum").tolist()  # type: ignore[union-attr]
        return total / count

    def _extra_metrics(self) -> dict[str, Tensor]:
        shares = [part.clamped_share() for part in self.model.modules() if isinstance(part, VampPrior)]
        return self.objective.metrics() | ({"clamped_share": torch.stack(shares).mean()} if shares else {})

    def _judge(self, epoch: int, valid_loss: float) -> None:
        """Whether this epoch's model is the best one, and how long one has waited for a better."""
        state, warmup = self.state, self.settings.warmup
        state.epoch = epoch
        counts = self.settings.best_from == "start" or epoch >= warmup
        if counts and valid_loss < state.best_loss:
            state.best_loss, state.best_epoch, state.waited = valid_loss, epoch, 0
            state.best = {name: tensor.clone() for name, tensor in checkpoint.module_tensors(self.model).items()}
        else:
            state.waited = state.waited + 1 if epoch >= warmup else 0

    def _save(self) -> None:
        """Write the checkpoints, the best model first: a last.ckpt that ends the run is never without it."""
        self._save_best()
        if not self.fabric.is_global_zero:  # what it holds is the same on all devices
            return
        lines = np.frombuffer("".join(self.state.metrics).encode(), np.uint8).copy()
        tensors = {
            "model": checkpoint.module_tensors(self.model),
            "best": self.state.best,
            "objective": checkpoint.module_tensors(self.objective),
            "optimizer": checkpoint.optimizer_tensors(self.optimizer),
            "metrics": {"lines": torch.from_numpy(lines)},
        }
        flat = {f"{part}.{name}": tensor for part, named in tensors.items() for name, tensor in named.items()}
        if self.saved < self.state.epoch:
            self.store.keep_previous()
        self.store.save_checkpoint("last", flat, self.state.values())
        self.saved = self.state.epoch

    def _save_best(self) -> None:
        if self.state.best:
            self._save_model("best", self.state.best, self.state.best_loss, self.state.best_epoch)

    def _save_model(self, which: str, tensors: dict[str, Tensor], loss: float, epoch: int | None = None) -> None:
        """Write a model alone, of this epoch unless given."""
        if self.fabric.is_global_zero:
            named = {f"model.{name}": tensor for name, tensor in tensors.items()}
            values = {"epoch": self.state.epoch if epoch is None else epoch, "loss": loss}
            self.store.save_checkpoint(which, named, values)

    def _restore(self) -> State:
        if not self.store.has("last"):
            return State()
        flat, values = self.store.load_checkpoint("last")
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "objective": {}, "optimizer": {}, "metrics": {}}
        try:
            for name, tensor in flat.items():
                part, _, rest = name.partition(".")
                if part not in parts:
                    raise ValueError(f"the tensor {name} is unknown")
                parts[part][rest] = tensor
            checkpoint.load_module(self.model, parts["model"])
            checkpoint.load_module(self.objective, parts["objective"])
            checkpoint.load_optimizer(self.optimizer, parts["optimizer"])
            metrics = _lines(parts["metrics"])
            if parts["best"] and parts["best"].keys() != parts["model"].keys():
                raise ValueError("its best model has other tensors than its last one")
        except ValueError as error:
            raise ValueError(f"the last checkpoint cannot be used: {error}; {self.store.remedy('last')}") from error
        best_loss = math.inf if values["best_loss"] is None else values["best_loss"]
        self.saved = values["epoch"]
        return State(**values | {"best_loss": best_loss}, best=parts["best"], metrics=metrics)


def _lines(tensors: dict[str, Tensor]) -> list[str]:
    """The lines of metrics.jsonl, from the bytes of a checkpoint."""
    if tensors.keys() != {"lines"} or tensors["lines"].dtype != torch.uint8:
        raise ValueError("it has no metrics of its epochs")
    return bytes(tensors["lines"].numpy()).decode().splitlines(keepends=True)


def _graph(settings: Settings, fabric: "Fabric") -> bool:
    """Whether the step is to be one CUDA graph, and can."""
    if settings.graph and fabric.device.type != "cuda":
        print("there is no CUDA device for --graph: continuing without it", file=sys.stderr)
    elif settings.graph and fabric.world_size > 1:
        raise ValueError(f"graph is for one device, not for {fabric.world_size}: leave one of them out")
    return settings.graph and fabric.device.type == "cuda"


class _Interruption:
    """The first Ctrl-C (or SIGTERM) ends the training after this epoch; a second one ends it at once."""

    def __init__(self) -> None:
        self.signalled = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "_Interruption":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._first)
        except ValueError:  # not in the main thread: whoever runs it handles signals
            pass
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _first(self, number: int, frame: object) -> None:
        self.signalled = True
        print("\nstopping after this epoch; press Ctrl-C again to stop at once", file=sys.stderr)
        for each, handler in self.before.items():
            signal.signal(each, handler)

    def asked(self, fabric: "Fabric", late: bool) -> str:
        """Why to stop: a process of any device got a signal or is out of time; empty to continue."""
        flags = torch.tensor([float(self.signalled), float(late)], device=fabric.device)
        signalled, late = (fabric.all_reduce(flags, reduce_op="sum") > 0).tolist()  # type: ignore
        return "interrupted" if signalled else "out of time" if late else ""
