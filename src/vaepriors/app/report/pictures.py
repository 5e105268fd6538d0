"""Pictures of a run: draws from the prior, reconstructions, pseudo-inputs."""

import io
from pathlib import Path

import matplotlib.image
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Distribution

from vaepriors.checkpoint import npy, write_atomically
from vaepriors.conditional import AnyVAE, batches, given
from vaepriors.data import Dataset
from vaepriors.data.columns import csv_of
from vaepriors.distributions import point_estimate
from vaepriors.priors import VampPrior

__all__ = [
    "by_condition",
    "draw",
    "drawn_points",
    "extremes",
    "figure_png",
    "grid",
    "png",
    "reconstructions",
    "save_figure",
    "save_png",
    "tones",
    "write_pictures",
]

CLASSES = 20  # shown at most
OF_EACH = 10  # draws given each condition


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


def extremes(dataset: Dataset) -> tuple[float, float]:
    """The values that are black and white in pictures: 0 and 1, or those of test examples if they are beyond."""
    low, high = (each.item() for each in dataset.test.aminmax())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high if high > low else low + 1)


def tones(images: Tensor, dataset: Dataset) -> Tensor:
    """Images whose values in [0, 1] are black to white, for `grid`."""
    low, high = extremes(dataset)
    return (images - low) / (high - low)


def png(sheet: np.ndarray, least_width: int = 600) -> bytes:
    """A PNG, enlarged by a whole factor where it would be narrower than `least_width`."""
    factor = -(-least_width // sheet.shape[1])
    file = io.BytesIO()
    matplotlib.image.imsave(file, np.kron(sheet, np.ones((factor, factor, 1), np.uint8)), format="png")
    return file.getvalue()


def save_png(path: Path, sheet: np.ndarray, least_width: int = 600) -> None:
    """Write the file of `png`."""
    write_atomically(path, png(sheet, least_width))


def figure_png(figure: Figure, dpi: int) -> bytes:
    """A figure as a PNG, drawn once; `Figure.savefig` draws one that has a layout twice."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    file = io.BytesIO()
    matplotlib.image.imsave(file, canvas.buffer_rgba(), format="png", dpi=dpi)
    return file.getvalue()


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as a PNG."""
    write_atomically(path, figure_png(figure, 120))


def reconstructions(model: AnyVAE, dataset: Dataset, x: Tensor, condition: Tensor | None = None) -> np.ndarray:
    """A sheet of images of a data set, each above its reconstruction, in whole rows of at most ten."""
    columns = min(len(x), 10)
    rows = batches(model, x[: len(x) - len(x) % columns], condition, columns)
    pairs = torch.cat([part for at, row in rows for part in (row, point_estimate(at.reconstruct(row)))])
    return grid(tones(pairs, dataset), columns)


def draw(model: AnyVAE, dataset: Dataset, number: int, condition: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """What a model draws, with the conditions that it was given.

    All points are given one y of shape `(c,)`, or else the conditions of random training points, if the data have any.
    """
    y = condition
    if dataset.conditions:
        train = dataset.conditions["train"]
        rows = train[torch.randint(len(train), (number,))] if condition is None else condition.expand(number, -1)
        y = rows.to(next(model.parameters()))
    at = given(model, y)
    return drawn_points(at.decoder(at.prior().sample((number,) if y is None else ())), dataset), y


def by_condition(model: AnyVAE, dataset: Dataset) -> tuple[Tensor, list[str]]:
    """Draws given each of some conditions, of shape `(rows * OF_EACH, *event)`, and the name of each row.

    The conditions are the classes, or those of some test points if they are covariates. With a class and covariates,
    the latter are those of a test point of the class.
    """
    y, classes = dataset.few_test().condition, dataset.classes[:CLASSES]
    assert y is not None
    if classes:
        c = len(dataset.classes)
        first = y[:, :c].argmax(0)[: len(classes)]  # a point of each class
        y = torch.cat([torch.eye(c)[: len(classes)], y[first, c:]], -1)
    shown = y[: len(classes) or 8].to(next(model.parameters()))
    at = given(model, shown)
    drawn = drawn_points(at.decoder(at.prior().sample((OF_EACH,))), dataset)
    names = [str(each) for each in classes] or [" ".join(f"{value:.3g}" for value in each) for each in shown.tolist()]
    return drawn.transpose(0, 1).flatten(0, 1), names


def drawn_points(p: Distribution, dataset: Dataset) -> Tensor:
    """What the model draws, given z: draws of p(x|z), and of images its means, where it has them."""
    return point_estimate(p) if dataset.has_images else p.sample()


@torch.no_grad()
def write_pictures(
    folder: Path, model: AnyVAE, dataset: Dataset, number: int, condition: Tensor | None = None
) -> list[Path]:
    """Write samples.npy and what shows them; return the files.

    For tables it is samples.csv; for images samples.png, reconstructions.png and, for a VampPrior, pseudo_inputs.png. A
    reconstruction is below its test example. Samples are means or draws of p(x|z), as in `drawn_points`. Of a model
    with conditions, those of the samples are in samples-conditions.npy, and by_condition.png has a row for each class.

    Args:
        folder, model, dataset: Where to, and the model with its data.
        number: How many samples, and at most how many of the others.
        condition: The y of all samples, as in `draw`.
    """
    samples, y = draw(model, dataset, number, condition)
    arrays = {"samples": samples} if y is None else {"samples": samples, "samples-conditions": y}
    for name, array in arrays.items():
        write_atomically(folder / f"{name}.npy", npy(array))
    written = [folder / f"{name}.npy" for name in arrays]
    if dataset.columns:
        write_atomically(folder / "samples.csv", csv_of(samples, dataset.columns).encode())
        return [*written, folder / "samples.csv"]
    if not dataset.has_images:
        return written
    shown = dataset.few_test(min(number, 30))
    sheets = {
        "samples": grid(tones(samples, dataset)),
        "reconstructions": reconstructions(model, dataset, shown.x.to(samples), shown.condition),
    }
    if y is not None:
        sheets["by_condition"] = grid(tones(by_condition(model, dataset)[0], dataset), OF_EACH)
    for part in model.modules():
        if isinstance(part, VampPrior):
            sheets["pseudo_inputs"] = grid(tones(part.inputs()[:number], dataset))
    for name, sheet in sheets.items():
        save_png(folder / f"{name}.png", sheet)
    return written + [folder / f"{name}.png" for name in sheets]
