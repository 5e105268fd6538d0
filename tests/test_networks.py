"""One contract over every model, prior and likelihood; layers against their formulas."""

import itertools
import math

import pytest
import torch
from torch import nn

from vaepriors import networks
from vaepriors.app.experiment import MODELS, PRIORS, TWO_LEVELS, Experiment, build
from vaepriors.checkpoint import load_module, module_tensors
from vaepriors.data import LIKELIHOODS, Dataset
from vaepriors.networks.heads import BernoulliHead, GaussianHead, LogisticHead, NormalHead, SoftplusNormalHead
from vaepriors.networks.layers import Conv, GatedConv, GatedDense, MaskedConv
from vaepriors.objectives import ELBO
from vaepriors.vae import eval_mode

SHAPE = (1, 4, 3)
SMALL = {"components": 6, "exemplars": 6, "weighted": True, "prior_hidden": (8, 8), "prior_samples": 2, "proposals": 8}
SHAPES = {"strided": (1, 16, 32)}  # for its strides
IMAGES = ["conv", "convhvae", "pixelhvae", "strided"]  # models that take no tables


def dataset(likelihood: str, shape: tuple[int, ...] = SHAPE) -> Dataset:
    torch.manual_seed(0)
    shape = (12,) if likelihood == "mixed" else shape
    x = LIKELIHOODS[likelihood].example(torch.rand(30, *shape))
    return Dataset("test", x[:20], x[20:25], x[25:], likelihood, pseudo=(0.5, 0.1))


def experiment(model: str, prior: str) -> Experiment:
    options = {name: value for name, value in SMALL.items() if name in PRIORS[prior].options}
    return Experiment(model=model, prior=prior, latent=3, hidden=(8, 8), warmup=0, **options)


# every two entries of two tables meet
CHOICES = {
    *itertools.product(MODELS, PRIORS, ["bernoulli"]),
    *itertools.product(MODELS, ["vamp"], LIKELIHOODS),
    *itertools.product(["hvae"], PRIORS, LIKELIHOODS),
} - {("pixelhvae", "vamp", "multinomial"), *((model, "vamp", "mixed") for model in IMAGES)}


@pytest.mark.parametrize(("model", "prior", "likelihood"), sorted(CHOICES))
def test_contract(model, prior, likelihood):
    """Shapes for any batch; a gradient in every parameter; saved and rebuilt, the same numbers."""
    data = dataset(likelihood, SHAPES.get(model, SHAPE))
    shape = data.event_shape
    vae, objective = build(experiment(model, prior), data)
    x = data.train
    for batch in [(), (4,), (2, 3)]:
        terms = vae(x[: math.prod(batch)].view(*batch, *shape), n=5)
        assert terms.log_likelihood.shape == terms.log_ratio.shape == (5, *batch)
        assert vae.sample(batch).shape == (*batch, *shape)
    assert vae.reconstruct(x).batch_shape == (20,)
    objective(vae, x)[0].backward()
    missing = [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()]
    assert not missing
    torch.manual_seed(9)
    again, _ = build(experiment(model, prior), data)
    load_module(again, module_tensors(vae))
    bounds = []
    for each in (vae, again):
        torch.manual_seed(1)
        bounds.append(each(x, 5).bound)
    assert torch.equal(*bounds)


@pytest.mark.parametrize(
    ("model", "prior", "parameters"),
    [
        ("vae", "standard", 1_116_864),
        ("vae", "vamp", 1_508_864),
        ("hvae", "standard", 2_431_024),
        ("hvae", "vamp", 2_823_024),
        ("convhvae", "standard", 2_210_861),
        ("convhvae", "vamp", 2_602_861),
    ],
)
def test_parameters_of_the_paper(model, prior, parameters):
    bits = torch.zeros(2, 1, 28, 28)
    data = Dataset("test", bits, bits, bits, "bernoulli", pseudo=(0.05, 0.01))
    vae, _ = build(Experiment(model=model, prior=prior), data)
    assert sum(p.numel() for p in vae.parameters()) == parameters


@pytest.mark.parametrize("model", TWO_LEVELS)
def test_vamp_prior_of_a_hierarchy_shares_the_top_encoder(model):
    vae, _ = build(experiment(model, "vamp"), dataset("bernoulli"))
    assert vae.prior.top.encoder is vae.encoder.top
    assert vae.prior.top.pseudo_inputs.shape == (6, *SHAPE)  # the event shape of the data, whatever the network


@pytest.mark.parametrize("model", sorted(set(MODELS) - {"vae", "hvae", "mlp", "tanh"}))
def test_convolutions_refuse_vectors(model):
    vectors = torch.zeros(5, 12)
    with pytest.raises(ValueError, match=r"needs images .* one x has shape \(12,\): choose a dense model"):
        build(experiment(model, "standard"), Dataset("vectors", vectors, vectors, vectors, "bernoulli"))


def test_a_pixelcnn_refuses_pixels_that_share_a_total():
    with pytest.raises(ValueError, match="multinomial share a total"):
        build(experiment("pixelhvae", "vamp"), dataset("multinomial"))


def test_dense_networks_take_vectors():
    vectors = torch.rand(5, 12).round()
    for model in ("vae", "hvae", "mlp", "tanh"):
        vae, _ = build(experiment(model, "vamp"), Dataset("vectors", vectors, vectors, vectors, "bernoulli"))
        assert vae(vectors).elbo.shape == (5,)


def test_networks_without_hidden_layers_are_linear():
    encoder, decoder = networks.Encoder(SHAPE, [], 2), networks.Decoder((5,), [], 2, head=GaussianHead)
    x, z = torch.randn(7, *SHAPE), torch.randn(7, 2)
    assert torch.equal(encoder(x).mean, encoder.head.loc(x.flatten(1)))
    assert torch.equal(decoder(z).mean, decoder.head.loc(z))
    assert networks.conditional(2, [], 3)(z).mean.shape == (7, 3)
    assert networks.scalar(2, [])(z).shape == (7,)


def test_the_two_levels_of_the_iwae_paper_have_its_sizes():
    options = {"model": "tanh", "latent": 100, "prior": "vhp", "prior_samples": 1, "prior_latent": 50}
    vae, _ = build(Experiment(**options, objective="iwae", samples=5), dataset("bernoulli", (784,)))
    sizes = lambda net: [(p.in_features, p.out_features) for p in net.modules() if isinstance(p, nn.Linear)]  # noqa: E731
    assert sizes(vae.encoder) == [(784, 200), (200, 200), (200, 100), (200, 100)]
    assert sizes(vae.decoder) == [(100, 200), (200, 200), (200, 784)]
    assert sizes(vae.prior.vae.encoder) == [(100, 100), (100, 100), (100, 50), (100, 50)]
    assert sizes(vae.prior.vae.decoder) == [(50, 100), (100, 100), (100, 100), (100, 100)]
    assert sum(isinstance(part, nn.Tanh) for part in vae.modules()) == 8


def test_hidden_sizes_are_those_of_the_model_unless_given():
    data = dataset("bernoulli")
    mlp, _ = build(Experiment(model="mlp"), data)
    assert [layer[0].out_features for layer in mlp.encoder.features.layers] == [256] * 4
    assert Experiment(model="conv").hidden == ()
    assert Experiment(model="conv", hidden=(7,)).hidden == (7,)
    gated, _ = build(Experiment(model="conv", hidden=(7,)), data)
    assert gated.encoder[1].out_features == 2 * gated.decoder[1].in_features == 14


def test_pseudo_inputs_start_where_they_should():
    data = dataset("bernoulli")
    torch.manual_seed(0)
    noise, _ = build(Experiment(prior="vamp", components=2000, hidden=(4,)), data)
    assert abs(noise.prior.pseudo_inputs.mean() - 0.5) < 0.005
    assert abs(noise.prior.pseudo_inputs.std() - 0.1) < 0.005
    images, _ = build(Experiment(prior="vamp", components=9, hidden=(4,), pseudo_inputs="data"), data)
    assert (images.prior.pseudo_inputs - images.prior.pseudo_inputs.round()).abs().max() < 0.1
    fixed, _ = build(Experiment(prior="vamp-data", components=20, hidden=(4,)), data)
    order = lambda x: x.flatten(1).unique(dim=0)  # noqa: E731
    assert torch.equal(order(fixed.prior.inputs()), order(data.train))  # each image once


def test_gated_dense_is_its_formula_also_in_parts():
    torch.manual_seed(0)
    layer = GatedDense(5, 2).double()
    a, b = torch.randn(4, 3, dtype=torch.float64), torch.randn(6, 4, 2, dtype=torch.float64)
    h = torch.cat([a.expand(6, 4, 3), b], -1)
    (value, gate), (a_bias, b_bias) = layer.weight.chunk(2), layer.bias.chunk(2)
    expected = (h @ value.T + a_bias) * torch.sigmoid(h @ gate.T + b_bias)
    torch.testing.assert_close(layer(h), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(layer(a, b), expected, rtol=0, atol=1e-14)


def test_dense_weights_start_with_the_right_spread():
    torch.manual_seed(0)
    layer = GatedDense(200, 500)
    assert abs(layer.weight.std() / (2 / 200) ** 0.5 - 1) < 0.02


def test_glorot_weights_have_their_own_spread():
    torch.manual_seed(0)
    bits = torch.zeros(2, 1, 28, 28)
    data = Dataset("test", bits, bits, bits, "bernoulli", pseudo=(0.05, 0.01))
    model, _ = build(Experiment(init="glorot"), data)
    value, gate = model.encoder.features.layers[0].weight.chunk(2)
    for matrix in (value, gate, model.decoder.head.logits.weight):
        assert abs(matrix.std() / (2 / (784 + 300)) ** 0.5 - 1) < 0.02


def test_glorot_leaves_the_start_of_an_energy_alone():
    data = Dataset("d", *[torch.zeros(4, *SHAPE)] * 3, "bernoulli")
    model, _ = build(Experiment(prior="snis", init="glorot"), data)
    z = torch.randn(100, 40)
    assert model.prior.energy(z).std() < 0.2  # near a constant; a last layer from Glorot's distribution gives 1


def test_heads_clamp_what_the_paper_clamps():
    h = 1000 * torch.randn(50, 4)
    scale = NormalHead(4, 3)(h).stddev
    torch.testing.assert_close(scale.min(), torch.tensor(-3.0).exp())
    torch.testing.assert_close(scale.max(), torch.tensor(1.0).exp())
    p = LogisticHead(4, (2, 2))(h).base_dist
    assert (p.loc.min().item(), p.loc.max().item()) == (1 / 512, 1 - 1 / 512)
    assert (p.log_scale.min().item(), p.log_scale.max().item()) == (-4.5, 0)


def test_heads_return_torchs_distributions():
    h = torch.randn(5, 4)
    x = torch.rand(5, 2, 2).round()
    head = BernoulliHead(4, (2, 2))
    p = torch.sigmoid(head.logits(h)).view(5, 2, 2)
    torch.testing.assert_close(head(h).log_prob(x), (x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2)))
    gaussian = GaussianHead(4, (2, 2))
    expected = torch.distributions.Normal(gaussian.loc(h).view(5, 2, 2), 1.001).log_prob(x).sum((1, 2))
    torch.testing.assert_close(gaussian(h).log_prob(x), expected)


def test_parameters_of_a_distribution_stay_in_single_precision_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = networks.Encoder(SHAPE, [8], 3)(torch.rand(5, *SHAPE))
        p = networks.Decoder(SHAPE, [8], 3)(torch.rand(5, 3))
    assert q.loc.dtype == q.scale.dtype == p.logits.dtype == torch.float32


def test_encoder_refuses_another_shape():
    with pytest.raises(ValueError, match=r"shape \(5, 12\), the encoder expects events of shape \(1, 4, 3\)"):
        networks.Encoder(SHAPE, [8], 3)(torch.zeros(5, 12))


def test_eval_mode_restores_every_part():
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))
    module[1].eval()
    with eval_mode(module):
        assert not any(part.training for part in module.modules())
    assert module.training
    assert module[0].training
    assert not module[1].training


def test_features_of_x_are_computed_once_for_all_draws():
    encoder = networks.hierarchical_encoder(SHAPE, [8, 8], 3)
    calls = []
    encoder.features.register_forward_hook(lambda module, inputs, output: calls.append(output.shape))
    encoder(torch.rand(5, *SHAPE)).rsample_and_log_prob((100,))
    assert calls == [(5, 8)]


def test_dense_models_overfit_three_images():
    """The whole path from data to loss learns: the ELBO of three images nears log 1/3."""
    torch.manual_seed(0)
    x = torch.rand(3, *SHAPE).round()
    data = Dataset("three", x, x, x, "bernoulli", pseudo=(0.5, 0.1))
    for model in ("vae", "hvae", "mlp", "tanh"):
        vae, _ = build(Experiment(model=model, prior="vamp", components=3, latent=2, hidden=(32, 32)), data)
        optimizer, objective = torch.optim.Adam(vae.parameters(), 1e-2), ELBO(samples=8)
        for _ in range(200):
            optimizer.zero_grad()
            objective(vae, x)[0].backward()
            optimizer.step()
        assert vae(x, 500).elbo.mean() > -2.2  # at best -log 3 = -1.1; independent pixels have -5 or less


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: networks.Encoder((4,), [0], 2), "out_features is 0"),
        (lambda: networks.Encoder((4,), [8], 0), "out_features is 0"),
        (lambda: networks.Decoder((4,), [8, -1], 2), "out_features is -1"),
        (lambda: networks.Decoder((0, 4), [8], 2), "event_size is 0"),
        (lambda: Conv(1, 0, 3), "out_channels is 0"),
        (lambda: GatedConv(0, 1, 3), "in_channels is 0"),
        (lambda: MaskedConv(1, 0, 3, own=True), "out_channels is 0"),
    ],
)
def test_sizes_of_zero_or_less_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("hidden", [[], [8, 8, 8]])
def test_sizes_that_a_network_of_two_levels_would_not_have_are_refused(hidden):
    parts = ("hierarchical_encoder", "hierarchical_decoder", "conv_hierarchical_encoder", "conv_hierarchical_decoder")
    for part in parts:
        with pytest.raises(ValueError, match=r"hidden is \[.*\]: give one or two sizes"):
            getattr(networks, part)(SHAPE, hidden, 2)


@pytest.mark.parametrize("model", ["mlp", "tanh"])
@pytest.mark.parametrize("init", ["he", "glorot"])
def test_the_scale_of_the_posterior_starts_where_it_is_set(model, init):
    setup = Experiment(model=model, latent=3, hidden=(8, 8), posterior_scale=0.05, init=init)
    vae, _ = build(setup, dataset("gaussian"))
    raw = vae.encoder.head.raw_scale
    nn.init.zeros_(raw.weight)
    scale = vae.encoder(torch.rand(4, *SHAPE)).stddev
    torch.testing.assert_close(scale, torch.full_like(scale, 0.05))


def test_a_scale_of_the_posterior_below_its_bound_is_refused():
    with pytest.raises(ValueError, match=r"1e-05.*0\.0001"):
        SoftplusNormalHead(4, 2, start=1e-5)
