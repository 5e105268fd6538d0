"""A run on disk: one folder that says what was run, how it went, and where it stands.

It is a `Folder` (see `vaepriors.store`) whose settings are an `Experiment`, and has beside the files of a training:

    evaluation.json    the result of `evaluate`; log_likelihood.npy has log p(x) of each example. Evaluations of another
                       split, number, model or seed have files of their own: evaluation-train-10.json (see `records`)

Random numbers are no part of it: those of an epoch follow from the seed, the epoch's number and the device's, so a
resumed run draws what an uninterrupted one would have drawn.
"""

import hashlib
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from vaepriors import checkpoint
from vaepriors.app.custom import is_custom
from vaepriors.app.experiment import Experiment, build, load_data
from vaepriors.conditional import AnyVAE
from vaepriors.data import CATALOGUE, Dataset, is_file
from vaepriors.numerics import keep_generators
from vaepriors.store import RESTORE, Folder, check_settings

__all__ = ["Run", "identity"]

# when a run is resumed
MAY_CHANGE = {"epochs", "patience", "accelerator", "devices", "nodes", "stream", "compile", "graph"}


class Run(Folder):
    """The folder of a run."""

    THEN = " && "

    def experiment(self) -> Experiment:
        """The experiment of the run, also when this version knows more fields than the one that wrote it.

        Raises:
            ValueError: If it is damaged, or not the one that was written, or a training of `vaepriors.fit`.
        """
        path, content = self / "experiment.json", self.description()
        try:
            experiment = Experiment.read(content["experiment"])
        except ValueError as error:
            self._check_origin(content)
            raise ValueError(f"{path} is damaged: {error}; {RESTORE}") from error
        if identity(experiment, content["data_sha256"]) != content["sha256"]:
            self._check_origin(content)
            raise ValueError(f"{path} was changed: its experiment does not match its digest; {RESTORE}")
        return experiment

    def _check_origin(self, content: dict[str, Any]) -> None:
        """Refuse the folder of a training that has no experiment."""
        if Folder.identify(self, content["experiment"], content["data_sha256"]) == content["sha256"]:
            raise ValueError(
                f"{self.folder} holds a training of vaepriors.fit, not of the command line: build its model and call "
                f"vaepriors.load_weights(model, {str(self.folder)!r})"
            )

    def check(self, settings: dict[str, Any], data: Dataset) -> None:
        self.check_folder(Experiment(**settings))
        if self.exists():
            self.check_data(data)

    def check_folder(self, experiment: Experiment) -> None:
        """Refuse to train in the folder of another experiment, or in one whose checkpoints belong to another."""
        if self.exists():
            self.check_same(experiment)
        self.check_files()

    def check_same(self, experiment: Experiment) -> None:
        """Refuse to resume as another experiment; its length and its devices may change, and its file may be moved."""
        old = self.experiment()
        moved = {"data"} if is_file(old.data) and is_file(experiment.data) else set()  # `check_data` compares them
        stored, given = (
            {name: value for name, value in vars(each).items() if name not in MAY_CHANGE | moved}
            for each in (old, experiment)
        )
        check_settings(str(self.folder), stored, given, "another --out")

    def check_data(self, dataset: Dataset, given: str | None = None) -> None:
        """Refuse another data set than the one that the run was trained on; `given` is its name, if another."""
        content = self.description()
        if dataset.digest() == content["data_sha256"]:
            return
        name = given or content["experiment"]["data"]
        files = [source.path for source in CATALOGUE[name].sources] if name in CATALOGUE else []
        if name in CATALOGUE and not files:  # computed, and another processor may round otherwise
            print(f"{name} differs in some bits from the data of {self.folder}: computed elsewhere?", file=sys.stderr)
            return
        where = f"{name} ({', '.join(files)})" if files else name
        raise ValueError(
            f"{where} is not the data set that {self.folder} was trained on (its digest differs): restore it, or train "
            "on the new one in another folder"
        )

    def dataset(self, stream: str | None = None) -> Dataset:
        """The data of the run.

        Whether training examples stay on disk, `stream`, is as in the experiment unless given.
        """
        experiment = self.experiment()
        try:
            dataset = load_data(experiment, stream)
        except ValueError as error:
            moved = f"; if it was moved, {self.command_to_resume()} --data PATH" if _is_missing(experiment.data) else ""
            raise ValueError(f"the data of {self / 'experiment.json'}: {error}{moved}") from error
        self.check_data(dataset)
        return dataset

    def model(self, dataset: Dataset, which: str = "best") -> tuple[AnyVAE, dict[str, Any]]:
        """The trained model, on the CPU, with the values stored beside it (its epoch and loss).

        `which` is `best`, `last`, or `epoch-N` of a snapshot.
        """
        if not re.fullmatch(r"best|last|epoch-\d+", which):  # a path would read another run
            raise ValueError(f"which is {which!r}: choose best, last, or epoch-N of a snapshot")
        tensors, values = self.load_checkpoint(which)
        with keep_generators(), torch.device("cpu"):  # whatever torch's default device is
            model, _ = build(self.experiment(), dataset)
        prefix = "model."
        own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        if any(tensor.dtype == torch.float64 for tensor in own.values()):
            model = model.double()
        try:
            checkpoint.load_module(model, own)
        except ValueError as error:
            raise ValueError(f"{self / which}.ckpt: {error}") from error
        return model.eval(), values

    def identify(self, settings: dict[str, Any], data_sha256: str) -> str:
        return identity(Experiment(**settings), data_sha256)

    def command_to_resume(self) -> str:
        """The command that resumes the training; it names custom code, which is imported only then."""
        try:
            model = self.experiment().model
        except ValueError:  # damaged: the command itself will refuse it
            model = ""
        code = ["--model", model] if is_custom(model) else []
        return shlex.join(["vaepriors", "train", "--out", str(self.folder), "--resume", *code])


def _is_missing(data: str) -> bool:
    """Whether data are a file that is not there."""
    return is_file(data) and not Path(data).exists()


def identity(experiment: Experiment, data_sha256: str) -> str:
    """The digest of all that may not change when a run is resumed: the experiment's options and its data.

    Options at their default are left out, so that it stays the same when a later version has more of them. The data's
    place is left out too: files may be moved. Standardisation counts where it is one: it came after the first runs.
    """
    left_out = {*MAY_CHANGE, "data", "standardize"}
    options = {name: value for name, value in experiment.given().items() if name not in left_out}
    if experiment.standardize and is_file(experiment.data):
        options["standardize"] = True
    return hashlib.sha256(json.dumps([options, data_sha256], sort_keys=True).encode()).hexdigest()
