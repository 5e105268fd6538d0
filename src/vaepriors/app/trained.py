"""A trained model, back from the folder of a run."""

from pathlib import Path
from typing import NamedTuple

from vaepriors.app.custom import imported
from vaepriors.app.run import Run
from vaepriors.conditional import AnyVAE
from vaepriors.data import Dataset

__all__ = ["Trained", "load", "open_run"]


class Trained(NamedTuple):
    """A trained model and its data.

    Attributes:
        model: The model, a `VAE` or, with conditions, a `ConditionalVAE`: in evaluation mode, on the CPU.
        data: The data set that it was trained on.
    """

    model: AnyVAE
    data: Dataset


def load(folder: Path | str, which: str = "best", *, model: str | None = None) -> Trained:
    """Load the trained model of a run of the command line, with its data.

    Args:
        folder: Folder of the run (`vaepriors train --out FOLDER`).
        which: `best`, `last`, or `epoch-N` of a snapshot.
        model: Where the run has a custom model: its `package.module:function` again. No other code is imported.

    Returns:
        The pair `model, data`.

    Raises:
        ValueError: If there is no run, no such checkpoint, or one that is damaged; if its data have changed; if a
            custom model is not named; or if the folder was written by `vaepriors.fit`: see `load_weights`.
        FileNotFoundError: If its data are not there.

    >>> import tempfile
    >>> import vaepriors
    >>> from vaepriors.app.train import Experiment, fit
    >>> small = Experiment(hidden=(8,), latent=2, epochs=1, accelerator="cpu")
    >>> with tempfile.TemporaryDirectory() as folder:  # trained here as by `vaepriors train --out FOLDER`
    ...     outcome = fit(small, vaepriors.data.load("digits"), Run(folder))
    ...     model, data = vaepriors.load(folder)
    >>> model.sample((64,)).shape, model.encoder(data.test).mean.shape
    (torch.Size([64, 1, 8, 8]), torch.Size([250, 2]))
    """
    with imported([] if model is None else [model]):
        run = open_run(folder, model)
        dataset = run.dataset()
        return Trained(run.model(dataset, which)[0], dataset)


def open_run(folder: Path | str, model: str | None = None) -> Run:
    """The run in a folder, whose model is the one that the user named, if any."""
    run = Run(folder)
    if model is not None and run.experiment().model != model:
        raise ValueError(f"{folder} was trained with the model {run.experiment().model}, not {model}")
    return run
