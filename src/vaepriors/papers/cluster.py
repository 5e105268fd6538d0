"""Rows over many machines, by Ray (extra `ray`): each row and seed a task with processors and a share of a GPU.

A task whose worker dies is started again, and goes on from its last checkpoint; the lock of the dead one is free. All
machines must see the folders of runs and results.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from vaepriors.papers.work import Limits, Work

__all__ = ["run_on_ray"]


def run_on_ray(
    works: Sequence[Work],
    limits: Limits,
    seconds: float | None,
    tell: Callable[[Work, str], None],
    address: str | None = None,
    workers: int | None = None,
    cpus: float = 1,
    gpus: float = 0,
    retries: int = 3,
) -> list[str]:
    """Do works on a Ray cluster, and return what came of each (see `attempt`).

    Args:
        works: What to do.
        limits: As in `Work.do`.
        seconds: After which to stop; what is running then stops after an epoch.
        tell: Called with each work and what came of it.
        address: Of a cluster (`auto`: the one that this machine belongs to); None starts a local one.
        workers: Tasks at the same time on a local one; as many as its processors allow unless given.
        cpus: Processors of a task: threads of torch.
        gpus: GPUs of a task; 0.25 lets four share one.
        retries: How often a task is started again when its worker dies.

    Raises:
        ImportError: If Ray is not installed.
        ValueError: If the cluster cannot be reached, or has not what a task asks for.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("ray is not installed: pip install 'vaepriors[ray]'") from error
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    if workers is not None and not address:
        local |= {"num_cpus": max(1, round(workers * cpus))}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address or "local", log_to_driver=False, **local)
    except (ConnectionError, RuntimeError) as error:
        raise ValueError(f"the Ray cluster {address or 'on this machine'} cannot be used: {error}") from error
    try:
        there = ray.cluster_resources()
        for kind, asked in (("CPU", cpus), ("GPU", gpus)):
            if asked > there.get(kind, 0):  # Ray would wait for such a machine for ever
                raise ValueError(f"a run asks for {asked:g} {kind}, but the Ray cluster has {there.get(kind, 0):g}")
        task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=retries)(attempt)
        deadline = None if seconds is None else time.time() + seconds
        pending = {task.remote(work, limits, deadline, max(1, int(cpus))): number for number, work in enumerate(works)}
        outcomes = [""] * len(works)
        while pending:
            (done,), _ = ray.wait(list(pending))
            number = pending.pop(done)
            try:
                outcomes[number] = ray.get(done)
            except ray.exceptions.RayError as error:
                outcomes[number] = f"failed: {str(error).strip().splitlines()[-1]}"
            tell(works[number], outcomes[number])
        return outcomes
    finally:
        ray.shutdown()


def attempt(work: Work, limits: Limits, deadline: float | None = None, threads: int | None = None) -> str:
    """Do a work in this process; a mistake of its data or its training is what came of it, not an error.

    Args:
        work: What to do.
        limits: As in `Work.do`.
        deadline: A moment of `time.time()`, which all machines share, to stop at.
        threads: Of torch.
    """
    if deadline is not None and time.time() >= deadline:
        return "paused"
    if threads is not None:
        torch.set_num_threads(threads)
    return work.try_to_do(limits, None if deadline is None else time.monotonic() + deadline - time.time())
