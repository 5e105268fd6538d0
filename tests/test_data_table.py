"""Custom tables: what is read from .csv, .parquet and .h5ad, kinds of columns, splits, and what is refused."""

import contextlib
import math
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from vaepriors import data
from vaepriors.app.experiment import Experiment, load_data
from vaepriors.data.columns import describe_columns, encode, numbers_of, wholes_of
from vaepriors.data.frames import read_frame
from vaepriors.networks.mixed import Column

N = 60


def frame(**changes):
    generator = np.random.default_rng(0)
    columns = {
        "age": 20 + 60 * generator.random(N),
        "visits": generator.poisson(2, N),
        "income": np.exp(10 + generator.normal(size=N)),
        "smokes": generator.integers(0, 2, N),
        "sex": np.where(generator.random(N) < 0.5, "f", "m"),
    }
    return pd.DataFrame(columns | changes)


def written(path, table, **options):
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, **{"index": False} | options)
    return str(path)


def with_cells(column, cells):
    """The table with other cells of a column, by row."""
    table = frame()
    table[column] = table[column].astype(object)
    for row, cell in cells.items():
        table.loc[row, column] = cell
    return table


def kinds(loaded):
    return {column.name: column.kind for column in loaded.columns}


GUESSED = {"age": "real", "visits": "count", "income": "positive", "smokes": "bit", "sex": "category"}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_kinds_are_guessed_and_rows_are_partitioned(tmp_path, suffix):
    table = frame()
    table.loc[7, "age"] = np.nan
    table.loc[8, "sex"] = None
    loaded = data.load(written(tmp_path / f"mine{suffix}", table))
    assert kinds(loaded) == GUESSED
    assert loaded.columns[4].categories == ("f", "m")
    assert (loaded.likelihood, loaded.standardize) == ("mixed", True)
    assert [len(loaded.train), len(loaded.valid), len(loaded.test)] == [48, 6, 6]
    x = torch.cat([loaded.train, loaded.valid, loaded.test])
    assert x.isnan().sum(0).tolist() == [1, 0, 0, 0, 1]
    expected = table["visits"].to_numpy() + 1e3 * (table["sex"] == "m")
    assert sorted((x[:, 1] + 1e3 * (x[:, 4] == 1)).tolist()) == sorted(expected)
    assert describe_columns(loaded.columns)[0] == "real: age"


def test_a_column_with_many_categories_is_described_by_the_first_ones():
    codes = tuple(f"{code:010}" for code in range(20))
    assert describe_columns([Column("zip", "category", codes)])[0].endswith(f"{codes[11]} and 8 more)")


def test_files_of_both_kinds_hold_the_same_data(tmp_path):
    one, other = (data.load(written(tmp_path / f"mine{suffix}", frame())) for suffix in (".csv", ".parquet"))
    assert one.digest() == other.digest()


@pytest.mark.parametrize(
    ("columns", "likelihood"),
    [("age", "gaussian"), ("visits", "negative_binomial"), ("smokes", "bernoulli"), ("sex", "categorical")],
)
def test_columns_of_one_kind_have_its_likelihood(tmp_path, columns, likelihood):
    table = frame()[[columns]].rename(columns={columns: "a"})
    path = written(tmp_path / "mine.csv", pd.concat([table, table.rename(columns={"a": "b"})], axis=1))
    assert data.load(path).likelihood == likelihood
    table.loc[30, "a"] = None
    assert (
        data.load(
            written(tmp_path / "mine.csv", pd.concat([table, table.rename(columns={"a": "b"})], axis=1))
        ).likelihood
        == "mixed"
    )


def test_kinds_are_set_and_columns_left_out(tmp_path):
    path = written(tmp_path / "mine.csv", frame(visits=frame()["visits"] * 100), index=True)
    loaded = load_data(Experiment(data=path, columns="visits=category,age=drop,income=real,smokes=count"))
    assert kinds(loaded) == {"visits": "category", "income": "real", "smokes": "count", "sex": "category"}
    assert loaded.columns[0].categories[:3] == ("0", "100", "200")
    assert "Unnamed: 0 (drop), age (drop)" in loaded.summary()
    with pytest.raises(ValueError, match=r"visits=mean.*real, positive"):
        Experiment(columns="visits=mean")


def test_a_likelihood_decides_about_kinds(tmp_path):
    path = written(tmp_path / "mine.csv", frame()[["visits", "smokes"]])
    assert data.load(path, likelihood="poisson").likelihood == "poisson"
    assert kinds(data.load(path, likelihood="poisson")) == {"visits": "count", "smokes": "count"}
    assert kinds(data.load(path, likelihood="student")) == {"visits": "real", "smokes": "real"}
    assert data.load(path, likelihood="categorical").columns[1].categories == ("0", "1")


def test_a_column_says_the_split(tmp_path):
    fold = np.array(["train", "valid", "test"])[np.arange(N) % 3]
    path = written(tmp_path / "mine.csv", frame(fold=fold))
    loaded = data.load(path, columns="fold=split")
    assert torch.equal(loaded.test[:, 1], torch.tensor(frame()["visits"].to_numpy()[2::3]).float())
    assert "fold" not in kinds(loaded)
    path = written(tmp_path / "mine.csv", frame(fold=np.where(fold == "valid", "train", fold)))
    one, other = (data.load(path, seed, columns="fold=split") for seed in (0, 1))
    assert [len(one.train), len(one.valid), len(one.test)] == [36, 4, 20]
    assert torch.equal(one.test, other.test)
    assert not torch.equal(one.valid, other.valid)


def test_arrays_are_tables_for_the_likelihood_mixed(tmp_path):
    x = frame()[["age", "visits"]].to_numpy()
    x[5, 0] = np.nan
    np.savez(tmp_path / "mine.npz", train=x[:40], valid=x[40:50], test=x[50:])
    loaded = data.load(str(tmp_path / "mine.npz"), likelihood="mixed", columns="1=real")
    assert kinds(loaded) == {"0": "real", "1": "real"}
    assert torch.equal(loaded.test, torch.tensor(x[50:]).float())
    assert loaded.train.isnan().sum() == 1
    np.save(tmp_path / "mine.npy", x)
    assert data.load(str(tmp_path / "mine.npy"), likelihood="mixed").likelihood == "mixed"


@pytest.mark.parametrize("sparse", [False, True])
def test_counts_of_cells_are_read(tmp_path, sparse, environment):
    counts = np.random.default_rng(0).poisson(1, (N, 4)).astype(np.float32)
    cells = anndata.AnnData(scipy.sparse.csr_matrix(counts) if sparse else counts)
    cells.var_names = ["g1", "g2", "g3", "g4"]
    cells.obs["fold"] = np.where(np.arange(N) < 50, "train", "test")
    cells.layers["log"] = np.log1p(counts)
    cells.write_h5ad(tmp_path / "mine.h5ad")
    path = str(tmp_path / "mine.h5ad")
    loaded = data.load(path, columns="fold=split,g2=drop")
    assert loaded.likelihood == "negative_binomial"
    assert kinds(loaded) == dict.fromkeys(["g1", "g3", "g4"], "count")
    np.testing.assert_array_equal(loaded.test, counts[50:][:, [0, 2, 3]])
    logs = load_data(Experiment(data=path, layer="log"))
    assert (logs.likelihood, logs.event_shape) == ("gaussian", (4,))
    with pytest.raises(ValueError, match=r"no layer raw: choose one of \['log'\]"):
        data.load(path, layer="raw")
    environment(VAEPRIORS_MEMORY=f"{1000 / 2**30}")
    with pytest.raises(ValueError, match="more than the limit"):
        read_frame(tmp_path / "mine.h5ad")


def test_a_column_beside_counts_is_their_size_factor(tmp_path):
    counts, depth = np.random.default_rng(0).poisson(3, (N, 2)).astype(np.float32), np.linspace(1, 9, N)
    cells = anndata.AnnData(counts)
    cells.var_names = ["g1", "g2"]
    cells.obs["depth"] = depth
    cells.write_h5ad(tmp_path / "mine.h5ad")
    pd.DataFrame({"g1": counts[:, 0], "g2": counts[:, 1], "depth": depth}).to_csv(tmp_path / "mine.csv", index=False)
    options = {"columns": "depth=size,g1=count,g2=count"}
    one, other = (data.load(str(tmp_path / f"mine.{suffix}"), **options) for suffix in ("h5ad", "csv"))
    assert one.likelihood == "mixed"
    assert kinds(one) == {"g1": "count", "g2": "count", "depth": "size"}
    assert torch.equal(one.train, other.train)
    assert one.digest() == other.digest()
    for row in one.test:
        place = int(np.abs(depth - row[2].item()).argmin())
        assert row[:2].tolist() == counts[place].tolist()


def test_columns_are_conditions_and_go_with_their_rows(tmp_path):
    table = frame(site=np.where(np.arange(N) % 3 == 0, "a", "b"))
    options = {"columns": "site=label,age=covariate", "condition": "both", "seed": 3}
    loaded = data.load(written(tmp_path / "mine.csv", table), **options)
    assert kinds(loaded) == {"visits": "count", "income": "positive", "smokes": "bit", "sex": "category"}
    for split in ("train", "valid", "test"):
        rows = [int((table["income"] - income.item()).abs().argmin()) for income in getattr(loaded, split)[:, 1]]
        given = np.stack([table["site"][rows] == "a", table["site"][rows] == "b", table["age"][rows]], 1)
        np.testing.assert_allclose(loaded.conditions[split], given.astype(np.float32))
    cells = anndata.AnnData(frame()[["visits", "smokes"]].to_numpy(np.float32))
    cells.obs["batch"] = pd.Categorical(table["site"])
    cells.write_h5ad(tmp_path / "mine.h5ad")
    given = data.load(str(tmp_path / "mine.h5ad"), columns="batch=label", condition="labels")
    assert given.classes == ("a", "b")
    assert sum(y[:, 0].sum() for y in given.conditions.values()) == 20


MISTAKES = [
    (with_cells("age", {13: "old"}), {}, "'old' in row 13 of the column age among numbers"),
    (with_cells("visits", {13: -2}), {"columns": "visits=count"}, "-2 in row 13 of the column visits, which is count"),
    (with_cells("visits", {13: 0.5}), {"columns": "visits=count"}, "0.5 in row 13 of the column visits"),
    (
        with_cells("visits", {13: -2}),
        {"likelihood": "poisson", "columns": "age=drop,income=drop,sex=drop"},
        "-2 in row 13",
    ),
    (with_cells("income", {13: 0}), {"columns": "income=positive"}, "0 in row 13 of the column income.*above 0"),
    (with_cells("income", {13: 1e-40}), {"columns": "income=positive"}, "1e-40 in row 13 of the column income"),
    (with_cells("smokes", {13: 2}), {"columns": "smokes=bit"}, "2 in row 13 of the column smokes"),
    (with_cells("age", {13: math.inf}), {}, "inf in row 13 of the column age"),
    (frame(), {"columns": "sex=real"}, "f in row 0 of the column sex|m in row 0 of the column sex"),
    (frame(), {"likelihood": "gaussian"}, "in row 0 of the column sex, which is real"),
    (frame(), {"likelihood": "gaussian", "columns": "sex=category"}, "sex as category, but the likelihood gaussian"),
    (frame(), {"likelihood": "logistic256"}, "logistic256 is for images"),
    (
        with_cells("sex", dict.fromkeys(range(N))),
        {"columns": "sex=category"},
        "no value in the training rows of the column sex",
    ),
    (frame(name=[f"n{i}" for i in range(N)]), {}, "60 different texts in 60 rows of the column name.*name=drop"),
    (frame(), {"columns": "weight=real"}, "no column weight, which columns names as real: it has age, visits"),
    (frame(), {"columns": ",".join(f"{name}=drop" for name in GUESSED)}, "no column left"),
    (frame(), {"columns": "sex=split"}, "in row 0 of the column sex, which is the split"),
    (frame(fold="train"), {"columns": "fold=split"}, "no row for test by the column fold"),
    (frame()[:0], {}, "has 0 rows"),
    (frame()[:5], {}, "at least 10"),
    (with_cells("income", {3: 1e300}), {}, "1e.300 in row 3 of the column income"),
    (frame(), {"columns": "age=label"}, "the column age has .* in row 0: labels are whole numbers"),
    (frame(), {"columns": "sex=covariate"}, "texts in the column sex, which is covariate"),
    (with_cells("sex", {13: None}), {"columns": "sex=label"}, "misses the cell in row 13 of the column sex"),
    (frame(), {"condition": "labels"}, "no labels, .* a table in columns of the kind label"),
    (frame(), {"columns": "age=size,income=size"}, "several columns as size: choose one of age, income"),
    (frame(), {"columns": "age=size,visits=real"}, "age as size, which multiplies the means of counts"),
    (frame(), {"columns": "smokes=size"}, "0 in row . of the column smokes, which is size and takes numbers above 0"),
    (with_cells("age", {13: None}), {"columns": "age=size"}, "misses the cell in row 13 of the column age, the size"),
    (frame(), {"columns": "sex=label,visits=label"}, "several columns as label: choose one of sex, visits"),
    (with_cells("visits", {13: None}), {"likelihood": "mixed", "layer": "x"}, "layer is x, but .* not an .h5ad"),
    (
        with_cells("age", {13: None})[["age", "income"]],
        {"likelihood": "gaussian"},
        "misses the cell in row 13 of the column age",
    ),
]


@pytest.mark.parametrize(("table", "options", "words"), MISTAKES)
def test_mistakes_are_named_with_column_and_row(tmp_path, table, options, words):
    path = written(tmp_path / "mine.csv", table)
    with pytest.raises(ValueError, match=words) as error:
        data.load(path, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_rare_categories_and_classes_are_in_train_of_a_random_split(tmp_path, seed):
    table = pd.concat([frame()] * 3, ignore_index=True)
    table["kind"] = [f"rare {row}" if row % 20 == 0 else "common" for row in range(len(table))]
    table["class"] = [row if row % 30 == 1 else 0 for row in range(len(table))]
    path = written(tmp_path / "mine.csv", table)
    plain = data.load(path, seed, columns="kind=drop,class=drop")
    moving = data.load(path, seed, columns="class=label", condition="labels")
    assert len(moving.columns[[column.name for column in moving.columns].index("kind")].categories) == 10
    assert len(moving.classes) == 7
    sizes = [len(getattr(moving, split)) for split in ("train", "valid", "test")]
    moved = sizes[0] - len(plain.train)
    assert sum(sizes) == len(table)
    assert any(f"moved {moved} row" in doubt for doubt in moving.doubts) == (moved > 0)
    assert data.load(path, seed, columns="kind=drop,class=label").train.equal(plain.train)  # classes are not given


def test_missing_categories_move_no_row(tmp_path):
    table = frame()
    for seed in range(4):
        rows = data.draws.shuffled_split(len(table), 6, 6, seed)[1]
        table["kind"] = "a"
        table.loc[rows[0].item(), "kind"] = None
        assert len(data.load(written(tmp_path / "mine.csv", table), seed).train) == 48


def test_nines_far_from_the_other_values_are_noticed(tmp_path):
    table = with_cells("age", {3: -999, 4: -999})
    (doubt,) = data.load(written(tmp_path / "mine.csv", table)).doubts
    assert "the column age has -999 in 2 of 60 rows, far from its other values, 20" in doubt
    for near in ({}, {"age": [*range(98), 99, 99][-N:]}, {"age": [9.0, 10.0] * (N // 2)}):
        assert not data.load(written(tmp_path / "mine.csv", frame(**near))).doubts


def test_a_category_that_no_training_row_has_is_refused(tmp_path):
    table = frame(fold=["train"] * 40 + ["valid"] * 10 + ["test"] * 10)
    table.loc[55, "sex"] = "x"
    with pytest.raises(ValueError, match="category 'x' in row 55 of the column sex, but no training row has it"):
        data.load(written(tmp_path / "mine.csv", table), columns="fold=split")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,a\n1,2,3\n", "has the column a 2 times"),
        ("a,b\n1,2\n3\n", "1 cells in row 1, but 2 columns"),
        ("a,b\n1,2,3\n", "3 cells in row 0"),
        ("", "0 rows|cannot be read"),
        ('a,b\n"1,2\n', "cannot be read"),
        ("a,b\n\xe9,2\n", "in UTF-8"),
        ("a;b\n1;2\n3;4\n", "separate cells by commas, not by ';'"),
    ],
)
def test_damaged_texts(tmp_path, text, words):
    path = tmp_path / "mine.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=words):
        data.load(str(path))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".h5ad"])
def test_files_that_are_no_tables(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    with pytest.raises(ValueError, match="does not exist"):
        data.load(str(path))
    path.write_bytes(b"\x80\xff\x00" * 99)
    with pytest.raises(ValueError, match="cannot be read") as error:
        data.load(str(path))
    assert "\n" not in str(error.value)


def test_a_file_that_does_not_fit_is_refused(tmp_path, environment):
    environment(VAEPRIORS_MEMORY=f"{1000 / 2**30}")
    for suffix in (".csv", ".parquet"):
        written(tmp_path / f"mine{suffix}", frame())
        with pytest.raises(ValueError, match="limit of 1e"):
            read_frame(tmp_path / f"mine{suffix}")


@pytest.mark.parametrize(
    ("suffix", "package"), [(".csv", "pandas"), (".parquet", "pyarrow.parquet"), (".h5ad", "anndata")]
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, suffix, package):
    (tmp_path / f"mine{suffix}").write_text("a\n1\n")
    monkeypatch.setitem(sys.modules, package, None)
    extra = "h5ad" if suffix == ".h5ad" else "tables"
    with pytest.raises(ValueError, match=rf"needs {package}: install the extra, pip install 'vaepriors\[{extra}\]'"):
        data.load(str(tmp_path / f"mine{suffix}"))


def test_options_of_tables_are_refused_for_other_data():
    with pytest.raises(ValueError, match="columns is a=real, but digits is not a custom file"):
        data.load("digits", columns="a=real")
    with pytest.raises(ValueError, match="layer is x"):
        data.load("digits", layer="x")


def test_values_that_single_precision_rounds_and_constant_columns_are_noted(tmp_path):
    table = frame(time=1.6e9 + np.random.default_rng(0).normal(size=N), one=3.5, same="x")
    doubts = " ".join(data.load(written(tmp_path / "mine.csv", table)).doubts)
    assert "the column time has values near 1.6e+09" in doubts
    assert "the column one has one value" in doubts
    assert "the column same has one value" in doubts


def test_a_word_that_is_read_as_a_missing_cell_and_a_row_as_names_are_noted(tmp_path):
    table = frame(pool=np.where(np.arange(N) % 3, "None", "small"), garden=np.where(np.arange(N) % 3, "", "small"))
    (doubt, *_) = data.load(written(tmp_path / "mine.csv", table)).doubts[-1:]
    assert "the column pool has None, which is read as a missing cell" in doubt
    assert not any("None" in each for each in data.load(written(tmp_path / "b.csv", table.drop(columns="pool"))).doubts)
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(N, 3)).round(2))
    (doubt,) = data.load(written(tmp_path / "rows.csv", rows, header=False)).doubts
    assert "numbers as names, " in doubt
    assert not data.load(written(tmp_path / "names.csv", rows)).doubts


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_long_numbers_keep_their_digits_as_categories_and_classes(tmp_path, suffix):
    number = pd.array(2**60 + np.arange(N) % 3, "Int64")
    table = frame(batch=2**60 + np.arange(N) % 3, shop=number)
    table.loc[7, "shop"] = pd.NA
    path = written(tmp_path / f"mine{suffix}", table)
    loaded = data.load(path, columns="shop=category,batch=label", condition="labels")
    assert loaded.classes == tuple(range(2**60, 2**60 + 3))
    assert loaded.columns[-1].categories == tuple(map(str, loaded.classes))


def test_zeros_of_both_signs_are_one_category(tmp_path):
    path = written(tmp_path / "mine.csv", frame(code=np.where(np.arange(N) % 2, -0.0, np.arange(N) % 3)))
    assert data.load(path, columns="code=category").columns[-1].categories == ("0", "1", "2")


def test_texts_of_digits_stay_texts_in_another_file(tmp_path):
    """A file in which all codes are numbers would be read as numbers: 012 as 12."""
    codes = np.array(["012", "12", "x"])[np.arange(N) % 3]
    path = written(tmp_path / "mine.csv", frame(code=codes, site=codes))
    loaded = data.load(path, columns="code=category,site=label", condition="labels")
    x, y = loaded.read(written(tmp_path / "new.csv", frame(code=codes, site=codes)[::3]))
    assert loaded.columns[-1].categories == loaded.classes == ("012", "12", "x")
    assert (x[:, -1] == 0).all()
    assert (y.argmax(-1) == 0).all()


def test_codes_keep_their_leading_zeros(tmp_path):
    codes = np.array(["01234", "1234", "99"])[np.arange(N) % 3]
    path = written(tmp_path / "mine.csv", frame(code=codes, site=codes))
    assert [doubt for doubt in data.load(path).doubts if "leading zeros" in doubt and "code=category" in doubt]
    loaded = data.load(path, columns="code=category,site=label", condition="labels")
    assert loaded.columns[-1].categories == loaded.classes == ("01234", "1234", "99")
    assert not [doubt for doubt in loaded.doubts if "leading zeros" in doubt]
    x, y = loaded.read(written(tmp_path / "new.csv", frame(code=codes, site=codes)[1::3]))
    assert (x[:, -1] == 1).all()
    assert (y.argmax(-1) == 1).all()


def test_small_numbers_are_not_guessed_as_positive(tmp_path):
    """Single precision would round them to 0, whose logarithm is infinite."""
    table = frame(p=10.0 ** -np.linspace(0, 60, N))
    assert kinds(data.load(written(tmp_path / "mine.csv", table)))["p"] == "real"


def test_the_index_of_a_parquet_can_be_the_split(tmp_path):
    fold = pd.Index(["train"] * 40 + ["valid"] * 12 + ["test"] * 8, name="fold")
    loaded = data.load(written(tmp_path / "mine.parquet", frame().set_index(fold)), columns="fold=split")
    assert [len(loaded.train), len(loaded.valid), len(loaded.test)] == [40, 12, 8]
    assert kinds(loaded) == GUESSED


def test_an_h5ad_without_x_or_with_a_name_twice_is_refused(tmp_path):
    counts = np.random.default_rng(0).poisson(2, (N, 2)).astype(np.float32)
    names = pd.DataFrame(index=["depth", "b"])
    depths = pd.DataFrame({"depth": np.arange(N) + 1.0}, index=[f"cell{n}" for n in range(N)])
    cells = anndata.AnnData(var=names, obs=depths, layers={"raw": counts})
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(ValueError, match=r"has no X: choose a layer of \['raw'\]"):
        data.load(str(tmp_path / "cells.h5ad"))
    with pytest.raises(ValueError, match="depth among its variables and in obs"):
        data.load(str(tmp_path / "cells.h5ad"), layer="raw", columns="depth=size")


def test_another_file_is_encoded_with_the_columns_of_the_first(tmp_path):
    loaded = data.load(written(tmp_path / "mine.csv", frame()))
    other = read_frame(tmp_path / "mine.csv").table[["sex", "income", "smokes", "visits", "age"]][:5]
    x = encode(tmp_path / "other.csv", other, loaded.columns)
    assert x[:, 1].tolist() == frame()["visits"][:5].tolist()
    with pytest.raises(ValueError, match="has no column age, which the model needs"):
        encode(tmp_path / "other.csv", other.drop(columns="age"), loaded.columns)


def test_labels_of_an_array_and_of_a_column_are_not_both_taken(tmp_path):
    table = np.random.default_rng(0).normal(size=(N, 3))
    table[:, 2] = np.arange(N) % 2
    path = str(tmp_path / "mine.npz")
    np.savez(path, train=table, train_labels=np.arange(N) % 3)
    with pytest.raises(ValueError, match=r"mine.npz has several labels, labels, 2"):
        data.load(path, columns="2=label", condition="labels")
    assert len(data.load(path, columns="2=label,labels=drop", condition="labels").classes) == 2


def test_numbers_of_a_column_are_a_copy_that_may_be_written():
    """With copy-on-write, which pandas 3 always has, the arrays of a table are read-only, and torch warns of that."""
    always = int(pd.__version__.partition(".")[0]) >= 3
    with contextlib.nullcontext() if always else pd.option_context("mode.copy_on_write", True):
        table = pd.DataFrame({"whole": [1, 2], "real": [0.5, np.nan], "bit": [True, False]})
        for values in (numbers_of(table["whole"]), numbers_of(table["real"]), wholes_of(table["whole"])):
            assert values.flags.writeable
            values[:] = 7
        assert numbers_of(table["bit"]).flags.writeable
    assert table["whole"].tolist() == [1, 2]
    assert table["real"][0] == 0.5
