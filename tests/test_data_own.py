"""A user's own .npy and .npz files."""

import numpy as np
import pytest
import torch

from vaepriors import data

GENERATOR = np.random.default_rng(0)
REAL = GENERATOR.normal(size=(50, 3))
WITH_NAN = REAL.copy()
WITH_NAN[7, 1] = np.nan
GRAY = GENERATOR.random((50, 6, 5))
LEVELS = GENERATOR.integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
BITS = GENERATOR.integers(0, 2, (50, 7))


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
    parts = [rows(x) for x in (one.train, one.valid, one.test)]
    assert set.union(*parts) == rows((torch.tensor(LEVELS).float() + 0.5) / 256)
    assert sum(len(part) for part in parts) == 50
    assert torch.equal(one.train, same.train)
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
        (npy(REAL[:, 0]), ".npy", r"float64 \(50,\).*vectors are \(N, D\), images \(N, H, W\)"),
        (npy(WITH_NAN), ".npy", r"holds NaN or infinity in 1 of \d+ points"),
        (npy(REAL * 1e300), ".npy", r"holds NaN or infinity in \d+ of \d+ points"),
        (npy(LEVELS.astype(int)), ".npy", "int64 beyond 0 and 1: store gray levels as uint8"),
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
