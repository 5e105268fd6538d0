"""The report of a run: whole for every kind of run, silent to the network, usable in a browser."""

import dataclasses
import hashlib
import html
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

from conftest import RunOn
from reference import Call
from vaepriors import checkpoint, networks, training
from vaepriors import report as vaepriors_report
from vaepriors.analysis import Surgery
from vaepriors.app.evaluation import digest_of, evaluate_run
from vaepriors.app.experiment import MODELS, Experiment, build
from vaepriors.app.interpolation import interpolate_run
from vaepriors.app.measure import is_discrete
from vaepriors.app.records import write_record
from vaepriors.app.report import figures
from vaepriors.app.report.about import duration_in_words
from vaepriors.app.report.compare import COLUMNS, compare, notes, rows
from vaepriors.app.report.comparison import write_comparison
from vaepriors.app.report.conditions import measure_information
from vaepriors.app.report.curves import write_curves
from vaepriors.app.report.draws import percent_in_words
from vaepriors.app.report.latent_space import elbo, limits
from vaepriors.app.report.likelihoods import measure_of
from vaepriors.app.report.page import drawn
from vaepriors.app.report.paths import write_interpolations
from vaepriors.app.report.pictures import grid, png
from vaepriors.app.report.run import write_report
from vaepriors.app.report.subject import look
from vaepriors.app.run import Run
from vaepriors.app.train import fit
from vaepriors.conditional import ConditionalVAE, Ignoring
from vaepriors.data import LIKELIHOODS, Dataset, binarize_once, condition_on
from vaepriors.likelihood import estimate
from vaepriors.networks.mixed import Column
from vaepriors.numerics import seed_of
from vaepriors.objectives import ELBO
from vaepriors.priors import VampPrior
from vaepriors.vae import VAE

SECTIONS = [
    "training", "likelihood", "samples", "pseudo-inputs", "units", "elbo", "codes", "interpolations", "experiment",
]  # fmt: skip


def points(shape=(1, 8, 8), likelihood="bernoulli", n=12, labels=False, segments=None):
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))
    x = {"bernoulli": x.round(), "logistic256": ((x * 256).floor() + 0.5) / 256, "gaussian": x}[likelihood]
    known = {"test": torch.arange(n) % 3} if labels else {}
    return Dataset("some", x, x, x, likelihood, labels=known, segments=segments)


def scaled(data, factor):
    return dataclasses.replace(data, **{name: factor * getattr(data, name) for name in ("train", "valid", "test")})


@pytest.fixture
def trained(tmp_path):
    """A tiny run of given options on given data."""

    def train(data, name="run", **options):
        run = RunOn(tmp_path / name, data)
        common = {"data": "digits", "hidden": (6,), "latent": 3, "epochs": 2, "warmup": 0, "accelerator": "cpu"}
        fit(Experiment(**common | options), data, run)
        return run

    return train


def text_of(run):
    return html.unescape(re.sub(r"data:image/png;base64,[^\"]+", "PNG", (run / "report.html").read_text()))


CASES = [(model, "vamp") for model in MODELS]
CASES += [("vae", "standard"), *(("hvae", prior) for prior in ("standard", "mog", "vamp-data", "vhp"))]


@pytest.mark.parametrize(("model", "prior"), CASES)
def test_every_model_and_prior_has_a_report(model, prior, trained):
    side = 16 if model == "strided" else 8
    options = {} if prior in ("standard", "vhp") else {"components": 3}
    hidden = {"hidden": ()} if model == "conv" else {}
    run = trained(points((1, side, side)), model=model, prior=prior, **options, **hidden)
    page, folder = write_report(run)
    text = text_of(run)
    assert page == run / "report.html"
    assert re.findall(r'<section id="([^"]+)"', text) == SECTIONS
    assert text.count("<details>") == (3 if prior.startswith("vamp") else 0)
    assert ("The prior has none" in text) == (not prior.startswith("vamp"))
    assert ("u are latent variables of the prior itself" in text) == (prior == "vhp")
    assert (folder / "samples.png").is_file()
    assert "Not evaluated yet: run vaepriors evaluate" in text
    assert "None yet: run vaepriors interpolate" in text
    images = re.findall(r"<img[^>]*>", text)
    assert images
    assert all(re.search(r' alt="[^"]{10,}"', image) for image in images)
    assert not re.search(r"""(src|href)=["'](?!PNG|data:|#)""", text)  # nothing but itself
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (points((3, 8, 8), "gaussian"), "Drawn from the prior, decoded."),
        (scaled(points((3, 8, 8), "gaussian"), 4), "In pictures, 0.00"),
        (points((1, 8, 8), "logistic256"), "bits per dimension"),
        (points((7,), "gaussian"), "Mean and standard deviation of each coordinate"),
        (points((7,)), "The prior has 3; they are not shown"),
        (points((7,), n=1), "their coordinates are compared"),
        (points(labels=True), "Codes z of 12 test examples beside"),
        (points(), "The data have no labels"),
        (points(n=1), "One test example is measured"),
    ],
    ids=[
        "three channels",
        "other values",
        "gray levels",
        "vectors",
        "bits",
        "one vector",
        "labels",
        "no labels",
        "one example",
    ],
)
def test_a_report_of_any_data_says_what_is_missing(data, words, trained):
    run = trained(data, prior="vamp", components=3)
    evaluate_run(run, samples=10)
    write_report(run)
    text = text_of(run)
    assert words in text
    assert "By 10 samples" in text
    assert re.findall(r'<section id="([^"]+)"', text) == SECTIONS


def test_a_report_has_what_the_run_has(trained):
    """A plane of z under an IWAE: the implied posterior, interpolations, the hardest and the easiest."""
    run = trained(points(n=40), latent=2, objective="iwae", samples=5, prior="vamp", components=60, weighted=True)
    evaluation = evaluate_run(run, samples=20)
    _, first = interpolate_run(run, nodes=40, neighbors=12, graphs=1, pairs=3)
    write_interpolations(run.folder, first, run.dataset())
    (_, folder) = write_report(run)
    text = text_of(run)
    assert {path.stem for path in folder.iterdir()} == {
        "training", "likelihood", "hardest", "easiest", "samples", "reconstructions", "units", "surgery",
        "rate-distortion", "codes-z", "implied", "interpolation", "graph",
    }  # fmt: skip
    assert f"{-evaluation['nll']:.2f} ± {evaluation['nll_se']:.2f}" in text
    values = np.sort(np.load(run / "log_likelihood.npy"))
    assert f"The hardest: {values[0]:.1f}, {values[1]:.1f}" in text
    assert f"The easiest: {values[-1]:.1f}, {values[-2]:.1f}" in text
    assert "48 of 60, in the order of their weights" in text
    weights = [float(w) for w in re.findall(r"<summary>\d+: ([\d.e+-]+) %", text)]
    assert len(weights) == 48
    assert weights == sorted(weights, reverse=True)
    assert "along 50 points of them" in text
    assert "lower is smoother" in text
    assert "sums of z differ from the rate" in text
    assert "weighted" in text
    assert "torch" in text
    curves = write_curves(run.folder, run.metrics())
    assert curves[0].is_file()


def test_the_implied_posterior_of_a_model_in_double_precision_is_drawn(trained):
    run = trained(points(), latent=2, objective="iwae", samples=5, epochs=1, precision="64-true")
    _, folder = write_report(run)
    assert (folder / "implied.png").is_file()


def test_numbers_of_different_examples_say_so(trained):
    run = trained(points(n=40))
    evaluate_run(run, samples=10, number=5)
    write_report(run)
    text = text_of(run)
    assert "log p(x), 5 examples (test), nats" in text
    assert "ELBO, 40 test examples, nats" in text
    evaluate_run(run, samples=10)
    write_report(run)
    assert "ELBO, test, nats" in text_of(run)


def test_the_best_loss_is_that_of_an_epoch_that_may_give_the_best_model(trained):
    run = trained(points(), epochs=3, warmup=2, best_from="warmup")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"valid_loss": 0.0})
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    write_report(run)
    assert f"nats, of epoch {run.model(run.data)[1]['epoch']};" in text_of(run)


def test_an_interrupted_run_has_a_report(tmp_path, train, images, vaepriors, capsys):
    assert train(tmp_path / "run", "--epochs", "5", "--prior", "vamp", "--components", "4") == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "run" / "metrics.jsonl").write_text(lines[0] + "\n")  # as if stopped after the first
    assert vaepriors("report", tmp_path / "run") == 0
    text = (tmp_path / "run" / "report.html").read_text()
    assert "1 epoch in" in text
    assert "stopped early, interrupted, or still running" in text
    assert str(tmp_path / "run" / "report.html") in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("report nowhere", "nowhere holds no run"),
        ("report RUN --number 0", "number is 0: at least 1"),
        ("report RUN --which epoch-9", "has no epoch-9.ckpt: choose best or last"),
        ("compare RUN", "at least two runs, not 1"),
        ("compare RUN RUN", "named twice"),
        ("compare RUN OTHER --number 0", "number is 0"),
        ("compare RUN nowhere", "nowhere holds no run"),
        ("compare RUN OTHER --out page.pdf", "give a file that ends in .html"),
        ("compare RUN OTHER --out RUN/metrics.jsonl/page.html", "RUN/metrics.jsonl is a file, but"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, message, in_folder, train, vaepriors, capsys):
    for name in ("RUN", "OTHER"):
        assert train(name, "--epochs", "1") == 0
    before = sorted(in_folder.rglob("*"))
    capsys.readouterr()
    assert vaepriors(*arguments.split()) == 2
    assert message in capsys.readouterr().err
    assert sorted(in_folder.rglob("*")) == before


# Comparison


def test_runs_are_compared_on_the_same_axes(tmp_path, trained, vaepriors):
    data = points(n=30)
    runs = [trained(data, f"k{k}", prior="vamp", components=k) for k in (2, 5)] + [
        trained(data, "mog", prior="mog", components=4)
    ]
    evaluate_run(runs[0], samples=10)
    compared = compare(runs)
    table = rows(compared)
    assert [row[0] for row in table] == ["k2", "k5", "mog"]
    assert [row[COLUMNS.index("K")] for row in table] == ["2", "5", "4"]
    evaluated = [row[COLUMNS.index("log p(x)")] for row in table]
    assert re.match(r"-\d+\.\d\d ± ", evaluated[0])
    assert evaluated[1:] == ["", ""]
    for row, each in zip(table, compared, strict=True):
        assert float(row[COLUMNS.index("ELBO")]) == pytest.approx(each.elbo.elbo.mean().item(), abs=0.01)
    page, folder = write_comparison(compared, tmp_path / "all.html")
    text = html.unescape(page.read_text())
    assert f"Not evaluated yet: k5 (vaepriors evaluate {runs[1].folder} --samples 10), mog (" in text
    assert "ELBO against K. vae, vamp: K = 2 " in text
    assert {path.stem for path in folder.iterdir()} == {
        "likelihood", "surgery", "rate-distortion", "elbo-components", "units-components", "samples-1", "samples-2",
        "samples-3",
    }  # fmt: skip


def test_elbos_are_compared_on_the_same_examples_whatever_the_number_of_levels(trained):
    """The parts of two levels are of 200 examples, so those of one level are of the same; the ELBO is of all."""
    data = points(n=300)
    runs = [trained(data, model, model=model, epochs=1) for model in ("vae", "hvae")]
    compared = compare(runs)
    for run, each, row in zip(runs, compared, rows(compared), strict=True):
        torch.manual_seed(seed_of(0, "report"))
        value = estimate(run.model(data)[0], data.few_test().x, samples=1).elbo.mean().item()
        assert row[COLUMNS.index("ELBO")] == f"{value:.2f}"
        assert (each.surgery.draws, each.surgery.log_n) == (200, np.log(300))


def test_likelihoods_are_compared_example_by_example(trained):
    """Each model's error is a hundred times that of their difference."""
    data = points(n=20)
    runs = [trained(data, name, seed=seed, epochs=1) for name, seed in (("a", 0), ("b", 1))]
    for run in runs:
        evaluate_run(run, samples=10)
    spread = 100.0 * np.arange(20)
    values = {"a": -spread, "b": -spread + 5 + np.arange(20) % 2}
    for run, each in zip(runs, values.values(), strict=True):
        result = json.loads((run / "evaluation.json").read_text())
        content = checkpoint.npy(torch.from_numpy(each))
        own = {"nll": -each.mean(), "nll_se": each.std(ddof=1) / 20**0.5}
        write_record(run, result | own | {"log_likelihood_sha256": hashlib.sha256(content).hexdigest()}, content)
    table = rows(compared := compare(runs, number=2))
    likelihoods, differences = ([row[COLUMNS.index(name)] for row in table] for name in ("log p(x)", "difference"))
    assert likelihoods == ["-950.00 ± 132.29", "-944.50 ± 132.28"]
    assert differences == ["", f"+5.50 ± {np.std([0, 1] * 10, ddof=1) / 20**0.5:.2f}"]
    (sentence,) = (sentence for sentence in notes(compared) if sentence.startswith("difference"))
    assert "minus that of a " in sentence


def test_evaluations_that_do_not_compare_are_marked(trained):
    """The common kind is shown where a run has it; other samples, splits, seeds and examples are remarked on."""
    data, others = points(n=20), points(n=20)
    others = dataclasses.replace(others, test=1 - others.test)
    names = ("a", "b", "samples", "seed", "split", "examples")
    runs = [trained(others if name == "examples" else data, name, epochs=1) for name in names]
    for run, options in zip(
        runs, ({}, {}, {"samples": 40}, {"seed": 1}, {"split": "train"}, {"samples": 50}), strict=True
    ):
        evaluate_run(run, **{"samples": 30} | options)
    evaluate_run(runs[0], samples=30, number=5)
    evaluate_run(runs[1], samples=30, split="train")
    compared = compare(runs, number=2)
    likelihoods, differences = (
        [row[COLUMNS.index(name)] for row in rows(compared)] for name in ("log p(x)", "difference")
    )
    assert [re.sub(r".* \(", "(", each) for each in likelihoods[2:]] == ["(1)", "(2)", "(3)", "(4)"]
    assert "(" not in likelihoods[0] + likelihoods[1]
    assert [bool(each) for each in differences] == [False, True, False, False, False, False]
    text = "\n".join(notes(compared))
    assert "log p(x) is of 20 examples (test) by 30 samples, seed 0." in text
    for number, words in enumerate(("by 40 samples", "seed 1", "(train)", "examples are not the same"), 1):
        assert re.search(rf"^\({number}\) .*{re.escape(words)}", text, re.MULTILINE), text


def test_a_density_of_a_custom_decoder_is_no_probability_of_bits(trained):
    """Bits have a probability under a Bernoulli decoder and a density under a normal one: no bits per dimension."""
    data, shape = points(n=20), (1, 8, 8)

    class Custom(RunOn):
        def model(self, dataset, which="best"):
            model, values = super().model(dataset, which)
            head = Call(
                lambda z: Independent(Normal(z.mean(-1)[..., None, None, None].expand(*z.shape[:-1], *shape), 1), 3)
            )
            return VAE(model.encoder, head, model.prior), values

    named = trained(data, "named", epochs=1)
    trained(data, "custom", epochs=1)
    runs = [named, Custom(named.folder.with_name("custom"), data)]
    bits = [evaluate_run(run, samples=5)["bits_per_dim"] for run in runs]
    assert [each is None for each in bits] == [False, True]
    text = "\n".join(notes(compare(runs)))
    assert "(1) custom does not compare with the others: its likelihood is of densities, not of probabilities." in text


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name != "mixed"])
def test_the_support_says_whether_a_likelihood_is_a_probability(name):
    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    x = (
        x
        if name in ("gaussian", "student")
        else (x * 256).floor().add(0.5) / 256
        if name == "logistic256"
        else x.round()
    )
    data = Dataset("some", x, x, x, name)
    model, _ = build(Experiment(hidden=(2,), latent=1), data)
    assert is_discrete(model, data) == LIKELIHOODS[name].discrete
    normal = Call(lambda z: Independent(Normal(z.expand(*z.shape[:-1], 3), 1.0), 1))
    assert not is_discrete(VAE(model.encoder, normal, model.prior), data)


def test_other_numbers_of_draws_under_a_vhp_are_remarked_on(trained):
    data, runs = points(n=5), []
    for name, prior, number in (("a", "vhp", 2), ("b", "vhp", 3), ("c", "standard", None)):
        runs.append(trained(data, name, prior=prior, epochs=1))
        evaluate_run(runs[-1], samples=5, prior_samples=number)
    text = "\n".join(notes(compare(runs)))
    assert "different numbers of draws, 2 of a, 3 of b" in text
    assert "does not compare" not in text
    assert "numbers of draws" not in "\n".join(notes(compare(runs[1:])))


def test_likelihoods_of_other_kinds_are_not_compared(trained):
    """A probability is no density, and log p(x) given totals, sizes or factors is not log p(x)."""
    x = torch.poisson(torch.full((20, 3), 4.0), generator=torch.Generator().manual_seed(0))
    counts, options = Dataset("counts", x, x, x, "poisson"), {"epochs": 1}
    of = {name: dataclasses.replace(counts, likelihood=name) for name in ("negative_binomial", "gaussian")}
    runs = [trained(counts, "first", **options), trained(dataclasses.replace(counts, name="copy"), "second", **options)]
    runs += [trained(data, name, **options) for name, data in of.items()]
    runs += [trained(counts, "factors", size_factors="total", **options)]
    for run in runs:
        evaluate_run(run, samples=10)
    compared = compare(runs)
    differences = [row[COLUMNS.index("difference")] for row in rows(compared)]
    assert [bool(each) for each in differences] == [False, True, True, False, False]
    for run, varies in ((runs[0], False), (runs[-1], True)):
        write_report(run)
        assert ("so their counts vary less than those of the test examples" in text_of(run)) == varies
    text = "\n".join(notes(compared))
    assert "(1) gaussian does not compare" in text
    assert "(2) factors does not compare" in text
    assert "ELBO and distortion do not compare" in text
    assert "not compare" not in "\n".join(notes(compare(runs[:3])))
    kinds = [{"x": "real", "n": "count"}, {"x": "positive", "n": "bit"}, {"x": "count", "n": "count"}, {"n": "size"}]
    tables = [[Column(*each) for each in kind.items()] for kind in kinds]
    whole = dataclasses.replace(counts, likelihood="multinomial")
    some = [*(SimpleNamespace(likelihood="mixed", columns=columns) for columns in tables), whole, counts]
    *measures, of_counts = [measure_of(Experiment(), each, True) for each in some]
    assert measures[0] == measures[1]
    assert len({*measures, of_counts}) == 4  # columns of counts alone are like other counts


# Evaluations of another model


def test_an_evaluation_is_not_shown_beside_another_model(tmp_path, train, vaepriors, capsys):
    """After more epochs best.ckpt is another model: the old number is hidden until it is evaluated again."""
    folders = [tmp_path / name for name in ("run", "other")]
    for folder in folders:
        assert train(folder, "--epochs", "1") == 0
        assert vaepriors("evaluate", folder, "--samples", "50", "--accelerator", "cpu") == 0
    run = Run(folders[0])
    old = json.loads((run / "evaluation.json").read_text())
    assert vaepriors("train", "--out", run.folder, "--resume", "--epochs", "4") == 0
    _, values = run.model(run.dataset())
    assert values["epoch"] > 1  # or this tests nothing
    number = f"{-old['nll']:.2f} ± {old['nll_se']:.2f}"
    write_report(run)
    text = text_of(run)
    assert number not in text
    assert f"epoch 1, this one is of epoch {values['epoch']}" in text
    renew = f"vaepriors evaluate {run.folder} --samples 50"
    assert renew in text
    assert "Not evaluated yet" in text
    capsys.readouterr()
    assert vaepriors("compare", *folders, "--out", tmp_path / "all.html") == 0
    output = capsys.readouterr().out
    assert renew in output
    page = html.unescape((tmp_path / "all.html").read_text())
    assert renew in page
    (row,) = re.findall(r'<tr><th scope="row">run</th>.*?</tr>', page)
    assert "±" not in row
    assert vaepriors(*renew.split()[1:], "--accelerator", "cpu") == 0
    new = json.loads((run / "evaluation.json").read_text())
    write_report(run)
    assert f"{-new['nll']:.2f} ± {new['nll_se']:.2f}" in text_of(run)
    assert "is not shown" not in text_of(run)


def test_interpolations_are_not_shown_beside_another_model(trained):
    run = trained(points(n=30), epochs=1)
    interpolate_run(run, nodes=40, neighbors=12, graphs=1, pairs=3, seed=2)
    write_report(run)
    assert "Through 1 graph of" in text_of(run)
    fit(run.experiment().replace(epochs=4), run.data, run)
    _, values = run.model(run.data)
    assert values["epoch"] > 1  # or this tests nothing
    write_report(run)
    text = text_of(run)
    assert "Through" not in text
    assert f"(epoch 1, this one is of epoch {values['epoch']})" in text
    renew = "--nodes 40 --neighbors 12 --graphs 1 --pairs 3 --seed 2"
    assert f"vaepriors interpolate {run.folder} {renew} renews them" in text


def test_a_report_lists_every_evaluation_of_its_model(trained):
    run = trained(points(n=30))
    results = [evaluate_run(run, samples=10, **options) for options in ({}, {"split": "train"}, {"number": 5})]
    write_report(run)
    text = text_of(run)
    for result, name in zip(results, ("", "-train", "-test-5"), strict=True):
        assert f'<th scope="row">evaluation{name}.json</th><td>{-result["nll"]:.2f} ±' in text
    assert "By 10 samples for each of 30 examples (test)" in text  # the first is that of the whole test set


@pytest.mark.parametrize("first", [False, True])
def test_a_report_shows_the_examples_that_an_evaluation_took(trained, first):
    """Evenly spaced ones, or the first ones of evaluations for the recorded tables."""
    data = points(n=30)
    run = trained(data)
    result = evaluate_run(run, samples=10, number=12, first=first)
    rows = torch.arange(12) if first else torch.arange(12) * 30 // 12
    assert result["examples_digest"] == digest_of(data.test[rows], None)
    assert result.get("spaced", False) == (not first)
    write_report(run)
    order = np.load(run / "log_likelihood-test-12.npy").argsort()[:10]
    hardest = png(grid(data.test[rows[order]], 10))
    assert (run / "report" / "hardest.png").read_bytes() == hardest


def test_compare_writes_its_table_and_its_page(in_folder, train, vaepriors, capsys):
    for name in ("a/one", "b/one"):
        assert train(name, "--epochs", "1") == 0
    assert vaepriors("compare", "a/one", "b/one") == 0
    out = capsys.readouterr().out
    assert "a/one" in out
    assert "b/one" in out
    text = (in_folder / "runs" / "compare.html").read_text()
    assert "components" not in re.findall(r'<section id="([^"]+)"', text)


# Figures


def test_the_bars_of_the_surgery_add_up():
    surgery = Surgery(80.0, 20.0, 6.0, 14.0, 9.0, 0.1, 0.1)
    distortion, rate = figures.surgeries({"a": surgery}).axes
    assert [bar.get_width() for bar in distortion.patches] == [80.0]
    assert [bar.get_width() for bar in rate.patches] == [6.0, 14.0]
    assert [bar.get_x() for bar in rate.patches] == [0.0, 6.0]
    assert rate.lines[0].get_xdata()[0] == 9.0


def test_a_dollar_in_a_name_begins_no_formula():
    surgery = Surgery(80.0, 20.0, 6.0, 14.0, 9.0, 0.1, 0.1)
    for figure in (
        figures.surgeries({"$\\q$": surgery}),
        figures.rate_distortion([], {"$\\q$": (1.0, 2.0)}),
        figures.histogram({"$\\q$": np.arange(9.0), "_b": np.arange(9.0)}),
    ):
        assert drawn("name", figure, "words").content.startswith(b"\x89PNG")  # a formula \\q would be an error
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["\\$\\q\\$", " _b"]
    cells = torch.tensor([[0.0, 1.5], [1.0, 2.5]])
    columns = [Column("$\\q$", "category", ("$\\q$", "$5-$9")), Column("US$ per C$")]
    figure = figures.marginals(columns, cells, cells)
    assert drawn("name", figure, "words").content.startswith(b"\x89PNG")
    assert [axis.get_title() for axis in figure.axes[:2]] == ["\\$\\q\\$ (category)", "US\\$ per C\\$ (real)"]


def test_a_plane_is_z_itself_or_its_principal_components():
    z = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    centre, matrix, names = figures.plane(z)
    assert torch.equal((z - centre) @ matrix, z)
    assert names == ["z1", "z2"]
    lifted = z * torch.tensor([3.0, 1.0]) @ torch.eye(2, 5) + 7
    centre, matrix, names = figures.plane(lifted)
    spread = ((lifted - centre) @ matrix).var(0)
    torch.testing.assert_close(spread.sum(), (lifted - centre).var(0).sum())
    assert spread[0] > spread[1]
    share = 100 * torch.linalg.svdvals(torch.cov(lifted.T))[0] / torch.cov(lifted.T).trace()
    assert names[0] == f"component 1 ({share:.0f} % of the variance)"
    assert figures.plane(z[:, :1])[1].shape == (1, 2)


def test_coordinates_of_draws_that_are_whole_numbers_are_drawn():
    (axis,) = figures.coordinates(torch.zeros(4, 3), torch.tensor([[0, 1, 2], [2, 1, 0]])).axes
    assert axis.lines[1].get_ydata().tolist() == [1, 1, 1]


def test_units_are_drawn_sorted_by_level():
    left, right = figures.units({"z2": torch.tensor([0.1, 3.0]), "z1": torch.tensor([1.0])}, {}).axes
    assert left.lines[0].get_ydata().tolist() == pytest.approx([3.0, 0.1])
    assert left.get_yscale() == "log"
    assert [line.get_label() for line in left.lines[:2]] == ["z2", "z1"]
    assert right.lines == [] or len(right.lines) == 0


def test_look_needs_two_examples_for_what_is_a_variance(trained):
    run = trained(points(n=5), model="hvae")
    model, _ = run.model(run.dataset())
    x = run.dataset().test
    assert look(model, x[:1]).surgery is None
    latent = look(model, x)
    assert set(latent.activity) == set(latent.divergence) == {"z2", "z1"}
    assert latent.surgery.log_n == pytest.approx(np.log(5))


def test_the_parts_of_the_elbo_are_those_of_the_training_set_binarised_once(trained):
    bits = points(n=30).test
    data = Dataset("some", torch.full((200, 1, 8, 8), 0.3), bits[:10], bits[10:], "bernoulli", dynamic=True)
    run = trained(data)
    write_report(run)
    text = text_of(run)
    model, _ = run.model(data)
    torch.manual_seed(seed_of(0, "report"))
    surgery = look(model, data.test, binarize_once(data.train)).surgery
    assert f"-ELBO over all 200 training examples = {surgery.distortion + surgery.rate:.2f} nats" in text
    assert surgery.log_n == np.log(200)
    assert "what a better prior could gain" in text
    assert "over 20 test examples" in text


def test_the_parts_of_the_elbo_of_two_levels_are_those_of_a_subset():
    x = torch.rand(4100, 3, generator=torch.Generator().manual_seed(0))
    data = Dataset("some", x, x, x, "gaussian")
    model, _ = build(Experiment(model="hvae", hidden=(1,), latent=1), data)
    latent = look(model, x[:5], data.train)
    assert (latent.number, latent.surgery.log_n) == (4000, np.log(4000))
    run = SimpleNamespace(name="some", data=data, latent=latent, elbo=estimate(model, x[:5], 1), metrics=[], run=None)
    sentence = next(elbo(run))
    assert "4,000 of 4,100 training examples chosen at random (by one draw each for 200 of them) = " in sentence


@pytest.mark.parametrize(("information", "words"), [(6.5, "smaller with more"), (3.0, "could gain with")])
def test_the_sentence_on_the_marginal_kl_depends_on_log_n(information, words):
    assert words in limits(Surgery(80.0, 20.0, information, 20.0 - information, 7.0, 0.1, 0.1))


def test_numbers_are_easy_to_read(trained):
    """No power of ten, no duration of zero, and no moment in the format of a file."""
    run = trained(points(), prior="vamp", components=3, epochs=1)
    write_report(run)
    text = text_of(run)
    assert re.search(r"1 epoch in \d+\.\d seconds", text)
    assert len(re.findall(r"<summary>\d+: (<? ?\d+\.\d|0) %", text)) == 3
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", text)
    axes = figures.units({"z": torch.tensor([0.5, 0.02])}, {}).axes[0]
    axes.figure.draw_without_rendering()
    assert {"0.01", "0.1"} <= {tick.get_text() for tick in axes.get_yticklabels()}
    assert (percent_in_words(1.2e-36), percent_in_words(1.0)) == ("< 0.1 %", "100.0 %")
    assert (duration_in_words(30.0), duration_in_words(5400.0)) == ("30.0 seconds", "1.5 hours")


def test_the_table_of_a_comparison_begins_with_the_likelihood():
    """On a phone, the other columns are out of sight."""
    assert COLUMNS[:3] == ("run", "log p(x)", "difference")


# In a browser


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def test_a_report_in_a_browser(browser, trained):
    """On a phone: a pseudo-input opens to its generations, by a click and by the keyboard; no request leaves."""
    run = trained(points(), prior="vamp", components=4, model="hvae")
    evaluate_run(run, samples=10)
    path, _ = write_report(run)
    for scheme in ("light", "dark"):
        use_page(browser, path, scheme)


def use_page(browser, path, scheme):
    context = browser.new_context(viewport={"width": 360, "height": 700}, color_scheme=scheme, offline=True)
    page = context.new_page()
    messages, asked = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    first, second = page.locator("details").nth(0), page.locator("details").nth(1)
    large = first.locator("> img")
    assert not large.is_visible()
    first.locator("summary").click()
    assert large.is_visible()
    assert large.evaluate("image => image.naturalWidth") > 100
    assert "images generated from pseudo-input" in large.get_attribute("alt")
    second.locator("summary").focus()
    page.keyboard.press("Enter")
    assert second.locator("> img").is_visible()
    broken = page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length")
    assert broken == 0
    assert page.evaluate("[...document.images].every(i => i.alt.length > 10)")
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 22, 26)"}[scheme]
    assert messages == []
    assert [url for url in asked if not url.startswith(("data:", path.as_uri()))] == []


def test_a_report_of_any_model_needs_no_run(tmp_path):
    """Torch's own layers and distributions."""
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    data = Dataset("vectors", x[:40], x[40:50], x[50:], "gaussian")
    encoder = nn.Sequential(nn.Linear(3, 4), Call(lambda h: Independent(Normal(h[..., :2], h[..., 2:].exp()), 1)))
    decoder = nn.Sequential(nn.Linear(2, 3), Call(lambda loc: Independent(Normal(loc, 1.0), 1)))
    model = VAE(encoder, decoder, VampPrior(encoder, x[:5], bounds=None))
    outcome = training.fit(model, ELBO(), data, epochs=2, accelerator="cpu")
    model.train()
    page, pictures = vaepriors_report(model, data, tmp_path / "page.html", metrics=outcome.metrics, samples=10)
    text = page.read_text()
    assert [name for name in SECTIONS if f'id="{name}"' in text] == SECTIONS[:7]
    assert (pictures / "training.png").is_file()
    assert model.training
    with pytest.raises(ValueError, match=r"page\.txt"):
        vaepriors_report(model, data, tmp_path / "page.txt")
    (tmp_path / "taken").write_text("")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ValueError, match=r"taken is a file, but .*taken\.html needs a folder there"):
        vaepriors_report(model, data, tmp_path / "taken.html")
    with pytest.raises(ValueError, match=r"folder\.html is a folder"):
        vaepriors_report(model, data, tmp_path / "folder.html")


def labelled(x, labels):
    """Data with classes; ten of the points are the validation and the test set, too."""
    some = slice(0, 10)
    own = {"train": labels, "valid": labels[some], "test": labels[some]}
    return condition_on(Dataset("some", x, x[some], x[some], "bernoulli", labels=own), "labels")


def in_order_of_class(classes=4, of_each=50):
    """Images whose two left columns tell the class, in the order of the classes, as files in a folder for each are."""
    labels = torch.arange(classes).repeat_interleave(of_each)
    x = torch.rand(len(labels), 1, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    x[:, 0, :, 0], x[:, 0, :, 1] = (labels % 2)[:, None], (labels // 2)[:, None]
    of = dict.fromkeys(("train", "valid", "test"), labels)
    return condition_on(Dataset("ordered", x, x, x, "bernoulli", labels=of), "labels")


def test_a_report_of_few_examples_is_of_all_classes_of_ordered_files(tmp_path):
    data = in_order_of_class()
    model, _ = build(Experiment(condition="labels", hidden=(4,), latent=2), data)
    page, pictures = vaepriors_report(model, data, tmp_path / "page.html", samples=5, number=40)
    x, y, groups, labels, rows = data.few_test(40)
    assert torch.equal(x, data.test[rows])
    assert torch.equal(groups, labels)
    share = torch.bincount(groups).double() / 40
    entropy = -(share * share.log()).sum()
    assert entropy > 1.2
    assert f" nats of at most {entropy:.2f}, " in html.unescape(page.read_text())
    torch.manual_seed(seed_of(0, "report"))
    log_likelihood = estimate(model.eval(), x, 5, condition=y).log_likelihood
    hardest = grid(x[log_likelihood.argsort()[:10]], 10)
    assert (pictures / "hardest.png").read_bytes() == png(hardest)


@pytest.mark.parametrize(
    ("kind", "model", "is_one"), [("labels", "hvae", True), ("covariates", "hvae", False), ("covariates", "vae", True)]
)
def test_the_marginal_kl_given_covariates_is_no_divergence(tmp_path, kind, model, is_one):
    """p(z1|z2, y) sees the covariates that q(z) averages over."""
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)).round()
    data = labelled(x, torch.arange(20) % 2)
    of = {split: torch.linspace(0, 1, len(getattr(data, split)))[:, None] for split in ("train", "valid", "test")}
    data = condition_on(dataclasses.replace(data, covariates=of, conditions={}, classes=()), kind)
    trained, _ = build(Experiment(model=model, condition=kind, hidden=(4,), latent=1), data)
    page, _ = vaepriors_report(trained, data, tmp_path / "page.html", samples=5)
    text = html.unescape(page.read_text())
    assert ("the marginal KL is no divergence here" in text) == (not is_one)
    assert ("what a better prior could gain with" in text or "depends on N" in text) == is_one


def test_pseudo_inputs_without_conditions_are_decoded_given_those_of_test_examples(tmp_path):
    """Encoder and prior do not see the class; the decoder does."""
    x = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    data = labelled(x, torch.arange(20) % 2)
    encoder = networks.Encoder((1, 4, 4), [4], 2)
    decoder = networks.Appended(networks.Decoder((1, 4, 4), [4], 2 + 2), 2)
    model = ConditionalVAE(Ignoring(encoder), decoder, Ignoring(VampPrior(encoder, x[:3])))
    page, _ = vaepriors_report(model, data, tmp_path / "page.html", samples=5)
    text = page.read_text()
    assert "and decoded, given the conditions of test examples." in text
    assert len(re.findall(r"<summary>\d: [^<]* %<", html.unescape(text).replace("< ", ""))) == 3


def test_a_class_that_no_chosen_training_example_has_is_left_out_of_the_information():
    """Of two levels 4,000 training examples are chosen, perhaps none of a rare class."""
    x = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0)).round()
    data = labelled(x, (torch.arange(5000) == 0).long())
    model, _ = build(Experiment(model="hvae", condition="labels", hidden=(1,), latent=1), data)
    entropies = []
    for seed in range(6):
        torch.manual_seed(seed)
        entropies.append(measure_information(model, data, data.test, data.conditions["test"]).entropy)
    assert sorted(set(entropies)) == pytest.approx([0, -0.1 * np.log(0.1) - 0.9 * np.log(0.9)])
    assert measure_information(model, data, data.test[:3], data.conditions["test"][:3]) is None
