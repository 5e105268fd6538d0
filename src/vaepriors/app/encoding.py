"""The codes of the data of a run, or of another file, as a table."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaepriors.analysis import codes
from vaepriors.app.files import check_new, choose_examples
from vaepriors.app.run import Run
from vaepriors.checkpoint import npy, write_atomically
from vaepriors.devices import open_devices
from vaepriors.numerics import seed_of

__all__ = ["encode_run"]

KINDS = (".npy", ".csv")


def encode_run(
    run: Run,
    out: Path,
    split: str = "test",
    file: Path | None = None,
    which: str = "best",
    accelerator: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Write the mean of q(z|x) of each example (see `vaepriors.analysis.codes`), and return them.

    Args:
        run: The run.
        out: A `.npy` of shape `(N, latent)`, or a `.csv` with columns z1, z2, ....
        split, file, which, accelerator: As for `vaepriors encode`.
        progress: Called with the number of examples done and their total.
    """
    check_new(out, KINDS)
    device = open_devices(accelerator, 1).device
    dataset = run.dataset()
    x, y = choose_examples(dataset, split, file)
    model, _ = run.model(dataset, which)
    torch.manual_seed(seed_of(0, "encode"))  # for an encoder without a mean in closed form
    done = 0

    def count(examples: int) -> None:
        nonlocal done
        done += examples
        progress(done, len(x))

    z = codes(model.to(device), x, condition=y, progress=count)
    write_atomically(out, npy(z) if out.suffix.lower() == ".npy" else _csv(z))
    return z


def _csv(z: Tensor) -> bytes:
    """Rows below the names of columns; the numbers are read back to the last bit."""
    file, names = io.StringIO(), [f"z{column}" for column in range(1, z.shape[1] + 1)]
    digits = 17 if z.dtype == torch.float64 else 9
    np.savetxt(file, z.numpy(), f"%.{digits}g", ",", header=",".join(names), comments="")
    return file.getvalue().encode()
