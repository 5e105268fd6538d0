"""Labels and covariates of a user's file and of the catalogue, as conditions."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from vaepriors.data import CATALOGUE, Dataset, condition_of, condition_on, load

SIZES = {"train": 6, "valid": 4, "test": 3}


@pytest.fixture
def write(tmp_path):
    """Write a .npz of bits with labels 0, 1, 5 and two covariates in each split; arrays to change, or None to drop."""

    def write(**changes):
        arrays = {}
        for split, n in SIZES.items():
            arrays[split] = np.eye(8, dtype=np.float32)[:n]
            arrays[f"{split}_labels"] = np.array([0, 1, 5] * 3)[:n]
            arrays[f"{split}_covariates"] = np.arange(2.0 * n).reshape(n, 2)
        path = tmp_path / "mine.npz"
        np.savez(path, **{name: each for name, each in {**arrays, **changes}.items() if each is not None})
        return str(path)

    return write


def test_labels_are_one_hot_classes_and_covariates_follow(write):
    data = load(write(), condition="both")
    assert data.classes == (0, 1, 5)
    assert data.conditions["valid"].tolist() == [
        [1, 0, 0, 0, 1], [0, 1, 0, 2, 3], [0, 0, 1, 4, 5], [1, 0, 0, 6, 7]
    ]  # fmt: skip
    assert "given 3 classes and 2 covariates" in data.summary()
    assert load(write(), condition="covariates").conditions["test"].shape == (3, 2)
    assert condition_of(data, (5, 0.5, 2)).tolist() == [0, 0, 1, 0.5, 2]
    assert not data.doubts
    large = load(write(train_covariates=np.full((6, 2), 1000.0)), condition="covariates")
    assert "1e+03 in column 0" in large.doubts[0]
    for values, word in (
        ((3, 0, 0), "0, 1, 5"),
        ((5,), "2 covariates"),
        ((5, "x", 1), "'x'"),
        ((5, "nan", 1), "finite"),
    ):
        with pytest.raises(ValueError, match=word):
            condition_of(data, values)


def test_a_file_is_read_as_before_where_nothing_is_given(write):
    data, plain = load(write()), load(write(**{f"{s}_{k}": None for s in SIZES for k in ("labels", "covariates")}))
    assert data.labels["train"].tolist() == [0, 1, 5, 0, 1, 5]
    assert not data.conditions
    assert data.digest() == plain.digest()
    digests = {load(write(), condition=kind).digest() for kind in ("labels", "covariates", "both")}
    assert len(digests | {plain.digest()}) == 4
    with pytest.raises(ValueError, match="no labels"):
        load(write(**{f"{s}_labels": None for s in SIZES}), condition="labels")


def test_a_split_by_seed_carries_labels_along(tmp_path):
    labels = np.arange(40) % 4
    np.savez(tmp_path / "mine.npz", train=np.eye(4, dtype=np.float32)[labels], train_labels=labels)
    data = load(str(tmp_path / "mine.npz"), seed=3, condition="labels")
    assert [len(data.conditions[split]) for split in SIZES] == [32, 4, 4]
    for split in SIZES:
        assert torch.equal(data.conditions[split], getattr(data, split))


WRONG = {
    "fractional": ({"valid_labels": np.array([0, 1, 1.5, 0])}, r"valid_labels has 1\.5 in row 2"),
    "infinite label": ({"train_labels": np.array([0, 1, np.inf, 5, 0, 1])}, "train_labels has inf in row 2"),
    "unknown": ({"test_labels": np.array([0, 7, 1])}, "test has the class 7 in row 1"),
    "short": ({"train_labels": np.zeros(5, int)}, "5 train_labels for 6"),
    "missing": ({"test_labels": None}, "train_labels, valid_labels: give train_labels, valid_labels, test_labels"),
    "vectors": ({"train_labels": np.zeros((6, 2), int)}, r"train_labels has shape \(6, 2\)"),
    "text": ({"train_labels": np.array(list("abcabc"))}, "train_labels of <U1"),
    "infinite": ({"train_covariates": np.array([[0.0, 0]] * 5 + [[0, np.inf]])}, "inf in row 5, column 1"),
    "width": ({"valid_covariates": np.zeros((4, 3))}, r"\(4, 6\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_conditions_are_refused_by_array_and_row(write, name):
    changes, words = WRONG[name]
    with pytest.raises(ValueError, match=words):
        load(write(**changes), condition="both")


@pytest.mark.parametrize("seed", range(4))
def test_points_of_rare_classes_and_codes_are_in_train_of_a_split_by_seed(tmp_path, seed):
    rows = np.arange(200)
    labels = np.where(rows % 40 == 0, rows, 1)  # five classes with one point each
    codes = np.stack([np.where(rows % 50 == 1, 1 + rows // 50, 0), rows % 2], 1)
    np.savez(tmp_path / "mine.npz", train=codes, train_labels=labels)
    data = load(str(tmp_path / "mine.npz"), seed, "categorical", condition="labels")
    assert len(data.classes) == 6
    assert data.train[:, 0].unique().tolist() == [0, 1, 2, 3, 4]
    both = torch.cat([torch.cat([getattr(data, split), data.labels[split][:, None]], 1) for split in SIZES])
    expected = torch.from_numpy(np.column_stack([codes, labels])).float()
    assert sorted(both.tolist()) == sorted(expected.tolist())  # each point once, with its label
    moved = len(data.train) - 160
    assert any(f"moved {moved} row" in doubt for doubt in data.doubts) == (moved > 0)


def test_an_unknown_class_of_a_split_by_seed_is_named_by_its_row_in_the_file(tmp_path):
    labels = np.arange(30)
    np.savez(tmp_path / "mine.npz", train=np.tile([[0.0, 1.0]], (30, 1)), train_labels=labels)
    plain = load(str(tmp_path / "mine.npz"))
    row = int(plain.labels["valid"][0])  # each label is its row
    with pytest.raises(ValueError, match=f"class {row} in row {row}"):
        load(str(tmp_path / "mine.npz"), condition="labels")


def test_an_npz_that_is_read_as_a_table_has_its_conditions(write, tmp_path):
    plain = load(write(), condition="both")
    as_table = load(write(), likelihood="mixed", condition="both")
    assert as_table.columns
    for split in SIZES:
        assert torch.equal(as_table.conditions[split], plain.conditions[split])
    y = as_table.read(tmp_path / "mine.npz").condition
    assert torch.equal(y, torch.cat([plain.conditions[split] for split in SIZES]))
    for changes, words in (
        ({"train_labels": np.zeros((6, 2), int)}, r"labels of shape \(6, 2\)"),
        ({"train_labels": np.full(6, 0.5)}, r"column labels has 0\.5 in row 0"),
    ):
        with pytest.raises(ValueError, match=words):
            load(write(**changes), likelihood="mixed")
    write(**{f"{split}_covariates": np.arange(float(n)) for split, n in SIZES.items()})
    with pytest.raises(ValueError, match=r"1 covariates, but .* 2 covariates"):
        as_table.read(tmp_path / "mine.npz")


def table(**changes):
    number = 30
    columns = {"a": np.arange(number) / 7, "b": np.arange(number) ** 0.5, "age": np.arange(number) % 5}
    return pd.DataFrame(columns | {"site": np.array(["north", "south", "east"] * 10, object)} | changes)


COLUMNS = "site=label,age=covariate"


@pytest.mark.parametrize("suffix", [".csv", ".h5ad"])
def test_columns_of_a_table_are_conditions(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    if suffix == ".csv":
        table().to_csv(path, index=False)
    else:
        x = table()[["a", "b"]].to_numpy(np.float32)
        obs = table()[["site", "age"]].set_index(pd.Index(map(str, range(30))))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            anndata.AnnData(x, obs=obs).write_h5ad(path)
    data = load(str(path), columns=COLUMNS, condition="both")
    assert data.event_shape == (2,)
    assert data.classes == ("east", "north", "south")
    names = {split: [data.classes[row] for row in y[:, :3].argmax(1)] for split, y in data.conditions.items()}
    for split in SIZES:
        rows = (getattr(data, split)[:, 0] * 7).round().long()  # a tells the row
        assert names[split] == table()["site"][rows.tolist()].tolist()
        assert data.conditions[split][:, 3].tolist() == (rows % 5).tolist()
    assert condition_of(data, ("south", "2.5")).tolist() == [0, 0, 1, 2.5]
    assert load(
        str(path), columns=COLUMNS.replace("site", "age").replace("age=covariate", "site=drop"), condition="labels"
    ).classes == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("changes", "columns", "words"),
    [
        ({"site": ["north", None] * 15}, COLUMNS, "misses the cell in row 1 of the column site"),
        ({"site": list(range(30))}, COLUMNS, "the class .* in row .*, which the training set does not have"),
        ({}, "site=covariate", "site"),
        ({}, "site=label,age=label", "several columns as label"),
        ({}, "age=covariate", "has no labels.*kind label"),
    ],
)
def test_columns_that_cannot_be_conditions_are_refused(tmp_path, changes, columns, words):
    table(**changes).to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(ValueError, match=words):
        load(str(tmp_path / "mine.csv"), columns=columns, condition="labels")


def test_data_sets_of_a_program_are_checked():
    x, one = torch.eye(3), torch.ones(3, 1)
    splits = {"train": one, "valid": one, "test": one}
    for wrong, word in (
        ({"train": one}, "conditions are of train"),
        ({**splits, "valid": one[:2]}, "3 points but 2 conditions"),
        ({**splits, "test": one.long()}, "int64"),
        ({**splits, "train": one * torch.nan}, "row 0"),
    ):
        with pytest.raises(ValueError, match=word):
            Dataset("x", x, x, x, "bernoulli", conditions=wrong)
    assert Dataset("x", x, x, x, "bernoulli", conditions=splits).conditions is splits


def test_digits_have_classes_and_unlabelled_sets_have_none():
    data = condition_on(load("digits"), "labels")
    assert torch.equal(data.conditions["test"].argmax(1), load("digits").labels["test"])
    assert data.digest() != load("digits").digest()
    assert CATALOGUE["dynamic_mnist"].labels
    assert not CATALOGUE["static_mnist"].labels
    without = Dataset("static", *(torch.eye(2),) * 3, likelihood="bernoulli")
    with pytest.raises(ValueError, match="static has no labels"):
        condition_on(without, "labels")
