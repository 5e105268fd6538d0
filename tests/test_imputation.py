"""Missing cells filled: exact conditional means of a linear-Gaussian model, probabilities, draws, and the command."""

import csv
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from reference import Call
from vaepriors import VAE, ConditionalVAE, Ignoring, StandardNormal, networks
from vaepriors.app.run import Run
from vaepriors.data.table import read_rows
from vaepriors.imputation import impute
from vaepriors.networks.heads import Network, SoftplusNormalHead
from vaepriors.networks.mixed import Column, ColumnScaling, MixedHead, MixedView

NAN = math.nan


class Proposal(nn.Module):
    """q(z|x) that does not know x: a standard normal that is twice as wide."""

    def forward(self, x):
        return torch.distributions.Independent(torch.distributions.Normal(x.new_zeros(*x.shape[:-1], 2), 2.0), 1)


def linear_gaussian(given=0):
    """p(x|z, y) = N(W z + V y + b, diag s^2) in standardised units, behind columns with means and scales of their own.

    Returns the model, the mean of each row, and the covariance.
    """
    columns = [Column(name) for name in "abcd"]
    mean, scale = torch.tensor([4000.0, 0.0, -1.0, 3.0]), torch.tensor([500.0, 0.001, 1.0, 2.0])
    torch.manual_seed(0)
    head = MixedHead(2 + given, (4,), scaling=ColumnScaling(columns, mean, scale)).double()
    weight, bias = (t.detach().numpy() for t in (head.parameters_of_x.weight, head.parameters_of_x.bias))
    noise = nn.functional.softplus(head.raw_scale).detach().numpy() + 1e-3
    s = scale.double().numpy()
    covariance = np.outer(s, s) * (weight[:, :2] @ weight[:, :2].T + np.diag(noise**2))
    means = mean.double().numpy() + s * (bias + CONDITIONS[:, :given].numpy() @ weight[:, 2:].T)
    if not given:
        return VAE(Proposal(), head, StandardNormal(2)).double(), means, covariance
    model = ConditionalVAE(Ignoring(Proposal()), networks.Appended(head, given), Ignoring(StandardNormal(2)))
    return model.double(), means, covariance


ROWS = torch.tensor([[4300, 0.002, NAN, 1], [NAN, NAN, 0.5, 2], [NAN] * 4, [4100, 0, 0, 0]], dtype=torch.float64)
CONDITIONS = torch.tensor([[3.0, 0.0], [-2.0, 1.0], [4.0, 0.0], [0.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("given", [0, 2])
def test_imputed_means_are_the_conditional_means(given):
    model, means, covariance = linear_gaussian(given)
    torch.manual_seed(1)
    y = CONDITIONS if given else None
    imputed = impute(model, ROWS, samples=200_000, draws=3000, condition=y)
    for number, (row, mean) in enumerate(zip(ROWS.numpy(), means, strict=True)):
        m = np.isnan(row)
        o = ~m
        gain = covariance[np.ix_(m, o)] @ np.linalg.inv(covariance[np.ix_(o, o)])
        expected = mean[m] + gain @ (row[o] - mean[o])
        spread = np.sqrt(np.diag(covariance[np.ix_(m, m)] - gain @ covariance[np.ix_(o, m)]))
        np.testing.assert_array_less(np.abs(imputed.x[number].numpy()[m] - expected), 0.03 * spread)
        drawn = imputed.draws[:, number].numpy()[:, m]
        np.testing.assert_array_less(np.abs(drawn.mean(0) - expected), 0.1 * spread)
        np.testing.assert_allclose(drawn.std(0), spread, rtol=0.1)
        assert np.array_equal(imputed.x[number].numpy()[o], row[o])
    assert len(imputed.effective_samples) == 3
    assert (imputed.effective_samples > 1000).all()
    # of a row without any cell the weights are N(0, I) / N(0, 4 I), with E[w^2] = 16 / 7
    assert imputed.effective_samples[2].item() == pytest.approx(200_000 * 7 / 16, rel=0.02)


def test_a_model_fills_cells_in_evaluation_mode():
    model, _, _ = linear_gaussian()
    modes, encoder = [], model.encoder
    model.encoder = Call(lambda x: modes.append(model.training) or encoder(x))
    impute(model, ROWS, samples=2)
    assert set(modes) == {False}
    assert model.training


def test_each_row_needs_its_condition():
    model, _, _ = linear_gaussian(given=2)
    for y in (None, CONDITIONS[:3]):
        with pytest.raises(ValueError, match="the y of each x"):
            impute(model, ROWS, condition=y)


def test_bits_counts_and_categories_are_the_most_probable_whole_values():
    columns = [Column("sex", "category", ("f", "m", "x")), Column("visits", "count"), Column("smokes", "bit")]
    scaling = ColumnScaling(columns, torch.zeros(3), torch.ones(3))
    head = MixedHead(2, (3,), scaling=scaling)
    head.parameters_of_x.weight.data.zero_()
    head.parameters_of_x.bias.data = torch.tensor([math.log(2.6), 0.8, 0.1, 2.0, 0.3])  # count, bit, 3 categories
    encoder = Network(MixedView(scaling, torch.arange(3)), networks.Encoder((8,), [4], 2, head=SoftplusNormalHead))
    imputed = impute(VAE(encoder, head, StandardNormal(2)), torch.full((2, 3), NAN), samples=10, draws=500)
    assert imputed.x.tolist() == [[1, 3, 1]] * 2
    shares = torch.bincount(imputed.draws[:, 0, 0].long(), minlength=3) / 500
    torch.testing.assert_close(shares, torch.tensor([0.1, 2.0, 0.3]).softmax(0), rtol=0, atol=0.08)


def test_a_missing_count_has_the_size_factor_of_its_row():
    columns = [Column("visits", "count"), Column("depth", "size")]
    scaling = ColumnScaling(columns, torch.tensor([0.0, math.log(10)]), torch.ones(2))
    head = MixedHead(2, (2,), scaling=scaling)
    head.parameters_of_x.weight.data.zero_()
    head.parameters_of_x.bias.data.fill_(math.log(6))
    encoder = Network(MixedView(scaling, torch.arange(1)), networks.Encoder((3,), [4], 2, head=SoftplusNormalHead))
    rows = torch.tensor([[NAN, 5.0], [NAN, 50.0]])
    torch.manual_seed(0)
    imputed = impute(VAE(encoder, head, StandardNormal(2)), rows, samples=10, draws=4000)
    assert imputed.x.tolist() == [[3, 5], [30, 50]]
    means = imputed.draws[..., 0].mean(0)
    torch.testing.assert_close(means, torch.tensor([3.0, 30.0]), rtol=0.1, atol=0)


def test_a_model_without_missing_cells_is_refused():
    model = VAE(networks.Encoder((3,), [4], 2), networks.Decoder((3,), [4], 2), StandardNormal(2))
    with pytest.raises(ValueError, match=r"mixed|finite|NaN"):
        impute(model, torch.tensor([[0.0, NAN, 1.0]]))
    with pytest.raises(ValueError, match="rows of a table"):
        impute(model, torch.zeros(5, 1, 8, 8))


@pytest.fixture
def folder(tmp_path, vaepriors):
    """A run of a table with missing cells."""
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "id": [f"p{n}" for n in range(60)],
            "mass": generator.normal(4000, 500, 60).round(),
            "visits": generator.poisson(3, 60),
            "sex": generator.choice(["f", "m"], 60),
            "ill": generator.choice([True, False], 60),
        }
    )
    for row, name in ((3, "mass"), (4, "visits"), (5, "sex"), (6, "ill"), (6, "mass")):
        table[name] = table[name].astype(object)
        table.loc[row, name] = None
    table.to_csv(tmp_path / "mine.csv")
    options = ["--columns", "id=drop", "--hidden", "8", "--latent", "2", "--epochs", "2", "--accelerator", "cpu"]
    assert vaepriors("train", "--data", tmp_path / "mine.csv", *options, "--out", tmp_path / "run") == 0
    return tmp_path / "run"


def cells(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_the_command_fills_only_missing_cells(folder, vaepriors, capsys):
    out = folder.parent / "filled.csv"
    assert vaepriors("impute", folder, "--out", out, "--samples", "50") == 0
    assert "4 rows filled" in capsys.readouterr().out
    before, after = cells(folder.parent / "mine.csv"), cells(out)
    filled = {(row, place) for row in range(61) for place in range(6) if before[row][place] != after[row][place]}
    assert filled == {(4, 2), (5, 3), (6, 4), (7, 5), (7, 2)}
    assert after[6][4] in ("f", "m")
    assert after[7][5] in ("True", "False")
    assert after[5][3].isdigit()
    assert 2000 < float(after[4][2]) < 6000
    assert vaepriors("impute", folder, "--out", out) == 2
    assert "exists already" in capsys.readouterr().err


def test_multiple_imputations_of_another_file(folder, vaepriors, capsys):
    other = folder.parent / "other.csv"
    other.write_text("sex,mass,visits,ill\nf,,2,True\n,4000,,\n")
    assert vaepriors("impute", folder, "--file", other, "--out", folder.parent / "new.csv", "--draws", "2") == 0
    one, two = cells(folder.parent / "new-1.csv"), cells(folder.parent / "new-2.csv")
    assert one[0] == two[0] == ["sex", "mass", "visits", "ill"]
    assert one[1][1] != two[1][1]
    assert not (folder.parent / "new.csv").exists()
    other.write_text("sex,mass,visits,ill\nz,,2,True\n")
    assert vaepriors("impute", folder, "--file", other, "--out", folder.parent / "next.csv") == 2
    assert "'z' in row 0 of the column sex" in capsys.readouterr().err


def test_cells_are_filled_as_the_table_writes_such_values(tmp_path, vaepriors):
    """The category 01 is written as 01 and not as 1; an index and whole numbers beside gaps stay as they are."""
    table = pd.DataFrame({"code": ["01", "02"] * 30, "ill": ["true", "false"] * 30}, pd.Index(range(60), name="id"))
    table["mass"] = pd.array(2**60 + np.arange(60), "Int64")
    table.loc[3, ["code", "mass"]] = None
    table.loc[4, "ill"] = None
    table.to_csv(tmp_path / "mine.csv")
    options = ["--hidden", "8", "--latent", "2", "--epochs", "1", "--accelerator", "cpu"]
    columns = ["--columns", "id=drop,code=category,mass=drop"]
    assert vaepriors("train", "--data", tmp_path / "mine.csv", *columns, *options, "--out", tmp_path / "run") == 0
    assert vaepriors("impute", tmp_path / "run", "--out", tmp_path / "out.csv") == 0
    before, after = cells(tmp_path / "mine.csv"), cells(tmp_path / "out.csv")
    assert [row for row in range(61) if before[row] != after[row]] == [4, 5]
    assert after[4][1] in ("01", "02")
    assert after[5][2] in ("true", "false")
    table["ill"] = table["ill"] == "true"
    table.to_parquet(tmp_path / "mine.parquet")
    other = ["--file", tmp_path / "mine.parquet", "--out", tmp_path / "other.csv"]
    assert vaepriors("impute", tmp_path / "run", *other) == 0
    assert [row[::3] for row in cells(tmp_path / "other.csv")] == [row[::3] for row in before]


def test_whole_numbers_beside_a_mean_keep_their_digits(tmp_path, vaepriors):
    """A `.parquet` has them as numbers, of which a mean among them would make floats."""
    table = pd.DataFrame({"mass": pd.array(2**60 + np.arange(60) ** 9, "Int64")})
    table.loc[3, "mass"] = None
    table.to_parquet(tmp_path / "mine.parquet")
    options = ["--hidden", "8", "--latent", "2", "--epochs", "1", "--accelerator", "cpu", "--out", tmp_path / "run"]
    assert vaepriors("train", "--data", tmp_path / "mine.parquet", *options) == 0
    assert vaepriors("impute", tmp_path / "run", "--out", tmp_path / "out.csv") == 0
    after = [cell for (cell,) in cells(tmp_path / "out.csv")]
    assert after[:4] + after[5:] == ["mass", *map(str, table["mass"].dropna())]


def test_draws_of_a_table_are_written_as_a_table_and_reported(folder, vaepriors):
    assert vaepriors("sample", folder, "--number", "7") == 0
    rows = cells(folder / "samples.csv")
    assert rows[0] == ["mass", "visits", "sex", "ill"]
    assert len(rows) == 8
    assert {row[2] for row in rows[1:]} <= {"f", "m"}
    assert all(row[1].isdigit() for row in rows[1:])
    assert vaepriors("evaluate", folder, "--samples", "20") == 0
    assert vaepriors("report", folder, "--number", "5") == 0
    page = (folder / "report.html").read_text()
    assert "visits" in page
    assert "missing" in page


def test_a_run_of_another_likelihood_is_refused(tmp_path, vaepriors, capsys):
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(30, 2)))
    options = ["--hidden", "8", "--latent", "2", "--epochs", "1", "--accelerator", "cpu", "--out", tmp_path / "run"]
    assert vaepriors("train", "--data", tmp_path / "mine.npy", *options) == 0
    assert vaepriors("impute", tmp_path / "run", "--out", tmp_path / "out.csv") == 2
    assert "has the likelihood gaussian, which takes no missing cells" in capsys.readouterr().err


@pytest.fixture
def given_species(tmp_path, vaepriors):
    """A run of a table with missing cells, given the species, and covariates, of each row."""
    generator = np.random.default_rng(0)
    table = pd.DataFrame({"mass": generator.normal(4000, 500, 60).round(), "length": generator.normal(40, 5, 60)})
    table["year"], table["species"] = generator.normal(size=60).round(2), generator.choice(["a", "b", "c"], 60)
    table.loc[3, "mass"] = None
    table.to_csv(tmp_path / "mine.csv", index=False)
    options = ["--columns", "year=covariate,species=label", "--condition", "both", "--hidden", "8", "--latent", "2"]
    options += ["--epochs", "1", "--accelerator", "cpu", "--out", tmp_path / "run"]
    assert vaepriors("train", "--data", tmp_path / "mine.csv", *options) == 0
    return tmp_path / "run"


def test_each_row_is_filled_given_its_own_condition(given_species, vaepriors, capsys):
    folder, out = given_species.parent, given_species.parent / "filled.csv"
    assert vaepriors("impute", given_species, "--out", out, "--samples", "50") == 0
    before, after = cells(folder / "mine.csv"), cells(out)
    assert [row for row in range(61) if before[row] != after[row]] == [4]
    other = folder / "other.csv"
    text = "species,year,mass,length\nb,0.5,,40\na,0.5,,40\nb,0.5,,40\n"
    other.write_text(text)
    assert vaepriors("impute", given_species, "--file", other, "--out", folder / "new.csv") == 0
    rows = cells(folder / "new.csv")
    dataset = Run(given_species).dataset()
    y = read_rows(dataset, other, "year=covariate,species=label")[1].condition
    assert y.tolist() == [[0, 1, 0, 0.5], [1, 0, 0, 0.5], [0, 1, 0, 0.5]]
    assert rows[1][2] != rows[2][2]
    for number, (old, new, words) in enumerate(MISTAKES):
        other.write_text(text.replace(old, new, 1))
        refused = folder / f"refused-{number}.csv"
        assert vaepriors("impute", given_species, "--file", other, "--out", refused) == 2
        assert words in capsys.readouterr().err
        assert not refused.exists()


MISTAKES = [
    ("b,0.5", ",0.5", "misses the cell in row 0 of the column species"),
    ("b,0.5", "b,", "misses the cell in row 0 of the column year"),
    ("b,0.5", "d,0.5", "the class 'd' in row 0 of the column species"),
    ("year", "age", "has no column year"),
]
