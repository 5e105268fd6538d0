"""A user's own .npy and .npz files."""

import io
import os
import re
import struct
import zipfile

import numpy as np
import pytest
import torch

from vaepriors import data

GENERATOR = np.random.default_rng(0)
REAL = GENERATOR.normal(size=(50, 3))
WITH_NAN = REAL.copy()
WITH_NAN[7, 1] = np.nan
SIGNALLING = REAL.astype(np.float32)
SIGNALLING.view(np.uint32)[7, 1] = 0x7F800001  # a NaN that arithmetic warns of
GRAY = GENERATOR.random((50, 6, 5))
LEVELS = GENERATOR.integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
BITS = GENERATOR.integers(0, 2, (50, 7))
COUNTS = GENERATOR.integers(0, 1000, (50, 7))


def rows(x):
    return {tuple(row) for row in x.flatten(1).tolist()}


@pytest.mark.parametrize(
    ("array", "event_shape", "likelihood", "dynamic"),
    [
        (REAL, (3,), "gaussian", False),
        (REAL.astype(">f4"), (3,), "gaussian", False),
        (GRAY, (1, 6, 5), "bernoulli", True),
        (LEVELS, (3, 4, 4), "logistic256", False),
        (BITS, (7,), "bernoulli", False),
        (BITS.astype(bool), (7,), "bernoulli", False),
        (BITS.astype(np.uint8), (7,), "bernoulli", False),
        (BITS.astype(float), (7,), "bernoulli", False),
    ],
)
def test_the_likelihood_follows_from_the_values(tmp_path, array, event_shape, likelihood, dynamic):
    path = tmp_path / "mine.npy"
    np.save(path, array)
    loaded = data.load(str(path))
    assert (loaded.likelihood, loaded.dynamic, loaded.pseudo) == (likelihood, dynamic, None)
    assert loaded.event_shape == event_shape
    assert loaded.name == "mine.npy"
    assert [len(loaded.train), len(loaded.valid), len(loaded.test)] == [40, 5, 5]


def test_levels_are_bin_middles_and_the_split_is_a_partition(tmp_path):
    np.savez(tmp_path / "mine.npz", train=LEVELS)
    one, same, other = (data.load(str(tmp_path / "mine.npz"), seed) for seed in (0, 0, 1))
    parts = [rows(x[:]) for x in (one.train, one.valid, one.test)]
    assert set.union(*parts) == rows((torch.tensor(LEVELS).float() + 0.5) / 256)
    assert sum(len(part) for part in parts) == 50
    assert torch.equal(one.train[:], same.train[:])
    assert torch.equal(one.test, same.test)
    assert parts[2] != rows(other.test)


def test_probabilities_have_bits_that_do_not_depend_on_the_seed(tmp_path):
    np.save(tmp_path / "mine.npy", GRAY)
    bits = rows(data.binarize_once(torch.tensor(GRAY).float().unsqueeze(1)))
    for seed in (0, 1):
        loaded = data.load(str(tmp_path / "mine.npy"), seed)
        assert rows(loaded.valid) | rows(loaded.test) <= bits


def test_given_splits_are_kept(tmp_path):
    np.savez(tmp_path / "mine.npz", train=GRAY[:20], valid=GRAY[20:30], test=GRAY[30:])
    one, other = (data.load(str(tmp_path / "mine.npz"), seed) for seed in (0, 1))
    assert torch.equal(one.train[:, 0], torch.tensor(GRAY[:20]).float())
    assert [len(one.valid), len(one.test)] == [10, 20]
    assert one.dynamic
    assert torch.equal(one.valid, other.valid)
    assert torch.equal(one.test, other.test)
    assert set(one.valid.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("array", "likelihood", "dynamic", "x"),
    [
        (255 * BITS.astype(np.uint8), "bernoulli", False, BITS),
        (LEVELS, "bernoulli", True, LEVELS / 255),
        (LEVELS.astype(float), "bernoulli", True, LEVELS / 255),
        (LEVELS.astype(int), "logistic256", False, (LEVELS + 0.5) / 256),
        (LEVELS.astype(np.float32), "logistic256", False, (LEVELS + 0.5) / 256),
        (BITS.astype(np.int8), "logistic256", False, (BITS + 0.5) / 256),
        (LEVELS.astype(np.float32) / 255, "logistic256", False, (LEVELS + 0.5) / 256),
        ((LEVELS + np.float32(0.5)) / 256, "logistic256", False, (LEVELS + 0.5) / 256),
        (BITS.astype(np.uint8), "logistic256", False, (BITS + 0.5) / 256),
        (GRAY[:, 0], "gaussian", False, GRAY[:, 0]),
        (LEVELS, "gaussian", False, LEVELS),
        (REAL, "student", False, REAL),
        (COUNTS, "poisson", False, COUNTS),
        (COUNTS.astype(">i8"), "negative_binomial", False, COUNTS),
        (COUNTS.astype(np.uint16), "poisson", False, COUNTS),
        (COUNTS.astype(float), "poisson", False, COUNTS),
        (LEVELS, "poisson", False, LEVELS),
        (BITS.astype(bool), "poisson", False, BITS),
        (BITS, "categorical", False, BITS),
        (COUNTS, "multinomial", False, COUNTS),
    ],
)
def test_a_likelihood_is_chosen(tmp_path, array, likelihood, dynamic, x):
    np.savez(tmp_path / "mine.npz", train=array, valid=array, test=array)
    loaded = data.load(str(tmp_path / "mine.npz"), likelihood=likelihood)
    assert (loaded.likelihood, loaded.dynamic) == (likelihood, dynamic)
    torch.testing.assert_close(loaded.train[:], torch.tensor(x).float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("likelihood", ["auto", "poisson", "categorical"])
def test_the_default_device_of_torch_does_not_matter(tmp_path, likelihood):
    path = tmp_path / "mine.csv"
    path.write_text("a,b,kind\n" + "".join(f"{row % 3},{row % 4},{'xy'[row % 2]}\n" for row in range(60)))
    np.save(tmp_path / "mine.npy", REAL if likelihood == "auto" else np.arange(60)[:, None] % [3, 4])
    with torch.device("meta"):  # as torch.set_default_device does
        array = data.load(str(tmp_path / "mine.npy"), likelihood=likelihood)
        table = data.load(str(path), likelihood=likelihood, columns="kind=label", condition="labels")
        read = table.read(path)
    assert torch.equal(array.test, data.load(str(tmp_path / "mine.npy"), likelihood=likelihood).test)
    assert read.x.tolist() == [[row % 3, row % 4] for row in range(60)]
    assert read.condition.argmax(1).tolist() == [row % 2 for row in range(60)]


def changed(array, value):
    """The array with another value in row 41, column 2."""
    array = array.copy()
    array[41, 2] = value
    return array


@pytest.mark.parametrize(
    ("array", "likelihood", "words"),
    [
        (REAL, "bernoulli", r"float64 from -\d.*bernoulli takes .*\[0, 1\]"),
        (GRAY, "logistic256", "logistic256 takes 256 gray levels"),
        (LEVELS.astype(int) + 1, "logistic256", r"int64 from 1 \(row \d+ of train\) to 256 "),
        (changed(COUNTS, -3), "poisson", "mine.npy holds -3 in row 41, column 2 of train.*poisson"),
        (changed(COUNTS.astype(float), 1e-9), "negative_binomial", "holds 1e-09 in row 41, column 2"),
        (changed(COUNTS, 2**24 + 1), "poisson", "holds 16777217 in row 41"),
        (changed(COUNTS.astype(float), np.nan), "poisson", "holds nan in row 41"),
        (changed(BITS, -1), "categorical", "holds -1 in row 41, column 2.*codes 0, 1"),
        (np.arange(40)[:, None], "categorical", r"split from train, has the category (\d+) in row \1, column 0"),
        (changed(REAL, np.inf), "student", "infinity"),
        (LEVELS - 0.5, "poisson", r"in image 0 at \(0, 0, 0\) of train"),
        (GRAY, "weibull", "unknown likelihood 'weibull'"),
    ],
)
def test_a_likelihood_that_does_not_fit(tmp_path, array, likelihood, words):
    np.save(tmp_path / "mine.npy", array)
    with pytest.raises(ValueError, match=words):
        data.load(str(tmp_path / "mine.npy"), likelihood=likelihood)


def test_the_row_of_a_wrong_count_is_that_of_the_file(tmp_path):
    counts = np.zeros((10_050, 2), np.int32)
    counts[10_040, 1] = -1
    np.savez(tmp_path / "mine.npz", train=counts[:100], valid=counts[:100], test=counts)
    with pytest.raises(ValueError, match="holds -1 in row 10040, column 1 of test"):
        data.load(str(tmp_path / "mine.npz"), likelihood="poisson")


def test_a_set_of_the_catalogue_has_its_own_likelihood():
    with pytest.raises(ValueError, match="likelihood is gaussian, but digits is always read as bernoulli"):
        data.load("digits", likelihood="gaussian")


def test_channels_may_come_last(tmp_path):
    np.save(tmp_path / "mine.npy", np.moveaxis(LEVELS, 1, -1))
    loaded = data.load(str(tmp_path / "mine.npy"))
    np.save(tmp_path / "first.npy", LEVELS)
    assert torch.equal(loaded.train[:], data.load(str(tmp_path / "first.npy")).train[:])
    assert loaded.summary() == "mine.npy: 50 images 3 x 4 x 4, uint8, channels last -> logistic256, split 40/5/5"
    assert not loaded.doubts


def test_valid_is_split_from_train_where_test_is_given(tmp_path):
    np.savez(tmp_path / "mine.npz", train=REAL[:40], test=REAL[40:])
    one, same, other = (data.load(str(tmp_path / "mine.npz"), seed) for seed in (0, 0, 1))
    assert [len(one.train), len(one.valid), len(one.test)] == [36, 4, 10]
    assert rows(one.train) | rows(one.valid) == rows(torch.tensor(REAL[:40]).float())
    assert torch.equal(one.test, torch.tensor(REAL[40:]).float())
    assert torch.equal(one.valid, same.valid)
    assert not torch.equal(one.valid, other.valid)


@pytest.mark.parametrize(
    ("array", "likelihood", "words"),
    [
        (255 * BITS.astype(np.uint8), "auto", "0 or 255.*--likelihood bernoulli"),
        (255 * GRAY, "auto", "look like pixels"),
        (LEVELS, "gaussian", "look like pixels"),
        (REAL + 100, "auto", "mean 100.*standardise"),
        (COUNTS.astype(float), "auto", "every value is a whole number.*--likelihood poisson"),
        (REAL + 100, "student", "mean 100.*standardise"),
        (COUNTS, "poisson", None),
        (REAL * 1e-5, "auto", "standard deviation .*e-0"),
        (REAL * [1, 1, 1e4], "auto", "columns have standard deviations from .* to .*e[+]0"),
        (GENERATOR.normal(size=(50, 8, 8, 4)), "auto", "8 channels of 8 x 4 pixels.*channels last"),
        (REAL, "auto", None),
        (GRAY, "auto", None),
        (LEVELS, "auto", None),
        (255 * BITS.astype(np.uint8), "logistic256", None),
        (np.where([1, 0, 1], REAL, 0.3), "gaussian", None),  # a constant column
    ],
)
def test_doubts(tmp_path, array, likelihood, words):
    np.save(tmp_path / "mine.npy", array)
    doubts = " ".join(data.load(str(tmp_path / "mine.npy"), likelihood=likelihood, standardize=False).doubts)
    assert re.search(words, doubts) if words else not doubts


def npy(array):
    return lambda path: np.save(path.with_suffix(".npy"), array, allow_pickle=True)


def npz(**arrays):
    return lambda path: np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("write", "suffix", "message"),
    [
        (npz(train=REAL, val=REAL), ".npz", r"holds the arrays \['train', 'val'\]: name them train, valid and test"),
        (npz(x=REAL), ".npz", r"holds the arrays \['x'\]: name them train"),
        (npz(train=REAL, valid=REAL), ".npz", r"\['train', 'valid'\]: name them train, valid and test, or give train"),
        (npz(train=LEVELS, valid=LEVELS, test=LEVELS / 255), ".npz", "mixes types, .*uint8.*float64"),
        (npz(train=REAL, valid=REAL[:, :2], test=REAL), ".npz", r"valid has event shape \(2,\), train has \(3,\)"),
        (npz(train=REAL, valid=REAL[:0], test=REAL), ".npz", r"valid is empty"),
        (npy(REAL[:9]), ".npy", r"valid is empty"),
        (npy(REAL[:0]), ".npy", r"train is empty"),
        (npy(REAL[0, 0]), ".npy", r"vectors are \(N, D\), images"),
        (npy(REAL[:, 0]), ".npy", r"float64 \(50,\).*vectors are \(N, D\), images \(N, H, W\)"),
        (npy(WITH_NAN), ".npy", "single precision in row 7 of train"),
        (npy(SIGNALLING), ".npy", "single precision in row 7 of train"),
        (npy(REAL * 1e300), ".npy", "single precision in row 0 of train"),
        (npy(LEVELS.astype(int)), ".npy", "int64 beyond 0 and 1.*poisson or negative_binomial.*gray levels as uint8"),
        (npy(REAL + 1j), ".npy", "holds complex128: store real numbers"),
        (npy(np.array([["a", "b"]] * 20)), ".npy", "holds <U1: store real numbers"),
        (npy(np.array([[{}, None]] * 20)), ".npy", r"cannot be read .*pickled objects, which are refused.*numpy\.save"),
        (npz(train=np.array([[{}]] * 20)), ".npz", r"pickled objects, which are refused"),
        (lambda path: path.with_suffix(".npy").write_bytes(b""), ".npy", "cannot be read .*cut short"),
        (lambda path: path.with_suffix(".npy").write_bytes(b"\x80\x04K\x01."), ".npy", "cannot be read .*pickled"),
    ],
)
def test_bad_files(tmp_path, write, suffix, message):
    write(tmp_path / "mine")
    with pytest.raises(ValueError, match=message):
        data.load(str(tmp_path / f"mine{suffix}"))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_cut_file(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    np.save(path, REAL) if suffix == ".npy" else np.savez(path, train=REAL)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cannot be read \(.*\): it is cut short"):
        data.load(str(path))


# Files that are refused before their arrays are read


def announcing(shape, dtype="<f4", version=1, text=None):
    """A .npy that ends after its header."""
    text = text or f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text.encode()


def zipped(content, name="train.npy", method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def encrypted(content):
    for start in (b"PK\x03\x04", b"PK\x01\x02"):
        at = content.index(start) + (6 if start[2] == 3 else 8)
        content = content[:at] + b"\x01" + content[at + 1 :]
    return content


PLAIN = io.BytesIO()
np.save(PLAIN, REAL)
ARRAY = PLAIN.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (announcing((10**9, 10**9)), r"header announces float32 \(1000000000, 1000000000\), but 0 bytes follow"),
        (announcing((10**99, 2)), "but 0 bytes follow"),
        (announcing((-5, 3)), r"\(-5, 3\)"),
        (announcing((5, 3), "|O"), "objects, which are refused"),
        (announcing((5, 3), "<f4", version=3), "version 3"),
        (announcing(None, text="{'descr': '<f4'"), "cannot be read"),
        (announcing(None, text="(" * 9000), "cannot be read"),
        (announcing(None, text="x" * 20_000), "cannot be read"),
        (announcing(None, text="{'descr': '<q9', 'fortran_order': 7, 'shape': 3}"), "cannot be read"),
        (b"\x93NUMPY", "cannot be read"),
        (b"PK", "cannot be read"),
        (zipped(ARRAY)[:-30], "cannot be read"),
        (zipped(ARRAY, 9000 * "x"), "xxx.*which is not an array"),
        (zipped(ARRAY, "train.txt"), "'train.txt', which is not an array"),
        (zipped(b"", "train/"), "'train/', which is not an array"),
        (zipped(b"hello"), "cannot be read"),
        (zipped(ARRAY, method=zipfile.ZIP_LZMA), "compressed by method 14"),
        (encrypted(zipped(ARRAY)), "'train.npy' encrypted"),
    ],
)
def test_a_file_that_holds_no_readable_array(tmp_path, content, words):
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        data.load(str(path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_a_small_zip_of_a_large_array_is_refused_before_it_is_unpacked(tmp_path, environment):
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, train=np.zeros((300, 1000), np.uint8))
    assert path.stat().st_size < 2000
    environment(VAEPRIORS_MEMORY="0.001")
    words = r"train uint8 \(300, 1000\), which take 1.43 MiB .* limit of 1.02 MiB.*VAEPRIORS_MEMORY"
    with pytest.raises(ValueError, match=words):
        data.load(str(path))
    environment(VAEPRIORS_MEMORY="0.0014")
    assert len(data.load(str(path)).train) == 240
    environment(VAEPRIORS_MEMORY="lots")
    with pytest.raises(ValueError, match="VAEPRIORS_MEMORY is 'lots'"):
        data.load(str(path))


def test_only_regular_files_are_opened(tmp_path):
    (tmp_path / "folder.npy").mkdir()
    os.mkfifo(tmp_path / "fifo.npy")
    (tmp_path / "loop.npy").symlink_to(tmp_path / "loop.npy")
    for name, words in [
        ("folder.npy", "is a folder"),
        ("fifo.npy", "not a regular file"),
        ("loop.npy", "cannot be opened .*links"),
        ("fifo.npy/mine.npy", "does not exist"),
        ("\0.npy", "cannot be opened"),
        ("x" * 300 + ".npy", "cannot be opened"),
    ]:
        path = data.absolute(str(tmp_path / name)) if "\0" not in name else str(tmp_path / name)
        with pytest.raises(ValueError, match=words):
            data.load(path)
    with pytest.raises(ValueError, match="does not exist"):
        data.load("~nobody-of-that-name/mine.npy")


def test_a_file_without_permission(tmp_path, locked):
    np.save(tmp_path / "mine.npy", REAL)
    data.load(str(tmp_path / "mine.npy"))  # imports what reads it
    with pytest.raises(ValueError, match="permission"):
        data.load(str(locked(tmp_path / "mine.npy")))
