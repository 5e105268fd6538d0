"""Tensors and plain values on disk: one safetensors file, replaced in one motion or not at all.

Nothing here unpickles. Tensors that a model holds twice (a VampPrior shares the model's encoder) are stored once,
under the name at which they are met first.

The header of a file holds, beside the values, the SHA-256 of the whole file (with zeros in the place of the digest), so
that a single flipped bit is noticed, and a word for what the file belongs to, such as the digest of an experiment.
"""

import hashlib
import io
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

__all__ = [
    "Damaged",
    "digest",
    "load",
    "load_module",
    "load_optimizer",
    "module_tensors",
    "npy",
    "optimizer_tensors",
    "owner",
    "save",
    "sweep",
    "tensor_text",
    "text_tensor",
    "write_atomically",
    "write_json",
]

BLANK = "0" * 64


class Damaged(ValueError):
    """A file is not what was written. The message names the file, and no remedy, which depends on the file."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at every moment either the old one or the new one is there, whole.

    Raises:
        OSError: If it cannot be written (a full disk); the old file is untouched and no half one is left.
    """
    partial = partial_of(path)
    try:
        with partial.open("xb") as file:  # a new file, never one that somebody put there
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically (see `write_atomically`)."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def npy(x: Tensor) -> bytes:
    """The content of a .npy file."""
    file = io.BytesIO()
    np.save(file, x.detach().cpu().numpy())
    return file.getvalue()


def partial_of(path: Path) -> Path:
    """A new name beside a file, which nobody can predict, for what is to replace it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left half-written: only while no other process writes there.

    Args:
        folder: Where `write_atomically` wrote.
        name: Only what was to become the file of this name.
    """
    pattern = re.compile(rf"\.{'.+' if name is None else re.escape(name)}\.[0-9a-f]{{16}}\.partial")
    for path in folder.iterdir() if folder.is_dir() else ():
        if pattern.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def save(path: Path, tensors: dict[str, Tensor], values: dict[str, Any], of: str = "") -> None:
    """Write named tensors and JSON values as one file, atomically.

    Args:
        path: Where to.
        tensors: Of any device.
        values: What JSON can hold.
        of: What they belong to, for `owner`.
    """
    whole = torch.contiguous_format  # a tensor and a view of it have no memory in common then, which the format refuses
    content = {name: tensor.detach().cpu().clone(memory_format=whole) for name, tensor in tensors.items()}
    about = json.dumps({"sha256": BLANK, "of": of, "values": values})
    file = bytearray(save_tensors(content, {"about": about}))
    place = file.index(BLANK.encode())  # the first, for it precedes the values and the tensors' names
    file[place : place + 64] = hashlib.sha256(file).hexdigest().encode()
    write_atomically(path, bytes(file))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote.

    Raises:
        Damaged: If the file is not a checkpoint, cut short, or not byte for byte what was written.
    """
    content = path.read_bytes()
    about = _about(path, content[8 : 8 + int.from_bytes(content[:8], "little")])
    place, view, total = content.find(about["sha256"].encode()), memoryview(content), hashlib.sha256()
    for part in (view[:place], BLANK.encode(), view[place + 64 :]):
        total.update(part)
    if total.hexdigest() != about["sha256"]:
        raise Damaged(f"{path} is damaged: its content does not match its digest")
    try:
        return load_tensors(content), about["values"]
    except SafetensorError as error:
        raise Damaged(f"{path} is damaged: its tensors cannot be read ({error})") from error


def owner(path: Path) -> str:
    """What a checkpoint belongs to, from its header alone.

    Raises:
        Damaged: If the header cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= path.stat().st_size else b""
    return _about(path, header)["of"]


def _about(path: Path, header: bytes) -> dict[str, Any]:
    try:
        about = json.loads(json.loads(header)["__metadata__"]["about"])
        kinds = {"sha256": str, "of": str, "values": dict}
        whole = all(isinstance(about[name], kind) for name, kind in kinds.items()) and len(about["sha256"]) == 64
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise Damaged(f"{path} is damaged, or no checkpoint of this version: its header cannot be read") from error
    if not whole:
        raise Damaged(f"{path} is damaged: its header has other fields than were written")
    return about


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of named tensors: of their names, types, shapes and values, whatever their order and device.

    >>> digest({"a": torch.zeros(2)}) == digest({"a": torch.zeros(2, 1)})
    False
    """
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        content = tensor.detach().cpu().contiguous()
        total.update(json.dumps([name, str(content.dtype), list(content.shape)]).encode())
        total.update(content.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and persistent buffers of a module, each tensor once."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach()
    return tensors


def load_module(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy tensors into a module of the same structure.

    Raises:
        ValueError: If names, shapes or types differ.
    """
    own = module_tensors(module)
    forms, given = _forms(own), _forms(tensors)
    if forms != given:
        names = sorted(name for name in forms.keys() | given.keys() if forms.get(name) != given.get(name))
        first = names[0]
        raise ValueError(
            f"the checkpoint is of another model: {len(names)} tensors differ, the first being {first} "
            f"(here {forms.get(first)}, there {given.get(first)})"
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def _forms(tensors: dict[str, Tensor]) -> dict[str, str]:
    return {name: f"{tuple(tensor.shape)} {tensor.dtype}" for name, tensor in tensors.items()}


def text_tensor(text: str) -> Tensor:
    """A text as the bytes of a tensor."""
    return torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())


def tensor_text(tensor: Tensor) -> str:
    """The text of `text_tensor`.

    Raises:
        ValueError: If the tensor has no bytes.
    """
    if tensor.dtype != torch.uint8:
        raise ValueError(f"a text has the type {tensor.dtype}, not bytes")
    return bytes(tensor.cpu().numpy()).decode()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser: tensors, named by the parameter's number and the kind, as `3.exp_avg`, and `numbers`.

    `numbers` is a text in JSON: what the state has beside tensors, and the numbers of the groups of parameters.

    Raises:
        ValueError: If it has anything else.
    """
    content = optimizer.state_dict()
    state = {f"{n}.{kind}": value for n, kinds in content["state"].items() for kind, value in kinds.items()}
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    others = {name: value for name, value in state.items() if name not in tensors}
    for name, value in others.items():
        if not isinstance(value, int | float | str | None):
            kind, of = name.partition(".")[2], type(value).__name__
            raise ValueError(
                f"the state of {type(optimizer).__name__} has {kind} of type {of}, which a checkpoint cannot hold: "
                "choose another optimiser"
            )
    groups = [{name: x for name, x in group.items() if _is_number(x)} for group in content["param_groups"]]
    return tensors | {"numbers": text_tensor(json.dumps({"state": others, "groups": groups}))}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, into an optimiser of the same kind.

    Raises:
        ValueError: If it is of other parameters, or the state of Adam has other tensors.
    """
    numbers = {"state": {}, "groups": []} | json.loads(tensor_text(tensors.get("numbers", text_tensor("{}"))))
    content = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in (tensors | numbers["state"]).items():
        number, _, kind = name.partition(".")
        if number.isdecimal() and int(number) < len(parameters):
            state.setdefault(int(number), {})[kind] = value
        elif name != "numbers":
            raise ValueError(f"the checkpoint is of another model: the optimiser has no {name}")
    if type(optimizer) is torch.optim.Adam:
        for place, kinds in state.items():
            _check_adam(place, parameters[place], kinds)
    for group, saved in zip(content["param_groups"], numbers["groups"], strict=False):  # earlier versions saved none
        group.update({name: value for name, value in saved.items() if _is_number(group.get(name))})
    optimizer.load_state_dict({"state": state, "param_groups": content["param_groups"]})
    for place, kinds in state.items():
        own = optimizer.state[parameters[place]]
        for kind, value in kinds.items():
            if isinstance(value, Tensor) and own[kind].dtype != value.dtype:  # torch gives it that of the parameter
                own[kind] = value.to(own[kind].device)


def _check_adam(place: int, parameter: nn.Parameter, kinds: dict[str, Tensor]) -> None:
    """Refuse a state of Adam without its moments, or with moments of another shape."""
    forms = {kind: tuple(tensor.shape) for kind, tensor in kinds.items()}
    names = {"step", "exp_avg", "exp_avg_sq"} | kinds.keys()
    own = {kind: () if kind == "step" else tuple(parameter.shape) for kind in names}
    if forms != own:
        raise ValueError(f"the checkpoint is of another model: Adam has {forms} of parameter {place}, not {own}")


def _is_number(value: object) -> bool:
    """Whether it is a number, and no switch, such as `fused`, which may differ between devices."""
    return isinstance(value, int | float) and not isinstance(value, bool)
