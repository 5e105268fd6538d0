"""The entry point of the command line, and `python -m vaepriors`.

Nothing of the package is imported before `main` is called: Ctrl-C while torch is loaded ends without a traceback, too.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["leave_at_once", "main"]


def main() -> None:
    try:
        with leave_at_once():
            from vaepriors import cli

        cli.main()
    except KeyboardInterrupt:
        print("vaepriors: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


@contextmanager
def leave_at_once(leave: Callable[[int], object] = os._exit) -> Iterator[None]:
    """Leave the process at Ctrl-C, for a block that writes nothing.

    NumPy, while it is imported, drops an interruption, and fails later with an error of its own.
    """
    before = signal.getsignal(signal.SIGINT)

    def interrupted(*_: object) -> None:
        print("vaepriors: interrupted", file=sys.stderr, flush=True)
        leave(130)

    if before is signal.default_int_handler:  # otherwise Ctrl-C is ignored, or is for somebody else
        signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    main()
