"""Models given a condition: exact weights, priors of classes, networks that see y, training and resuming."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

from reference import Call, D, L, LinearGaussian, fit_of_samples
from vaepriors import analysis, check, networks
from vaepriors.annealing import Annealing, bidirectional, simulate
from vaepriors.app.cost import gflop_per_step
from vaepriors.app.experiment import MODELS, Experiment, build
from vaepriors.conditional import ConditionalVAE, Ignoring, PerClass, PseudoConditions
from vaepriors.data import Dataset, condition_on
from vaepriors.distributions import DiagonalNormal, NormalMixture
from vaepriors.likelihood import ImportanceSampling, estimate
from vaepriors.objectives import ELBO, IWAE, PriorFit
from vaepriors.priors import ExemplarPrior, MixtureOfGaussians, StandardNormal, TwoLevelPrior, VampPrior
from vaepriors.refinement import Refinement
from vaepriors.training import Losses, fit
from vaepriors.vae import VAE

C = 2  # size of y
linear = LinearGaussian()
A, B = (torch.randn(C, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (L, D))
y = torch.randn(7, C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def likelihood(z1, y):
    return Independent(Normal(z1 @ linear.W.T + y @ B, linear.t), 1)


def one_level(linear=linear):
    """z ~ N(A y, var), x = W z + B y + t e, with the exact posterior."""
    var = linear.a**2 + linear.s**2
    encoder = Call(lambda x, y: linear._posterior(y @ A, var, *linear._observed(x - y @ B)))
    return ConditionalVAE(encoder, Call(likelihood), Call(lambda y: DiagonalNormal(y @ A, var.sqrt())))


def two_levels(linear=linear):
    """The same without A, where y shifts x alone, and p(z2) ignores y."""
    prior = TwoLevelPrior(
        Ignoring(StandardNormal(L).double()),
        Call(lambda z2, y: DiagonalNormal(linear.a * z2, torch.full_like(linear.a, linear.s))),
        (L, L),
    )
    encoder = Call(lambda x, y: linear.hvae().encoder(x - y @ B))
    return ConditionalVAE(encoder, Call(lambda z, y: likelihood(z[..., L:], y)), prior)


EXACT = {
    "one level": (one_level, lambda x: linear.log_prob(x - y @ B - y @ A @ linear.W.T)),
    "two levels": (two_levels, lambda x: linear.log_prob(x - y @ B)),
}


@pytest.mark.parametrize("name", EXACT)
def test_log_weights_are_log_p_of_x_given_y_under_the_exact_posterior(name):
    make, exact = EXACT[name]
    torch.manual_seed(0)
    log_weight = make()(y)(linear.x, n=20).log_weight
    assert (log_weight - exact(linear.x)).abs().max() < 1e-10


METHODS = [ImportanceSampling(6), ImportanceSampling(6, Refinement(2, draws=2, inflation=1)), Annealing(2, 3)]


@pytest.mark.parametrize("method", METHODS, ids=["is", "refined", "ais"])
@pytest.mark.parametrize("name", EXACT)
def test_every_method_estimates_log_p_of_x_given_y(name, method):
    make, exact = EXACT[name]
    model = make()
    estimates = estimate(model, linear.x, method, chunk=12, condition=y)  # a few examples at a time
    torch.testing.assert_close(estimates.log_likelihood, exact(linear.x), rtol=0, atol=1e-8)


def vae_over_z(linear):
    """The distribution of two levels, where the prior is a VAE over z1."""
    inner = linear.vae_with_vae_prior(4)
    encoder = Call(lambda x, y: inner.encoder(x - y @ B))
    return ConditionalVAE(encoder, Call(likelihood), Ignoring(inner.prior))


BOUNDED = EXACT | {"vae over z": (vae_over_z, EXACT["two levels"][1])}


@pytest.mark.parametrize("name", BOUNDED)
def test_log_p_of_simulated_x_given_their_y_lies_between_bounds_that_meet(name):
    make, _ = BOUNDED[name]
    model, n = make(LinearGaussian(scale=1.5)), 7 * 150
    torch.manual_seed(0)
    simulated = simulate(model, n, y)
    assert simulated.condition.equal(y.repeat(150, 1))
    at_y = simulated.x - simulated.condition @ B
    truth = linear.log_prob(at_y - simulated.condition @ A @ linear.W.T if name == "one level" else at_y)
    lower, upper = Annealing(1, 3, 1).bounds(model, simulated, chunk=500)
    for below, above in ((lower, truth), (truth, upper)):
        difference = above - below
        assert difference.mean() > 3 * difference.std() / math.sqrt(n)
    for ratio in ((lower - truth).exp(), (truth - upper).exp()):  # E[w] = p(x|y), and E[1 / w] = 1 / p(x|y)
        assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(n)
    far, near = (bidirectional(model, 200, method, condition=y) for method in (Annealing(1, 2, 1), Annealing(4, 20, 2)))
    assert far.lower.shape == far.upper.shape == (200,)
    assert 0 < near.gap < far.gap / 3


def test_examples_are_simulated_given_the_conditions_of_the_model():
    for model, condition, words in (
        (one_level(), None, "no conditions y"),
        (linear.vae(), y, "are conditions y"),
        (one_level(), y[0], r"\(2,\)"),
        (one_level(), y[:0], r"\(0, 2\)"),
    ):
        with pytest.raises(ValueError, match=words):
            bidirectional(model, 3, condition=condition)


def test_some_simulated_examples_keep_their_conditions():
    simulated = simulate(one_level(), 4, torch.randn(4, C, dtype=torch.float64))
    some = simulated.rows(1, 3)
    for ours, all_of_them in zip(some, simulated, strict=True):
        assert torch.equal(ours, all_of_them[1:3])


def test_a_sample_has_a_z_for_each_y():
    torch.manual_seed(0)
    many = torch.zeros(20_000, C, dtype=torch.float64)
    assert one_level()(many).sample().var(0).min() > 0.1
    assert two_levels()(many).sample().var(0).min() > 0.1
    with pytest.raises(ValueError, match=r"Ignoring\(prior\)"):
        ConditionalVAE(one_level().encoder, Call(likelihood), Call(lambda y: StandardNormal(L)()))(y).sample()


@pytest.mark.parametrize("part", ["encoder", "decoder", "prior"])
def test_a_part_that_does_not_take_y_is_refused(part):
    parts = {name: getattr(one_level(), name) for name in ("encoder", "decoder", "prior")}
    blind = {"encoder": networks.Encoder((4,), [8], L), "decoder": networks.Decoder((4,), [8], L)}
    blind["prior"] = StandardNormal(L)
    with pytest.raises(ValueError, match=rf"Ignoring\({part}\)"):
        ConditionalVAE(**parts | {part: blind[part]})
    with pytest.raises(ValueError, match=r"give an nn\.Module"):
        Ignoring(Normal(0.0, 1.0))


@pytest.mark.parametrize("wrong", [torch.arange(3), torch.tensor(1.0), [1.0, 0.0]])
def test_conditions_are_vectors_of_floats(wrong):
    with pytest.raises(ValueError, match="one_hot"):
        one_level()(wrong)


def test_conditions_and_models_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no conditions"):
        estimate(one_level(), linear.x, 2)
    with pytest.raises(ValueError, match="7 x, but 6"):
        estimate(one_level(), linear.x, 2, condition=y[:6])
    with pytest.raises(ValueError, match="is a VAE"):
        estimate(linear.vae(), linear.x, 2, condition=y)
    with pytest.raises(ValueError, match="takes 4 numbers"):
        networks.Appended(nn.Identity(), 4)(torch.zeros(3, 5), torch.zeros(3, 2))


@pytest.mark.parametrize("use", [ELBO(), IWAE(5), check])
def test_a_model_without_its_conditions_is_refused(use):
    with pytest.raises(ValueError, match=r"model\(y\)"):
        use(one_level(), linear.x)


# Networks: images of 16 x 16, three classes and a covariate.


def dataset(number=12, size=16):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3 * number, 1, size, size, generator=generator).round()
    labels, covariates = torch.arange(number) % 3, torch.randn(number, 1, generator=generator)
    named = (
        dict.fromkeys(("train", "valid", "test"), labels),
        dict.fromkeys(("train", "valid", "test"), covariates),
    )
    train, valid, test = x.split(number)
    data = Dataset("squares", train, valid, test, "bernoulli", labels=named[0], covariates=named[1])
    return condition_on(data, "both")


def built(model="vae", **options):
    torch.manual_seed(0)
    hidden = (6,) if model in ("conv", "strided") else (6, 6)
    return build(Experiment(model=model, condition="both", latent=2, hidden=hidden, **options), dataset())[0].double()


@pytest.mark.parametrize("name", MODELS)
def test_networks_see_y_and_a_batch_agrees_with_one_at_a_time(name):
    model, data = built(name, prior="vamp", components=6, pseudo_conditions="own"), dataset()
    x, y = data.test[:3].double(), data.conditions["test"][:3].double()
    together = model(y)(x, n=2)
    for i in range(3):
        alone = model(y[i]).weigh(
            x[i : i + 1], together.z[:, i : i + 1], model(y[i]).encoder(x[i : i + 1]).log_prob(together.z[:, i : i + 1])
        )
        for part in ("log_likelihood", "log_q", "log_p"):
            torch.testing.assert_close(getattr(alone, part)[:, 0], getattr(together, part)[:, i])
    for place in (0, 3):  # the class, the covariate
        other = y.clone()
        other[:, place] += 0.5
        moved = model(other)
        assert (moved.encoder(x).log_prob(together.z) != together.log_q).any()
        assert (moved.decoder(together.z).log_prob(x) != together.log_likelihood).any()
    assert model(y).sample((2,)).shape == (2, 3, 1, 16, 16)


def test_the_lower_level_of_the_prior_sees_y():
    model, y = built("hvae"), dataset().conditions["test"].double()
    z = torch.zeros(4, dtype=torch.float64)
    densities = model(y[:3]).prior().log_prob(z)
    assert len(densities.unique()) == 3


@pytest.mark.parametrize("weighted", [False, True])
@torch.no_grad()
def test_density_and_sampler_agree_for_each_class_and_for_probabilities(weighted):
    torch.manual_seed(0)
    mixture = MixtureOfGaussians(2, components=7).double()
    mixture.loc.data *= 2
    if weighted:
        logits = torch.randn(7, dtype=torch.float64)
        mixture = Call(lambda inner=mixture: NormalMixture(inner().loc, inner().scale, logits))
    prior = PerClass(mixture, torch.tensor([0, 1, 2, 0, 1, 2, 2]))
    for condition in (*torch.eye(3, dtype=torch.float64), torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)):
        assert fit_of_samples(prior(condition), -9, 9) > 1e-3
    of_two = prior(torch.eye(3, dtype=torch.float64)[1])
    log_w = mixture().logits[[1, 4]]
    by_hand = NormalMixture(mixture().loc[[1, 4]], mixture().scale[[1, 4]], log_w)
    torch.testing.assert_close(of_two.log_prob(by_hand.loc), by_hand.log_prob(by_hand.loc))


@pytest.mark.parametrize("classes", [torch.tensor([0, 2]), torch.tensor([0.0]), torch.zeros(0).long()])
def test_every_class_needs_a_component(classes):
    with pytest.raises(ValueError, match="component"):
        PerClass(MixtureOfGaussians(2, components=2), classes)


def test_conditions_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(2,\), but its first 3 numbers"):
        PerClass(MixtureOfGaussians(2, components=3), torch.arange(3))(torch.eye(2)[0])
    encoder = networks.Appended(networks.Encoder((4 + 3,), [4], latent=2), 3)
    with pytest.raises(ValueError, match=r"\(5,\) points, but y \(3,\)"):
        encoder(torch.zeros(5, 4), torch.eye(3))


def test_probabilities_of_classes_mix_their_densities():
    """Whatever the number of their components and the weights of these."""
    torch.manual_seed(0)
    mixture = NormalMixture(*(each.double() for each in (torch.randn(5, 2), torch.ones(5, 2), torch.randn(5))))
    prior, z = PerClass(Call(lambda: mixture), torch.tensor([0, 0, 0, 1, 1])), torch.randn(7, 2).double()
    shares = torch.tensor([0.3, 0.7]).double()
    each = prior(torch.eye(2).double()).log_prob(z[:, None])
    torch.testing.assert_close(prior(shares).log_prob(z), (each + shares.log()).logsumexp(-1))


def test_components_stay_with_their_classes():
    with pytest.raises(ValueError, match="3 components, but 2 classes"):
        PerClass(MixtureOfGaussians(2, components=3), torch.arange(2))(torch.eye(2))
    exemplars = ExemplarPrior(networks.Encoder((3,), [4], latent=2), torch.rand(6, 3), samples=6)
    with pytest.raises(ValueError, match="ExemplarPrior"):
        PerClass(exemplars, torch.arange(6) % 3)


def test_gradients_of_other_classes_components_are_zero():
    model = built(prior="vamp", components=6, pseudo_conditions="own")
    data = dataset()
    model(data.conditions["test"][:1].double())(data.test[:1].double()).log_p.sum().backward()
    touched = model.prior.part.pseudo_inputs.grad.abs().flatten(1).sum(1) > 0
    assert touched.tolist() == [True, False, False] * 2  # the first test example is of class 0


def test_learned_conditions_are_trained_and_stay_soft_classes():
    model, data = built(prior="vamp", components=6), dataset()
    terms = model(data.conditions["test"].double())(data.test.double())
    terms.log_p.sum().backward()
    learned = model.prior.part.conditions
    assert isinstance(learned, PseudoConditions)
    assert (learned.logits.grad != 0).any()
    assert (learned.covariates.grad != 0).any()
    torch.testing.assert_close(learned()[:, :3].sum(-1), torch.ones(6, dtype=torch.float64))


def test_an_exemplar_does_not_explain_itself_given_its_condition():
    encoder = Call(lambda x, y: DiagonalNormal(x + y, torch.ones_like(x)))
    x, y = torch.randn(5, 2), torch.randn(5, 2)
    prior = Ignoring(ExemplarPrior(encoder, x, 5, conditions=y))
    model = ConditionalVAE(encoder, encoder, prior).train()(y[:1])
    others = NormalMixture((x + y)[1:], torch.ones(4, 2))
    without = model.without(torch.tensor([0])).prior()
    torch.testing.assert_close(without.log_prob(x[:1]), others.log_prob(x[:1]))


def test_what_all_priors_share_is_computed_once():
    calls = []
    counted = Call(lambda: calls.append(1) or NormalMixture(torch.zeros(2, 2), torch.ones(2, 2)))
    for prior in (
        PerClass(counted, torch.arange(2)),
        Ignoring(counted),
        TwoLevelPrior(Ignoring(counted), counted, (2, 2)),
    ):
        model = ConditionalVAE(Ignoring(nn.Identity()), Ignoring(nn.Identity()), prior).hold_prior()
        before = len(calls)
        model(torch.eye(2)).prior()
        model(torch.eye(2)).prior()
        assert len(calls) == before


def test_conditions_of_pseudo_inputs_are_one_each():
    class Appended(nn.Module):
        def forward(self, x, y):
            return DiagonalNormal(x, torch.ones_like(x))

    encoder = Call(lambda x, y: DiagonalNormal(x, torch.ones_like(x)))
    with pytest.raises(ValueError, match=r"4 exemplars.*\(5, 2\)"):
        ExemplarPrior(encoder, torch.rand(4, 2), 3, conditions=torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"4 pseudo_inputs.*\(3, 2\)"):
        VampPrior(encoder, torch.rand(4, 2), conditions=torch.eye(3, 2))
    with pytest.raises(ValueError, match=r"does not take: .*'y'"):
        VampPrior(Appended(), torch.rand(4, 2))


# Training


def tiny(**parts):
    torch.manual_seed(0)
    encoder = networks.Appended(networks.Encoder((256 + 4,), [6], 2), 4, view=nn.Flatten(-3))
    decoder = networks.Appended(networks.Decoder((1, 16, 16), [6], 2 + 4), 4)
    return ConditionalVAE(encoder, decoder, parts.get("prior", Ignoring(MixtureOfGaussians(2, 3))))


def test_fit_trains_all_parts_and_repeats_itself():
    data, outcomes = dataset(), []
    for _ in range(2):
        model = tiny()
        start = {name: p.clone() for name, p in model.named_parameters()}
        outcomes.append(fit(model, ELBO(), data, epochs=2, batch_size=5, accelerator="cpu"))
        assert all((p != start[name]).any() for name, p in model.named_parameters())
    assert [line["loss"] for line in outcomes[0].metrics] == [line["loss"] for line in outcomes[1].metrics]
    assert isinstance(outcomes[1].load_best(model), ConditionalVAE)


def test_a_training_step_has_the_conditions_of_its_rows():
    model, rows = one_level(), torch.tensor([4, 0, 3])
    x, y = torch.randn(6, D, dtype=torch.float64, requires_grad=True), torch.randn(6, C, dtype=torch.float64)
    loss, _, _ = Losses(model, ELBO(), x, conditions=y)(rows)
    exact = linear.log_prob(x[rows] - y[rows] @ B - y[rows] @ A @ linear.W.T)  # by the exact posterior
    torch.testing.assert_close(loss, -exact.mean())


def test_fit_refuses_conditions_that_do_not_fit_the_model():
    data = dataset()
    without = Dataset("squares", data.train, data.valid, data.test, "bernoulli")
    with pytest.raises(ValueError, match="no conditions"):
        fit(tiny(), ELBO(), without, epochs=1, accelerator="cpu")
    vae = VAE(networks.Encoder((1, 16, 16), [6], 2), networks.Decoder((1, 16, 16), [6], 2), StandardNormal(2))
    with pytest.raises(ValueError, match="is a VAE"):
        fit(vae, ELBO(), data, epochs=1, accelerator="cpu")


def test_a_new_prior_is_fitted_while_the_networks_stand_still():
    model, data = tiny(), dataset()
    before = [p.clone() for p in model.encoder.parameters()]
    fit(model, PriorFit(), data, epochs=1, accelerator="cpu")
    assert all(torch.equal(p, b) for p, b in zip(model.encoder.parameters(), before, strict=True))


def test_the_cost_of_a_conditional_model_is_known_without_its_data():
    given = Experiment(condition="labels", prior="vamp", components=2, pseudo_conditions="own", hidden=(4,))
    assert gflop_per_step(given) == gflop_per_step(Experiment(prior="vamp", components=2, hidden=(4,)))


# What the latent space does


def at(loc, scale=1.0):
    """A model whose q(z|x, y) is N(loc(y), scale^2), whatever x is."""
    encoder = Call(lambda x, y: DiagonalNormal(loc * y[..., :1], torch.full_like(y[..., :1], scale)))
    return ConditionalVAE(encoder, encoder, Ignoring(StandardNormal(1)))


def labelled(number):
    labels = torch.arange(number) % 2
    return analysis.Labelled(torch.zeros(number, 1), labels, labels[:, None] * 2.0 - 1)


def test_information_on_the_class_is_exact_where_it_is_known():
    torch.manual_seed(0)
    examples = labelled(2000)
    assert analysis.class_information(at(0.0), examples, examples).value == pytest.approx(0, abs=1e-9)
    certain = analysis.class_information(at(50.0), examples, examples)
    assert certain.value == pytest.approx(certain.entropy) == pytest.approx(0.6931472)
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    p = [Normal(m, 1.0).log_prob(z).exp() for m in (-1.0, 1.0)]
    mean = (p[0] + p[1]) / 2
    exact = sum(0.5 * (each * (each / mean).log()).sum() * (z[1] - z[0]) for each in p).item()
    between = analysis.class_information(at(1.0), examples, examples)
    assert abs(between.value - exact) < 4 * between.se


def uneven(number):
    """The classes 1 and 4, of shares 0.3 and 0.7, with conditions -1 and 1."""
    labels = torch.where(torch.arange(number) % 10 < 3, 1, 4)
    return analysis.Labelled(torch.zeros(number, 1), labels, (labels > 1)[:, None] * 2.0 - 1)


def test_information_on_classes_of_other_numbers_and_shares_is_exact_with_its_error():
    torch.manual_seed(0)
    examples = uneven(4000)
    information = analysis.class_information(at(1.0), examples, examples)
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    joint = torch.stack([share * Normal(m, 1.0).log_prob(z).exp() for share, m in ((0.3, -1.0), (0.7, 1.0))])
    gain = (joint / joint.sum(0)).log() - torch.tensor([[0.3], [0.7]]).double().log()
    mean, square = (((joint * gain**k).sum() * (z[1] - z[0])).item() for k in (1, 2))
    assert information.se == pytest.approx(math.sqrt((square - mean**2) / 4000), rel=0.05)
    assert abs(information.value - mean) < 4 * information.se
    assert information.entropy == pytest.approx(-0.3 * math.log(0.3) - 0.7 * math.log(0.7))


def test_the_bound_on_information_counts_the_shares_of_the_test_examples():
    """Of codes that say nothing, the classifier has the shares of the training examples: it loses the divergence."""
    labels = torch.where(torch.arange(10) % 2 < 1, 1, 4)
    train = analysis.Labelled(torch.zeros(10, 1), labels, torch.zeros(10, 1))
    information = analysis.class_information(at(0.0), train, uneven(10))
    expected = -0.3 * math.log(0.3 / 0.5) - 0.7 * math.log(0.7 / 0.5)
    assert information.value == pytest.approx(expected, abs=1e-9)


def test_a_classifier_that_is_sure_and_wrong_is_tempered_down_to_the_shares():
    torch.manual_seed(0)
    train, number = uneven(1000), torch.arange(1000)
    test = train._replace(condition=(number // 10 % 2)[:, None] * 2.0 - 1)  # whatever the class
    assert analysis.class_information(at(50.0), train, test).value == pytest.approx(0, abs=0.01)


def test_the_temperature_is_chosen_on_the_other_half_of_the_draws():
    """The even half could be sure of its classes, but the odd half is wrong so often that it asks for no classifier."""
    torch.manual_seed(0)
    train, number = labelled(100), torch.arange(100)
    labels = number // 2 % 2
    told = torch.where((number % 2 == 1) & (number % 8 < 4), 1 - labels, labels)
    test = analysis.Labelled(torch.zeros(100, 1), labels, told[:, None] * 2.0 - 1)
    assert analysis.class_information(at(10.0), train, test).value < -10


def test_surgery_of_one_group_is_that_of_all_and_groups_lose_the_class():
    examples = labelled(100)
    sums = []
    for groups in (None, torch.zeros(100).long(), examples.labels):
        torch.manual_seed(0)
        sums.append(analysis.elbo_surgery(at(3.0), examples.x, condition=examples.condition, groups=groups))
    assert sums[0] == sums[1]
    assert sums[2].mutual_information == pytest.approx(0, abs=1e-6)  # z is the same for all of a class
    assert sums[2].rate == pytest.approx(sums[2].mutual_information + sums[2].marginal_kl)
    assert sums[2].log_n == pytest.approx(torch.tensor(50.0).log().item())
    groups = (torch.arange(100) < 30).long()
    uneven = analysis.elbo_surgery(at(3.0), examples.x, condition=examples.condition, groups=groups)
    assert uneven.log_n == pytest.approx(0.3 * math.log(30) + 0.7 * math.log(70))


def test_units_of_conditional_models():
    data, model = dataset(), tiny()
    y = data.conditions["test"]
    assert analysis.activity(model, data.test, condition=y).shape == (2,)
    divergence = analysis.divergence_of_units(model, data.test, condition=y)["z"]
    assert divergence.shape == (2,)


def test_a_model_given_y_is_converted_with_its_y():
    """`check` compares it with double precision; a network takes no y of another type."""
    net = nn.Linear(C, 2)
    part = Call(lambda *inputs: Independent(Normal(net(inputs[-1]).expand(*inputs[0].shape[:-1], 2), 1.0), 1))
    part.net = net
    at = ConditionalVAE(part, part, part)(torch.zeros(4, C)).double()
    assert at(torch.zeros(4, 2, dtype=torch.float64)).log_weight.dtype == torch.float64
