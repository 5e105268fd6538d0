"""The evaluations of a run on disk: each in files of its own, and each of one model."""

import json

import numpy as np
import pytest
import torch

from vaepriors import checkpoint
from vaepriors.app.evaluation import evaluate_run
from vaepriors.app.records import command, name_of, read_records, records_of


def digest(run, which="best"):
    return checkpoint.digest(checkpoint.module_tensors(run.model(run.dataset(), which)[0]))


def written(run):
    return {path.name: path.read_bytes() for path in run.folder.iterdir() if path.suffix in (".json", ".npy")}


def test_no_evaluation_overwrites_one_of_another_kind(run):
    kinds = {
        "evaluation": {},
        "evaluation-valid": {"split": "valid"},
        "evaluation-train": {"split": "train"},
        "evaluation-test-2": {"number": 2},
        "evaluation-train-2": {"split": "train", "number": 2},
        "evaluation-test-last": {"which": "last"},
        "evaluation-test-seed-1": {"seed": 1},
        "evaluation-valid-3-last-seed-2": {"split": "valid", "number": 3, "which": "last", "seed": 2},
    }
    before = written(run)
    for name, options in kinds.items():
        result = evaluate_run(run, samples=5, **options)
        after = written(run)
        values = f"log_likelihood{name.removeprefix('evaluation')}.npy"
        assert after.keys() - before.keys() == {f"{name}.json", values}
        assert before.items() <= after.items()  # byte for byte
        assert json.loads(after[f"{name}.json"]) == result
        assert -np.load(run / values).mean() == pytest.approx(result["nll"])
        before = after
    assert read_records(run)[0].name == "evaluation.json"
    assert len(read_records(run)) == len(kinds)


def test_all_examples_are_the_whole_set_by_any_name(run):
    whole, counted = evaluate_run(run, samples=5), evaluate_run(run, samples=5, number=5)
    assert {**whole, "seconds": 0} == {**counted, "seconds": 0}
    assert [record.name for record in read_records(run)] == ["evaluation.json"]


def test_an_evaluation_by_other_samples_is_kept(run):
    many = evaluate_run(run, samples=50)
    few = evaluate_run(run, samples=5)
    again = evaluate_run(run, samples=5)  # the same again
    assert {**few, "seconds": 0} == {**again, "seconds": 0}
    records = {record.name: record for record in read_records(run)}
    assert records.keys() == {"evaluation.json", "evaluation-50-samples.json"}
    assert records["evaluation.json"].result == again
    assert records["evaluation-50-samples.json"].result == many
    assert all(-record.log_likelihood.mean() == pytest.approx(record.result["nll"]) for record in records.values())
    _, (sentence,) = records_of(run, torch.nn.Identity(), 7, "best")  # what can be renewed of another model
    assert sentence.startswith("evaluation.json is not shown")


def test_the_same_samples_after_others_leave_no_copy(run):
    for samples in (50, 5, 50, 5):
        evaluate_run(run, samples=samples)
    assert [record.name for record in read_records(run)] == ["evaluation-50-samples.json", "evaluation.json"]


def test_an_evaluation_without_simulated_examples_replaces_none_with_a_gap(run):
    for simulated in (100, 0):
        evaluate_run(run, method="ais", chains=1, temperatures=2, number=2, simulated=simulated)
    names = [f"evaluation-test-2-ais-2-temperatures{end}.json" for end in ("", "-0-simulated")]
    assert {record.name: record.result.get("gap") is None for record in read_records(run)} == dict(
        zip(names, (False, True), strict=True)
    )


def test_an_evaluation_stopped_of_one_kind_is_resumed_beside_another(run):
    calls = []
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(run, samples=5, split="train", save_every=0, progress=interrupt_after(10))
    evaluate_run(run, samples=5)
    assert (run / "evaluation-train.partial").is_file()
    evaluate_run(run, samples=5, split="train", progress=lambda done, total: calls.append(done))
    assert calls[0] > 10
    assert not list(run.folder.glob("*.partial"))


def interrupt_after(number):
    def interrupt(done, total):
        if done > number:
            raise KeyboardInterrupt

    return interrupt


def test_an_evaluation_belongs_to_its_model_and_its_examples(run):
    result = evaluate_run(run, samples=5)
    assert result["model_digest"] == digest(run)
    assert result["examples_digest"] == checkpoint.digest({"x": run.dataset().test})
    assert evaluate_run(run, samples=5, number=2)["examples_digest"] != result["examples_digest"]
    model, values = run.model(run.dataset())
    assert len(records_of(run, model, values["epoch"], "best")[0]) == 2
    with torch.no_grad():
        next(model.parameters()).flatten()[0] += 1e-6
    records, stale = records_of(run, model, values["epoch"], "best")
    assert records == []
    assert len(stale) == 2
    assert f"{command(run, result)} renews it" in stale[0]
    assert records_of(run, model, 7, "last") == ([], [])  # nothing was said of the last model


@pytest.mark.parametrize("damage", ["missing", "other values", "cut short"])
def test_log_likelihoods_that_are_not_what_was_written_are_not_used(run, damage):
    evaluate_run(run, samples=5)
    path = run / "log_likelihood.npy"
    content = {"missing": b"", "other values": checkpoint.npy(torch.zeros(5)), "cut short": path.read_bytes()[:-1]}
    path.write_bytes(content[damage])
    if damage == "missing":
        path.unlink()
    (record,) = read_records(run)
    assert record.log_likelihood is None
    assert record.result["n"] == 5


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"split": 7}'])
def test_a_damaged_evaluation_is_one_sentence(run, content):
    (run / "evaluation-train.json").write_text(content)
    with pytest.raises(ValueError, match=r"evaluation-train.json .*delete it and evaluate again"):
        read_records(run)


def test_the_command_repeats_the_evaluation(run):
    result = evaluate_run(run, samples=5, split="valid", number=2, which="last", seed=3)
    assert name_of(result) == "evaluation-valid-2-last-seed-3"
    words = command(run, result).split()
    assert words[:3] == ["vaepriors", "evaluate", str(run.folder)]
    assert " ".join(words[3:]) == "--samples 5 --split valid --number 2 --which last --seed 3"
