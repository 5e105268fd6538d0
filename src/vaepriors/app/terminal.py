"""The terminal: a console for the commands, plain signs, and a bar that counts."""

import codecs
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["counting_bar", "make_console", "use_plain_signs"]


def make_console() -> Console:
    """The console of the commands: as wide as the terminal; in a file or a pipe, wide enough for their tables.

    Markup is off: a path may have brackets or colons that mean something to rich.
    """
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 160
    return console


def use_plain_signs() -> None:
    """Let the standard streams replace signs that their encoding lacks: +- for ±, and ASCII for boxes."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign) or ascii(sign)[1:-1] for sign in signs), error.end


_PLAIN = {"±": "+-", "…": "...", "•": "*"} | {
    chr(code): "-" if chr(code) in "─━╌╍┄┅┈┉═╴╶╸╺╼╾" else "|" if chr(code) in "│┃║╎╏┆┇┊┋╵╷╹╻╽╿" else "+"
    for code in range(0x2500, 0x2580)
}


@contextmanager
def counting_bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar: call it with the number done and the total. It appears at the first call."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=True)
