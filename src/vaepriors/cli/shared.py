"""What the commands share: the console, options that several have, and complaints."""

import sys
from typing import Annotated

import tyro

from vaepriors.app.terminal import make_console

__all__ = ["CustomModel", "Which", "complain", "console"]

Which = Annotated[str, tyro.conf.arg(help="The model: best, last, or epoch-N of a snapshot.")]
CustomModel = Annotated[
    str | None,
    tyro.conf.arg(help="Where the run has a custom model: its package.module:function again, to import it."),
]
console = make_console()


def complain(what: object, status: int) -> int:
    """Print one line: a name in it may hold a line break or other control characters, which are shown escaped."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(what))
    print(f"vaepriors: {line}", file=sys.stderr)
    return status
