"""Jobs on many machines, by Ray (extra `ray`): each job is a task with processors and a share of a GPU.

A task whose worker dies is started again and resumes from its last checkpoint; the lock of the dead worker is free. All
machines must see the folders of runs and results.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from vaepriors.papers.jobs import Job, RunOptions
from vaepriors.papers.running import run_job

__all__ = ["run_on_ray", "run_task"]

RETRIES = 3  # of a task whose worker dies


def run_on_ray(
    jobs: Sequence[Job],
    options: RunOptions,
    seconds: float | None,
    report: Callable[[Job, str], None],
    address: str | None = None,
    workers: int | None = None,
    cpus: float = 1,
    gpus: float = 0,
) -> list[str]:
    """Run jobs on a Ray cluster.

    Args:
        jobs: The jobs.
        options: Options of all of them.
        seconds: Time for all of them; jobs that are running then stop after an epoch.
        report: Called with each job and its outcome.
        address, workers, cpus, gpus: As for `vaepriors reproduce run`; cpus are also the threads of torch.

    Returns:
        The outcomes, as of `run_job`.

    Raises:
        ImportError: If Ray is not installed.
        ValueError: If the cluster cannot be reached, or lacks what a task asks for.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("ray is not installed: pip install 'vaepriors[ray]'") from error
    _connect(ray, address, None if workers is None else max(1, round(workers * cpus)))
    try:
        _check_resources(ray, {"CPU": cpus, "GPU": gpus})
        task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(run_task)
        deadline = None if seconds is None else time.time() + seconds
        pending = {task.remote(job, options, deadline, max(1, int(cpus))): number for number, job in enumerate(jobs)}
        outcomes = [""] * len(jobs)
        while pending:
            (done,), _ = ray.wait(list(pending))
            number = pending.pop(done)
            try:
                outcomes[number] = ray.get(done)
            except ray.exceptions.RayError as error:
                outcomes[number] = f"failed: {str(error).strip().splitlines()[-1]}"
            report(jobs[number], outcomes[number])
        return outcomes
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str | None, cpus: int | None) -> None:
    """Connect to the cluster at an address, or start a local one with this many processors."""
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    if cpus is not None and not address:
        local["num_cpus"] = cpus
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address or "local", log_to_driver=False, **local)
    except (ConnectionError, RuntimeError) as error:
        raise ValueError(f"the Ray cluster {address or 'on this machine'} cannot be used: {error}") from error


def _check_resources(ray: Any, needed: dict[str, float]) -> None:
    """Refuse what no machine of the cluster has: Ray would wait for it for ever."""
    available = ray.cluster_resources()
    for kind, amount in needed.items():
        if amount > available.get(kind, 0):
            raise ValueError(f"a run asks for {amount:g} {kind}, but the Ray cluster has {available.get(kind, 0):g}")


def run_task(job: Job, options: RunOptions, deadline: float | None = None, threads: int | None = None) -> str:
    """`run_job` in a worker with some threads of torch, until a moment of `time.time()`, which all machines share."""
    if threads is not None:
        torch.set_num_threads(threads)
    left = None if deadline is None else deadline - time.time()
    until = None if left is None else time.monotonic() + left
    return run_job(job, options, until, start=left is None or left > 0)
