"""Pictures of a run: draws from the prior, reconstructions, pseudo-inputs."""

import io
from pathlib import Path

import matplotlib.image
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Distribution

from vaepriors.checkpoint import npy, write_atomically
from vaepriors.data import LIKELIHOODS, Dataset
from vaepriors.distributions import point_estimate
from vaepriors.priors import VampPrior
from vaepriors.vae import VAE

__all__ = ["drawn_points", "grid", "png", "reconstructions", "save_figure", "save_png", "write_pictures"]


def grid(images: Tensor, columns: int | None = None, border: int = 1) -> np.ndarray:
    """Images side by side, row by row.

    Args:
        images: Of shape `(N, 1, H, W)` or `(N, 3, H, W)`, values in [0, 1].
        columns: Images in a row; about the square root of N if not given.
        border: Pixels between images.

    Returns:
        An array `(height, width, 3)` of bytes.

    Raises:
        ValueError: If these are not images.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"shape {tuple(images.shape)} is not that of images: (N, 1, H, W) or (N, 3, H, W) is needed")
    n, _, height, width = images.shape
    columns = columns or int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    sheet = np.full((rows * (height + border) + border, columns * (width + border) + border, 3), 128, np.uint8)
    pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (height + border) + border, (i % columns) * (width + border) + border
        sheet[top : top + height, left : left + width] = image  # one channel broadcasts to three
    return sheet


def png(sheet: np.ndarray, least_width: int = 600) -> bytes:
    """A PNG, enlarged by a whole factor where it would be narrower than `least_width`."""
    factor = -(-least_width // sheet.shape[1])
    file = io.BytesIO()
    matplotlib.image.imsave(file, np.kron(sheet, np.ones((factor, factor, 1), np.uint8)), format="png")
    return file.getvalue()


def save_png(path: Path, sheet: np.ndarray, least_width: int = 600) -> None:
    """Write the file of `png`."""
    write_atomically(path, png(sheet, least_width))


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as a PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    write_atomically(path, file.getvalue())


def reconstructions(model: VAE, x: Tensor) -> np.ndarray:
    """A sheet of images, each above its reconstruction, in whole rows of at most ten."""
    columns = min(len(x), 10)
    rows = x[: len(x) - len(x) % columns].split(columns)
    return grid(torch.cat([part for row in rows for part in (row, point_estimate(model.reconstruct(row)))]), columns)


def drawn_points(p: Distribution, dataset: Dataset) -> Tensor:
    """What the model draws, given z: means of p(x|z), or draws of it where a mean is not like the data.

    A mean is missing for a PixelCNN, and for rows of bits, counts or categories it is not such a row. Images are shown
    as means whatever their likelihood.
    """
    whole = LIKELIHOODS[dataset.likelihood].discrete and not dataset.has_images
    return p.sample() if whole else point_estimate(p)


@torch.no_grad()
def write_pictures(folder: Path, model: VAE, dataset: Dataset, number: int) -> list[Path]:
    """Write samples.npy, and for images samples.png, reconstructions.png and, for a VampPrior, pseudo_inputs.png.

    A reconstruction is below its test example. Samples are means or draws of p(x|z), as in `drawn_points`.

    Args:
        folder: The folder to write to.
        model: The model.
        dataset: Its data.
        number: How many samples, and at most how many of the others.

    Returns:
        The files, in this order.
    """
    samples = drawn_points(model.decoder(model.prior().sample((number,))), dataset)
    write_atomically(folder / "samples.npy", npy(samples))
    if not dataset.has_images:
        return [folder / "samples.npy"]
    examples = dataset.test[: min(number, 30)].to(samples)
    sheets = {"samples": grid(samples), "reconstructions": reconstructions(model, examples)}
    for part in model.modules():
        if isinstance(part, VampPrior):
            sheets["pseudo_inputs"] = grid(part.inputs()[:number])
    for name, sheet in sheets.items():
        save_png(folder / f"{name}.png", sheet)
    return [folder / "samples.npy", *(folder / f"{name}.png" for name in sheets)]
