"""Another file, read as the data of a model were read: the same conversion, or one sentence."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from vaepriors.data import Dataset, binarize_once, load
from vaepriors.data.examples import BinarizedOnce, examples_of

GENERATOR = np.random.default_rng(0)
LEVELS = GENERATOR.integers(0, 256, (40, 4, 3), dtype=np.uint8)
SHARES = GENERATOR.random((40, 4, 3), dtype=np.float32)
COUNTS = GENERATOR.integers(0, 9, (40, 5), dtype=np.int32)
REAL = GENERATOR.normal(size=(40, 5))
DARK = LEVELS[:7] // 128  # only 0 and 1
STORES = {  # training data, their likelihood, other data, their points
    "gray": (LEVELS, "auto", DARK, (DARK + 0.5) / 256),
    "gray shares": ((LEVELS / 255).astype("f4"), "logistic256", DARK.astype("f4"), (DARK * 255 + 0.5) / 256),
    "gray middles": ((LEVELS + 0.5) / 256, "logistic256", (DARK + 0.5) / 256, (DARK + 0.5) / 256),
    "gray reals": (LEVELS.astype("f8"), "logistic256", DARK.astype("f4"), (DARK + 0.5) / 256),
    "bits": (LEVELS // 128, "auto", DARK.astype(bool), DARK),
    "black and white": (LEVELS // 128 * 255, "bernoulli", DARK * 255, DARK),
    "real": (REAL, "auto", COUNTS[:3], COUNTS[:3]),
    "counts": (COUNTS, "poisson", COUNTS[:3].astype("f4"), COUNTS[:3]),
    "channels last": (
        GENERATOR.integers(0, 256, (40, 4, 5, 3), dtype=np.uint8),
        "auto",
        np.zeros((2, 4, 5, 3), np.uint8),
        np.full((2, 3, 4, 5), 0.5 / 256),
    ),
}


def read(folder, trained, likelihood, other, stream="auto"):
    np.save(folder / "trained.npy", trained)
    np.save(folder / "other.npy", other)
    return load(str(folder / "trained.npy"), 0, likelihood, stream=stream).read(folder / "other.npy")


@pytest.mark.parametrize("stream", ["yes", "no"])
@pytest.mark.parametrize("store", STORES)
def test_other_points_are_converted_as_the_training_data(tmp_path, environment, store, stream):
    *data, expected = STORES[store]
    x, condition = read(tmp_path, *data, stream)
    expected = torch.tensor(np.asarray(expected, np.float32)).view(x.shape)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-7)
    assert condition is None
    trained = load(str(tmp_path / "trained.npy"), 0, data[1], stream=stream)
    environment(VAEPRIORS_MEMORY="1e-9")
    streamed = trained.reader(trained, tmp_path / "other.npy").x
    assert streamed.streamed
    environment(VAEPRIORS_MEMORY="")
    assert torch.equal(streamed[:], x)


@pytest.mark.parametrize("likelihood", ["auto", "bernoulli"])
def test_probabilities_become_the_same_bits_at_each_reading(tmp_path, environment, likelihood):
    trained = SHARES if likelihood == "auto" else LEVELS
    p = torch.from_numpy(trained[:9] if likelihood == "auto" else trained[:9] / 255).float().unsqueeze(1)
    x, _ = read(tmp_path, trained, likelihood, trained[:9])
    assert torch.equal(x, binarize_once(p))
    black = (np.zeros_like(trained[:9]), np.zeros_like(p))
    assert torch.equal(read(tmp_path, trained, likelihood, black[0]).x, torch.from_numpy(black[1]))
    np.save(tmp_path / "other.npy", trained[:9])
    data = load(str(tmp_path / "trained.npy"), 0, likelihood, stream="yes")
    environment(VAEPRIORS_MEMORY="1e-9")
    on_disk, _ = data.reader(data, tmp_path / "other.npy")
    environment(VAEPRIORS_MEMORY="")
    assert torch.equal(on_disk[2:7], x[2:7])
    assert torch.equal(on_disk[torch.tensor([8, 1])], x[[8, 1]])
    assert torch.equal(on_disk[3], x[3])


def test_the_file_of_the_run_has_the_bits_of_its_valid_and_test_points(tmp_path):
    np.save(tmp_path / "mine.npy", SHARES)
    data = load(str(tmp_path / "mine.npy"))
    x, rows = data.read(tmp_path / "mine.npy").x.flatten(1), data.test.flatten(1)
    assert (x[:, None] == rows).all(-1).any(0).all()


REFUSED = {  # training data, their likelihood, other data, words
    "another shape": (LEVELS, "auto", LEVELS[:, :3], r"shape \(1, 3, 3\), but the model is of \(1, 4, 3\)"),
    "vectors": (LEVELS, "auto", COUNTS.astype(np.uint8), r"shape \(5,\)"),
    "shares for levels": (LEVELS, "auto", SHARES, "float32 from .* levels 0..255"),
    "black shares for levels": (LEVELS, "auto", np.zeros((3, 4, 3)), "float64 .* levels 0..255"),
    "levels for shares": (LEVELS / 255, "logistic256", LEVELS, "uint8 .* level / 255"),
    "too bright": (LEVELS, "auto", LEVELS.astype("i4") + 9, "int32 from .* levels 0..255"),
    "shares for bits": (LEVELS // 128, "auto", SHARES, "trained on 0 and 1"),
    "gray for black and white": (LEVELS // 128 * 255, "bernoulli", LEVELS, "trained on 0 and 255"),
    "levels for probabilities": (SHARES, "auto", LEVELS, "probabilities in"),
    "a negative count": (COUNTS, "poisson", -COUNTS, "holds -"),
    "a new category": (COUNTS % 3, "categorical", COUNTS % 3 + 1, "the category 3"),
    "NaN": (REAL, "auto", np.where(np.eye(40, 5) > 0, np.nan, REAL), "row 0 of train"),
    "nothing": (REAL, "auto", REAL[:0], "empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_values_are_refused(tmp_path, case):
    *data, words = REFUSED[case]
    with pytest.raises(ValueError, match=words) as error:
        read(tmp_path, *data)
    assert "other.npy" in str(error.value)


def test_a_set_of_the_catalogue_reads_each_way_to_store_its_values(tmp_path):
    digits, path = load("digits"), tmp_path / "other.npy"
    np.save(path, np.full((2, 8, 8), 255, np.uint8))
    assert torch.equal(digits.read(path).x, torch.ones(2, 1, 8, 8))
    np.save(path, np.ones((2, 8, 8)))
    assert torch.equal(digits.read(str(path)).x, torch.ones(2, 1, 8, 8))
    for strange in (1.5, 16.0):  # 16.0 is white in the original digits
        np.save(path, np.full((2, 8, 8), strange))
        with pytest.raises(ValueError, match=r"probabilities in \[0, 1\] or levels 0\.\.255"):
            digits.read(path)
    bits = Dataset("bits", *3 * [torch.ones(2, 3)], "bernoulli")
    np.save(path, np.full((2, 3), 0.5))
    with pytest.raises(ValueError, match="0 and 1 or 0 and 255"):
        bits.read(path)


def test_one_array_is_one_file(tmp_path):
    np.savez(tmp_path / "mine.npz", train=REAL, test=REAL)
    data = load(str(tmp_path / "mine.npz"))
    with pytest.raises(ValueError, match="train, test"):
        data.read(tmp_path / "mine.npz")
    pd.DataFrame(REAL).to_csv(tmp_path / "mine.csv")
    for path, words in (("mine.csv", "is a table"), ("none.npy", "does not exist")):
        with pytest.raises(ValueError, match=words):
            data.read(tmp_path / path)


def test_points_have_their_own_conditions(tmp_path):
    labels, covariates, path = np.arange(40) % 3 + 5, np.arange(80.0).reshape(40, 2) / 80, tmp_path / "other.npz"
    np.savez(tmp_path / "mine.npz", train=REAL, train_labels=labels, train_covariates=covariates)
    data = load(str(tmp_path / "mine.npz"), condition="both")

    def given(rows, **changes):
        own = {"train_labels": labels[rows], "train_covariates": covariates[rows]} | changes
        np.savez(path, train=REAL[rows], **{name: array for name, array in own.items() if array is not None})
        return data.read(path).condition

    y = [[1, 0, 0, *covariates[0]], [0, 1, 0, *covariates[1]]]
    torch.testing.assert_close(given([0, 1]), torch.tensor(y).float())
    for changes, words in (
        ({"train_labels": None}, "has no labels"),
        ({"train_covariates": None}, "has no covariates"),
        ({"train_labels": [5, 8]}, "the class '8' in row 1"),
        ({"train_covariates": [1.0, 2.0]}, r"1 covariates, but .* 2 covariates"),
    ):
        with pytest.raises(ValueError, match=words):
            given([0, 1], **changes)


def test_rows_of_a_table_are_read_with_its_kinds(tmp_path):
    table = pd.DataFrame({"a": REAL[:, 0], "sex": ["f", "m"] * 20, "n": COUNTS[:, 0]})
    table.to_csv(tmp_path / "mine.csv", index=False)
    data = load(str(tmp_path / "mine.csv"), columns="n=drop")
    table[["sex", "a"]].iloc[:4].to_parquet(tmp_path / "other.parquet")
    x, _ = data.read(tmp_path / "other.parquet")
    torch.testing.assert_close(x, torch.tensor([[a, n % 2] for n, a in enumerate(REAL[:4, 0])]).float())
    (tmp_path / "other.csv").write_text("a,sex\n1.0,x\n")
    with pytest.raises(ValueError, match="'x' in row 0 of the column sex"):
        data.read(tmp_path / "other.csv")
    gaussian = load(str(tmp_path / "mine.csv"), columns="n=drop,sex=drop", likelihood="gaussian")
    (tmp_path / "other.csv").write_text("a,b\n,1\n")
    with pytest.raises(ValueError, match="misses the cell in row 0 of the column a"):
        gaussian.read(tmp_path / "other.csv")


def test_training_probabilities_become_bits_once(tmp_path):
    np.save(tmp_path / "mine.npy", SHARES)
    data = load(str(tmp_path / "mine.npy"))
    x = examples_of(data, "train").x
    assert isinstance(x, BinarizedOnce)
    assert torch.equal(x[:], binarize_once(data.train))
    assert examples_of(data, "test").x is data.test


def draw(folder, pixels):
    folder.mkdir(parents=True)
    for number, each in enumerate(pixels):
        Image.fromarray(each).save(folder / f"{number:02}.png")


def test_images_of_another_folder_have_the_size_colours_and_classes_of_the_first(tmp_path):
    colours = GENERATOR.integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)
    for name in ("cat", "dog"):
        draw(tmp_path / "first" / name, colours)
    draw(tmp_path / "second" / "dog", colours[:2, :, :, 0])
    data = load(str(tmp_path / "first"), condition="labels", image_size=4)
    x, condition = data.read(tmp_path / "second")
    assert x.shape == (2, 3, 4, 4)
    assert torch.equal(x[:, 0], x[:, 2])
    assert condition.tolist() == [[0, 1]] * 2
    draw(tmp_path / "third" / "cow", colours[:2])
    with pytest.raises(ValueError, match="the class 'cow' in row 0"):
        data.read(tmp_path / "third")
    np.save(tmp_path / "levels.npy", np.full((40, 6, 8, 3), 9, np.uint8))
    arrays = load(str(tmp_path / "levels.npy"))
    x, _ = arrays.read(tmp_path / "second" / "dog")
    assert torch.equal(x, ((torch.from_numpy(colours[:2, :, :, :1]) + 0.5) / 256).movedim(3, 1).expand(2, 3, 6, 8))


def test_doubts_about_the_images_of_another_folder_are_warnings(tmp_path):
    colours = GENERATOR.integers(0, 256, (12, 6, 8, 4), dtype=np.uint8)
    draw(tmp_path / "first", colours[..., :3])
    draw(tmp_path / "second", colours[:2])
    data = load(str(tmp_path / "first"))
    with pytest.warns(UserWarning, match="second: transparent pixels are put on white .2 in all"):
        data.read(tmp_path / "second")
