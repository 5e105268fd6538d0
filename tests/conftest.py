"""What the tests of runs share: a tiny data set, the command line in this process, and processes that may die."""

import contextlib
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_tables import tiny_entries, tiny_tables
from vaepriors import cli, papers
from vaepriors.app.experiment import Experiment
from vaepriors.app.run import Run
from vaepriors.app.train import fit
from vaepriors.data import CATALOGUE, files, load

torch.set_num_threads(1)  # the nets here are too small for more, and numbers depend on how many

TINY = ["--hidden", "8", "--latent", "2", "--batch-size", "10", "--accelerator", "cpu"]


class RunOn(Run):
    """A run on data that are no file."""

    def __init__(self, folder, data):
        super().__init__(folder)
        self.data = data

    def dataset(self):
        return self.data


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A .npz of 23, 6 and 5 images of 4 x 4 probabilities: three batches of 10, the last one filled up."""
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "squares.npz"
    splits = {"train": 23, "valid": 6, "test": 5}
    np.savez(path, **{name: generator.random((n, 4, 4), dtype=np.float32) for name, n in splits.items()})
    return path


@pytest.fixture(scope="session")
def vaepriors():
    """The command line in this process: words and paths in, exit status out."""

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        return end.value.code

    return run


@pytest.fixture(scope="session")
def train(vaepriors, images):
    """A tiny training on the command line: its folder and more options in, exit status out."""

    def run(folder, *options):
        return vaepriors("train", "--data", images, "--out", folder, *TINY, *options)

    return run


@pytest.fixture
def run(tmp_path, images):
    """A run of one epoch of a small VAE."""
    run = Run(tmp_path / "run")
    options = {"hidden": (4,), "latent": 2, "epochs": 1, "accelerator": "cpu"}
    fit(Experiment(data=str(images), **options), load(str(images)), run)
    return run


@pytest.fixture
def locked(request):
    """Take the permission to read from a copy of a file or of those in a folder. Root, who may read all, is nobody."""

    def lock(path):
        folder = Path(tempfile.mkdtemp())
        request.addfinalizer(lambda: shutil.rmtree(folder))
        folder.chmod(0o755)
        copy = folder / path.name
        shutil.copytree(path, copy) if path.is_dir() else shutil.copy(path, copy)
        copy.chmod(0o755)
        for file in copy.iterdir() if path.is_dir() else [copy]:
            file.chmod(0)
        if os.geteuid() == 0:
            request.addfinalizer(lambda: os.seteuid(0))
            os.seteuid(65534)
        return copy

    return lock


@pytest.fixture(scope="session")
def processes():
    """Run functions of a test module, each in a process of its own, all at the same time; return their exit codes."""
    context = multiprocessing.get_context("forkserver")
    # imported once for all of them, with what it costs seconds to import: torch, lightning_fabric, matplotlib
    context.set_forkserver_preload(["pytest", "vaepriors.papers", "vaepriors.devices", "lightning_fabric"])

    def run(*calls, limit=300):
        started = [context.Process(target=target, args=arguments) for target, *arguments in calls]
        for process in started:
            process.start()
        for process in started:
            process.join(limit)  # only a hang takes that long
        for process in started:
            process.kill()
            process.join()
        return [process.exitcode for process in started]

    return run


@contextlib.contextmanager
def largest_file(size):
    """Refuse, for a while, to write more bytes into a file: the system stops halfway, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def environment(monkeypatch):
    """Set environment variables until the test ends: `environment(NAME=value)`."""

    def change(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return change


@pytest.fixture
def in_folder(tmp_path):
    """An empty folder, as working directory."""
    with contextlib.chdir(tmp_path):
        yield tmp_path


@pytest.fixture
def cache(tmp_path, environment, monkeypatch):
    """An empty cache of downloads, without a data folder and without any network but this machine's own."""
    monkeypatch.delenv(files.VARIABLE, raising=False)
    environment(HOME=tmp_path, XDG_CACHE_HOME=tmp_path / "cache")
    environment(HTTPS_PROXY="http://127.0.0.1:9", NO_PROXY="127.0.0.1")
    return files.cache()


@pytest.fixture
def data_folder(tmp_path, cache, environment):
    """An empty data folder, beside an empty cache: a test reads only what it writes."""
    folder = tmp_path / "data"
    folder.mkdir()
    environment(VAEPRIORS_DATA=folder)
    return folder


@pytest.fixture
def without(monkeypatch):
    """Make a module impossible to import, as where it is not installed."""
    return lambda name: monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def entries(monkeypatch):
    """Add entries to a table until the test ends: `entries(table, {name: entry})`."""

    def add(table, added):
        for name, entry in added.items():
            monkeypatch.setitem(table, name, entry)

    return add


@pytest.fixture
def tiny(entries):
    """The tables of `tiny_tables` beside the papers', with small data behind the names of `digits` and `pendulum`."""
    tables = tiny_tables()
    entries(CATALOGUE, tiny_entries())
    entries(papers.tables(), tables)
    return tables
