"""Arguments into a command: tyro reads them; a mistake becomes one sentence with a hint."""

import contextlib
import difflib
import functools
import io
import itertools
import re
import sys
from collections.abc import Callable, Mapping, Sequence

import tyro

__all__ = ["parse"]

Command = Callable[..., int]

# flags of other programs, and the ones that they mean here
ALIASES = {
    "--batch": ("--batch-size",),
    "--checkpoint": ("--which",),
    "--cuda": ("--accelerator",),
    "--dataset": ("--data",),
    "--device": ("--accelerator", "--devices"),
    "--dtype": ("--precision",),
    "--early-stopping": ("--patience",),
    "--gpu": ("--accelerator",),
    "--gpus": ("--devices",),
    "--k": ("--components", "--neighbors"),
    "--latent-dim": ("--latent",),
    "--learning-rate": ("--lr",),
    "--loss": ("--objective",),
    "--n": ("--number",),
    "--output": ("--out",),
    "--z-dim": ("--latent",),
}


def parse(commands: Mapping[str, Command], arguments: Sequence[str], prog: str, about: str) -> Callable[[], int]:
    """The command that the arguments name, to be called without any.

    Args:
        commands: By name.
        arguments: The words of the command line after `prog`.
        prog: The words before them.
        about: One sentence for `--help`.

    Raises:
        ValueError: If they are no command, or do not fit it. The sentence has a hint and names the help to read.
        SystemExit: After `--help`.
    """
    if not arguments:
        raise ValueError(f"choose a command: {', '.join(commands)} (see {prog} --help)")
    first, *rest = arguments
    if first.startswith("-"):
        options = {name: _postponed(command) for name, command in commands.items()}
        read = functools.partial(tyro.extras.subcommand_cli_from_dict, options, prog=prog, description=about)
        return _read(lambda words: (read(args=words), []), arguments, prog)
    if first not in commands:
        close = difflib.get_close_matches(first, commands, n=1)
        hint = _did_you_mean(close) or f": choose one of {', '.join(commands)}"
        raise ValueError(f"unknown command {first!r}{hint} (see {prog} --help)")
    prog = f"{prog} {first}"
    command = _postponed(commands[first])
    return _read(lambda words: tyro.cli(command, prog=prog, args=words, return_unknown_args=True), rest, prog)


def _postponed(command: Command) -> Callable[..., Callable[[], int]]:
    """A command with the same arguments that only keeps them: what goes wrong in its work is no mistake in them."""

    if isinstance(command, functools.partial):
        return functools.partial(_postponed(command.func), **command.keywords)

    @functools.wraps(command)
    def keep(*args: object, **kwargs: object) -> Callable[[], int]:
        return functools.partial(command, *args, **kwargs)

    return keep


Reader = Callable[[Sequence[str]], tuple[Callable[[], int], list[str]]]


def _read(read: Reader, words: Sequence[str], prog: str) -> Callable[[], int]:
    """Call tyro; its box on standard error becomes a sentence."""
    command: Callable[[], int] | None = None
    unknown: list[str] = []
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            command, unknown = read(words)
    except SystemExit as end:
        if end.code != 2:
            raise
    if command is not None and not unknown:
        sys.stderr.write(box.getvalue())  # warnings
        return command
    flags = _flags(read)
    strange = [word.split("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)]
    strange = [flag for flag in strange if flag.replace("_", "-") not in flags]
    if strange:
        raise ValueError(f"unknown option {strange[0]}{_did_you_mean(_similar(strange[0], flags))} (see {prog} --help)")
    if unknown:
        raise ValueError(f"unexpected argument {unknown[0]!r} (see {prog} --help)")
    raise ValueError(f"{_sentence(box.getvalue())} (see {prog} --help)")


def _flags(read: Reader) -> list[str]:
    """All flags, from the help, whose options stand in two columns in a wide terminal."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        read(["--help"])
    starts = re.findall(r"(?:^|\W\W)(?:-h, )?(--[a-z][a-z-]*(?:, --[a-z-]+)*)", page.getvalue(), re.MULTILINE)
    return ["-h", *(flag for start in starts for flag in start.split(", "))]


def _similar(flag: str, flags: Sequence[str]) -> list[str]:
    flag = flag.lower().replace("_", "-")
    flag = flag if flag.startswith("--") else f"-{flag}"
    known = [each for each in ALIASES.get(flag, ()) if each in flags]
    return known or difflib.get_close_matches(flag, flags, n=1)


def _did_you_mean(names: Sequence[str]) -> str:
    return f": did you mean {' or '.join(names)}?" if names else ""


PLAINER = {
    r"Error parsing (.*?): no type matching .*\[INT \[INT \.\.\.\]\].* could be instantiated from \[(.*?)\].*": (
        r"\1 is \2: whole numbers are needed"
    ),
    r"Error parsing (.*?): no type matching (?:\{None\}\|)?INT could be instantiated from \[(.*?)\].*": (
        r"\1 is \2: a whole number is needed"
    ),
    r"Error parsing (.*?): no type matching (?:\{None\}\|)?FLOAT could be instantiated from \[(.*?)\].*": (
        r"\1 is \2: a number is needed"
    ),
    r"Error parsing (.*?): Could not find valid parse for arguments: \[(.*?)\].*": r"\1 is \2, which does not fit",
    r"Error parsing (.*?): no type matching (?:\{None\}\|)?(.*?) could be instantiated from \[(.*?)\].*": (
        r"\1 is \3: \2 is needed"
    ),
    r"Error parsing (.*?): invalid literal for int\(\) with base 10: (.*)": r"\1 is \2: a whole number is needed",
    r"Error parsing (.*?): could not convert string to float: (.*)": r"\1 is \2: a number is needed",
    r"invalid choice (.*?) for argument '(.*?)'\. Expected one of \((.*)\)": r"\2 is \1: choose one of \3",
    r"Missing value for argument '(?:\(')?(.*?)'.*": r"\1 needs a value",
}


def _sentence(box: str) -> str:
    """What an error box of tyro says: its lines between the title and the next rule."""
    lines = [re.sub(r"^[\s│|]+|[\s│|]+$", "", line) for line in box.splitlines()]
    _, *others = (line for line in lines if line)
    body = list(itertools.takewhile(lambda line: not re.match(r"[─╰-]{3}", line), others))
    body = body or [line for line in others if not re.match(r"[─╰-]{3}", line)]
    if "Missing from" in body[0] and len(body) > 1:
        about = " ".join(body[2:]).removesuffix("(required)").split(";")[0].strip(" .")
        return f"{body[1]} is missing" + (f": {about}" if about else "")
    sentence = " ".join(body).rstrip(".")
    matches = ((re.fullmatch(pattern, sentence), plainer) for pattern, plainer in PLAINER.items())
    return next((match.expand(plainer) for match, plainer in matches if match), sentence)
