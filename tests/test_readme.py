"""README is true: its code runs, its commands parse, its results are those of results/."""

import dataclasses
import inspect
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV

from vaepriors import papers
from vaepriors.app.choices import render
from vaepriors.app.experiment import MODELS, PRIORS
from vaepriors.app.parsing import parse
from vaepriors.papers.commands import COMMANDS as COMMANDS_OF_REPRODUCE
from vaepriors.papers.commands import run

ROOT = Path(__file__).parents[1]
README, GUIDE = ((ROOT / name).read_text() for name in ("README.md", "docs/guide.md"))
COMMANDS = re.findall(r"^    vaepriors (train .*|data list)$", (README + GUIDE).replace("\\\n", ""), re.MULTILINE)
REPRODUCE = re.findall(r"^    vaepriors (reproduce .*)$", README, re.MULTILINE)


def test_the_library_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(code.replace("epochs=60", "epochs=1").replace("samples=1000", "samples=10"), names)
    assert "tensor(-" in capsys.readouterr().out
    assert names["images"].shape == (64, 1, 8, 8)


def test_pages_that_the_programs_name_exist():
    programs = [
        path.read_text() for folder in ("src", "benchmarks", "examples") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    pages = {page for text in programs for page in re.findall(r"docs/\w+\.md", text)}
    assert pages
    assert [page for page in pages if not (ROOT / page).exists()] == []


def block_with(word):
    """The block of code of the guide that has a word."""
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if word in code]
    return code


def test_the_loop_of_the_guide_runs():
    from vaepriors import VAE, StandardNormal, data, networks, objectives, optim

    code = block_with("range(1000)")
    x = data.load("digits").train.round()
    model = VAE(networks.Encoder((1, 8, 8), [8], 2), networks.Decoder((1, 8, 8), [8], 2), StandardNormal(2))
    names = {"torch": torch, "objectives": objectives, "optim": optim, "model": model, "x": x}
    exec(code.replace("range(1000)", "range(3)"), names)
    assert names["loss"].isfinite()


def test_the_objective_of_the_guide_runs():
    from vaepriors import VAE, StandardNormal, data, fit, networks, objectives

    names = {"objectives": objectives}
    exec(block_with("BetaVAE"), names)
    model = VAE(networks.Encoder((1, 8, 8), [8], 2), networks.Decoder((1, 8, 8), [8], 2), StandardNormal(2))
    assert fit(model, names["BetaVAE"](4.0), data.load("digits"), epochs=1, accelerator="cpu").epoch == 1


def test_the_optimiser_and_the_schedule_of_the_guide_run():
    from vaepriors import VAE, StandardNormal, data, fit, networks, objectives

    model = VAE(networks.Encoder((1, 8, 8), [8], 2), networks.Decoder((1, 8, 8), [8], 2), StandardNormal(2))
    names = {"torch": torch, "objectives": objectives, "fit": fit, "model": model, "digits": data.load("digits")}
    exec(block_with("CosineAnnealingLR").replace("epochs=100,", 'epochs=2, accelerator="cpu",'), names)
    assert [line["lr"] for line in names["outcome"].metrics] == pytest.approx(
        [1e-3, 1e-3 * (1 + np.cos(np.pi / 100)) / 2]
    )


def test_the_conditional_model_of_the_guide_runs():
    code, names = block_with("Ignoring"), {}
    exec(code.replace("epochs=50", "epochs=1").replace("samples=1000", "samples=3"), names)
    assert names["threes"].shape == (64, 1, 8, 8)
    assert names["result"].log_likelihood.shape == (250,)


def test_the_trained_model_of_the_guide_is_used(in_folder, vaepriors):
    small = ["--hidden", "4", "--latent", "2", "--epochs", "1", "--accelerator", "cpu"]
    assert vaepriors("train", "--data", "digits", "--out", "runs/a", *small) == 0
    np.save("new.npy", np.zeros((3, 8, 8)))
    names = {}
    exec(block_with("vaepriors.load") + block_with("analysis.codes"), names)
    assert names["images"].shape == (64, 1, 8, 8)
    assert (len(names["z"]), len(names["new"])) == (250, 3)


def test_the_estimator_of_the_guide_runs():
    small = 'components=5, hidden=(8,), max_epochs=1, draws=5, accelerator="cpu"'
    names = {"X": load_breast_cancer().data[:30], "GridSearchCV": GridSearchCV}
    exec(block_with("GridSearchCV").replace("components=50", small), names)
    assert names["codes"].shape == (30, 8)
    assert np.isfinite(names["search"].cv_results_["mean_test_score"]).all()


def test_the_check_of_the_guide_passes():
    torch.manual_seed(0)
    exec(block_with("check(prior)").replace("check(prior)", "check(prior, draws=500)"), {"torch": torch})


def test_the_output_of_the_demo_is_the_recorded_one():
    result = json.loads((ROOT / "results" / "benchmarks" / "demo.json").read_text())["evaluation"]
    assert f"{-result['nll']:.3f} ± {result['nll_se']:.3f} nats ({result['samples']} samples)" in README
    assert f"{result['elbo']:.3f} = - rate {result['rate']:.3f} - distortion {result['distortion']:.3f}" in README
    assert f"{result['active_units']} of {result['latent_units']}" in README
    assert f"{result['effective_samples_mean']:.1f} on average, {result['effective_samples_min']:.1f} for" in README


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_the_tables_of_results_are_those_of_the_files(page):
    text = (ROOT / page).read_text()
    assert papers.fill(text, ROOT / "results") == text


def test_the_frey_faces_of_the_student_reproduction_are_within_the_stated_bits():
    rows = [row for name in ("kth-1", "kth-3") for row in papers.table(name).rows]
    results = [papers.summarize(row, ROOT / "results") for row in rows]
    assert not any(result.short for result in results)
    largest = max(abs(result.value - row.paper) for row, result in zip(rows, results, strict=True))
    assert largest < 0.03
    assert "are within 0.03 bits of its numbers" in README


def test_on_each_split_of_frey_faces_the_vampprior_gains_what_the_page_says():
    def bits(prior, seed):
        path = ROOT / "results" / "vampprior-1" / f"frey_faces-vae-{prior}-{seed}.json"
        return json.loads(path.read_text())["found"]["bits_per_dim"]

    gains = [bits("standard", seed) - bits("vamp", seed) for seed in range(3)]
    assert {f"{gain:.2f}" for gain in gains} == {"0.07", "0.08"}
    assert "by 0.07 to 0.08 bits on each of three splits" in (ROOT / "docs" / "results.md").read_text()


def test_the_front_page_shows_finished_rows_only():
    assert re.findall(r"<!-- table \S+(.*): begin -->", README) == [" finished", " short"]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_gpu_runs_rows_that_exist():
    command = ["make", "--no-print-directory", "-n", "gpu", "GPU_PYTHON=python"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    runs = re.findall(r"reproduce run (\S+) --row (\S+) --accelerator cuda --budget 10m", lines)
    assert runs[0] == ("vampprior-1", "static_mnist-vae-standard")
    assert runs[-1] == ("vhp-2", "dynamic_mnist-iwae")
    assert len(runs) == 19
    assert all(papers.select(table, [row])[0].experiment for table, row in runs)


def test_every_table_is_on_the_page_of_results():
    page = (ROOT / "docs" / "results.md").read_text()
    assert [name for name in papers.tables() if not re.search(f"<!-- table {name}( measured)?: begin -->", page)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_parse(command, in_folder, vaepriors, capsys):
    """Training up to its first look at the folder."""
    words = shlex.split(command)
    if words[0] != "train":
        assert vaepriors(*words) == 0
        return
    out = Path(words[words.index("--out") + 1])
    out.parent.mkdir()
    out.touch()
    assert vaepriors(*words) == 2
    assert f"{out} is a file" in capsys.readouterr().err


@pytest.mark.parametrize("command", REPRODUCE)
def test_the_commands_of_reproduce_name_what_there_is(command, in_folder):
    """`run` is not called, the others are."""
    call = parse(COMMANDS_OF_REPRODUCE, shlex.split(command, comments=True)[1:], "vaepriors reproduce", "")
    if call.func is run:
        named = inspect.signature(run).bind(*call.args, **call.keywords).arguments
        assert papers.select(named["name"], named.get("row", ()))
    else:
        assert call() == 0


def test_the_tables_of_choices_are_those_of_the_code():
    for page, table in ((README, PRIORS), (GUIDE, MODELS)):
        assert page.count("<!-- choices ") == 2
        assert render(page, [table]) == page


def test_the_time_of_drawing_pixels_is_that_of_the_benchmark():
    rows = json.loads((ROOT / "results" / "benchmarks" / "sampling.json").read_text())["pixelhvae"]
    (row,) = [row for row in rows if row["images"] == 64]
    assert f"take {row['seconds']:.1f} s on one CPU thread" in GUIDE
    assert f"takes {row['plain_loop_seconds']:.0f} s" in GUIDE


def test_the_advice_on_priors_is_what_the_table_shows():
    gains = {}
    for row in papers.select("priors", []):
        summary = papers.summarize(dataclasses.replace(row, metric="log_likelihood"), ROOT / "results")
        if summary is not None and summary.refined_paired is not None:
            model, _, prior = row.name.partition("vae-")
            gains.setdefault(model, {})[prior] = summary.refined_paired[0]
    one, two, frames = (gains[model] for model in ("caltech101-", "caltech101-h", "frey_faces-"))
    assert max(one, key=one.get) == max(two, key=two.get) == "exemplar"
    assert frames["exemplar"] > frames["vamp"]
    assert all(each["refit-flow"] > each["vamp"] > 0 for each in gains.values())
    assert all(abs(frames[prior] / frames["refit-flow"] - 1) < 0.1 for prior in ("vhp", "flow"))
    assert all(each["vamp-weighted"] - each["vamp"] < 0.5 for each in gains.values())
    assert all(each.get(prior, 0) < each["vamp"] for prior in ("snis", "resampled") for each in gains.values())
    assert all(abs(each["vhp"] - each["vamp"]) < 1 for each in (one, two))
    assert all(abs(each["flow"]) < each["vamp"] / 3 for each in (one, two))
    assert two["mog"] < 0 < frames["mog"]
    assert abs(one["mog"]) < 0.5


def test_the_page_has_the_recorded_effects_of_other_settings():
    names = ("settings/standard-3e-5-glorot-0", "vampprior-1/caltech101-hvae-standard-0")
    slow, usual = (json.loads((ROOT / "results" / f"{name}.json").read_text()) for name in names)
    said = f"trains for {slow['epochs']} epochs instead of {usual['epochs']}, and is {{:.2f}} nats worse (seed 0)."
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    assert said.format(slow["found"]["nll"] - usual["found"]["nll"]) in page
    mnist = json.loads((ROOT / "results" / "vampprior-1" / "static_mnist-vae-standard-0.json").read_text())["found"]
    assert f"standard prior, {-mnist['nll']:.2f} ± {mnist['nll_se']:.2f} nats (one seed), in the paper -88.56," in page
    vamp = json.loads((ROOT / "results" / "vampprior-1" / "static_mnist-vae-vamp-0.json").read_text())["found"]
    assert f"VampPrior, {-vamp['nll']:.2f} ± {vamp['nll_se']:.2f} (one seed), in the paper -85.57," in page
    hvae = json.loads((ROOT / "results" / "vampprior-1" / "static_mnist-hvae-standard-0.json").read_text())["found"]
    assert f"standard prior, {-hvae['nll']:.2f} ± {hvae['nll_se']:.2f} (one seed), in the paper -86.05." in page
    kth = {
        size: json.loads((ROOT / "results" / "kth-2" / f"standard-{size}-0.json").read_text())["found"]
        for size in (10, 40, 100)
    }
    gives = [f"{each['nll']:.2f} ± {each['nll_se']:.2f}" for each in kth.values()]
    fewer = [f"{paper - each['nll']:.2f}" for paper, each in zip((93.917, 89.703, 90.042), kth.values(), strict=True)]
    gives, fewer, bounds = (
        "{}, {} and {}".format(*each) for each in (gives, fewer, (f"{-each['elbo']:.2f}" for each in kth.values()))
    )
    assert f"-log p(x) = {gives} nats (one seed each), {fewer} fewer" in page
    more = [f"{each['refined']['nll_by_is'] - each['refined']['nll']:.2f}" for each in kth.values()]
    assert "refined posteriors give {}, {} and {} nats more".format(*more) in page
    assert f"With 40 units {kth[40]['active_units']} are active, and with 100 units {kth[100]['active_units']}," in page
    assert f"and we {mnist['nll']:.2f} with 40 units, or like negative ELBOs, which are {bounds} here" in page
    names = ("settings/vamp-3e-5-glorot-0", "vampprior-1/caltech101-hvae-vamp-0")
    slow, usual_vamp = (json.loads((ROOT / "results" / f"{name}.json").read_text()) for name in names)
    said = f"trains for {slow['epochs']} epochs instead of {usual_vamp['epochs']}, and is {{:.2f}} nats worse."
    assert said.format(slow["found"]["nll"] - usual_vamp["found"]["nll"]) in page
    names = (f"{prior}-1e-4-{settings}" for settings in ("first-version", "glorot") for prior in ("standard", "vamp"))
    rows = [papers.summarize(papers.select("settings", [name])[0], ROOT / "results") for name in names]
    assert {each.seeds for each in rows} == {(0, 1, 2)}
    assert {round(rows[i].value - rows[i + 2].value, 1) for i in (0, 1)} <= {0.3, 0.4}  # "about 0.3 nats more"
    said = "{} nats with the standard prior and {} with the VampPrior; our usual settings give {} and {}."
    assert said.format(*(f"{each.value:.2f} ± {each.error:.2f}" for each in rows)) in page


def test_the_pages_tell_how_far_seeds_differ():
    page, guide = (" ".join(text.split()) for text in ((ROOT / "docs" / "results.md").read_text(), GUIDE))

    def refined(table, prior, seed):
        name = f"caltech101-vae-{prior}-{seed}-log_likelihood-test-200-refined.npy"
        return np.load(ROOT / "results" / table / name)

    priors = [row.name.partition("vae-")[2] for row in papers.select("priors", ["caltech101-vae-*"])]
    gains = {
        prior: [(refined("priors", prior, seed) - refined("vampprior-1", "standard", seed)).mean() for seed in range(3)]
        for prior in priors
        if prior not in ("standard", "vamp")
    }
    assert "`mog` in the VAE gain {:+.2f}, {:+.2f} and {:+.2f}.".format(*gains["mog"]) in page
    widest = max(max(each) - min(each) for each in gains.values())
    assert f"whose gains differ by up to {widest:.1f} nats;" in guide
    over = [(refined("priors", "vhp", seed) - refined("vampprior-1", "vamp", seed)).mean() for seed in range(3)]
    assert "with each seed, by {:.2f}, {:.2f} and {:.2f} nats.".format(*over) in page
    assert min(over) > 0


def test_the_pages_have_the_recorded_refined_likelihoods_and_areas():
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    for name in ("standard", "vamp"):
        path = ROOT / "results" / "vampprior-1" / f"caltech101-hvae-{name}-2.json"
        refined = json.loads(path.read_text())["found"]["refined"]
        assert f"{-refined['nll']:.2f}" in page
        assert f"{-refined['nll_by_is']:.2f}" in page
    names = ("hvae-vamp", "hvae-exemplar", "hvae-refit-flow", "vae-flow")
    rows = [papers.select("priors", [f"caltech101-{name}"])[0] for name in names]
    hvae, exemplars, refit, flow = (papers.summarize(row, ROOT / "results") for row in rows)
    in_words = lambda number: "{:.2f} ± {:.2f}".format(*number)  # noqa: E731
    assert f"VampPrior is {in_words(hvae.refined_paired)} nats better than the standard prior" in page
    assert f"most on Caltech 101, in the HVAE {in_words(exemplars.refined_paired)} nats, where" in page
    assert f"the refitted flow gains {in_words(refit.refined_paired)} (one seed)." in page
    assert round(exemplars.refined_paired[0] / hvae.refined_paired[0]) == 2
    assert f"flow is {in_words(flow.paired)} nats better than the standard prior in the VAE, by refined" in page
    assert f"posteriors {in_words(flow.refined_paired)} (three seeds" in page
    results = {
        prior: [
            json.loads((ROOT / "results" / "priors" / f"caltech101-vae-{prior}-{seed}.json").read_text())["found"]
            for seed in range(3)
        ]
        for prior in ("flow", "refit-flow")
    }
    mean = lambda prior, name: f"{sum(each[name] for each in results[prior]) / 3:.1f}"  # noqa: E731
    for name in ("rate", "distortion"):
        assert f"{mean('flow', name)} and {mean('refit-flow', name)}" in page
    controller = json.loads((ROOT / "results" / "benchmarks" / "controller.json").read_text())["rows"]["algorithm 1"]
    first, folded, *others = (f"{each['error']:.3f}" for each in controller)
    assert [each["winding"] == 0 for each in controller] == [False, True, False, False, False]
    said = f"five seeds have errors of {first}, {folded} (folded), {others[0]}, {others[1]} and {others[2]}."
    assert said in page

    def pendulum(name, table="vhp-1"):
        return json.loads((ROOT / "results" / table / f"{name}.json").read_text())

    full = [pendulum(name) for name in ("rewo-0", "rewo-1", "rewo-2", "elbo-0", "wu20-0", "wu200-0")]
    assert {each["epochs"] for each in full} == {1272}
    assert [each["found"]["winding"] for each in full] == [1, 0, -1, 1, 1, 1]
    errors = [f"{each['found']['angle_error']:.3f}" for each in full]
    assert "gives errors of {}, {} and {} with the seeds 0, 1 and 2; the paper".format(*errors[:3]) in page
    assert "seed 0 these end with errors of {}, {} and {}, and the losses".format(*errors[3:]) in page
    losses = (f"{full[number]['found']['valid_loss']:.1f}" for number in (0, 3, 4, 5))
    assert "are {} nats with REWO, {} with the ELBO, and {} and {} with the warm-ups.".format(*losses) in page
    geco = pendulum("geco-0")
    assert (geco["epochs"], geco["found"]["winding"]) == (1272, 1)
    found = geco["found"]
    assert f"an error of {found['angle_error']:.3f}, and with {found['valid_loss']:.1f} nats on the" in page
    assert f"and ends at {found['beta']:.0f}, with" in page
    assert found["valid_loss"] > max(each["found"]["valid_loss"] for each in full)
    found = pendulum("iwae-0", "vhp-figure-3")["found"]
    assert (
        f"an error of {found['angle_error']:.3f}, in table `vhp-figure-3`, and with {found['valid_loss']:.1f}" in page
    )
    first, *rest = (f"{pendulum(f'elbo-{seed}')['found']['angle_error']:.3f}" for seed in range(1, 5))
    assert f"other four have errors of {first}, {rest[0]}, {rest[1]} and {rest[2]}." in page
    motion = json.loads((ROOT / "results" / "vhp-figure-8" / "vhp-0.json").read_text())["found"]["metrics"]
    error = motion["error_average"] ** 0.5
    assert error < motion["error_bound"] ** 0.5
    assert f"error of {error:.3f} on the training frames, and beta is {motion['beta']:.2f}." in page
    vhp, vamp, iwae = (
        json.loads((ROOT / "results" / "vhp-figure-8" / f"{name}-0.json").read_text())["found"]["interpolation"]
        for name in ("vhp", "vamp", "iwae")
    )
    for way in ("graph", "graph_resampled"):  # "On paths the motions of the VHP are the smoothest"
        assert vhp["smoothness"][way]["mean"] < 0.9 * min(each["smoothness"][way]["mean"] for each in (vamp, iwae))
    straight = [each["smoothness"]["straight"]["mean"] for each in (vhp, vamp, iwae)]
    assert straight[0] == pytest.approx(straight[1], rel=0.1)
    assert straight[2] > 1.2 * max(straight[:2])
    broken = sum(len(parts) > 1 for parts in vamp["components"])
    assert f"{broken} of the VampPrior's {len(vamp['components'])} graphs are in several parts" in page
    assert all(len(parts) == 1 for each in (vhp, iwae) for parts in each["components"])
    names = ("hvae-refit-vamp", "vae-vamp-data", "hvae-vamp-data")
    rows = [papers.select("priors", [f"caltech101-{name}"])[0] for name in names]
    refit, one, two = (in_words(papers.summarize(row, ROOT / "results").refined_paired) for row in rows)
    assert f"it gains {refit}. A VampPrior on training examples gains nothing in the VAE ({one}, three seeds)" in page
    assert f"three seeds) and {two} in the HVAE (one seed)." in page
    names = ("vhp", "refit-flow", "flow", "exemplar", "vamp")
    rows = [papers.select("priors", [f"frey_faces-vae-{name}"])[0] for name in names]
    frames = [papers.summarize(dataclasses.replace(row, metric="log_likelihood"), ROOT / "results") for row in rows]
    vhp, refitted, joint, exemplar, vamp = (in_words(each.refined_paired) for each in frames)
    assert f"far larger: the VHP {vhp} nats, the refitted flow {refitted}," in page
    assert f"the flow that is trained with the VAE {joint}, exemplars {exemplar}, the VampPrior {vamp}." in page
    assert min(each.refined_paired[0] for each in frames[:4]) > frames[4].refined_paired[0]
    gains = {}
    for name in ("vamp", "vhp", "exemplar", "flow", "refit-flow", "refit-vamp"):
        (row,) = papers.select("priors", [f"caltech101-vae-{name}"])
        gains[name] = papers.summarize(row, ROOT / "results").refined_paired
    assert round(gains["exemplar"][0] / gains["vamp"][0]) == 3
    assert round(gains["refit-flow"][0] / gains["vamp"][0]) == 2
    assert 0 < gains["flow"][0] < min(2 * gains["flow"][1], gains["vamp"][0] / 3)
    assert 0 < gains["vhp"][0] - gains["vamp"][0] < 1
    said = "a flow that `refit` fits to the trained VAE in minutes gains about twice as much, and a VHP slightly more."
    assert said in " ".join(README.split())
    assert gains["refit-vamp"][0] < 0
    areas = json.loads((ROOT / "results" / "benchmarks" / "anomaly.json").read_text())["areas"]
    vae, vamp, forest, mixture, pca = (f"{sum(each) / len(each):.2f}" for each in areas.values())
    guide = " ".join(GUIDE.split())
    assert vae == vamp
    assert f"{vae} for the VAE with either prior, {forest} for an isolation forest, {mixture} for a Gaussian" in guide
    assert f"mixture, {pca} for PCA" in guide
