"""The training loop."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vaepriors.compilation import Graphed, compiled
from vaepriors.conditional import AnyVAE, batches, check_condition, given
from vaepriors.data import Dataset
from vaepriors.devices import peak_memory
from vaepriors.numerics import fixed_numerics, keep_generators, seed_of
from vaepriors.objectives import Objective
from vaepriors.priors import ExemplarPrior, VampPrior
from vaepriors.store import Store, session
from vaepriors.training.checkpoints import Checkpoints
from vaepriors.training.interruption import Interruption
from vaepriors.training.losses import Losses
from vaepriors.training.outcome import Callback, Diverged, Outcome
from vaepriors.training.rates import MakeOptimizer, MakeScheduler, Rates, describe, make_optimizer, make_scheduler
from vaepriors.training.settings import Settings
from vaepriors.training.share import Share
from vaepriors.training.state import State

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Training", "uses_graph"]


class Training:
    """The parts of one training. They read and write the store only in `run`, which locks it.

    Args:
        model, objective, data, callbacks: As for `fit`.
        settings: The settings.
        fabric: Devices, launched.
        store: Where checkpoints and metrics are kept.
        description: What the store records and, when the training is resumed, compares: settings, objective, and an
            optimiser or a scheduler of the user's own, unless given.
        optimizer, scheduler: As for `fit`.
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
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
    ) -> None:
        check_condition(model, data.conditions.get("train"))
        for part in model.modules():
            if isinstance(part, ExemplarPrior):
                part.check_order(data.train[:10])
        self.settings, self.store, self.fabric, self.callbacks, self.data = settings, store, fabric, callbacks, data
        self.share = Share(data, settings, fabric)
        objective.restart()
        objective.count_epochs(self.share.steps)
        self.model: AnyVAE = model.to(fabric.device, settings.dtype)
        self.objective: Objective = objective.to(fabric.device)
        graph = uses_graph(settings, fabric)
        self.optimizer = make_optimizer(self.model, self.objective, settings, optimizer, graph)
        custom = {"optimizer": describe(self.optimizer)} if optimizer else {}
        self.rates = Rates(make_scheduler(self.optimizer, settings, scheduler, graph))
        custom |= {"scheduler": describe(self.rates.scheduler)} if scheduler else {}
        self.fixed = self.objective.fixed(self.model)
        self.frozen = self._freeze()
        self.description = description or settings.fixed() | {"objective": repr(objective)} | custom
        self.state = State()
        self.writes = fabric.is_global_zero or getattr(store, "private", False)
        self.checkpoints = Checkpoints(store, self.model, self.objective, self.rates, self.writes)
        self.losses, self.wrapped_optimizer = fabric.setup(self._losses(), self.optimizer, move_to_device=False)
        self.step = Graphed(self._step) if graph else self._step

    def _freeze(self) -> list[nn.Parameter]:
        """The parameters that the objective does not train, without gradients until the training ends."""
        trained = {id(p) for p in self.objective.trained(self.model)}
        frozen = [p for p in self.model.parameters() if p.requires_grad and id(p) not in trained]
        for p in frozen:  # of several devices, each parameter that requires a gradient must get one
            p.requires_grad_(False)
        return frozen

    def _losses(self) -> Any:
        share, dynamic = self.share, self.data.dynamic
        losses = Losses(self.model, self.objective, share.feed.points, dynamic, share.conditions.get("train"))
        return compiled(losses) if self.settings.compile else losses

    @fixed_numerics()
    @torch.enable_grad()
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
        try:
            with keep_generators(self.fabric.device), self.store.lock(self.writes, create=True):
                self._check_shapes()
                self._open_store(snapshots)
                if save_start and self.state.epoch == 0:
                    self.checkpoints.save(self.state)
                return self._run(save_every, snapshots, deadline)
        finally:
            for p in self.frozen:
                p.requires_grad_(True)

    @torch.no_grad()
    def _check_shapes(self) -> None:
        """Refuse parts that do not fit; with z of shape (2, 3, latent) no layer takes a batch for its features."""
        y = self.data.conditions.get("valid")
        x = self.data.valid[:3].to(self.fabric.device, self.settings.dtype)
        model = given(self.model.eval(), None if y is None else y[:3].to(x))
        model(x, 2)

    def _open_store(self, snapshots: Collection[int]) -> None:
        """Go to where the last checkpoint left off; write only when all is restored and nothing is amiss."""
        if self.writes:
            self.store.check(self.description, self.data)
        self.state = self.checkpoints.restore()
        if self.settings.epochs < self.state.epoch:
            raise ValueError(
                f"epochs is {self.settings.epochs}, but {self.state.epoch} epochs are trained already: give more"
            )
        missed = [n for n in snapshots if n <= self.state.epoch and not self.store.has(f"epoch-{n}")]
        if missed:
            raise ValueError(
                f"snapshots has epoch {missed[0]}, but {self.state.epoch} epochs are trained already, and the model of "
                "that one was not kept: choose later epochs"
            )
        if self.writes:
            here = session(self.state.epoch, self.fabric.device)
            self.store.begin(self.description, self.data, here, self.state.metrics)
        self.fabric.barrier()

    def _run(self, save_every: float, snapshots: Collection[int], deadline: float | None) -> Outcome:
        settings, state = self.settings, self.state
        for callback in self.callbacks:
            callback.start(state.epoch, settings.epochs, self.share.steps)
        saved = time.monotonic()
        with Interruption() as interruption:
            reason = state.stopped_early(settings.patience)
            while not reason and state.epoch < settings.epochs:
                began = time.monotonic()
                valid_loss = self._epoch(state.epoch + 1)
                if state.epoch in snapshots:
                    self.checkpoints.save_snapshot(state.epoch, valid_loss)
                late = deadline is not None and 2 * time.monotonic() - began > deadline
                stop = interruption.asked(self.fabric, late) if state.epoch < settings.epochs else ""
                reason = state.stopped_early(settings.patience) or stop
                if time.monotonic() - saved >= save_every and not reason and state.epoch < settings.epochs:
                    self.checkpoints.save(state)
                    saved = time.monotonic()
            self.checkpoints.save(state)
        self.model.eval()  # a callback may have changed that
        return state.outcome(reason or "finished")

    def _epoch(self, epoch: int) -> float:
        """One pass over the data, its line of metrics, and its validation loss."""
        started = time.perf_counter()
        # of one epoch, seed and device; the order of the examples is the same on all devices
        torch.manual_seed(seed_of(self.settings.seed, "noise", epoch, self.fabric.global_rank))
        try:
            with contextlib.closing(self.share.batches(epoch)) as batches:
                loss, rate, distortion = self._pass(batches)
            valid_loss = self._validate()
        except ValueError as error:
            refused = str(error).partition(", but found")[0]
            if not refused.startswith("Expected parameter"):  # by which torch's distributions refuse NaN
                raise
            raise self._diverged(f"a distribution of epoch {epoch} is not valid ({refused})") from error
        if not (math.isfinite(loss) and math.isfinite(valid_loss)):
            numbers = f"training {loss}, validation {valid_loss}"
            raise self._diverged(f"the loss of epoch {epoch} is not a number ({numbers})")
        line = {"epoch": epoch, "loss": loss, "rate": rate, "distortion": distortion, "valid_loss": valid_loss}
        line["lr"] = self.rates.current()
        line |= {name: float(value) for name, value in self._extra_metrics().items()}
        line["seconds"] = round(time.perf_counter() - started, 4)
        line["memory"] = round(peak_memory(self.fabric.device), 3)
        self.state.judge(epoch, valid_loss, self.model, self.settings)
        self._report(line)
        self.rates.follow(self.state.metrics)
        return valid_loss

    def _diverged(self, what: str) -> Diverged:
        """The error that says what is lost, after what is kept is written."""
        self.checkpoints.save_best(self.state)  # it may be younger than the last checkpoint
        where = " in the store, if fit was given one" if getattr(self.store, "private", False) else ""
        best = f"the model of epoch {self.state.best_epoch} is kept as best{where}"
        return Diverged(
            f"{what}: {best if self.state.best else 'no epoch before it gave a model'}; "
            f"lower lr {self.rates.current():g}, lengthen the warm-up, or look for the reason with "
            "vaepriors.check(model, x)"
        )

    def _report(self, line: dict[str, Any]) -> None:
        """Keep a line of metrics, and show it to the store and the callbacks."""
        self.state.metrics.append(json.dumps(line) + "\n")
        if self.writes:
            self.store.add_metrics(line)
        for callback in self.callbacks:
            callback.epoch(line)

    def _pass(self, batches: Iterable[Tensor]) -> list[float]:
        """A step for each batch; the means of loss, rate and distortion over the epoch and all devices."""
        self.model.train()
        for part in self.fixed:
            part.eval()
        self.objective.train()
        sums = torch.zeros(3, dtype=torch.float64, device=self.fabric.device)
        tick = max(1, self.share.steps // 50)
        for number, rows in enumerate(batches, 1):
            sums += self.step(rows)
            if number % tick == 0:
                for callback in self.callbacks:
                    callback.steps(tick)
        means = self.fabric.all_reduce(sums / self.share.steps, reduce_op="mean")
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
        share, known = self.share, self.model.hold_prior()  # its components may cost more than the examples
        # of a tiny set, a device may have no batch
        for model, x in batches(known, share.valid, share.conditions.get("valid"), 500):
            loss, _ = self.objective(model, x)
            sums += torch.stack([loss.double() * len(x), sums.new_tensor(len(x))])
        total, count = self.fabric.all_reduce(sums, reduce_op="sum").tolist()  # type: ignore[union-attr]
        return total / count

    def _extra_metrics(self) -> dict[str, Tensor]:
        shares = [part.clamped_share() for part in self.model.modules() if isinstance(part, VampPrior)]
        return self.objective.metrics() | ({"clamped_share": torch.stack(shares).mean()} if shares else {})


def uses_graph(settings: Settings, fabric: "Fabric") -> bool:
    """Whether the step is to be one CUDA graph, and can."""
    if settings.graph and fabric.device.type != "cuda":
        print("there is no CUDA device for --graph: continuing without it", file=sys.stderr)
    elif settings.graph and fabric.world_size > 1:
        raise ValueError(f"graph is for one device, not for {fabric.world_size}: leave one of them out")
    return settings.graph and fabric.device.type == "cuda"
