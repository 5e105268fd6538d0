"""A trained model's weights, from any store."""

from pathlib import Path

from torch import nn

from vaepriors import checkpoint
from vaepriors.store.folder import Folder
from vaepriors.store.protocol import Store

__all__ = ["load_weights"]


def load_weights(model: nn.Module, source: Store | Path | str, which: str = "best") -> nn.Module:
    """Load a trained model's weights into a model of the same structure.

    Args:
        model: The model, whose weights are replaced.
        source: The folder or store of the training.
        which: `best`, `last`, or `epoch-N` of a snapshot.

    Returns:
        The same model, in evaluation mode.

    Raises:
        ValueError: If there is no such checkpoint, or it is damaged or of another model.
    """
    tensors, _ = (Folder(source) if isinstance(source, Path | str) else source).load_checkpoint(which)
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    checkpoint.load_module(model, weights)
    return model.eval()
