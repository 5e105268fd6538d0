"""Batches that threads read ahead, while a step runs."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

WORKERS = 16  # threads that read: only a slow disk keeps them all busy, and serves more of them better
AHEAD, BYTES = 16, 2**28  # batches that they are ahead at most, and the memory that these may take


def read_ahead(
    read: Callable[[Tensor], Tensor], batches: Iterable[Tensor], workers: int = WORKERS, ahead: int = AHEAD
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each batch with what is read for it, in order; threads read the next ones meanwhile.

    An error is raised when its batch comes.

    Args:
        read: Called with each batch, by several threads.
        batches: What to read.
        workers: Threads.
        ahead: Batches that are read, or in reading, before they are asked for.

    >>> list(read_ahead(lambda rows: 2 * rows, Tensor([[0, 1], [2, 3]])))
    [(tensor([0., 1.]), tensor([0., 2.])), (tensor([2., 3.]), tensor([4., 6.]))]
    """
    pool, pending = ThreadPoolExecutor(workers, "reader"), deque[tuple[Tensor, Future[Tensor]]]()
    try:
        for batch in batches:
            pending.append((batch, pool.submit(read, batch)))
            if len(pending) > ahead:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
