"""Tensors and plain values on disk: one safetensors file, replaced in one motion or not at all.

Nothing here unpickles. Tensors that a model holds twice (a VampPrior shares the model's encoder) are stored once,
under the name at which they are met first.
"""

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

__all__ = [
    "digest",
    "load",
    "load_module",
    "load_optimizer",
    "module_tensors",
    "npy",
    "optimizer_tensors",
    "save",
    "write_atomically",
]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at every moment either the old one or the new one is there, whole.

    Raises:
        OSError: If it cannot be written (a full disk); the old file is untouched and no half one is left.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
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


def npy(x: Tensor) -> bytes:
    """The content of a .npy file."""
    file = io.BytesIO()
    np.save(file, x.detach().cpu().numpy())
    return file.getvalue()


def save(path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Write named tensors and JSON values as one file, atomically."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save_tensors(content, {"values": json.dumps(values)}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote.

    Raises:
        ValueError: If the file is not a checkpoint, or cut short.
    """
    content = path.read_bytes()
    try:
        tensors = load_tensors(content)
        length = int.from_bytes(content[:8], "little")
        values = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["values"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no readable checkpoint ({error}): delete it and train anew") from error
    return tensors, values


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
        ValueError: If names or shapes differ.
    """
    own = module_tensors(module)
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != given:
        names = sorted(name for name in shapes.keys() | given.keys() if shapes.get(name) != given.get(name))
        first = names[0]
        raise ValueError(
            f"the checkpoint is of another model: {len(names)} tensors differ, the first being {first} "
            f"(here {shapes.get(first)}, there {given.get(first)})"
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of an optimiser's state, named by the parameter's number and the kind: `3.exp_avg`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{kind}": tensor for number, kinds in state.items() for kind, tensor in kinds.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; settings such as the learning rate stay those of the optimiser."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, kind = name.split(".", 1)
        state.setdefault(int(number), {})[kind] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
