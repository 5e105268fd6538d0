"""The prior of training examples: its density, what it leaves out, and its way through training and evaluation."""

import math
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from reference import Call
from vaepriors import ExemplarPrior, Folder, Ignoring, estimate, fit, load_weights
from vaepriors.app.cost import gflop_per_image, gflop_per_step
from vaepriors.app.experiment import Experiment, build
from vaepriors.checkpoint import module_tensors
from vaepriors.data import Dataset
from vaepriors.objectives import ELBO, IWAE
from vaepriors.priors import StandardNormal, TwoLevelPrior
from vaepriors.store import Memory
from vaepriors.training import Losses
from vaepriors.vae import VAE

N, D = 6, 2


class Encoder(nn.Module):
    """q(z|x), which counts its examples."""

    def __init__(self, latent: int = D):
        super().__init__()
        self.loc, self.log_scale = nn.Linear(3, latent), nn.Linear(3, latent)
        self.seen: list[int] = []

    def forward(self, x):
        self.seen.append(x.shape[:-1].numel())
        return Independent(Normal(self.loc(x), self.log_scale(x).exp()), 1)


def a_prior(samples: int = N, latent: int = D) -> ExemplarPrior:
    torch.manual_seed(0)
    prior = ExemplarPrior(Encoder(latent), 2 * torch.randn(N, 3), samples).double()
    prior.log_var.data.fill_(-0.5)
    return prior


def others(prior: ExemplarPrior, row: int | None = None, among=range(N)) -> Distribution:
    """The mixture over all exemplars, or over those that are not of this row, from torch's own distributions."""
    rows = [n for n in among if n != row]
    loc = prior.encoder.loc(prior.exemplars[rows])
    components = Independent(Normal(loc, (prior.log_var / 2).exp()), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(rows), dtype=torch.float64)), components)


@pytest.mark.parametrize("latent", [1, 2])
def test_the_density_is_that_of_all_exemplars_and_integrates_to_one(latent):
    prior = a_prior(samples=3, latent=latent).eval()
    axis = torch.linspace(-12, 12, 601, dtype=torch.float64)
    z = torch.cartesian_prod(*[axis] * latent).view(-1, latent)
    log_prob = prior().log_prob(z)
    torch.testing.assert_close(log_prob, others(prior).log_prob(z), rtol=0, atol=1e-9)
    assert log_prob.exp().sum().item() * (axis[1] - axis[0]).item() ** latent == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_an_example_does_not_explain_itself(training):
    prior = a_prior().train(training)
    rows = torch.tensor([[0, 5, 2], [2, 2, N]])  # N is no training example
    p = prior.without(rows)
    assert p.batch_shape == rows.shape
    z = torch.randn(4, 2, 3, D, dtype=torch.float64)
    log_prob = p.log_prob(z)
    for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        expected = others(prior, rows[i, j].item())
        torch.testing.assert_close(log_prob[:, i, j], expected.log_prob(z[:, i, j]), rtol=0, atol=1e-9)
        torch.testing.assert_close(p.mean[i, j], expected.mean)
        torch.testing.assert_close(p.variance[i, j], expected.variance)


def test_a_draw_of_exemplars_is_right_on_average():
    """Over all 20 draws of 3 exemplars: for p(z), and for each example without itself, in the draw or not."""
    prior, z, rows = a_prior(samples=3), torch.randn(N, D, dtype=torch.float64), torch.arange(N)
    draws = [torch.tensor(chosen) for chosen in combinations(range(N), 3)]
    mean = torch.stack([prior._mixture(chosen).log_prob(z).exp() for chosen in draws]).mean(0)
    torch.testing.assert_close(mean, others(prior).log_prob(z).exp())
    mean = torch.stack([prior._mixture(chosen, rows).log_prob(z).exp() for chosen in draws]).mean(0)
    expected = torch.stack([others(prior, n).log_prob(z[n]).exp() for n in range(N)])
    torch.testing.assert_close(mean, expected)


def test_each_call_in_training_draws_other_exemplars():
    prior = a_prior(samples=2)
    means = prior.encoder.loc(prior.exemplars)
    torch.manual_seed(0)
    counts = torch.zeros(N)
    for _ in range(300):
        chosen = (prior().loc[:, None] == means).all(-1)
        assert chosen.sum(1).tolist() == [1, 1]
        counts += chosen.sum(0)
    assert counts.sum() == 600
    assert ((counts - 100).abs() < 40).all()
    two = prior.without(torch.arange(N))  # one of two may be the example itself
    assert two.log_prob(torch.zeros(D, dtype=torch.float64)).isfinite().all()


def test_the_gradient_reaches_encoder_and_variance():
    prior, z = a_prior(), torch.randn(N, D, dtype=torch.float64, requires_grad=True)
    leaves = [prior.log_var, *prior.encoder.loc.parameters(), z]
    got = torch.autograd.grad(prior.without(torch.arange(N)).log_prob(z).sum(), leaves)
    expected = torch.autograd.grad(sum(others(prior, n).log_prob(z[n]) for n in range(N)), leaves)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10)


def test_the_prior_of_a_top_level_leaves_out_too():
    prior, bottom = a_prior(), Call(lambda z2: Independent(Normal(z2, 1.0), 1))
    chain, z = TwoLevelPrior(prior, bottom, (D, D)), torch.randn(5, 2, 2 * D, dtype=torch.float64)
    rows = torch.tensor([1, 4])
    expected = prior.without(rows).log_prob(z[..., :D]) + Normal(z[..., :D], 1.0).log_prob(z[..., D:]).sum(-1)
    torch.testing.assert_close(chain.without(rows).log_prob(z), expected)
    y, shifted = torch.randn(2, D, dtype=torch.float64), Call(lambda z2, y: Independent(Normal(z2 + y, 1.0), 1))
    given = TwoLevelPrior(Ignoring(prior), shifted, (D, D)).without(rows, y)
    below = Normal(z[..., :D] + y, 1.0).log_prob(z[..., D:]).sum(-1)
    torch.testing.assert_close(given.log_prob(z), prior.without(rows).log_prob(z[..., :D]) + below)
    other = VAE(prior.encoder, bottom, TwoLevelPrior(StandardNormal(D), bottom, (D, D)))
    assert other.without(rows) is other


def a_model(data: Dataset, samples: int = 20, exemplars: torch.Tensor | None = None) -> VAE:
    torch.manual_seed(0)
    exemplars = data.train if exemplars is None else exemplars
    encoder, decoder = Encoder(), nn.Sequential(nn.Linear(D, 3), Call(lambda loc: Independent(Normal(loc, 0.3), 1)))
    return VAE(encoder, decoder, ExemplarPrior(encoder, exemplars, samples))


@pytest.fixture(scope="module")
def data() -> Dataset:
    x = torch.randn(90, 3, generator=torch.Generator().manual_seed(0))
    return Dataset("gaussian", x[:50], x[50:70], x[70:], "gaussian")


@pytest.mark.parametrize("objective", [ELBO(), IWAE(5, "dreg")])
def test_a_training_step_leaves_out_its_examples(data, objective):
    model, rows = a_model(data, samples=50), torch.tensor([3, 30, 7, 8])
    torch.manual_seed(1)
    loss, rate, _ = Losses(model, objective, data.train)(rows)
    torch.manual_seed(1)
    q = model.encoder(data.train[rows])
    terms = model.given(prior=model.prior.without(rows))(data.train[rows], objective.samples)
    log_p = torch.stack([others(model.prior, row, range(50)).log_prob(terms.z[:, i]) for i, row in enumerate(rows)], 1)
    torch.testing.assert_close(rate, (q.log_prob(terms.z) - log_p.float()).mean())
    assert loss.isfinite()


def test_exemplars_in_another_order_than_the_training_set_are_refused(data):
    x, other = data.train, data.valid
    options = {"epochs": 1, "accelerator": "cpu"}
    for exemplars in (x.roll(1, 0), x[1:]):
        with pytest.raises(ValueError, match=r"row \d of the training set is row \d+ of the exemplars"):
            fit(a_model(data, exemplars=exemplars), ELBO(), data, **options)
    for exemplars in (x[:30], other, torch.cat([x[:3], x[:3]])):  # some, others, and some again
        assert fit(a_model(data, 5, exemplars), ELBO(), data, **options).reason == "finished"


def test_the_order_of_repeated_and_incomplete_examples_is_checked():
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    x[1], x[2, 0] = x[0], math.nan
    prior = ExemplarPrior(Call(lambda x: Independent(Normal(x.nan_to_num(), 1.0), 1)), x, 2)
    prior.check_order(x)
    with pytest.raises(ValueError, match="row 0 of the training set is row 2 of the exemplars"):
        prior.check_order(x[2:])


def test_a_resumed_training_is_the_same_and_its_checkpoint_has_no_exemplars(tmp_path, data):
    short = {"epochs": 3, "batch_size": 20, "accelerator": "cpu", "save_every": 0.0}
    whole = fit(one := a_model(data), ELBO(), data, **short, store=Memory())
    for _ in range(3):  # each call trains one epoch
        again = fit(other := a_model(data), ELBO(), data, **short, store=Folder(tmp_path / "run"), deadline=0.0)
    assert again == whole
    tensors = module_tensors(one)
    assert all(torch.equal(tensor, module_tensors(other)[name]) for name, tensor in tensors.items())
    content, _ = Folder(tmp_path / "run").load_checkpoint("last")
    assert sum("exemplars" in name for name in content) == 0
    assert max(tensor.numel() for name, tensor in content.items() if name != "metrics.lines") < data.train.numel()
    loaded = load_weights(a_model(data), tmp_path / "run", "last")
    z = torch.zeros(D)
    assert torch.equal(loaded.prior().log_prob(z), other.eval().prior().log_prob(z))


def test_an_evaluation_encodes_the_exemplars_once(data):
    model = a_model(data)
    model.encoder.seen.clear()
    estimate(model, data.test, samples=10, chunk=20)
    assert model.encoder.seen.count(50) == 1
    assert sum(model.encoder.seen) == 50 + 1 + len(data.test)  # one example to look at the support


def test_exemplars_move_with_the_model_and_belong_to_no_buffer(data):
    model = a_model(data)
    assert model.prior.exemplars.data_ptr() == data.train.data_ptr()
    assert model.double().prior.exemplars.dtype == torch.float64
    assert "exemplars" not in dict(model.prior.named_buffers())


@pytest.mark.parametrize(
    ("exemplars", "samples", "words"),
    [
        (torch.randn(1, 3), 2, r"exemplars has shape \(1, 3\).* 2"),
        (torch.randn(9, 3), 1, "samples is 1: choose 2 to 9"),
        (torch.randn(9, 3), 10, "samples is 10: choose 2 to 9"),
        (torch.randn(9, 4), 2, "exemplars have event shape"),
        (torch.full((9, 3), math.nan), 2, "exemplars has values that are not finite"),
        (torch.zeros(9, 3).index_fill(0, torch.tensor(7), math.nan), 2, "exemplars has values that are not finite"),
    ],
)
def test_mistakes_are_named(exemplars, samples, words):
    with pytest.raises(ValueError, match=words):
        ExemplarPrior(Encoder(), exemplars, samples)


def test_other_mistakes_are_named():
    with pytest.raises(ValueError, match=r"torch\.float32"):
        a_prior().without(torch.zeros(3))
    with pytest.raises(ValueError, match=r"batch shape \(2, 3\)"):
        ExemplarPrior(Call(lambda x: Normal(x, 1.0)), torch.randn(9, 3), 2)
    x = torch.rand(20, 1, 4, 4).round()
    with pytest.raises(ValueError, match=r"exemplars is 21.*20 training examples"):
        build(Experiment(prior="exemplar", exemplars=21), Dataset("test", x, x, x, "bernoulli"))


def test_the_cost_is_that_of_the_drawn_exemplars_and_in_evaluation_of_all():
    exemplar, vamp = (Experiment(data="caltech101", prior=name) for name in ("exemplar", "vamp"))
    # those of vamp but without a gradient in the inputs, and in the variances
    expected = gflop_per_step(vamp) - 500 * (2 * 784 * 600 + 4 * 300 * 40) / 1e9
    assert gflop_per_step(exemplar) == pytest.approx(expected, rel=0.01)
    alone = gflop_per_image(Experiment(data="caltech101"), 1000)
    products = 2 * 81 * 1000 + 2 * (784 * 600 + 300 * 600 + 300 * 80)  # of one exemplar: 1000 draws, and its encoding
    assert gflop_per_image(exemplar, 1000) - alone == pytest.approx(4100 * products / 1e9, rel=0.01)
