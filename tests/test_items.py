"""Training from a dataset of torch: the numbers of a training from memory, with and without worker processes."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import traceback

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, StackDataset, TensorDataset

from test_training import numbers, weights
from vaepriors import data, fit, networks
from vaepriors.data.rows import Rows, as_tensor, middles, shares
from vaepriors.objectives import ELBO
from vaepriors.priors import StandardNormal
from vaepriors.store import Folder
from vaepriors.vae import VAE

LEVELS = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (40, 1, 4, 4), dtype=np.uint8))
REAL = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
OPTIONS = {"epochs": 3, "batch_size": 7, "accelerator": "cpu"}


class Made:
    """Points that a function makes of their number."""

    def __init__(self, make, number=40):
        self.make, self.number = make, number

    def __len__(self):
        return self.number

    def __getitem__(self, row):
        return self.make(row)


def noisy(row):
    """A point with noise of torch, NumPy and Python."""
    return REAL[row] + torch.randn(5) + float(np.random.normal()) + random.random()


def trained(train, likelihood="gaussian", held=None, content="", **options):
    held = train[:5] if held is None else held
    dataset = data.Dataset("items", train, held, held, likelihood, content=content)
    torch.manual_seed(0)
    encoder = networks.Encoder(dataset.event_shape, [8], 2)
    decoder = networks.Decoder(dataset.event_shape, [8], 2, head=dataset.family.head(train))
    model = VAE(encoder, decoder, StandardNormal(2))
    outcome = fit(model, ELBO(warmup=2), dataset, **(OPTIONS | options))
    return weights(model), numbers(outcome), outcome


def same(one, other):
    return torch.equal(one[0], other[0]) and one[1] == other[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_numbers_are_those_of_a_training_from_memory(workers):
    labelled = TensorDataset(REAL.double(), torch.arange(40))
    assert same(trained(data.Items(labelled, workers=workers)), trained(REAL))
    options = {"epoch_steps": 4, "batch_size": 6, "precision": "64-true"}
    assert same(trained(data.Items(labelled, workers), **options), trained(REAL, **options))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_default_device_of_torch_does_not_matter(workers):
    items = data.Items(TensorDataset(REAL), workers)
    rows = torch.arange(40).view(5, 8)
    with torch.device("meta"):  # as torch.set_default_device does
        read = list(items.batches(rows))
        some = items[3:5]
    assert torch.equal(torch.stack([x for _, x in read]), REAL.view(5, 8, 5))
    assert torch.equal(some, REAL[3:5])


@pytest.mark.parametrize("convert", [middles, shares])
def test_bytes_become_numbers_in_the_batch(convert):
    items = data.Items(Made(lambda row: LEVELS[row, 0].numpy()), convert=convert)
    assert items.shape == LEVELS.shape
    assert items.row_size == 16
    memory = Rows(LEVELS, convert)
    assert torch.equal(items[:], memory[:])
    if convert is middles:
        assert same(trained(items, "logistic256"), trained(memory, "logistic256"))


@pytest.mark.parametrize("workers", [1, 2])
def test_random_items_repeat_with_the_same_workers_also_when_resumed(tmp_path, workers):
    def run(**options):
        return trained(data.Items(Made(noisy), workers), held=REAL[:5], content="noisy", **options)

    whole = run()
    first = run(store=Folder(tmp_path), deadline=0.0)
    assert first[2].reason == "out of time"
    assert first[2].epoch == 1
    assert same(run(store=Folder(tmp_path)), whole)
    assert len({line["loss"] for line in whole[1]}) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_tensors_of_any_kind_become_float32(dtype):
    x = (4 * REAL).round().to(dtype)
    items = [row.requires_grad_() if dtype.is_floating_point else row for row in x.clone().T.contiguous().T]
    assert torch.equal(data.Items(items)[:], x.float())


def test_rows_are_selected_as_of_a_tensor():
    items, rows = data.Items(TensorDataset(REAL)), np.array([3, -1])
    mask = REAL[:, 0] > 0
    for chosen in (slice(2, 9, 3), slice(0), torch.tensor([5, 5, -2]), mask, rows, [1, 0]):
        assert torch.equal(items[chosen], REAL[chosen])
    for one in (-1, np.int64(3), torch.tensor(3)):
        assert torch.equal(items[one], REAL[one])
    for none in (40, -41):
        with pytest.raises(IndexError):
            items[none]


def test_what_is_not_a_dataset_of_tensors_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(REAL)

    with pytest.raises(ValueError, match=r"a DataLoader.*give loader\.dataset"):
        data.Items(DataLoader(TensorDataset(REAL)))
    with pytest.raises(ValueError, match=r"a Stream.*write the loop"):
        data.Items(Stream())
    with pytest.raises(ValueError, match="without items"):
        data.Items([])
    with pytest.raises(ValueError, match="workers is -1"):
        data.Items([REAL[0]], workers=-1)
    with pytest.raises(ValueError, match=r"workers is 0\.5: give 0, or a number of processes"):
        data.Items([REAL[0]], workers=0.5)
    with pytest.raises(ValueError, match="item 0 of the dataset is a dict"):
        data.Items(StackDataset(image=REAL))
    with pytest.raises(ValueError, match="item 0 of the dataset is a tuple that begins with a str"):
        data.Items([("cat", REAL[0])])
    with pytest.raises(ValueError, match=r"data\.Items\(dataset\)"):
        data.Dataset("mine", TensorDataset(REAL), REAL, REAL, "gaussian")
    with pytest.raises(ValueError, match="item 0 of the dataset holds complex64"):
        data.Items([REAL[0] * 1j])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_item_that_cannot_be_used_ends_the_training_with_one_sentence(workers):
    def fails(row):
        if row == 17:
            raise OSError("no such file")
        return REAL[row]

    for make, sentence in (
        (fails, r"(?m)^item 17 of the dataset cannot be read \(OSError: no such file\): repair it, or leave it out$"),
        (lambda row: REAL[row, : 4 + (row != 17)], r"^item 17 .* shape \(4,\), item 0 is .* shape \(5,\): all need"),
        (lambda row: REAL[row] > 0 if row == 17 else REAL[row], r"^item 17 of the dataset is torch.uint8 .* item 0 is"),
    ):
        with pytest.raises(ValueError, match=sentence) as caught:
            trained(data.Items(Made(make), workers), held=REAL[:5])
        assert "in __getitem__" in "".join(traceback.format_exception(caught.value))
        assert not multiprocessing.active_children()
        with pytest.raises(ValueError, match=sentence):
            data.Items(Made(make))[:]


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_items_end_the_training_with_their_number(workers):
    def bad(value):
        return Made(lambda row: torch.where(torch.tensor(row == 33), value, REAL[row].sigmoid().round()))

    held = REAL[:5].sigmoid().round()
    with pytest.raises(ValueError, match=r"the value 0\.5 .* in row 33, column 0"):
        trained(data.Items(bad(0.5), workers), "bernoulli", held=held)
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 40 points, first in point 33"):
        trained(data.Items(bad(torch.nan), workers), "bernoulli", held=held)
    with pytest.raises(ValueError, match=r"the value 248.*image 0 at"):
        trained(data.Items(TensorDataset(LEVELS.float())), "logistic256", held=middles(LEVELS[:5]))


def test_likelihoods_that_need_all_values_are_refused():
    codes = LEVELS.flatten(1).float() % 3
    with pytest.raises(ValueError, match=r"categorical needs all training values.*train\[:\]"):
        data.Dataset("codes", data.Items(TensorDataset(codes)), codes, codes, "categorical")


def test_a_resumed_training_compares_type_number_and_shape_or_a_name(tmp_path):
    def resumed(train, **options):
        return trained(train, held=REAL[:5], store=Folder(tmp_path), **options)[2].epoch

    assert resumed(data.Items(Made(noisy)), epochs=1) == 1
    assert resumed(data.Items(Made(noisy)), epochs=2) == 2
    for train, content in ((Made(noisy, 39), ""), (TensorDataset(REAL), ""), (Made(noisy), "others")):
        with pytest.raises(ValueError, match="is not the data set"):
            resumed(data.Items(train), content=content)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_all_processes_end_the_training_after_its_epoch(number):
    """As a terminal and SLURM send them: to the workers, too."""
    main = os.getpid()

    def interrupting(row):
        if row == 20:
            os.kill(os.getpid(), number)
            os.kill(main, number)
        return REAL[row]

    outcome = trained(data.Items(Made(interrupting), workers=2), held=REAL[:5], batch_size=8, epochs=50)[2]
    assert outcome.reason == "interrupted"


ABANDONED = """
import torch
from vaepriors import data
batches = data.Items(torch.randn(40, 5), workers=8).batches(torch.arange(40).view(10, 4))
next(batches)
kept = [batches]
kept.append(kept)
"""


def test_a_program_ends_though_it_never_closed_the_workers():
    command = [sys.executable, "-W", "ignore", "-c", ABANDONED]
    end = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (end.returncode, end.stderr) == (0, "")


def test_items_may_be_read_only_arrays():
    """Such as rows of a file that is mapped into memory. torch warns of a tensor that shares their memory."""
    levels, real = LEVELS.numpy().copy(), REAL.numpy().copy()
    for array in (levels, real):
        array.setflags(write=False)
        x = as_tensor(array)
        x += 1
        assert torch.equal(x, torch.tensor(array) + 1)
        assert torch.equal(data.Items(array)[:], torch.tensor(array).float())
