"""Estimates of many examples, a block of them at a time, that can stop and resume."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

from vaepriors import checkpoint
from vaepriors.annealing import Annealing, Bounds, Simulated, simulate
from vaepriors.app.evaluation.normalizer import hold_seeded_prior
from vaepriors.conditional import AnyVAE
from vaepriors.likelihood import Estimate, Method, check_sizes, weigh
from vaepriors.numerics import seed_of
from vaepriors.reading import check
from vaepriors.vae import eval_mode

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["InBlocks", "Paused", "check_likelihoods"]

_BLOCK = 10  # at least this many examples between two looks at the clock


class Paused(RuntimeError):
    """There was no time for all examples; the next call continues with the rest."""


def check_likelihoods(log_likelihood: Tensor, rows: Tensor | None = None) -> None:
    """Refuse likelihoods that have no mean.

    Args:
        log_likelihood: log p(x) of each example.
        rows: The rows of the examples where the user has them; those of `log_likelihood` unless given.

    Raises:
        ValueError: If log p(x) of an example is infinite or not a number.
    """
    wrong = (~log_likelihood.isfinite()).nonzero().flatten().tolist()
    if wrong:
        row = wrong[0] if rows is None or wrong[0] >= len(rows) else int(rows[wrong[0]])
        raise ValueError(
            f"log p(x) of the example in row {row} is {log_likelihood[wrong[0]].item()}, so there is no mean: its "
            "values are too far from what the model can draw; leave it out"
        )


class Partial(TypedDict):
    """Beside the tensor `found`, of shape (5, done), of evaluation.partial."""

    same: dict[str, Any]
    seconds: float


class InBlocks:
    """An estimate of many examples, a block of them on each device at a time, that can stop and resume.

    The simulated examples of annealed importance sampling follow the others: there the first two of the five numbers of
    an example are the bounds on its log p(x).

    Its `estimate` raises a `ValueError` at the first block with a log p(x) that is infinite or not a number.

    Args:
        fabric: The devices, launched.
        path: The file of the finished examples.
        same: What decides the numbers, and must be the same to resume. The draws of a block follow from its seed and
            the place of the first example.
        progress: Called with the number of examples done and their total.
        method: What estimates.
        rows: The rows of the examples where the user has them, for the error; their places unless given.
    """

    def __init__(
        self,
        fabric: "Fabric",
        path: Path,
        same: dict[str, Any],
        progress: Callable[[int, int], None],
        method: Method,
        rows: Tensor | None = None,
    ) -> None:
        self.fabric, self.path, self.same, self.progress, self.method = fabric, path, same, progress, method
        self.rows = rows
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
            known = hold_seeded_prior(model, self.same["seed"])
            simulated = self._simulate(known, y)
            try:
                while estimates.shape[1] < total:
                    now, done = time.monotonic(), estimates.shape[1]
                    part = self._block(known, x, y, simulated, done, size, chunk)
                    estimates = torch.cat([estimates, part], 1)[:, :total]
                    check_likelihoods(estimates[0], self.rows)
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

    def _simulate(self, model: AnyVAE, y: Tensor | None) -> Simulated | None:
        """The simulated examples, given the conditions of the others, the same in each call; None without any."""
        torch.manual_seed(seed_of(self.same["seed"], "simulated"))
        return simulate(model, self.simulated, y) if self.simulated else None

    def _any(self, late: bool) -> bool:
        """Whether some device is late."""
        votes: Any = self.fabric.all_reduce(torch.tensor(float(late), device=self.fabric.device), reduce_op="sum")
        return votes.item() > 0

    def _block(
        self,
        model: AnyVAE,
        x: Tensor,
        y: Tensor | None,
        simulated: Simulated | None,
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
            some = simulated.rows(*(max(place - len(x), 0) for place in (first, first + size)))
            if len(some.x):
                part[:2, len(block) : len(block) + len(some.x)] = torch.stack(self.method.bounds(model, some, chunk))
                count(len(some.x))
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
