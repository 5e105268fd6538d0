"""Inputs for `fuzzing`, as Hypothesis draws them.

options    of every command, with values far from sense
files      custom arrays of any type and shape, and tables, whole or damaged
runs       the folder of a finished run with one of its files damaged
"""

import dataclasses
import inspect
import io
import json
import re
import shlex
import shutil
import types
import typing
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vaepriors import checkpoint
from vaepriors.app.experiment import CHOICES, Experiment
from vaepriors.app.methods import METHODS, Estimation
from vaepriors.cli.entry import COMMANDS

__all__ = ["Trial", "as_words", "inputs", "prepare", "usual"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """Words for the command line, with the files that they are about. As a string, what to type in a shell."""

    words: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...] = ()
    damage: tuple[str, str, float, Any] | None = None  # file of the run, kind, where, with what
    encoding: str = "utf-8"  # of the terminal

    def __str__(self) -> str:
        encoding = "" if self.encoding == "utf-8" else f"PYTHONIOENCODING={self.encoding} "
        damage = "" if self.damage is None else f"\n    after damage to {self.damage}"
        return f"{encoding}vaepriors {shlex.join(self.words)}{damage}"


def inputs(base: Path) -> dict[str, st.SearchStrategy[Trial]]:
    names = sorted(
        path.name for path in (base / "run").iterdir() if path.is_file() and path.suffix not in (".png", ".lock")
    )
    return {"options": options(), "files": files(), "runs": runs(names)}


def prepare(trial: Trial, base: Path, place: Path) -> None:
    shutil.copytree(base, place, symlinks=True)
    for name, content in trial.files:
        (place / name).write_bytes(content)
    if trial.damage is not None:
        name, kind, where, value = trial.damage
        DAMAGES[kind](place / "run" / name, where, value)


# Options

DATA = ("images.npz", "vectors.npy", "levels.npy", "wide.npy")
QUICK = {
    "train": {"data": "images.npz", "out": "new", "hidden": "4", "latent": "2", "epochs": "1", "batch_size": "20"}
    | {"warmup": "0", "components": None, "accelerator": "cpu"},
    "evaluate": {"samples": "3", "accelerator": "cpu"},
    "sample": {"number": "2"},
    "encode": {"out": "codes.npy", "accelerator": "cpu"},
    "report": {"number": "5"},
    "compare": {"number": "5", "out": "page.html"},
    "interpolate": {"nodes": "10", "neighbors": "3", "graphs": "1", "pairs": "2"},
}
SENSIBLE = {
    "data": DATA,
    "file": DATA,
    "out": ("new", "new/er", "run", "page.html"),
    "epochs": ("1", "2"),
    "which": ("best", "last", "epoch-1"),
    "method": tuple(METHODS),
    "devices": ("1",),  # more are processes of their own
    "train nodes": ("1",),
    "batch_size": ("1", "7", "20", "1000"),
}
LONG_WORK = ("epochs", "graphs", "pairs")  # a great number of them is no mistake
SLOW = ("compile",)  # a minute
WHOLE = ("1", "2", "3", "5")
ODD_WHOLE = ("0", "-1", "1000000000000", str(2**63), "1" + 30 * "0")
NO_WHOLE = ("nan", "1.5", "", "\uff11", "1_0", " 2", "-0", "1e3", "--", "True")
REAL = ("0.5", "1e-3", "2")
ODD_REAL = ("0", "-1", "nan", "inf", "-inf", "1e-320", "1e308", "1e999", "", "1,5", "--")
NAMES = (
    "", " ", "a[/x]b", "[red]a", "$x$", "$\\frac$", "ä ö", "名前", "🎲", "a\nb", "a\tb", "\x1b[31m", "caf\udce9",
    "%s", "{x}", ".", "..", "~", "~nobody/x", "-", "--", "\\", "'", '"', "x" * 300, "None", "null", "a/b/c", "digitz",
    "a.html", "nosuch.npy", "run", "run/best.ckpt", "../run/best", "images.npz/x", "epoch-7",
)  # fmt: skip
VARIANTS = (  # whose options belong together
    {},
    {"model": ("hvae",), "prior": ("vamp",), "components": ("5",)},
    {"prior": ("vhp",), "prior_samples": ("3",), "prior_hidden": ("8",), "prior_latent": ("2",)},
    {"prior": ("snis",), "base": ("vamp",), "components": ("5",), "proposals": ("8",), "prior_hidden": ("8",)},
    {"prior": ("resampled",), "base": ("mog",), "components": ("5",), "truncation": ("3",), "prior_hidden": ("8",)},
    {"data": ("vectors.npy",), "objective": ("rewo",), "kappa": ("0.5",), "prior": ("mog",), "components": ("5",)},
    {"data": ("levels.npy",), "model": ("conv",), "objective": ("iwae",), "samples": ("3",), "estimator": ("dreg",)},
)
RESUMED = {"out": ("run",), "resume": True, "epochs": ("3",)}


def options_of(command: str) -> dict[str, Any]:
    """The options of a command and their types, as its function has them."""
    hints = typing.get_type_hints(COMMANDS[command])
    types = {name: hints[name] for name in inspect.signature(COMMANDS[command]).parameters}
    groups = {"train": Experiment, "evaluate": Estimation}
    types |= typing.get_type_hints(groups[command]) if command in groups else {}
    return {name: hint for name, hint in types.items() if name not in ("options", "how", "run", "runs", *SLOW)}


def usual(command: str) -> dict[str, tuple[str, ...]]:
    return {name: (value,) for name, value in QUICK[command].items() if value is not None}


def values(command: str, name: str, hint: Any) -> st.SearchStrategy[Any]:
    """Values of an option: words, or whether a flag is set. One in three is odd."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kind = next(each for each in kinds if each is not type(None))
    whole = (*NO_WHOLE, *3 * (ODD_WHOLE[:2] if name in LONG_WORK else ODD_WHOLE))
    if kind is bool:
        return st.booleans()
    if typing.get_origin(kind) is tuple:
        return st.lists(mixed(WHOLE, whole), max_size=3).map(tuple)
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else CHOICES.get(name, ("x",))
    sensible, odd = {int: (WHOLE, whole), float: (REAL, ODD_REAL)}.get(kind, (choices, NAMES))
    sensible = SENSIBLE.get(f"{command} {name}", SENSIBLE.get(name, sensible))
    return mixed(sensible, odd).map(lambda word: (word,))


def mixed(sensible: Sequence[str], odd: Sequence[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(sensible), st.sampled_from(sensible), st.sampled_from(odd))


def as_words(options: dict[str, Any]) -> tuple[str, ...]:
    words: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        words += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", *value]
    return tuple(words)


@st.composite
def options(draw: st.DrawFn) -> Trial:
    """A command with options that fit together and up to three others, of which one in three is odd."""
    command = draw(st.sampled_from((*QUICK, *4 * ("train",))))
    whole = [usual(command) | variant for variant in VARIANTS] if command == "train" else [usual(command)]
    whole += [RESUMED] if command == "train" else []
    known = options_of(command)
    names = draw(st.lists(st.sampled_from(sorted(known)), max_size=3, unique=True))
    changes = {name: draw(values(command, name, known[name])) for name in names}
    words = as_words(draw(st.sampled_from(whole)) | changes)
    runs = {"train": (0, 0), "compare": (0, 3)}
    least, most = runs.get(command, (1, 1))
    places = draw(st.lists(mixed(("run", "other"), NAMES), min_size=least, max_size=most))
    return Trial((command, *places, *words), encoding=draw(st.sampled_from(("utf-8", "utf-8", "ascii", "latin-1"))))


# Custom files

# uniform, as `integers` is not; `floats` refuses to work where denormals are flushed
FRACTION = st.binary(min_size=3, max_size=3).map(lambda three: int.from_bytes(three) / 2**24)

TYPES = ("?", "u1", "i1", "i8", "f2", "f4", ">f4", "f8", "c8", "S3", "U2", "O", "M8[s]", "V4")
ENTRIES = (0, 1, -1, 0.5, 255, 256, np.nan, np.inf, -np.inf, 1e300, 1e-310)
SHAPES = st.one_of(
    st.tuples(st.integers(0, 60), st.integers(1, 9)),
    st.tuples(st.integers(10, 60), st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(10, 60), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=6),
)


@st.composite
def any_array(draw: st.DrawFn) -> np.ndarray:
    """An array of any type and shape, of bits, gray levels, probabilities or real numbers; one of them may be odd."""
    shape, kind = draw(SHAPES), draw(st.sampled_from(TYPES + 12 * ("f4", "u1")))
    generator = np.random.default_rng(draw(st.integers(0, 3)))
    bits, levels = generator.integers(0, 2, shape), generator.integers(0, 256, shape)
    made = np.asarray(draw(st.sampled_from((bits, levels, generator.random(shape), 9 * generator.normal(size=shape)))))
    if made.size and draw(st.integers(0, 2)) == 2:
        made.flat[int(draw(FRACTION) * made.size)] = 0 if made.dtype.kind == "i" else draw(st.sampled_from(ENTRIES))
    with np.errstate(all="ignore"):
        return np.zeros(shape, kind) if kind in ("M8[s]", "V4") else made.astype(kind)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def announced(shape: str, kind: str = "<f4") -> bytes:
    """A file whose header promises more than is there."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)


SIZES = ("(1000000000000, 4)", "(10, 99999999999999)", "(-3, 4)", "()", "(1e3, 2)", "(3, 4", "(True, 4)", "(" * 999)
BROKEN = (b"", b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"x" * 200, *(announced(s) for s in SIZES))


def npz(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # two members of a name
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


MEMBERS = ("train.npy", "valid.npy", "test.npy", "train", "x.npy", "../train.npy", "train.npy/", "a[/x]b.npy", "名.npy")
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """A .npz: of the three splits or of other members; some encrypted, or packed by a method that does not exist."""
    names = draw(st.one_of(st.just(MEMBERS[:3]), st.just(MEMBERS[:1]), st.lists(st.sampled_from(MEMBERS), max_size=4)))
    one = draw(any_array())
    other = st.sampled_from((*3 * (npy(one),), npy(draw(any_array())), draw(st.sampled_from(BROKEN))))
    whole = bytearray(npz({name: draw(other) for name in names}, draw(st.sampled_from(METHODS))))
    offset, value = draw(st.sampled_from((*8 * ((6, 0),), (6, 1), (8, 99), (8, 9), (22, 255))))
    if value:  # the flags, the method or the size, in the entry itself and in the directory (two bytes further)
        for mark, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
            for place in re.finditer(mark, bytes(whole)):
                whole[place.start() + offset + shift] = value
    return bytes(whole)


MORE = ("", "--prior vamp", "--model conv", "--objective rewo --kappa 1", "--likelihood mixed", "--columns c0=drop")
NUMBERS = ("0", "1", "2", "7", "1.5", "-3", "4000", "", "nan", "inf", "1e400", "0x1", "1_000")
WORDS = ("x", "y", "True", "False", "", "None", "é", '"', '"a,b"', "1,2", "\0", "2020-01-01")


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A .csv: columns of numbers, of words, or of both, some of them with odd names."""
    kinds = (NUMBERS[:4], NUMBERS[:6], NUMBERS, WORDS[:2], WORDS[:5], WORDS, NUMBERS + WORDS)
    columns = draw(st.lists(st.sampled_from((*3 * kinds[:2], *kinds)), max_size=4))
    names = [draw(st.sampled_from((*6 * (f"c{place}",), "c0", "", "a b"))) for place in range(len(columns))]
    lines = [draw(st.tuples(*map(st.sampled_from, columns))) for _ in range(draw(st.sampled_from((0, 1, 9, 30))))]
    return "\n".join(map(",".join, (names, *lines))).encode()


@st.composite
def files(draw: st.DrawFn) -> Trial:
    """Training on a custom file, whole or with some of its bytes cut off or flipped."""
    suffix = draw(st.sampled_from((".npy", ".npy", ".npz", ".npz", ".NPY", ".csv", ".csv", ".parquet", ".h5ad")))
    usual_one = {".npz": archives(), ".csv": tables()}.get(suffix, any_array().map(npy))
    whole = draw((*5 * (usual_one,), archives(), st.sampled_from(BROKEN))[draw(st.integers(0, 6))])
    harm = draw(st.sampled_from((*6 * ("none",), "cut", "flip", "append")))
    where = draw(FRACTION)
    data = {"none": whole, "cut": cut(whole, where), "flip": flipped(whole, where), "append": whole + b"more"}[harm]
    more = draw(st.sampled_from(MORE)).split()
    words = ("train", *as_words(usual("train") | {"data": (f"mine{suffix}",)}), *more)
    return Trial(words, ((f"mine{suffix}", data),))


def cut(whole: bytes, where: float) -> bytes:
    return whole[: int(where * len(whole))]


def flipped(whole: bytes, where: float) -> bytes:
    """One bit is another one."""
    at = int(where * 8 * len(whole))
    return whole[: at // 8] + bytes(byte ^ 1 << at % 8 for byte in whole[at // 8 : at // 8 + 1]) + whole[at // 8 + 1 :]


# Damaged runs

DELETE = "delete"
VALUES = (None, True, 0, -1, 1.5, 10**12, 10**30, np.nan, "", "x", "a[/x]b", [], [1], [[1]], {}, {"a": 1}, DELETE)
ON_RUN = (
    ("train", "--out", "run", "--resume", "--epochs", "3"),
    ("train", "--out", "run", "--epochs", "3", "--data", "images.npz"),
    ("evaluate", "run", "--samples", "3", "--accelerator", "cpu"),
    ("evaluate", "run", "--samples", "50", "--accelerator", "cpu"),  # the rest of evaluation.partial
    ("evaluate", "run", "--samples", "3", "--accelerator", "cpu", "--which", "last", "--split", "train"),
    ("sample", "run", "--number", "2"),
    ("report", "run", "--number", "5"),
    ("compare", "run", "other", "--number", "5", "--out", "page.html"),
    ("interpolate", "run", *as_words(usual("interpolate"))),
)


@st.composite
def runs(draw: st.DrawFn, names: Sequence[str]) -> Trial:
    """A command on a run one of whose files is damaged."""
    name, kind = draw(st.sampled_from(names)), draw(st.sampled_from((*DAMAGES, "edit", "edit", "edit")))
    where, value = draw(FRACTION), draw(st.sampled_from(VALUES))
    return Trial(draw(st.sampled_from(ON_RUN)), damage=(name, kind, where, value))


def become_folder(path: Path, *_: Any) -> None:
    path.unlink()
    path.mkdir()


def become_loop(path: Path, *_: Any) -> None:
    path.unlink()
    path.symlink_to(path.name)


def become_another(path: Path, where: float, _: Any) -> None:
    """The content of another file of the run."""
    others = sorted(each for each in path.parent.iterdir() if each.is_file() and each != path)
    path.write_bytes(others[int(where * len(others))].read_bytes())


def edit(path: Path, where: float, value: Any) -> None:
    """Another value in a file that is still of its format: what no checksum of the file system would see."""
    if path.suffix == ".json":
        path.write_text(json.dumps(replaced(json.loads(path.read_text()), where, value)))
    elif path.suffix == ".jsonl":
        lines = replaced([json.loads(line) for line in path.read_text().splitlines()], where, value)
        path.write_text("".join(json.dumps(line) + "\n" for line in (lines if isinstance(lines, list) else [lines])))
    elif path.suffix == ".npy":
        made = np.load(path)
        np.save(path, (made[:-1], made[None], made.astype("U3"), made * np.nan)[int(where * 4)])
    elif where < 0.5:
        tensors, values_ = checkpoint.load(path)
        checkpoint.save(path, tensors, replaced(values_, 2 * where, value))
    else:
        edit_tensors(path, 2 * where - 1)


def edit_tensors(path: Path, where: float) -> None:
    tensors, values_ = checkpoint.load(path)
    name = sorted(tensors)[int(where * len(tensors))]
    tensor = tensors.pop(name)
    kind = int(where * 1e6) % 6
    if kind:
        other = (tensor[None], tensor.double(), tensor.bool(), torch.full_like(tensor, 1000), tensor)[kind - 1]
        tensors[name + "x" * (kind == 5)] = other
    checkpoint.save(path, tensors, values_)


def replaced(document: Any, where: float, value: Any) -> Any:
    """A JSON document with one of its values replaced or deleted. `compile` is left: it costs a minute."""
    places: list[tuple[Any, Any]] = []

    def visit(part: Any) -> None:
        for key in list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
            if key != "compile":
                places.append((part, key))
                visit(part[key])

    whole = [document]
    visit(whole)
    part, key = places[int(where * len(places))]
    if value == DELETE and part is not whole:
        del part[key]
    else:
        part[key] = value
    return whole[0]


DAMAGES: dict[str, Callable[[Path, float, Any], object]] = {
    "cut": lambda path, where, _: path.write_bytes(cut(path.read_bytes(), where)),
    "flip": lambda path, where, _: path.write_bytes(flipped(path.read_bytes(), where)),
    "append": lambda path, *_: path.write_bytes(path.read_bytes() + b"\n\x00"),
    "remove": lambda path, *_: path.unlink(),
    "folder": become_folder,
    "loop": become_loop,
    "another": become_another,
    "edit": edit,
}
