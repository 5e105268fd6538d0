"""Densities against torch, SciPy and integration; samplers against densities."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, logistic
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily, Normal, constraints
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reference import fit_of_samples
from vaepriors import networks
from vaepriors.distributions import (
    Autoregressive,
    Chain,
    DiagonalNormal,
    DiscretizedLogistic,
    IndependentBernoulli,
    NormalMixture,
    marginal_log_prob,
    naive_pixel_draws,
    outside,
    rsample_and_log_prob,
    support_of,
)
from vaepriors.priors import StandardNormal
from vaepriors.vae import VAE, Marginal

LEVELS = (torch.arange(256, dtype=torch.float64) + 0.5) / 256


def mixture(k: int = 7, d: int = 3) -> tuple[NormalMixture, MixtureSameFamily]:
    torch.manual_seed(0)
    loc, scale = 3 * torch.randn(k, d, dtype=torch.float64), torch.rand(k, d, dtype=torch.float64) + 0.05
    logits = torch.randn(k, dtype=torch.float64)
    reference = MixtureSameFamily(Categorical(logits=logits), Independent(Normal(loc, scale), 1))
    return NormalMixture(loc, scale, logits), reference


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_diagonal_normal_has_torchs_density(batch):
    torch.manual_seed(0)
    loc, scale = torch.randn(*batch, 5, dtype=torch.float64), torch.rand(*batch, 5, dtype=torch.float64) + 0.1
    ours, reference = DiagonalNormal(loc, scale), Independent(Normal(loc, scale), 1)
    z, log_prob = ours.rsample_and_log_prob((6,))
    assert z.shape == (6, *batch, 5)
    assert ours.batch_shape == reference.batch_shape
    torch.testing.assert_close(log_prob, reference.log_prob(z), rtol=0, atol=1e-11)
    torch.testing.assert_close(ours.log_prob(z), reference.log_prob(z), rtol=0, atol=1e-11)
    for moment in ("mean", "variance", "stddev"):
        torch.testing.assert_close(getattr(ours, moment), getattr(reference, moment))


def test_diagonal_normal_does_not_broadcast_a_wrong_size():
    with pytest.raises(ValueError, match=r"shape \(4, 3\), expected \(\.\.\., 1\)"):
        DiagonalNormal(torch.zeros(1), torch.ones(1)).log_prob(torch.zeros(4, 3))


def test_joint_draw_of_a_foreign_distribution():
    p = Independent(Normal(torch.zeros(4, 3), torch.ones(4, 3)), 1)
    z, log_prob = rsample_and_log_prob(p, (5,))
    assert torch.equal(log_prob, p.log_prob(z))


def test_gradients_flow_through_draw_and_density():
    loc, scale = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
    torch.manual_seed(0)
    z, log_prob = DiagonalNormal(loc, scale).rsample_and_log_prob()
    epsilon = z.detach()
    grads = torch.autograd.grad(z.sum() + log_prob, (loc, scale))
    torch.testing.assert_close(grads, (torch.ones(2), epsilon - 1))  # log q depends on the scale alone


def test_mixture_has_torchs_density_and_moments():
    ours, reference = mixture()
    z = reference.sample((1000,))
    torch.testing.assert_close(ours.log_prob(z), reference.log_prob(z), rtol=0, atol=1e-9)
    torch.testing.assert_close(ours.mean, reference.mean)
    torch.testing.assert_close(ours.variance, reference.variance)


def test_mixture_gradients_are_those_of_torch():
    ours, _ = mixture()
    leaves = [t.clone().requires_grad_() for t in (ours.loc, ours.scale, ours.logits)]
    z = ours.sample((50,)).requires_grad_()
    reference = MixtureSameFamily(Categorical(logits=leaves[2]), Independent(Normal(leaves[0], leaves[1]), 1))
    gradients = torch.autograd.grad(NormalMixture(*leaves).log_prob(z).sum(), [*leaves, z])
    expected = torch.autograd.grad(reference.log_prob(z).sum(), [*leaves, z])
    torch.testing.assert_close(gradients, expected, rtol=1e-8, atol=1e-8)


def test_mixture_integrates_to_one():
    ours, _ = mixture(d=2)
    axis = torch.linspace(-14, 14, 701, dtype=torch.float64)
    total = ours.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * (axis[1] - axis[0]) ** 2
    assert abs(total.item() - 1) < 1e-6


def test_mixture_worst_case_in_single_precision():
    """Log-variance -6 and means of spread 10, where the product in float32 errs by tenths of a nat."""
    torch.manual_seed(0)
    loc, scale = 10 * torch.randn(500, 40), torch.full((500, 40), -6.0).div(2).exp()
    ours = NormalMixture(loc, scale)
    z = ours.sample((200,))
    exact = MixtureSameFamily(
        Categorical(torch.ones(500, dtype=torch.float64)), Independent(Normal(loc.double(), scale.double()), 1)
    ).log_prob(z.double())
    assert (ours.log_prob(z).double() - exact).abs().max() <= 1e-4
    linear, quadratic = loc / scale**2, -0.5 / scale**2
    single = z @ linear.T + (z * z) @ quadratic.T - 0.5 * (loc * linear).sum(-1)
    double = z.double() @ linear.double().T + (z * z).double() @ quadratic.double().T
    double = double - 0.5 * (loc.double() * linear).sum(-1)
    assert (single.max(1).values - double.max(1).values).abs().max() > 1e-2  # the case is as bad as it should be


def test_mixture_is_left_alone_by_autocast():
    ours, _ = mixture()
    ours = NormalMixture(ours.loc.float(), ours.scale.float())
    z = ours.sample((100,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ours.log_prob(z)
    assert torch.equal(inside, ours.log_prob(z))


def test_mixture_keeps_no_tensor_of_samples_by_components_by_size():
    n, k, d = 64, 50, 40
    sizes = []
    loc = torch.randn(k, d, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        NormalMixture(loc, torch.ones(k, d)).log_prob(torch.randn(n, d))
    assert max(sizes) <= max(n * k, n * (2 * d + 1), k * (2 * d + 1))


def test_mixture_samples_follow_its_density():
    torch.manual_seed(1)
    loc = torch.tensor([[-2.0, 0.0], [2.0, 1.0], [0.0, -2.5]], dtype=torch.float64)
    scale = torch.tensor([[0.5, 1.0], [1.0, 0.3], [0.7, 0.7]], dtype=torch.float64)
    p = NormalMixture(loc, scale, torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64))
    assert fit_of_samples(p, -6, 6) > 1e-3
    assert p.sample().shape == (2,)


def batch_of_mixtures() -> tuple[NormalMixture, list[NormalMixture]]:
    """Mixtures of the same components with other weights, the second without two of them; and each of these alone."""
    ours, _ = mixture(k=4, d=2)
    logits = torch.randn(2, 3, 4, dtype=torch.float64)
    logits[0, 1, [0, 2]] = -math.inf
    batch = NormalMixture(ours.loc, ours.scale, logits)
    return batch, [NormalMixture(ours.loc, ours.scale, each) for each in logits.flatten(0, 1)]


def test_a_batch_of_mixtures_is_that_of_each_alone():
    batch, alone = batch_of_mixtures()
    assert batch.batch_shape == (2, 3)
    z = 3 * torch.randn(5, 2, 3, 2, dtype=torch.float64)
    each = list(zip(alone, z.flatten(1, 2).unbind(1), strict=True))
    for ours, expected in (
        (batch.log_prob(z), [p.log_prob(z) for p, z in each]),
        (batch.marginal_log_prob(z), [p.marginal_log_prob(z) for p, z in each]),
        (batch.mean.expand(5, 2, 3, 2), [p.mean.expand(5, 2) for p in alone]),
        (batch.variance.expand(5, 2, 3, 2), [p.variance.expand(5, 2) for p in alone]),
        (batch.expand((5, 2, 3)).mean, [p.expand((5,)).mean for p in alone]),
    ):
        torch.testing.assert_close(ours.flatten(1, 2), torch.stack(expected, 1), rtol=0, atol=1e-10)


def test_the_gradient_of_a_batch_of_mixtures_is_finite_where_components_are_left_out():
    batch, alone = batch_of_mixtures()
    z = torch.randn(2, 3, 2, dtype=torch.float64)
    leaves = [t.clone().requires_grad_() for t in (batch.loc, batch.scale, z)]
    got = torch.autograd.grad(NormalMixture(*leaves[:2], batch.logits).log_prob(leaves[2]).sum(), leaves)
    total = sum(
        NormalMixture(*leaves[:2], p.logits).log_prob(z) for p, z in zip(alone, leaves[2].flatten(0, 1), strict=True)
    )
    torch.testing.assert_close(got, torch.autograd.grad(total, leaves), rtol=1e-9, atol=1e-10)


def test_samples_of_a_batch_of_mixtures_follow_the_density_of_their_place():
    batch, alone = batch_of_mixtures()
    for place in (1, 3):
        one = SimpleNamespace(
            log_prob=alone[place].log_prob, sample=lambda shape, k=place: batch.sample(shape).flatten(1, 2)[:, k]
        )
        torch.manual_seed(1)
        assert fit_of_samples(one, -14, 14, n=20_000, cells=30) > 1e-3


@pytest.mark.parametrize("batch", [(), (3,)])
def test_the_score_of_a_draw_of_a_mixture_is_the_log_weight_of_its_component(batch):
    torch.manual_seed(0)
    logits = torch.randn(*batch, 4, dtype=torch.float64)
    loc = 100 * torch.arange(4, dtype=torch.float64)[:, None]
    z, score = NormalMixture(loc, torch.ones_like(loc), logits).rsample_and_score((50,))
    component = (z / 100).round().long()
    expected = logits.log_softmax(-1).expand(50, *batch, 4).gather(-1, component)[..., 0]
    torch.testing.assert_close(score, expected)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_mixture_of_many_components_is_summed_in_blocks(batch):
    torch.manual_seed(0)
    p = NormalMixture(torch.randn(1000, 3), torch.ones(1000, 3), torch.randn(*batch, 1000))
    z = torch.randn(20, *batch, 3)
    whole = [p.log_prob(z), p.marginal_log_prob(z)]
    p.block, sizes = 5000, []
    with torch.no_grad(), Largest(sizes):
        parts = [p.log_prob(z), p.marginal_log_prob(z)]
    assert max(sizes) <= 5000
    torch.testing.assert_close(parts, whole)


class Largest(TorchDispatchMode):
    """Notes the numbers in the result of every operation."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        self.sizes.extend(t.numel() for t in tree_leaves(result) if isinstance(t, torch.Tensor))
        return result


def test_chain_is_the_product_of_its_parts():
    torch.manual_seed(0)
    first = DiagonalNormal(torch.randn(4, 2), torch.rand(4, 2) + 0.1)
    chain = Chain(
        first, lambda a: DiagonalNormal(a.sum(-1, keepdim=True).expand(*a.shape[:-1], 3), torch.ones(3)), (2, 3)
    )
    z, log_prob = chain.rsample_and_log_prob((6,))
    expected = first.log_prob(z[..., :2]) + Normal(z[..., :2].sum(-1, keepdim=True), 1.0).log_prob(z[..., 2:]).sum(-1)
    assert z.shape == (6, 4, 5)
    assert chain.batch_shape == (4,)
    assert chain.event_shape == (5,)
    torch.testing.assert_close(log_prob, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(chain.log_prob(z), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sizes", [(2, 1), (1, 2)])
def test_a_chain_refuses_parts_of_another_size(sizes):
    """Torch's densities would broadcast a size of 1 over all coordinates."""
    a, b = (Independent(Normal(torch.zeros(4, size), 1.0), 1) for size in sizes)
    with pytest.raises(ValueError, match=r"is 2.*event shape \(1,\)"):
        Chain(a, lambda _: b, (2, 2)).log_prob(torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"is 2.*event shape \(1,\)"):
        Chain(a, lambda _: b, (2, 2)).rsample_and_log_prob()


def test_chain_computes_its_conditional_once():
    calls = []

    def then(a: torch.Tensor) -> DiagonalNormal:
        calls.append(a)
        return DiagonalNormal(a, torch.ones(2))

    Chain(DiagonalNormal(torch.zeros(2), torch.ones(2)), then, (2, 2)).rsample_and_log_prob((3,))
    assert len(calls) == 1


def test_no_draws_and_no_values_are_empty():
    mixture, bits = NormalMixture(torch.zeros(3, 2), torch.ones(3, 2)), IndependentBernoulli(torch.zeros(0, 1, 4, 4), 3)
    assert mixture.log_prob(mixture.sample((0,))).shape == (0,)
    assert bits.log_prob(bits.sample((2,))).shape == (2, 0)


@pytest.mark.parametrize("log_scale", [-30.0, -10.0, -4.5, -1.0, 0.0, 5.0, 20.0])
@pytest.mark.parametrize("loc", [0.0, 1 / 512, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logistic_masses_sum_to_one_with_finite_gradients(loc, log_scale, dtype):
    parameters = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in (loc, log_scale)]
    log_mass = DiscretizedLogistic(*parameters).log_prob(LEVELS.to(dtype))
    assert abs(log_mass.double().exp().sum().item() - 1) < 1e-6
    for number in range(256):
        gradients = torch.autograd.grad(log_mass[number], parameters, retain_graph=True)
        assert all(g.isfinite() for g in gradients)


def test_logistic_masses_are_those_of_scipy():
    for loc, log_scale in [(0.3, -2.0), (0.5, 0.0), (0.01, -3.0)]:
        cdf = logistic.cdf(np.arange(1, 256) / 256, loc, np.exp(log_scale))
        masses = torch.from_numpy(np.diff(cdf, prepend=0, append=1))
        p = DiscretizedLogistic(torch.tensor(loc).double(), torch.tensor(log_scale).double())
        torch.testing.assert_close(p.log_prob(LEVELS).exp(), masses, rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(p.mean, (masses * LEVELS).sum(), rtol=1e-6, atol=0)


def test_logistic_takes_every_value_of_a_bin_alike():
    p = DiscretizedLogistic(torch.tensor(0.4), torch.tensor(-2.0))
    assert p.log_prob(torch.tensor(100 / 256)) == p.log_prob(torch.tensor(100.99 / 256))
    assert p.log_prob(torch.tensor(1.0)) == p.log_prob(torch.tensor(255.5 / 256))
    assert p.support.check(torch.tensor([0.0, 1.0, 1.01])).tolist() == [True, True, False]


@pytest.mark.parametrize(("loc", "log_scale"), [(0.5, -3.0), (0.02, -2.0), (0.9, 0.0)])
def test_logistic_samples_follow_its_masses(loc, log_scale):
    torch.manual_seed(0)
    p = DiscretizedLogistic(torch.tensor(loc).double(), torch.tensor(log_scale).double())
    n = 50_000
    counts = torch.bincount((p.sample((n,)) * 256).long(), minlength=256).double()
    expected = p.log_prob(LEVELS).exp() * n
    often = expected > 5
    observed = torch.cat([counts[often], (n - counts[often].sum())[None]])
    rest = torch.cat([expected[often], (n - expected[often].sum())[None]])
    keep = rest > 1e-6
    assert chisquare(observed[keep], rest[keep]).pvalue > 1e-3


@pytest.mark.parametrize("event", [(), (5,), (1, 4, 3)])
@pytest.mark.parametrize("batch", [(), (4,), (6, 4)])
def test_bits_have_torchs_density_and_moments(batch, event):
    """For x of the same shape, for one x that meets many logits, and for many x that meet the same logits."""
    torch.manual_seed(0)
    logits = 20 * torch.randn((*batch, *event), dtype=torch.float64)
    ours = IndependentBernoulli(logits, len(event))
    reference = Independent(Bernoulli(logits=logits), len(event), validate_args=False)
    for leading in (batch, batch[1:], (), (7, *batch)):
        x = torch.rand((*leading, *event), dtype=torch.float64).round()
        expected = reference.log_prob(x)
        assert ours.log_prob(x).shape == expected.shape == torch.broadcast_shapes(leading, batch)
        torch.testing.assert_close(ours.log_prob(x), expected, rtol=1e-13, atol=1e-13)
    assert (ours.batch_shape, ours.event_shape) == (batch, event)
    torch.testing.assert_close(ours.mean, reference.mean)
    torch.testing.assert_close(ours.variance, reference.variance)


def test_gradients_of_bits_are_exact_also_of_a_jacobian_and_far_out():
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    x = torch.rand(2, 5, dtype=torch.float64, requires_grad=True)
    log_prob = lambda logits, x: IndependentBernoulli(logits, 1).log_prob(x)  # noqa: E731
    assert torch.autograd.gradcheck(log_prob, (logits, x))
    assert torch.autograd.gradgradcheck(log_prob, (logits, x))
    jacobian = torch.func.jacrev(lambda one: log_prob(one, x[0]))(logits[0, 0].detach())
    torch.testing.assert_close(jacobian, (x[0] - logits[0, 0].sigmoid()).detach())
    far = torch.tensor([1e4, -1e4, 88.0, -88.0], requires_grad=True)
    value = IndependentBernoulli(far, 1).log_prob(torch.tensor([1.0, 0.0, 1.0, 0.0]))
    assert value.item() == 0
    (gradient,) = torch.autograd.grad(value, far)
    assert gradient.abs().max() < 1e-30


def test_single_precision_of_bits_is_as_good_as_torchs():
    torch.manual_seed(0)
    logits, x = 5 * torch.randn(500, 784), torch.rand(784).round()
    exact = IndependentBernoulli(logits.double(), 1).log_prob(x.double())
    ours = (IndependentBernoulli(logits, 1).log_prob(x) - exact).abs().max()
    theirs = (Independent(Bernoulli(logits=logits), 1).log_prob(x) - exact).abs().max()
    assert ours < 2 * theirs + 1e-5
    certain = torch.full((784,), 12.0)  # 784 masses of nearly 1: the sum of what is missing
    missing = IndependentBernoulli(certain, 1).log_prob(torch.ones(784))
    assert abs(missing.item() + 784 * math.log1p(math.exp(-12))) < 1e-4


def test_bits_are_drawn_by_their_probability():
    torch.manual_seed(0)
    p = IndependentBernoulli(torch.tensor([[-3.0, 0.0, 1.0], [0.5, 9.0, -9.0]]), 1)
    draws = p.sample((20_000,))
    assert draws.shape == (20_000, 2, 3)
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert ((draws.mean(0) - p.mean).abs() <= 4.5 * (p.variance / 20_000).sqrt()).all()
    pairs = (draws[:, 0, 0] * draws[:, 0, 1]).mean()
    assert abs(pairs - p.mean[0, 0] * p.mean[0, 1]) < 0.01


def test_bits_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"x has shape \(3, 4\), expected \(\.\.\., 5\)"):
        IndependentBernoulli(torch.zeros(3, 5), 1).log_prob(torch.zeros(3, 4))


def test_a_value_is_outside_of_a_support_of_coordinates_if_one_of_them_is():
    p = SimpleNamespace(support=constraints.unit_interval, event_shape=torch.Size([2]))
    assert outside(p, torch.tensor([[0.5, 1.0], [0.5, 2.0], [2.0, 2.0]])).tolist() == [False, True, True]


def pixels(x: torch.Tensor) -> IndependentBernoulli:
    """Each pixel depends on the one to its left."""
    return IndependentBernoulli(torch.nn.functional.pad(2 * x[..., :-1] - 1, (1, 0)), 3)


def a_vae() -> VAE:
    torch.manual_seed(0)
    return VAE(networks.Encoder((5,), [4], 2), networks.conditional(2, [4], 5), StandardNormal(2))


EVERY = {
    "DiagonalNormal": lambda: DiagonalNormal(torch.zeros(4, 1, 5), torch.ones(5)),
    "NormalMixture": lambda: NormalMixture(torch.randn(3, 5), torch.ones(3, 5)),
    "NormalMixture of a batch": lambda: NormalMixture(torch.randn(3, 5), torch.ones(3, 5), torch.randn(4, 1, 3)),
    "Chain": lambda: Chain(
        DiagonalNormal(torch.zeros(4, 1, 2), torch.ones(2)), lambda a: DiagonalNormal(a, torch.ones(2)), sizes=(2, 2)
    ),
    "IndependentBernoulli": lambda: IndependentBernoulli(torch.zeros(4, 1, 5, 2), 2),
    "DiscretizedLogistic": lambda: DiscretizedLogistic(torch.zeros(4, 1), torch.zeros(())),
    "Autoregressive": lambda: Autoregressive(
        pixels,
        (),
        (1, 2, 3),
        draws=lambda shape: naive_pixel_draws(pixels, torch.zeros(*shape, 1, 2, 3)),
        support=lambda: pixels(torch.zeros(1, 2, 3)).support,
    ),
    "Marginal": lambda: Marginal(a_vae(), 3, (5,)),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_distribution_has_true_shapes_and_expands(name):
    torch.manual_seed(0)
    p = EVERY[name]()
    before = torch.get_rng_state()
    assert repr(p) == f"{name.split()[0]}(batch_shape={tuple(p.batch_shape)}, event_shape={tuple(p.event_shape)})"
    expanded = p.expand((6, *p.batch_shape[:-1], 3))
    assert support_of(p) is not None
    assert torch.equal(torch.get_rng_state(), before)  # looking at a distribution draws nothing
    assert type(expanded) is type(p)
    assert (expanded.batch_shape[0], expanded.batch_shape[-1]) == (6, 3)
    for each in (p, expanded):
        x = each.sample((2,))
        assert x.shape == (2, *each.batch_shape, *each.event_shape)
        assert each.support.check(x).all()
        assert each.log_prob(x).shape == (2, *each.batch_shape)
    one = x[(0,) * (x.dim() - len(p.event_shape))]
    assert expanded.log_prob(one).shape == expanded.batch_shape
    if name != "Marginal":  # its density is an estimate, which differs in each call
        torch.testing.assert_close(expanded.log_prob(x), p.log_prob(x))
    assert x[..., :1, :].ne(x[..., 1:, :]).any() if p.event_shape else x[..., :1].ne(x[..., 1:]).any()


def test_a_mixture_has_the_marginals_that_it_integrates_to():
    torch.manual_seed(0)
    mixture = NormalMixture(torch.randn(3, 2).double(), torch.ones(3, 2).double(), torch.randn(3).double())
    axis = torch.linspace(-9, 9, 901, dtype=torch.float64)
    joint = mixture.log_prob(torch.stack([torch.tensor(0.7).double().expand(901), axis], -1)).exp()
    z = torch.tensor([0.7, 0.0], dtype=torch.float64)
    assert marginal_log_prob(mixture, z)[0].exp().item() == pytest.approx(torch.trapezoid(joint, axis).item())
    assert marginal_log_prob(MixtureSameFamily(Categorical(torch.ones(1)), Normal(torch.zeros(1), 1)), z) is None


def test_a_marginal_names_itself_where_a_moment_is_unknown():
    for moment in ("mean", "variance"):
        with pytest.raises(NotImplementedError, match=f"{moment} of Marginal"):
            getattr(Marginal(a_vae(), 3, (5,)), moment)


def test_a_chain_without_a_mean_says_what_to_do():
    with pytest.raises(NotImplementedError, match="average draws"):
        _ = networks.hierarchical_encoder((4,), [8], 2)(torch.zeros(3, 4)).mean
