"""Training sets that stay on disk: the same points, batches and weights as in memory, and what bad files get."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from test_train import assert_same_run, two
from test_training import numbers, weights
from vaepriors import data, fit, networks
from vaepriors.app.experiment import Experiment
from vaepriors.app.run import Run
from vaepriors.app.train import fit as app_fit
from vaepriors.app.train import make_fabric
from vaepriors.compilation import Graphed
from vaepriors.conditional import ConditionalVAE, Ignoring
from vaepriors.data import own
from vaepriors.data.ahead import read_ahead
from vaepriors.data.batches import Order, feed
from vaepriors.data.draws import binarize_once, binarize_rows
from vaepriors.data.rows import Rows, Streamed, shares
from vaepriors.data.shards import Shards
from vaepriors.data.survey import survey_files
from vaepriors.objectives import ELBO
from vaepriors.priors import StandardNormal
from vaepriors.store import Folder
from vaepriors.vae import VAE

GENERATOR = np.random.default_rng(0)
LEVELS = GENERATOR.integers(0, 256, (60, 4, 3), dtype=np.uint8)
GRAY = GENERATOR.random((60, 4, 3), dtype=np.float32)
REAL = GENERATOR.normal(size=(60, 5))
COUNTS = GENERATOR.integers(0, 9, (60, 5), dtype=np.int32)
COLOR = GENERATOR.integers(0, 256, (60, 4, 5, 3), dtype=np.uint8)
CPU = torch.device("cpu")


def saved(folder, array, names=("mine.npy",)):
    """The array in files of a folder, in equal parts; the path of the data set."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in zip(names, np.array_split(array, len(names)), strict=True):
        np.save(folder / name, part)
    return folder / names[0] if len(names) == 1 else folder


@pytest.mark.parametrize("names", [("mine.npy",), ("a.npy", "b.npy", "c.npy"), ("test.npy", "train.npy", "valid.npy")])
@pytest.mark.parametrize(
    ("array", "likelihood"),
    [
        (LEVELS, "auto"),
        (LEVELS, "bernoulli"),
        (LEVELS, "gaussian"),
        (LEVELS > 99, "auto"),
        (GRAY, "auto"),
        (np.asarray(LEVELS / 255, np.float32), "logistic256"),
        (REAL, "auto"),
        (REAL.astype(">f4"), "student"),
        (COUNTS, "poisson"),
        (COLOR, "auto"),
    ],
)
def test_points_on_disk_are_those_in_memory(tmp_path, environment, array, likelihood, names):
    path = saved(tmp_path / "data", array, names)
    there, here = (own.load(path, 3, likelihood, stream=stream) for stream in ("yes", "no"))
    assert (there.streamed, here.streamed) == (True, False)
    assert (there.likelihood, there.dynamic, there.event_shape) == (here.likelihood, here.dynamic, here.event_shape)
    assert "read from disk" in there.summary()
    for split in data.own.SPLITS:
        assert torch.equal(getattr(there, split)[:], getattr(here, split)[:]), split
    assert there.digest() == here.digest()
    assert there.doubts == here.doubts
    assert there.standardize == here.standardize == (array is REAL or likelihood == "student")
    if there.standardize:
        means = [dataset.family.scaling(dataset.train).mean for dataset in (there, here)]
        assert torch.equal(*means)
    environment(VAEPRIORS_MEMORY=f"{4 * array.size / 2**30}")
    assert own.load(path, 3, likelihood).streamed
    assert len(there.train.shards.paths) == (3 if "a.npy" in names else 1)


def test_points_are_selected_as_from_a_tensor_whatever_the_default_device(tmp_path):
    train = Streamed(Shards([saved(tmp_path, REAL)]), order=GENERATOR.permutation(60))
    points = train[:]
    with torch.device("meta"):  # as where the memory of a model is estimated
        for rows in (0, -1, np.int64(7), slice(3, 40, 5), slice(-2, None)):
            assert torch.equal(train[rows], points[rows])
    with pytest.raises(IndexError):
        train[60]


def test_the_digest_is_of_the_numbers_and_not_of_the_files(tmp_path):
    one = own.load(saved(tmp_path / "one", LEVELS), stream="yes")
    parts = own.load(saved(tmp_path / "parts", LEVELS, ("a.npy", "b.npy")), stream="yes")
    changed = LEVELS.copy()
    changed[20, 3, 1] ^= 1
    other = own.load(saved(tmp_path / "other", changed), stream="yes")
    assert one.digest() == parts.digest() != other.digest()
    assert one.digest() != own.load(tmp_path / "one" / "mine.npy", seed=1).digest()


def test_moments_of_many_rows_are_those_of_a_random_subset():
    train = torch.arange(100_020.0).view(-1, 1)
    dataset = data.Dataset("many", train, train[:1], train[:1], "gaussian", standardize=True)
    mean, again = (dataset.family.scaling(train).mean.item() for _ in range(2))
    assert mean == again != train.mean().item()
    assert abs(mean - train.mean().item()) < 20


def test_no_more_than_ten_thousand_points_are_held_out(tmp_path):
    path = saved(tmp_path / "data", np.zeros((100_010, 2), np.uint8))
    for stream in ("yes", "no"):
        dataset = own.load(path, stream=stream)
        assert [len(x) for x in (dataset.train, dataset.valid, dataset.test)] == [80_010, 10_000, 10_000]


def test_bytes_stay_bytes_in_memory():
    rows = Rows(torch.arange(256, dtype=torch.uint8).view(128, 2), shares).to(CPU, torch.float64)
    assert rows.stored.dtype == torch.uint8
    assert torch.equal(rows[:].float(), torch.arange(256.0).view(128, 2) / 255)
    assert rows[torch.tensor([3])].dtype == torch.float64


def test_rows_have_the_bits_that_they_have_among_all():
    p = torch.from_numpy(GENERATOR.random((50, 3, 7), dtype=np.float32))
    rows = np.array([7, 0, 49, 8, 8])
    assert torch.equal(binarize_rows(p[rows], rows, 2), binarize_once(p, 2)[rows])


def test_an_epoch_is_some_steps_of_the_passes():
    order, short = (Order(23, 5, lambda number: number, steps) for steps in (None, 3))
    passes = [order.epoch(number) for number in (1, 2, 3)]
    assert passes[0].shape == (5, 5)
    assert sorted(passes[1].flatten()[:23].tolist()) == list(range(23))
    assert torch.equal(torch.cat([short.epoch(number) for number in range(1, 6)]), torch.cat(passes))
    assert torch.equal(Order(23, 5, lambda number: number, 3).epoch(4), short.epoch(4))


def test_a_batch_of_many_devices_repeats_few_examples():
    rows = Order(3, 8, lambda number: number).epoch(1)  # a row for each of 8 devices
    assert rows.shape == (1, 8)
    assert rows[0, :3].tolist() * 2 == rows[0, :6].tolist()
    assert torch.equal(rows[0, 6:], rows[0, :2])


def test_batches_are_read_ahead_in_order_and_errors_come_with_their_batch():
    def read(x):
        if x == 5:
            raise ValueError("five")
        return 2 * x

    assert [b.item() for _, b in read_ahead(read, torch.arange(4), ahead=2)] == [0, 2, 4, 6]
    batches = read_ahead(read, torch.arange(20))
    assert [next(batches)[1].item() for _ in range(5)] == [0, 2, 4, 6, 8]
    with pytest.raises(ValueError, match="five"):
        next(batches)


def refuse(x, rows):
    raise AssertionError("files are checked when they are opened")


def test_a_feed_from_disk_gives_the_batches_of_one_in_memory(tmp_path):
    train = Streamed(Shards([saved(tmp_path, LEVELS)]), shares)
    rows = torch.randperm(60).view(6, 10)
    for dtype in (torch.float32, torch.float64):
        memory = Rows(torch.from_numpy(LEVELS)[:, None], shares)
        there, here = (feed(each, CPU, dtype, check=refuse) for each in (train, memory))
        for one, other in zip(there.batches(rows), here.batches(rows), strict=True):
            assert torch.equal(one, other)
            assert torch.equal(there.points[one], here.points[other])


def model_of(dataset):
    torch.manual_seed(0)
    encoder, decoder = (part(dataset.event_shape, [8], 2) for part in (networks.Encoder, networks.Decoder))
    return VAE(encoder, decoder, StandardNormal(2))


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_weights_are_those_of_a_training_from_memory(tmp_path, precision):
    """Resumed after each epoch, from one place and from the other."""
    path, results = saved(tmp_path / "data", LEVELS), []
    options = {"epochs": 4, "batch_size": 7, "epoch_steps": 3, "accelerator": "cpu", "precision": precision}
    for streams in (["no"], ["yes"], ["yes", "yes", "no", "yes"]):
        store = Folder(tmp_path / "-".join([precision, *streams]))
        for stream in streams:
            dataset = own.load(path, likelihood="bernoulli", stream=stream)
            deadline = 0.0 if len(streams) > 1 else None
            outcome = fit(
                model := model_of(dataset), ELBO(warmup=2), dataset, store=store, deadline=deadline, **options
            )
        results.append((weights(model), numbers(outcome)))
    assert outcome.epoch == 4
    for result in results[1:]:
        assert torch.equal(result[0], results[0][0])
        assert result[1] == results[0][1]


LABELS = GENERATOR.permutation(60) % 3
AGES = GENERATOR.normal(size=60)


def save_given(folder, layout):
    """Levels with labels and covariates: as parts that are split by seed, or as splits."""
    if layout == "parts":
        saved(folder, LEVELS, ("a.npy", "b.npy"))
        np.save(folder / "train_labels.npy", LABELS)
        saved(folder / "train_covariates", AGES, ("1.npy", "2.npy", "3.npy"))
        return folder
    for name, rows in {"train": slice(40), "valid": slice(40, 50), "test": slice(50, 60)}.items():
        saved(folder / name, LEVELS[rows], ("a.npy", "b.npy"))
        saved(folder, LABELS[rows].astype(np.uint8), (f"{name}_labels.npy",))
        saved(folder, AGES[rows], (f"{name}_covariates.npy",))
    return folder


@pytest.mark.parametrize("layout", ["parts", "splits"])
def test_conditions_beside_files_belong_to_their_points(tmp_path, layout):
    path = str(save_given(tmp_path / "data", layout))
    there, here = (data.load(path, 3, condition="both", stream=stream) for stream in ("yes", "no"))
    assert there.digest() == here.digest() != data.load(path, 3, stream="yes").digest()
    assert there.classes == (0, 1, 2)
    row_of = {LEVELS[row].tobytes(): row for row in range(60)}
    for split in data.own.SPLITS:
        points = (getattr(there, split)[:] * 256 - 0.5).round().byte().numpy()
        rows = [row_of[point.tobytes()] for point in points]
        y = there.conditions[split]
        assert y[:, :3].argmax(1).tolist() == LABELS[rows].tolist()
        assert torch.equal(y[:, 3], torch.from_numpy(AGES[rows]).float())


def test_weights_of_a_conditional_model_are_those_of_a_training_from_memory(tmp_path):
    path, results = save_given(tmp_path / "data", "parts"), []
    options = {"batch_size": 7, "epoch_steps": 3, "accelerator": "cpu"}
    for streams in (["no"], ["yes"], ["yes", "no", "yes"]):
        store = Folder(tmp_path / "-".join(streams))
        for stream in streams:
            dataset = own.load(path, likelihood="bernoulli", stream=stream, condition="both")
            torch.manual_seed(0)
            encoder = networks.Appended(networks.Encoder((12 + 4,), [8], 2), 4, view=nn.Flatten(-3))
            decoder = networks.Appended(networks.Decoder(dataset.event_shape, [8], 2 + 4), 4)
            model = ConditionalVAE(encoder, decoder, Ignoring(StandardNormal(2)))
            deadline = 0.0 if len(streams) > 1 else None
            outcome = fit(model, ELBO(warmup=2), dataset, store=store, deadline=deadline, epochs=3, **options)
        results.append((weights(model), numbers(outcome)))
    for result in results[1:]:
        assert torch.equal(result[0], results[0][0])
        assert result[1] == results[0][1]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: np.save(folder / "train_labels.npy", LABELS[:59]), "59 train_labels for 60 points of train"),
        (lambda folder: (folder / "train_covariates" / "3.npy").unlink(), "40 train_covariates for 60"),
        (lambda folder: np.save(folder / "train_labels.npy", LABELS / 2), r"train_labels has 0\.5 in row"),
        (lambda folder: np.save(folder / "test_labels.npy", LABELS), "give train_labels, or none"),
        (lambda folder: np.save(folder / "train_covariates.npy", AGES), "both train_covariates.npy and the folder"),
        (lambda folder: [(folder / name).unlink() for name in ("a.npy", "b.npy")], r"without a \.npy file of points"),
    ],
)
def test_wrong_conditions_beside_files_are_refused(tmp_path, spoil, words):
    path = save_given(tmp_path / "data", "parts")
    spoil(path)
    for stream in ("yes", "no"):
        with pytest.raises(ValueError, match=words):
            data.load(str(path), stream=stream)


def train_from_both(path, folder):
    """A training of two devices, from disk and from memory."""
    options = {"hidden": (8,), "latent": 2, "batch_size": 10, "prior": "vamp", "components": 4, "accelerator": "cpu"}
    fabric = make_fabric(Experiment(devices=2, accelerator="cpu"))
    fabric.launch()
    for stream in ("yes", "no"):
        experiment = Experiment(data=str(path), stream=stream, devices=2, epochs=2, **options)
        app_fit(experiment, data.load(experiment.data, stream=stream), Run(folder / stream), fabric, save_every=0)


def test_two_devices_and_the_command_line(tmp_path, processes, vaepriors):
    """Trained by two processes, from disk and from memory; resumed in the other place; evaluated."""
    path = saved(tmp_path / "shards", LEVELS, ("a.npy", "b.npy"))
    assert processes(*two(train_from_both, path, tmp_path)) == [0, 0]
    assert_same_run(tmp_path / "yes", tmp_path / "no")
    resumed = ["--resume", "--stream", "no", "--epochs", "3", "--devices", "1"]
    assert vaepriors("train", "--out", tmp_path / "yes", *resumed) == 0
    assert vaepriors("evaluate", tmp_path / "yes", "--samples", 2, "--split", "train", "--number", 5) == 0


def test_a_recorded_step_sees_each_batch(tmp_path):
    """As a CUDA graph does, replaying calls the function on the tensors that it was recorded with."""

    def record(function):
        result = function()
        return lambda: result.copy_(function()), result

    source = feed(Streamed(Shards([saved(tmp_path, LEVELS)])), CPU, torch.float32, check=refuse)
    rows = torch.arange(60).view(6, 10)
    step = Graphed(lambda rows: source.points[rows].sum(), aside=lambda call: call(), record=record)
    sums = [step(batch).item() for batch in source.batches(rows)]
    assert sums == LEVELS.reshape(6, -1).sum(1).tolist()


def test_counts_on_disk_are_trained_and_their_size_factors_refused(tmp_path, vaepriors, capsys):
    options = ["--data", saved(tmp_path / "data", COUNTS), "--likelihood", "poisson", "--hidden", "4", "--latent", "2"]
    options += ["--epochs", "1", "--accelerator", "cpu", "--out", tmp_path / "run"]
    assert vaepriors("train", *options, "--stream", "yes", "--size-factors", "total") == 2
    assert "--stream no" in capsys.readouterr().err
    assert vaepriors("train", *options, "--stream", "yes") == 0


def test_a_prior_that_needs_all_examples_is_refused(tmp_path, vaepriors, capsys):
    path = saved(tmp_path / "data", LEVELS)
    out = tmp_path / "run"
    assert (
        vaepriors("train", "--data", path, "--stream", "yes", "--prior", "exemplar", "--exemplars", 5, "--out", out)
        == 2
    )
    assert "--stream no" in capsys.readouterr().err
    assert not out.exists()
    assert vaepriors("train", "--data", "digits", "--stream", "yes", "--out", out) == 2
    for likelihood in ("categorical", "multinomial"):
        with pytest.raises(ValueError, match=f"{likelihood} needs all training values"):
            own.load(saved(tmp_path / "counts", COUNTS), likelihood=likelihood, stream="yes")


def changed(array, row, value):
    array = array.copy()
    array[row, 2] = value
    return array


@pytest.mark.parametrize(
    ("array", "likelihood", "words"),
    [
        (changed(REAL, 41, np.nan), "auto", r"single precision in row 11 of b\.npy"),
        (changed(REAL, 7, 1e300), "auto", r"single precision in row 7 of a\.npy"),
        (changed(COUNTS, 41, -3), "poisson", r"holds -3 in row 11, column 2 of b\.npy"),
        (changed(GRAY, 41, 1.5), "bernoulli", r"to 1\.5 \(row 11 of b\.npy\)"),
        (REAL[:9], "auto", "valid is empty"),
        (REAL[:0], "auto", "train is empty"),
    ],
)
def test_a_wrong_value_is_named_with_its_file_and_row(tmp_path, array, likelihood, words):
    path = saved(tmp_path / "data", array, ("a.npy", "b.npy"))
    with pytest.raises(ValueError, match=words):
        own.load(path, likelihood=likelihood, stream="yes")


def spread(folder):
    for name in ("train", "test"):
        saved(folder / name, LEVELS)
    for name in "ab":
        (folder / f"{name}.npy").rename(folder / ("test.npy" if name == "a" else "valid.npy"))


def cut(folder):
    os.truncate(folder / "b.npy", (folder / "b.npy").stat().st_size - 5)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut, r"b\.npy cannot be read .*uint8 \(30, 4, 3\), but 355 bytes follow"),
        (lambda folder: np.save(folder / "b.npy", LEVELS[:, :2]), r"b\.npy holds uint8 \(60, 2, 3\), but a\.npy uint8"),
        (lambda folder: np.save(folder / "b.npy", GRAY), r"b\.npy holds float32"),
        (lambda folder: np.save(folder / "b.npy", np.asfortranarray(LEVELS)), r"b\.npy .*Fortran"),
        (lambda folder: np.save(folder / "train.npy", LEVELS), r"holds a\.npy beside train"),
        (lambda folder: [np.save(folder / f"X_{each}.npy", LEVELS) for each in ("train", "test")], "X_test, X_train"),
        (spread, "both test.npy and the folder test"),
        (lambda folder: [path.unlink() for path in folder.glob("*.npy")], r"folder without a \.npy"),
        (lambda folder: (folder / "b.npy").write_bytes(b""), r"b\.npy cannot be read"),
    ],
)
def test_a_bad_folder(tmp_path, spoil, words):
    path = saved(tmp_path / "data", LEVELS, ("a.npy", "b.npy"))
    spoil(path)
    with pytest.raises(ValueError, match=words):
        data.load(str(path), stream="yes")


@pytest.mark.parametrize("spoil", [cut, lambda folder: os.utime(folder / "b.npy"), lambda f: (f / "b.npy").unlink()])
def test_a_file_that_changes_during_a_training_is_noticed_and_nothing_is_lost(tmp_path, spoil):
    path = saved(tmp_path / "data", LEVELS, ("a.npy", "b.npy"))
    dataset, store = own.load(path, stream="yes"), Folder(tmp_path / "run")
    options = {"batch_size": 10, "accelerator": "cpu", "save_every": 0.0}
    fit(model_of(dataset), ELBO(), dataset, store=store, epochs=1, **options)
    kept = Path(store / "last.ckpt").read_bytes()
    spoil(path)
    with pytest.raises(ValueError, match=r"b\.npy .*restore it, and resume"):
        fit(model_of(dataset), ELBO(), dataset, store=store, epochs=2, **options)
    assert Path(store / "last.ckpt").read_bytes() == kept


def test_files_are_checked_again_only_if_they_have_changed(tmp_path):
    path, blocks = saved(tmp_path / "data", LEVELS), []
    look = lambda name, start, block: blocks.append(name)  # noqa: E731

    def count(likelihood="auto"):
        blocks.clear()
        facts = survey_files({"train": Shards([path])}, likelihood, look, tmp_path / "cache", least=0)
        return len(blocks), facts

    assert [count()[0], count()[0]] == [1, 1]  # too young to be remembered
    os.utime(path, (0, 0))
    first, again = count(), count()
    assert (first[0], again[0]) == (1, 0)
    assert again[1] == first[1]
    assert count("poisson")[0] == 1
    np.save(path, LEVELS[::-1])
    assert count()[0] == 1
    os.utime(path, (0, 1))
    assert count()[1].sha256 != first[1].sha256


def test_points_that_are_looked_at_keep_their_conditions(tmp_path, monkeypatch):
    path = saved(tmp_path, np.arange(60, dtype=np.float32)[:, None])
    points = data.load(str(path), likelihood="gaussian", stream="yes")
    values = {split: getattr(points, split)[:] for split in ("train", "valid", "test")}
    given = dataclasses.replace(
        points,
        classes=(0, 1),
        conditions={split: torch.cat([x % 2 == 0, x % 2 == 1], 1).float() for split, x in values.items()},
    )
    monkeypatch.setattr("vaepriors.data.dataset.SUBSET", 4 * 7)
    x, condition, groups, *_ = given.fixed_train()
    assert len(x) == 7
    assert torch.equal(groups, x[:, 0].long() % 2)
    assert torch.equal(condition.argmax(1), groups)
