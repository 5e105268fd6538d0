r"""Training: the loop, early stopping, checkpoints.

    for each epoch:  draw the order of the examples; for each batch:  loss, terms = objective(model, x)
                     validation loss at weight 1; a line of metrics; now and then a checkpoint

The training set stays on the device, a batch is a selection of rows, and probabilities become pixels there, anew
at every visit. Shapes never change: the last batch of an epoch is filled up from the epoch's first examples. No
step reads the device; sums are read once an epoch.
"""

import json
import math
import signal
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from vaepriors import checkpoint
from vaepriors.app.cost import check_memory
from vaepriors.app.experiment import Experiment, build, steps_per_epoch
from vaepriors.app.run import Run, seed_of, session
from vaepriors.compilation import Graphed, compiled
from vaepriors.data import Dataset
from vaepriors.devices import open_devices, peak_memory
from vaepriors.numerics import fixed_numerics
from vaepriors.objectives import Objective
from vaepriors.optim import adam, set_rate, staged_rate
from vaepriors.priors import VampPrior
from vaepriors.vae import VAE

__all__ = ["Diverged", "Listener", "Losses", "Report", "binarize", "fit", "make_fabric"]


class Diverged(RuntimeError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Report:
    """How a training ended."""

    epoch: int
    best_epoch: int
    best_loss: float
    why: str  # "finished", "stopped early", "interrupted" or "out of time"


class Listener:
    """Told how a training goes; does nothing. Derive from it for a progress bar."""

    def start(self, epoch: int, epochs: int, steps: int) -> None:
        """Training goes on after `epoch`, for at most `epochs` of `steps` steps."""

    def steps(self, n: int) -> None:
        """n more steps were issued."""

    def epoch(self, line: dict[str, Any]) -> None:
        """An epoch ended with this line of metrics."""


@dataclass
class _State:
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
        data: The training set, on the device of the model.
        dynamic: Whether the data are probabilities, to be binarised anew in each call.
    """

    def __init__(self, model: VAE, objective: Objective, data: Tensor, dynamic: bool = False) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.data, self.dynamic = data, dynamic  # no buffer: it is not saved, and the same on all devices

    def forward(self, rows: Tensor) -> Tensor:
        x = self.data[rows]
        loss, terms = self.objective(self.model, binarize(x) if self.dynamic else x)
        return torch.stack([loss, terms.rate.mean(), terms.distortion.mean()])


def binarize(probabilities: Tensor) -> Tensor:
    """Independent Bernoulli draws, as numbers 0 and 1 of the same dtype.

    >>> binarize(torch.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    return (torch.rand_like(probabilities) < probabilities).to(probabilities.dtype)


def make_fabric(experiment: Experiment) -> Fabric:
    """The devices of an experiment.

    Raises:
        ValueError: If it asks for a device that is not there.
    """
    # for 64-true, model and data are float64 already; Fabric's own plugin would round the losses to float32
    precision = "bf16-mixed" if experiment.precision == "bf16-mixed" else "32-true"
    return open_devices(experiment.accelerator, experiment.devices, experiment.nodes, precision)


@fixed_numerics()
def fit(
    experiment: Experiment,
    dataset: Dataset,
    run: Run,
    fabric: Fabric | None = None,
    listeners: Sequence[Listener] = (),
    save_every: float = 30.0,
    snapshots: Collection[int] = (),
    until: float | None = None,
) -> Report:
    """Train an experiment, or resume it if the run's folder has a checkpoint.

    It runs under `fixed_numerics`, so its numbers do not depend on settings made elsewhere in the process.

    Args:
        experiment: What to run.
        dataset: Its data.
        run: Where to write.
        fabric: Devices, launched; made from the experiment if not given.
        listeners: Told of the progress.
        save_every: Seconds between checkpoints, which are written at the end of an epoch.
        snapshots: Epochs whose model is kept as `epoch-N.ckpt`, to see later how it came to be.
        until: A moment of `time.monotonic()`: stop after the epoch, the first one at the earliest, if another one of
            the same length would end later. What is left is for the next call.

    Raises:
        ValueError: If the experiment does not fit the data or the memory; if the folder has the run of another
            experiment, or of other data, or of as many epochs already; if its files are damaged.
        Busy: If another process works in the folder.
        Diverged: If a loss is not finite; the last checkpoint, of an epoch before, is kept.
        OSError: If the disk is full; the last checkpoint is kept.
    """
    run.check_folder(experiment)
    fabric = make_fabric(experiment) if fabric is None else fabric
    check_memory(experiment, dataset, fabric.device)
    return _Training(experiment, dataset, run, fabric, listeners).run_epochs(save_every, snapshots, until)


class _Training:
    """The parts of one training. They read and write the run's folder only in `run_epochs`, which locks it."""

    def __init__(
        self, experiment: Experiment, dataset: Dataset, run: Run, fabric: Fabric, listeners: Sequence[Listener]
    ) -> None:
        self.experiment, self.run, self.fabric, self.listeners = experiment, run, fabric, listeners
        self.dataset = dataset
        self.steps = steps_per_epoch(experiment, dataset)
        dtype = torch.float64 if experiment.precision == "64-true" else torch.float32
        torch.manual_seed(seed_of(experiment.seed, "weights"))
        model, objective = build(experiment, dataset)
        self.model: VAE = model.to(fabric.device, dtype)
        self.objective: Objective = objective.to(fabric.device)
        graph = _graph(experiment, fabric)
        self.optimizer = adam(
            self.model, self.objective, experiment.lr, normalize=experiment.normalize, eps=experiment.adam_eps,
            capturable=graph,
        )  # fmt: skip
        self.state, self.saved = _State(), 0  # the latter is the epoch of last.ckpt
        self.train = dataset.train.to(fabric.device, dtype)
        self.valid = dataset.valid[fabric.global_rank :: fabric.world_size].to(fabric.device, dtype)
        losses: Any = Losses(self.model, self.objective, self.train, dataset.dynamic)
        if experiment.compile:
            losses = compiled(losses)
        self.losses, self.wrapped_optimizer = fabric.setup(losses, self.optimizer, move_to_device=False)
        self.step = Graphed(self._step) if graph else self._step

    def _open_folder(self) -> None:
        """Go to where the run's last checkpoint left off; write only when all is restored and nothing is amiss."""
        run, experiment = self.run, self.experiment
        if self.fabric.is_global_zero:
            run.check_folder(experiment)
            if run.exists():
                run.check_data(self.dataset)
        self.state = self._restore()
        if experiment.epochs < self.state.epoch:
            raise ValueError(
                f"epochs is {experiment.epochs}, but {run.folder} has {self.state.epoch} epochs already: give more"
            )
        if self.fabric.is_global_zero:
            before = run.description() if run.exists() else {}
            sessions = [*before.get("sessions", []), session(self.state.epoch, self.fabric.device)]
            run.write_metrics(self.state.metrics, known=self.state.epoch > 0)
            run.write_description(experiment, sessions, before.get("data_sha256") or self.dataset.digest())
        self.fabric.barrier()

    def run_epochs(self, save_every: float, snapshots: Collection[int] = (), until: float | None = None) -> Report:
        """Train until the end, or until something stops it; the folder is locked meanwhile."""
        with self.run.lock(self.fabric.is_global_zero, create=True):
            self._open_folder()
            return self._run_epochs(save_every, snapshots, until)

    def _run_epochs(self, save_every: float, snapshots: Collection[int], until: float | None) -> Report:
        experiment, state = self.experiment, self.state
        for listener in self.listeners:
            listener.start(state.epoch, experiment.epochs, self.steps)
        saved = time.monotonic()
        with _Interruption() as interruption:
            why = self._stopped_early()
            while not why and state.epoch < experiment.epochs:
                began = time.monotonic()
                valid_loss = self._epoch(state.epoch + 1)
                if state.epoch in snapshots:
                    self._save_model(f"epoch-{state.epoch}", checkpoint.module_tensors(self.model), valid_loss)
                late = until is not None and 2 * time.monotonic() - began > until
                stop = interruption.asked(self.fabric, late) if state.epoch < experiment.epochs else ""
                why = self._stopped_early() or stop
                if time.monotonic() - saved >= save_every and not why and state.epoch < experiment.epochs:
                    self._save()
                    saved = time.monotonic()
            self._save()
        return Report(state.epoch, state.best_epoch, state.best_loss, why or "finished")

    def _stopped_early(self) -> str:
        return "stopped early" if self.state.waited > self.experiment.patience else ""

    def _epoch(self, epoch: int) -> float:
        """One pass over the data, its line of metrics, and its validation loss."""
        started = time.perf_counter()
        # of one epoch, seed and device; the order of the examples is the same on all devices
        order = torch.Generator().manual_seed(seed_of(self.experiment.seed, "order", epoch))
        torch.manual_seed(seed_of(self.experiment.seed, "noise", epoch, self.fabric.global_rank))
        set_rate(self.optimizer, staged_rate(self.experiment.lr, epoch, self.experiment.lr_stages))
        loss, rate, distortion = self._pass(self._batches(order))
        valid_loss = self._validate()
        if not (math.isfinite(loss) and math.isfinite(valid_loss)):
            self._save_best()  # it may be younger than the last checkpoint
            best = f"the model of epoch {self.state.best_epoch} is kept in {self.run / 'best.ckpt'}"
            raise Diverged(
                f"the loss of epoch {epoch} is not a number (training {loss}, validation {valid_loss}): "
                f"{best if self.state.best else 'no epoch before it gave a model'}; "
                f"lower lr {self.experiment.lr} or lengthen the warm-up"
            )
        line = {"epoch": epoch, "loss": loss, "rate": rate, "distortion": distortion, "valid_loss": valid_loss}
        line |= {name: value.item() for name, value in self._extra_metrics().items()}
        line["seconds"] = round(time.perf_counter() - started, 4)
        line["memory"] = round(peak_memory(self.fabric.device), 3)
        self._judge(epoch, valid_loss)
        self.state.metrics.append(json.dumps(line) + "\n")
        if self.fabric.is_global_zero:
            self.run.add_metrics(line)
        for listener in self.listeners:
            listener.epoch(line)
        return valid_loss

    def _batches(self, order: torch.Generator) -> Iterator[Tensor]:
        """This device's rows of each batch, of the same number each time."""
        n, devices = len(self.train), self.fabric.world_size
        share = min(self.experiment.batch_size // devices, -(-n // devices))
        size = share * devices
        rows = torch.randperm(n, generator=order)
        rows = torch.cat([rows, rows[: self.steps * size - n]]).view(self.steps, size)
        first = self.fabric.global_rank * share
        return iter(rows[:, first : first + share].to(self.train.device))

    def _pass(self, batches: Iterator[Tensor]) -> list[float]:
        """A step for each batch; the means of loss, rate and distortion over the epoch and all devices."""
        self.model.train()
        self.objective.train()
        sums = torch.zeros(3, dtype=torch.float64, device=self.fabric.device)
        tick = max(1, self.steps // 50)
        for number, rows in enumerate(batches, 1):
            sums += self.step(rows)
            if number % tick == 0:
                for listener in self.listeners:
                    listener.steps(tick)
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
        model = self.model.given(prior=self.model.prior())  # its components may cost more than the examples
        for start in range(0, len(self.valid), 500):  # none on a device without an example of a tiny set
            x = self.valid[start : start + 500]
            loss, _ = self.objective(model, x)
            sums += torch.stack([loss.double() * len(x), sums.new_tensor(len(x))])
        total, count = self.fabric.all_reduce(sums, reduce_op="sum").tolist()  # type: ignore[union-attr]
        return total / count

    def _extra_metrics(self) -> dict[str, Tensor]:
        shares = [part.clamped_share() for part in self.model.modules() if isinstance(part, VampPrior)]
        return self.objective.metrics() | ({"clamped_share": torch.stack(shares).mean()} if shares else {})

    def _judge(self, epoch: int, valid_loss: float) -> None:
        """Whether this epoch's model is the best one, and how long one has waited for a better."""
        state, warmup = self.state, self.experiment.warmup
        state.epoch = epoch
        counts = self.experiment.best_from == "start" or epoch >= warmup
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
            self.run.keep_previous()
        self.run.save_checkpoint("last", flat, self.state.values())
        self.saved = self.state.epoch

    def _save_best(self) -> None:
        if self.state.best:
            self._save_model("best", self.state.best, self.state.best_loss, self.state.best_epoch)

    def _save_model(self, which: str, tensors: dict[str, Tensor], loss: float, epoch: int | None = None) -> None:
        """Write a model alone, of this epoch unless given."""
        if self.fabric.is_global_zero:
            named = {f"model.{name}": tensor for name, tensor in tensors.items()}
            values = {"epoch": self.state.epoch if epoch is None else epoch, "loss": loss}
            self.run.save_checkpoint(which, named, values)

    def _restore(self) -> _State:
        path = self.run / "last.ckpt"
        if not path.is_file():
            return _State()
        flat, values = self.run.load_checkpoint("last")
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
            raise ValueError(f"{path} cannot be used: {error}; {self.run.remedy('last')}") from error
        best_loss = math.inf if values["best_loss"] is None else values["best_loss"]
        self.saved = values["epoch"]
        return _State(**values | {"best_loss": best_loss}, best=parts["best"], metrics=metrics)


def _lines(tensors: dict[str, Tensor]) -> list[str]:
    """The lines of metrics.jsonl, from the bytes of a checkpoint."""
    if tensors.keys() != {"lines"} or tensors["lines"].dtype != torch.uint8:
        raise ValueError("it has no metrics of its epochs")
    return bytes(tensors["lines"].numpy()).decode().splitlines(keepends=True)


def _graph(experiment: Experiment, fabric: Fabric) -> bool:
    """Whether the step is to be one CUDA graph, and can."""
    if experiment.graph and fabric.device.type != "cuda":
        print("there is no CUDA device for --graph: going on without", file=sys.stderr)
    elif experiment.graph and fabric.world_size > 1:
        raise ValueError(f"graph is for one device, not for {fabric.world_size}: leave one of them out")
    return experiment.graph and fabric.device.type == "cuda"


class _Interruption:
    """The first Ctrl-C (or SIGTERM) ends the training after the epoch at hand; a second one, at once."""

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

    def asked(self, fabric: Fabric, late: bool) -> str:
        """Why to stop: any of the devices' processes was told to, or finds it late; nothing if none was or does."""
        flags = torch.tensor([float(self.signalled), float(late)], device=fabric.device)
        signalled, late = (fabric.all_reduce(flags, reduce_op="sum") > 0).tolist()  # type: ignore
        return "interrupted" if signalled else "out of time" if late else ""
