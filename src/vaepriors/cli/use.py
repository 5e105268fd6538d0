"""The commands that use a trained model: sample, encode, impute and interpolate."""

from pathlib import Path

import torch
import tyro

from vaepriors.app.groups import Accelerator
from vaepriors.app.terminal import counting_bar
from vaepriors.cli.shared import CustomModel, Split, Which, check_seed, console
from vaepriors.data import condition_of
from vaepriors.limits import at_least_one, check_size
from vaepriors.words import counted

__all__ = ["encode", "impute", "interpolate", "sample"]


def sample(
    run: tyro.conf.Positional[Path],
    number: int = 64,
    which: Which = "best",
    seed: int = 0,
    condition: tuple[str, ...] = (),
    model: CustomModel = None,
) -> int:
    """Draw from a trained model; also draw reconstructions, pseudo-inputs and the curves of the training.

    A PixelCNN draws one pixel at a time, which takes some seconds for 64 images of 28 x 28.

    Args:
        run: Folder of the run; samples.npy and the pictures are written there.
        number: How many images or vectors to draw.
        seed: Seed of the draws.
        condition: Of a model with conditions: the class of all draws, its covariates, or a class and then covariates.
            Unless given, each draw has the condition of a random training example.
    """
    from vaepriors.app.report.curves import write_curves
    from vaepriors.app.report.pictures import write_pictures
    from vaepriors.app.trained import open_run
    from vaepriors.distributions import sampling_progress

    at_least_one(number=number)
    check_seed(seed)
    folder = open_run(run, model)
    with folder.lock():
        dataset = folder.dataset()
        y = condition_of(dataset, condition) if condition else None
        check_size(f"a sample of {number} draws", 4 * number * dataset.event_shape.numel())
        vae, _ = folder.model(dataset, which)
        metrics = folder.metrics()
        torch.manual_seed(seed)
        with counting_bar(console, "pixels, one by one") as progress, sampling_progress(progress):
            paths = write_pictures(folder.folder, vae, dataset, number, y) + write_curves(folder.folder, metrics)
    console.print("\n".join(map(str, paths)))
    return 0


def encode(
    run: tyro.conf.Positional[Path],
    out: Path,
    split: Split = "test",
    file: Path | None = None,
    which: Which = "best",
    accelerator: Accelerator = "auto",
    model: CustomModel = None,
) -> int:
    """Write the codes of examples: the mean of q(z|x) of each; with two levels that of z2, and that of z1 given it.

    Args:
        run: Folder of the run.
        out: The .npy or .csv to write: a row for each example, in their order.
        split: Which part of the data. (The training set is binarised once, always the same way.)
        file: Other data instead: a file or folder like the data of the run, with the classes and covariates that the
            model is given.
        accelerator: Where to compute.
    """
    from vaepriors.app.encoding import encode_run
    from vaepriors.app.trained import open_run

    with counting_bar(console, "examples encoded") as progress:
        z = encode_run(open_run(run, model), out, split, file, which, accelerator, progress)
    console.print(f"{out}: {counted(len(z), 'code')} of {counted(z.shape[1], 'number')}")
    return 0


def impute(
    run: tyro.conf.Positional[Path],
    out: Path,
    file: Path | None = None,
    draws: int = 0,
    samples: int = 1000,
    which: Which = "best",
    seed: int = 0,
    model: CustomModel = None,
) -> int:
    """Fill the missing cells of a table by a trained model with the likelihood mixed.

    Args:
        run: Folder of the run.
        out: The .csv to write. A missing number becomes its mean given the other cells of the row, rounded for counts;
            a bit or category the most probable one.
        file: A table with the columns of the model, and of its conditions; that of the run unless given.
        draws: Multiple imputations, which are written instead, as OUT-1.csv and so on; each draws the missing cells
            given the others.
        samples: Draws of z for each row.
        seed: Seed of the draws.
    """
    from vaepriors.analysis.diagnosis import FEW_EFFECTIVE_SAMPLES
    from vaepriors.app.imputation import impute_run
    from vaepriors.app.trained import open_run

    check_seed(seed)
    paths, imputed = impute_run(open_run(run, model), out, file, draws, samples, which, seed)
    effective = imputed.effective_samples
    if not len(effective):
        console.print("no cell is missing: the table is as it was")
    else:
        mean, least = effective.mean().item(), effective.min().item()
        rows = counted(len(effective), "row")
        console.print(f"{rows} filled; effective samples {mean:.1f} on average, at least {least:.1f}")
        if least < FEW_EFFECTIVE_SAMPLES:
            console.print("some rows rest on few draws: give more --samples")
    console.print("\n".join(map(str, paths)))
    return 0


def interpolate(
    run: tyro.conf.Positional[Path],
    nodes: int | None = None,
    neighbors: int | None = None,
    graphs: int = 10,
    pairs: int = 100,
    which: Which = "best",
    seed: int = 0,
    condition: tuple[str, ...] = (),
    model: CustomModel = None,
) -> int:
    """Interpolate between test examples along shortest paths in graphs of prior samples, and measure the smoothness.

    Args:
        run: Folder of the run; interpolation.json and pictures are written there.
        nodes: Nodes of a graph; as in the paper for its data sets, 1000 for others.
        neighbors: Nearest neighbours that a node is joined to; as in the paper for its data sets, 18 for others.
        graphs: How many graphs.
        pairs: How many pairs of test examples for each graph.
        seed: Seed of nodes and pairs.
        condition: Of a model with conditions: the class of all paths and examples, the covariates of all paths, or a
            class and then covariates.
    """
    from rich.table import Table

    from vaepriors.app.interpolation import interpolate_run
    from vaepriors.app.report.paths import write_interpolations
    from vaepriors.app.trained import open_run

    check_seed(seed)
    folder = open_run(run, model)
    with folder.lock():
        with counting_bar(console, "pairs") as progress:
            options = (nodes, neighbors, graphs, pairs, which, seed, progress, condition)
            result, first = interpolate_run(folder, *options)
        paths = write_interpolations(folder.folder, first, folder.dataset())
    table = Table(
        "path", "smoothness (lower is smoother)", title=f"{result['nodes']} nodes, {result['neighbors']} neighbours"
    )
    for name, smoothness in result["smoothness"].items():
        table.add_row(name.replace("_", " "), f"{smoothness['mean']:.5f} ± {smoothness['sd']:.5f}")
    console.print(table)
    split = sum(len(each) > 1 for each in result["components"])
    if split:
        console.print(f"{split} of {graphs} graphs are not connected: components of {result['components'][0]} nodes")
        console.print(f"{result['pairs_without_path']} of {graphs * pairs} pairs have no path and are left out")
    console.print("\n".join(map(str, paths)))
    return 0
