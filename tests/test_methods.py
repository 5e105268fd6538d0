"""The likelihood estimates by name: on a trained model they agree, stop and resume, and are kept apart."""

import json
import math

import numpy as np
import pytest
import torch

from vaepriors.annealing import Annealing, bidirectional
from vaepriors.app.evaluation import Paused, evaluate_run
from vaepriors.app.experiment import PRIORS, Experiment, build
from vaepriors.app.methods import METHODS, method_of
from vaepriors.app.records import command, read_records
from vaepriors.app.report.compare import compare, notes
from vaepriors.app.report.run import write_report
from vaepriors.app.run import Run
from vaepriors.app.train import fit
from vaepriors.cli import main
from vaepriors.data import Dataset, load
from vaepriors.likelihood import ImportanceSampling, estimate
from vaepriors.refinement import Refinement

QUICK = {"is": {"samples": 20}, "refined": {"samples": 20, "refine_steps": 3}}
QUICK["ais"] = {"chains": 2, "temperatures": 3, "simulated": 4}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("digits"))
    options = {"hidden": (30,), "latent": 4, "epochs": 10, "components": 20, "prior": "vamp", "accelerator": "cpu"}
    fit(Experiment(data="digits", model="hvae", warmup=5, lr=2e-3, **options), load("digits"), run)
    return run


def test_the_methods_agree_on_a_trained_model(digits):
    common = {"number": 10, "accelerator": "cpu"}
    plain = evaluate_run(digits, 5000, **common)
    refined = evaluate_run(digits, 1000, method="refined", refine_steps=100, **common)
    annealed = evaluate_run(digits, method="ais", chains=8, temperatures=40, simulated=10, **common)
    assert refined["elbo"] > plain["elbo"] + 0.3
    assert refined["effective_samples_mean"] / 1000 > 2 * plain["effective_samples_mean"] / 5000
    names = ("", "-refined-100-refine-steps", "-ais-40-temperatures-10-simulated")
    values = [np.load(digits / f"log_likelihood-test-10{name}.npy") for name in names]
    for each in values:
        assert abs((each - values[1]).mean()) < 0.2
        assert np.abs(each - values[1]).max() < 1
    assert abs(annealed["gap"]) < 0.5


@pytest.mark.parametrize("name", ["refined", "ais"])
def test_an_evaluation_by_each_method_ends_with_the_same_numbers_when_it_is_resumed(run, name):
    straight = evaluate_run(run, chunk=10, method=name, **QUICK[name])
    expected = np.load(run / f"log_likelihood-test-{name}{suffix(name)}.npy")
    stops = 0
    while True:
        try:
            again = evaluate_run(run, chunk=10, method=name, until=0.0, **QUICK[name])
            break
        except Paused:
            stops += 1
    assert {**again, "seconds": 0} == {**straight, "seconds": 0}
    assert np.array_equal(np.load(run / f"log_likelihood-test-{name}{suffix(name)}.npy"), expected)
    assert json.loads((run / f"evaluation-test-{name}{suffix(name)}.json").read_text()) == again


def suffix(name):
    return {"is": "", "refined": "-3-refine-steps", "ais": "-3-temperatures-4-simulated"}[name]


def test_the_bounds_of_simulated_examples_are_resumed(digits):
    options = {"number": 15, "method": "ais", "chains": 1, "temperatures": 2, "simulated": 15, "accelerator": "cpu"}
    straight = evaluate_run(digits, chunk=10, **options)
    with pytest.raises(Paused, match="10 of 30"):
        evaluate_run(digits, chunk=10, until=0.0, **options)
    with pytest.raises(Paused, match="20 of 30"):
        evaluate_run(digits, chunk=10, until=0.0, **options)
    again = evaluate_run(digits, chunk=10, **options)
    assert {**again, "seconds": 0} == {**straight, "seconds": 0}


def test_each_method_has_files_of_its_own_and_the_command_that_makes_them(run):
    for name, options in QUICK.items():
        evaluate_run(run, method=name, **options)
    records = {record.name: record for record in read_records(run)}
    assert set(records) == {
        "evaluation.json",
        "evaluation-test-refined-3-refine-steps.json",
        "evaluation-test-ais-3-temperatures-4-simulated.json",
    }
    methods = {record.result["method"]: record for record in records.values()}
    assert all(record.log_likelihood is not None for record in methods.values())
    assert command(run, methods["is"].result) == f"vaepriors evaluate {run.folder} --samples 20"
    expected = f"vaepriors evaluate {run.folder} --method ais --chains 2 --temperatures 3 --simulated 4"
    assert command(run, methods["ais"].result) == expected
    assert set(METHODS) == set(methods)
    assert math.isfinite(methods["ais"].result["gap"])


def test_the_report_and_the_comparison_say_the_method_and_the_gap(run, tmp_path, images):
    other = Run(tmp_path / "other")
    fit(Experiment(data=str(images), hidden=(4,), latent=2, epochs=1, accelerator="cpu"), load(str(images)), other)
    evaluate_run(run, method="ais", **QUICK["ais"])
    evaluate_run(other, method="refined", **QUICK["refined"])
    text = write_report(run)[0].read_text()
    assert "By annealed importance sampling with 2 chains and 3 temperatures" in text
    assert "4 examples that the model has drawn" in text
    sentences = "\n".join(notes(compare([run, other])))
    assert "other does not compare with the others" in sentences
    assert "--method ais --chains 2 --temperatures 3" in sentences
    evaluate_run(other, method="ais", **QUICK["ais"])
    assert "does not compare" not in "\n".join(notes(compare([run, other])))


@pytest.mark.parametrize("prior", PRIORS)
def test_every_prior_goes_with_every_method(prior):
    """Except that chains refuse a density that is random."""
    torch.manual_seed(0)
    x = torch.rand(20, 1, 4, 4).round()
    small = {"components": 5, "exemplars": 5, "prior_hidden": (8,)}
    options = {option: value for option, value in small.items() if option in PRIORS[prior].options}
    data = Dataset("test", x, x, x, "bernoulli")
    model, _ = build(Experiment(prior=prior, model="hvae", latent=2, hidden=(16,), **options), data)
    assert estimate(model, x[:3], ImportanceSampling(5, Refinement(2, 2))).log_likelihood.isfinite().all()
    if prior == "snis":  # another density at each call, without a known u as that of vhp
        with pytest.raises(ValueError, match="random"):
            estimate(model, x[:3], Annealing(2, 3, 1))
        return
    assert estimate(model, x[:3], Annealing(2, 3, 1)).log_likelihood.isfinite().all()
    assert bidirectional(model, 3, Annealing(2, 3, 1)).upper.isfinite().all()


def test_options_of_other_methods_and_unknown_names_are_refused(run):
    for name, options, words in (
        ("ais", {"samples": 5}, "samples.*is or refined"),
        ("is", {"temperatures": 5}, "temperatures.*ais"),
        ("refined", {"refine_steps": 0}, "refine_steps is 0"),
        ("annealed", {}, "unknown method"),
        ("is", {"sample": 5}, "unknown option sample"),
    ):
        with pytest.raises(ValueError, match=words):
            method_of(name, **options)
        with pytest.raises(ValueError, match=words):
            evaluate_run(run, method=name, **options)


def test_the_command_line_has_the_options_of_all_methods(run, capsys):
    words = ["--method", "ais", "--chains", "1", "--temperatures", "3", "--simulated", "4"]
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", str(run.folder), *words])
    printed = " ".join(capsys.readouterr().out.split())
    assert "with 1 chain and 3 temperatures" in printed
    assert "4 simulated examples" in printed
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", str(run.folder), "--chains", "2"])
    assert "chains" in capsys.readouterr().err
