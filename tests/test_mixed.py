"""Tables of columns of different kinds with missing cells: SciPy's densities, masses, draws, integrals, gradients."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import constraints

from vaepriors import check
from vaepriors.app.cost import least_memory
from vaepriors.app.experiment import OBJECTIVES, PRIORS, Experiment, build
from vaepriors.data import Dataset
from vaepriors.distributions import residual
from vaepriors.networks.mixed import Column, ColumnScaling, MixedHead, MixedView, column_moments
from vaepriors.training import fit

COLUMNS = (
    Column("sex", "category", ("f", "m", "x")),
    Column("mass", "real"),
    Column("income", "positive"),
    Column("visits", "count"),
    Column("smokes", "bit"),
    Column("site", "category", ("a", "b")),
    Column("height", "real"),
)
GENERATOR = np.random.default_rng(0)
NAN = math.nan


def table(number=60, missing=0.2):
    one = GENERATOR.normal(size=number)
    columns = [
        GENERATOR.integers(0, 3, number),
        4000 + 500 * one,
        np.exp(9 + 0.5 * GENERATOR.normal(size=number)),
        GENERATOR.poisson(np.exp(2 + 0.3 * one)),
        GENERATOR.integers(0, 2, number),
        GENERATOR.integers(0, 2, number),
        0.001 * (one + GENERATOR.normal(size=number)),
    ]
    x = torch.tensor(np.stack(columns, 1), dtype=torch.float32)
    x[:3, 0], x[:3, 5] = torch.arange(3.0), torch.tensor([0.0, 1.0, 1.0])  # all categories
    gaps = torch.tensor(GENERATOR.random((number, 7)) < missing)
    gaps[:3] = False
    x[gaps] = NAN
    return x


X = table()


def dataset(**facts):
    return Dataset("test", X[:40], X[40:50], X[50:], "mixed", columns=COLUMNS, **{"standardize": True} | facts)


def scaling(standardize=True):
    return ColumnScaling(COLUMNS, *column_moments(X, COLUMNS), standardize)


def distribution(number=1, standardize=True):
    torch.manual_seed(0)
    head = MixedHead(4, (7,), scaling=scaling(standardize)).double()
    for parameter in head.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return head(0.5 * torch.randn(number, 4, dtype=torch.float64))


def references(p, x):
    """log p of each cell by SciPy."""
    real, positive, count, bit, category = p.parts
    mean, unit = p.scaling.standardize.mean.numpy(), p.scaling.standardize.scale.numpy()
    base, x = real.base, x.numpy()
    logits = category.logits.numpy()
    yield 0, np.take_along_axis(logits[:, 0], x[:, :1].astype(int), -1)[:, 0]
    for each, place in enumerate((1, 6)):
        loc = mean[place] + unit[place] * base.loc[:, each].numpy()
        yield place, stats.norm.logpdf(x[:, place], loc, unit[place] * base.scale[:, each].numpy())
    yield 2, stats.lognorm.logpdf(x[:, 2], positive.scale[:, 0].numpy(), scale=positive.loc[:, 0].exp().numpy())
    r, m = count.log_dispersion.exp().item(), count.mean[:, 0].numpy()
    yield 3, stats.nbinom.logpmf(x[:, 3], r, r / (r + m))
    yield 4, stats.bernoulli.logpmf(x[:, 4], bit.probs[:, 0].numpy())
    yield 5, np.take_along_axis(logits[:, 1], x[:, 5:6].astype(int), -1)[:, 0]


@torch.no_grad()
@pytest.mark.parametrize("standardize", [True, False])
def test_densities_of_cells_are_those_of_scipy(standardize):
    p = distribution(60, standardize)
    x = torch.where(X.isnan(), X[0], X).double()
    cells = p.marginal_log_prob(x)
    for place, expected in references(p, x):
        np.testing.assert_allclose(cells[:, place], expected, rtol=1e-9, err_msg=COLUMNS[place].name)
    torch.testing.assert_close(p.log_prob(x), cells.sum(-1))


SIZED = (Column("visits", "count"), Column("depth", "size"), Column("mass"), Column("falls", "count"))


def sized(number=40):
    """Counts whose means are 3 and 8, times depth / 500, where 500 is the geometric mean of depth."""
    depth = 500 * np.exp(np.linspace(-1, 1, number))
    counts = [GENERATOR.poisson(mean * depth / 500) for mean in (3, 8)]
    return torch.tensor(np.stack([counts[0], depth, GENERATOR.normal(size=number), counts[1]], 1)).float()


@torch.no_grad()
@pytest.mark.parametrize("standardize", [True, False])
def test_a_size_factor_multiplies_the_means_of_counts_and_is_given(standardize):
    x = sized()
    torch.manual_seed(0)
    head = MixedHead(4, (4,), scaling=ColumnScaling(SIZED, *column_moments(x, SIZED), standardize)).double()
    p = head(0.5 * torch.randn(len(x), 4, dtype=torch.float64))
    x = x.double()
    cells, usual = p.marginal_log_prob(x), p.mean
    for place in (0, 3):
        mean = usual[:, place] * x[:, 1] / 500
        expected = stats.nbinom.logpmf(x[:, place].numpy(), 1, (1 / (1 + mean)).numpy())  # the dispersion starts at 1
        np.testing.assert_allclose(cells[:, place], expected, rtol=1e-5)
        torch.testing.assert_close(p.given(x).mean[:, place], mean, rtol=1e-5, atol=0)
    assert (cells[:, 1] == 0).all()
    torch.testing.assert_close(usual[:, 1], torch.full((40,), 500.0).double(), rtol=1e-5, atol=0)
    assert p.support.check(p.sample((3,))).all()
    assert torch.equal(p.given(x).sample((3,))[..., 1], x[:, 1].expand(3, 40))
    torch.testing.assert_close(p.given(x).log_prob(x), p.log_prob(x))  # not multiplied twice
    torch.testing.assert_close(p.expand((2, 40)).log_prob(x), p.log_prob(x).expand(2, 40))
    torch.testing.assert_close(p.log_prob(x.expand(2, 40, 4)), p.log_prob(x).expand(2, 40))
    error = residual(p, x)
    assert (error[:, 1] == 0).all()
    assert (error[:, [0, 2, 3]] != 0).all()


def test_counts_with_size_factors_are_trained_and_drawn_at_the_usual_one():
    x = sized(60)[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    data = Dataset("test", x[:40], x[40:50], x[50:], "mixed", columns=SIZED, standardize=True)
    torch.manual_seed(0)
    model, objective = build(Experiment(latent=2, hidden=(8,), prior="vamp", components=5), data)
    outcome = fit(model, objective, data, epochs=2, accelerator="cpu", batch_size=20)
    assert math.isfinite(outcome.best_loss)
    usual = x[:40, 1].log().mean().exp()
    torch.testing.assert_close(model.sample((5,))[:, 1], usual.expand(5), rtol=1e-5, atol=0)


@torch.no_grad()
def test_a_missing_cell_is_the_integral_over_it():
    p = distribution()
    x = X[:1].double()
    grids = {
        0: torch.arange(3.0),
        1: torch.linspace(-2000, 10_000, 20_001),
        2: torch.logspace(0, 8, 20_001, dtype=torch.float64),
        3: torch.arange(3000.0),
        4: torch.arange(2.0),
        5: torch.arange(2.0),
        6: torch.linspace(-0.05, 0.05, 20_001),
    }
    for place, grid in grids.items():
        rows = x.expand(len(grid), 7).clone()
        rows[:, place] = grid
        densities = p.log_prob(rows).exp()
        total = torch.trapezoid(densities, grid.double()) if place in (1, 2, 6) else densities.sum()
        missing = x.clone()
        missing[:, place] = NAN
        torch.testing.assert_close(total.log(), p.log_prob(missing)[0], rtol=0, atol=1e-4)
    assert p.log_prob(torch.full((1, 7), NAN)).item() == 0


@torch.no_grad()
def test_draws_have_the_means_and_the_support():
    p = distribution()
    torch.manual_seed(0)
    draws = p.sample((20_000,))[:, 0]
    assert p.support.check(draws).all()
    assert not p.support.check(torch.tensor([0.5, 1, -1, 2, 1, 0, 0]))
    error = 5 * draws.std(0) / math.sqrt(len(draws))
    numbers = torch.tensor([1, 2, 3, 4, 6])
    assert ((draws.mean(0) - p.mean[0]).abs() < error)[numbers].all()
    for place, probs in ((0, p.expected()[-1][0, 0]), (5, p.expected()[-1][0, 1])):
        shares = torch.bincount(draws[:, place].long(), minlength=3) / len(draws)
        torch.testing.assert_close(shares, probs.float(), rtol=0, atol=0.02, check_dtype=False)
        assert p.mean[0, place] == probs.argmax()
    assert p.expand((3, 1)).log_prob(draws[0]).shape == (3, 1)


@pytest.mark.parametrize("size", [0.0, 1e3, 1e8])
def test_missing_cells_and_extreme_features_have_finite_gradients(size):
    h = size * torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    head = MixedHead(4, (7,), scaling=scaling())
    p = head(h.requires_grad_())
    log_prob = p.log_prob(X)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert h.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    assert p.sample().isfinite().all()


def test_encoders_see_zero_and_a_mark_where_a_cell_is_missing():
    view = MixedView(scaling(), torch.tensor([1, 3]))
    x = X[:1].expand(3, 7).clone()
    x[1, [0, 1, 4]] = NAN
    x[2] = NAN
    seen = view(x)
    # numbers: mass, income, visits, height; the bit; marks; then 3 + 2 codes
    assert seen.shape == (3, 4 + 1 + 2 + 5)
    assert seen[0, 4] == 2 * X[0, 4] - 1
    assert seen[0, 5:7].tolist() == [0, 0]
    assert seen[0, 7:].tolist() == [1, 0, 0, 1, 0]
    assert seen[1, [0, 4]].tolist() == [0, 0]
    assert seen[1, 5:].tolist() == [1, 0, 0, 0, 0, 1, 0]
    assert seen[2].tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]


def test_scaling_has_an_inverse_and_fills_missing_cells():
    of = scaling()
    complete = torch.where(X.isnan(), X[0], X)
    torch.testing.assert_close(of.inverse(of(complete)), complete, rtol=1e-4, atol=1e-6)
    filled = of.inverse(of(torch.full((1, 7), NAN)))[0]
    assert filled[1].item() == pytest.approx(X[:, 1].nanmean().item(), rel=1e-5)
    assert filled[2].item() == pytest.approx(X[:, 2].log().nanmean().exp().item(), rel=1e-4)
    observed = X[:, 0][~X[:, 0].isnan()]
    assert filled[0] == observed.mode().values
    u = torch.randn(9, 7, requires_grad=True)
    of(of.inverse(100 * u)).sum().backward()
    assert u.grad.isfinite().all()


@pytest.mark.parametrize("prior", ["standard", "vamp", "vamp-data", "exemplar"])
@pytest.mark.parametrize("model", ["vae", "hvae", "mlp"])
def test_a_table_with_missing_cells_is_trained(model, prior):
    options = {"components": 5} if "components" in PRIORS[prior].options else {}
    options |= {"exemplars": 9} if prior == "exemplar" else {}
    experiment = Experiment(model=model, prior=prior, latent=2, hidden=(8,), **options)
    data = dataset()
    assert least_memory(experiment, data).total > 0
    torch.manual_seed(0)
    vae, objective = build(experiment, data)
    outcome = fit(vae, objective, data, epochs=2, accelerator="cpu", batch_size=20)
    assert math.isfinite(outcome.best_loss)
    assert vae.sample((5,)).shape == (5, 7)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_has_a_finite_loss_and_gradient(objective):
    needed = {name: 0.5 for name, option in OBJECTIVES[objective].options.items() if name == "kappa"}
    options = {"prior": "mog", "components": 4, "latent": 2, "hidden": (8,), "warmup": 0, "samples": 2}
    vae, loss = build(Experiment(objective=objective, **options, **needed), dataset())
    value, _ = loss(vae, X)
    value.backward()
    assert value.isfinite()
    assert all(p.grad.isfinite().all() for p in vae.parameters() if p.grad is not None)


@torch.no_grad()
def test_the_error_of_a_row_is_that_of_its_observed_cells():
    p = distribution(60)
    error = residual(p, X.double())
    assert (error[X.isnan()] == 0).all()
    complete = residual(p, torch.where(X.isnan(), X[0], X).double())
    observed = ~X.isnan()
    torch.testing.assert_close(error.square().mean(1), (complete.square() * observed).sum(1) / observed.sum(1))
    probability = p.marginal_log_prob(X[:1].double())[0, 0].exp()
    assert complete[0, 0].item() == pytest.approx(1 - probability.item())
    positive, unit = p.parts[1], p.scaling.standardize.scale[2]
    torch.testing.assert_close(complete[0, 2], (X[0, 2].double().log() - positive.loc[0, 0]) / unit)


def test_density_and_sampler_of_a_decoder_are_one_distribution():
    columns = tuple(column for column in COLUMNS if column.kind in ("category", "bit"))
    places = [COLUMNS.index(column) for column in columns]
    x = torch.where(X.isnan(), X[0], X)[:, places]
    model, _ = build(
        Experiment(latent=2, hidden=(8,)), Dataset("test", x[:40], x[40:50], x[50:], "mixed", columns=columns)
    )
    assert isinstance(model.decoder(torch.zeros(2)).support, constraints.independent)
    report = check(model.decoder, torch.randn(6, 2))
    assert report, report


def changed(row, column, value):
    x = X.clone()
    x[row, column] = value
    return x


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (changed(41, 2, -1.0), "valid holds the value -1 .*row 1, column 2"),
        (changed(41, 3, 0.5), "holds the value 0.5"),
        (changed(41, 4, 2.0), "holds the value 2"),
        (changed(41, 0, 7.0), "category 7 in row 1, column 0"),
        (changed(41, 1, math.inf), "infinity"),
        (changed(slice(0, 40), 3, NAN), "the column visits has no value"),
        (X[:, :3], "7"),
        (X.view(60, 7, 1, 1), "mixed takes"),
    ],
)
def test_what_the_columns_do_not_take_is_refused(x, words):
    with pytest.raises(ValueError, match=words):
        Dataset("test", x[:40], x[40:50], x[50:], "mixed", columns=COLUMNS)


def test_only_mixed_columns_may_miss_cells():
    for likelihood in ("gaussian", "student"):
        with pytest.raises(ValueError, match="NaN"):
            Dataset("test", X[:40], X[40:50], X[50:], likelihood)


def test_kinds_are_part_of_the_digest():
    other = tuple(Column(c.name, "count" if c.name == "smokes" else c.kind, c.categories) for c in COLUMNS)
    one = dataset().digest()
    assert one == dataset().digest() != Dataset("test", X[:40], X[40:50], X[50:], "mixed", columns=other).digest()
