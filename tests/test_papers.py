"""The papers' tables: every row builds and takes a step, the commands, and what is recorded."""

import dataclasses
import hashlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_tables import CPU, job_of
from vaepriors import checkpoint, data, papers
from vaepriors.app.experiment import Experiment
from vaepriors.app.run import MAY_CHANGE, Run
from vaepriors.app.train import make_fabric, prepare
from vaepriors.data import stand_in
from vaepriors.papers import rows, run_job, show
from vaepriors.papers.commands import seconds_of
from vaepriors.papers.short import by_prior

ROOT = Path(__file__).parents[1]
ROWS = [row for table in papers.tables().values() for row in table.rows]
OWN = [row for row in ROWS if row.experiment is not None and row.home == (row.table, row.name)]
SPEC = {  # the papers' numbers, from their tables
    "vampprior-1/static_mnist-hvae-vamp": -83.19,
    "vampprior-1/frey_faces-pixelhvae-vamp": 4.38,
    "vampprior-2/hvae-mog": -85.07,
    "vampprior-3/hvae-vamp-data": -81.71,
    "kth-1/vamp-100": 4.537,
    "kth-2/standard-10": 93.917,
    "kth-3/vamp-300-100": 4.528,
    "vhp-1/rewo": 0.054,
    "vhp-2/fashion_mnist-geco": 234.73,
    "iwae-1/dynamic_mnist-iwae-2": 82.90,
}


# Rows


def test_the_tables_have_the_papers_numbers():
    numbers = {f"{row.table}/{row.name}": row.paper for row in ROWS}
    assert {name: numbers[name] for name in SPEC} == SPEC
    assert {name: len(table.rows) for name, table in papers.tables().items()} == {
        "vampprior-1": 48, "vampprior-2": 14, "vampprior-3": 17, "vampprior-4": 15, "vampprior-5": 10,
        "vampprior-figure-2": 11, "vampprior-figure-3": 12, "kth-1": 6, "kth-2": 6, "kth-3": 6, "vhp-1": 5,
        "vhp-2": 20, "iwae-1": 8, "settings": 13, "vhp-1-longer": 8, "vhp-1-start": 8, "vhp-figure-3": 1,
        "vhp-figure-8": 3, "caltech-authors": 16, "priors": 56, "precision": 4,
    }  # fmt: skip


@pytest.mark.parametrize("row", OWN, ids=lambda row: f"{row.table}/{row.name}")
def test_every_row_takes_a_step(row, tmp_path):
    """On a batch of two stand-ins of its set's form, with few components: the step of its own training, all finite."""
    small = {"batch_size": 2, "accelerator": "cpu", "devices": 1}
    small |= {"components": 3} if row.experiment.components else {}
    small |= {"exemplars": 3} if row.experiment.exemplars else {}
    small |= {"samples": min(row.experiment.samples, 3)}
    experiment = dataclasses.replace(row.experiment, **small)
    parts = prepare(experiment, stand_in(experiment.data, 3), Run(tmp_path), make_fabric(experiment), [])
    losses = parts.step(torch.tensor([0, 1]))
    assert losses.shape == (3,)
    assert losses.isfinite().all()


def test_no_two_rows_are_the_same_run():
    seen = {}
    for row in OWN:
        key = (row.experiment, row.refit and row.refit.home, row.which, row.draws)
        assert key not in seen, f"{row.table}/{row.name} is {seen[key]}"
        seen[key] = f"{row.table}/{row.name}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{ dat = "digits" }', r"row t/a has the unknown keys \['dat'\]"),
        ('{ same = "t/b" }', "row t/a is the same as t/b, which is no row with a run of its own"),
        ('{ same = "t/c", latent = 2 }', r"the same as t/c and has the options \['latent'\]: choose one"),
        ('{ refit = "t/b", prior = "mog" }', "row t/a refits t/b, which is no row with a run of its own"),
        ('{ refit = "t/c" }', "row t/a: the run has the prior standard"),
        ('{ metric = "fid" }', "the metric fid: choose one of log_likelihood"),
        ('{ prior = "vampire" }', "unknown prior 'vampire'"),
        ('{ same = "t/c", metric = "angle_error" }', "the angle of t/c, which has the evaluation only"),
    ],
)
def test_a_wrong_row_is_one_clear_error(row, message):
    text = f"""
        paper = "p"
        [[tables]]
        name = "t"
        title = "t"
        source = "s"
        metric = "elbo"
        [tables.rows]
        "c" = {{ }}
        "a" = {row}
        """
    with pytest.raises(ValueError, match=message):
        rows.read([text])


def test_a_number_of_others_is_shown_beside_a_run_of_ours(tmp_path):
    text = """
        paper = "p"
        [[tables]]
        name = "t"
        title = "t"
        source = "s"
        metric = "log_likelihood"
        [tables.rows]
        "a" = { paper = -1.0 }
        [[tables]]
        name = "u"
        title = "u"
        source = "s"
        metric = "log_likelihood"
        heading = "theirs"
        [tables.rows]
        "b" = { paper = -2.0, cited = "Others", same = "t/a" }
        """
    (row,) = rows.read([text])["u"].rows
    assert (row.experiment, row.home) == (None, ("t", "a"))
    result = {
        "seed": 0, "complete": True, "ended": "finished", "epochs": 3, "epochs_planned": 3, "hours": 0.5,
        "experiment": {"data": "digits"}, "sessions": [{"hardware": "a machine"}],
        "found": {"n": 5, "nll": 1.75, "nll_se": 0.25},
    }  # fmt: skip
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a-0.json").write_text(json.dumps(result))
    page = papers.markdown(rows.read([text])["u"], tmp_path)
    assert "| row | theirs | ours |" in page
    assert "| b (Others) | -2.00 | -1.75 ± 0.25 | +0.25 | 1 | 3 | 0.50 | a machine |" in page


def test_only_likelihoods_have_a_refined_column(tmp_path):
    text = """
        paper = "p"
        [sets.digits]
        data = "digits"
        refined = 2
        [[tables]]
        name = "t"
        title = "t"
        source = "s"
        metric = "log_likelihood"
        [tables.common]
        data = "digits"
        [tables.rows]
        "a" = { }
        "units" = { metric = "active_units", prior = "mog" }
        [[tables]]
        name = "u"
        title = "u"
        source = "s"
        metric = "active_units"
        [tables.rows]
        "b" = { same = "t/a" }
        """
    table, other = rows.read([text]).values()
    assert [row.refined for row in table.rows] == [2, 0]  # active units need no refined posteriors
    found = {"n": 5, "nll": 1.75, "nll_se": 0.25, "active_units": 4}
    result = {
        "seed": 0, "complete": True, "ended": "finished", "epochs": 3, "epochs_planned": 3, "hours": 0.5,
        "experiment": {"data": "digits"}, "sessions": [{"hardware": "a machine"}],
        "found": {**found, "refined": {**found, "nll": 1.5, "nll_by_is": 1.625}},
    }  # fmt: skip
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a-0.json").write_text(json.dumps(result))
    refined = "-1.50 ± 0.25 (by draws from the encoder -1.62)"
    assert f"| a | log p(x), nats | -1.75 ± 0.25 | {refined} | 1 |" in papers.markdown(table, tmp_path)
    page = papers.markdown(other, tmp_path)
    assert "| b | 4.0 | 1 |" in page
    assert "refined" not in page


def test_the_difference_to_another_row_is_taken_example_by_example(tmp_path):
    text = """
        paper = "p"
        [[tables]]
        name = "t"
        title = "t"
        source = "s"
        metric = "bits_per_dim"
        [tables.rows]
        "a" = { }
        "b" = { prior = "mog", against = "t" }
        """
    with pytest.raises(ValueError, match="table t has no row t, which a row of it is against"):
        rows.read([text])
    table = rows.read([text.replace('"t" }', '"a" }')])["t"]
    logs = {"a": [[-2.0, -4.0, -6.0], [-3.0, -5.0, -7.0]], "b": [[-1.0, -3.0, -8.0], [-1.0, -3.0, -6.0]]}
    (tmp_path / "t").mkdir()
    for name, seeds in logs.items():
        for seed, log_p in enumerate(map(np.array, seeds)):
            path = tmp_path / "t" / f"{name}-{seed}.json"
            npy = checkpoint.npy(torch.tensor(log_p))
            path.with_name(f"{path.stem}-log_likelihood.npy").write_bytes(npy)
            path.with_name(f"{path.stem}-log_likelihood-test-refined.npy").write_bytes(npy)
            found = {
                "split": "test", "number": None, "checkpoint": "best", "seed": 0, "n": 3,
                "nll": -log_p.mean(), "nll_se": 0.1, "bits_per_dim": -log_p.mean() / 2,
                "examples_digest": "same", "log_likelihood_sha256": hashlib.sha256(npy).hexdigest(),
            }  # fmt: skip
            found["refined"] = {**found, "method": "refined", "nll_by_is": -2 * log_p.mean()}
            result = {
                "seed": seed, "complete": True, "ended": "finished", "epochs": 3, "epochs_planned": 3, "hours": 0.5,
                "experiment": {"data": "digits"}, "sessions": [{"hardware": "a machine"}], "found": found,
            }  # fmt: skip
            path.write_text(json.dumps(result))
    differences = np.array(logs["b"]) - np.array(logs["a"])
    error = math.sqrt(differences.mean(0).var(ddof=1) / 3 + differences.mean(1).var(ddof=1) / 2)
    mean, se, seeds = papers.summarize(table.rows[1], tmp_path).paired
    assert seeds == 2
    assert (mean, se) == pytest.approx((-differences.mean() / 2, error / 2))
    page = papers.markdown(table, tmp_path)
    assert "| row | ours | difference | refined | refined difference |" in page  # no column of a paper's numbers
    difference = f"{mean:+.3f} ± {se:.3f}"
    refined = "1.833 ± 0.167 (by draws from the encoder 3.667)"
    assert f"| b | 1.833 ± 0.167 | {difference} | {refined} | {difference} | 2 |" in page
    brief = by_prior(table, tmp_path)  # in nats
    assert "| prior | digits-vae | time of a step |\n" in brief
    assert "| `a` | -4.50 ± 0.50 (2 seeds) |  |\n" in brief
    assert f"| `b` | **{differences.mean():+.2f} ± {error:.2f}** (2 seeds) |  |\n" in brief
    path = tmp_path / "t" / "a-1.json"  # of two seeds, only one can be compared
    path.write_text(path.read_text().replace('"complete": true', '"complete": false'))
    mean, error = differences[0].mean(), math.sqrt(differences[0].var(ddof=1) / 3)
    assert f"| {-mean / 2:+.3f} ± {error / 2:.3f} (1 of 2 seeds) | 2 |" in papers.markdown(table, tmp_path)
    assert f"| `b` | {mean:+.2f} ± {error:.2f} |  |\n" in by_prior(table, tmp_path)
    path = tmp_path / "t" / "a-0.json"  # then none can
    path.write_text(path.read_text().replace('"same"', '"other"'))
    assert "| `b` |" not in by_prior(table, tmp_path)


def test_the_first_version_prints_its_last_model_and_the_log_of_its_batches():
    """It subtracts the log of the mini-batch, not that of the 5,000 draws."""
    theirs = {row.name: row.paper for row in papers.table("caltech-authors").rows}
    for name, batch in {"hvae-standard-1e-4": 100, "hvae-vamp-1e-4": 100, "vae-standard-5e-4": 500}.items():
        expected = theirs[f"first-{name}-last-model"] + math.log(5000 / batch)
        assert theirs[f"first-{name}-printed"] == pytest.approx(expected, abs=0.05)


def test_select_takes_names_and_patterns():
    assert [row.name for row in papers.select("kth-1", ["vamp-*", "standard-10"])] == [
        "standard-10", "vamp-10", "vamp-40", "vamp-100",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"row of kth-1 'vamp-11'.*did you mean vamp-1"):
        papers.select("kth-1", ["vamp-11"])
    with pytest.raises(ValueError, match=r"unknown table 'kth1'.*did you mean kth-"):
        papers.select("kth1")


# The commands


@pytest.mark.parametrize("table", ["vampprior-1", "vhp-1", "vhp-figure-8"])
def test_list_prints_the_hours_of_rows_of_every_kind_of_data(in_folder, vaepriors, capsys, table):
    assert vaepriors("reproduce", "list", table) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(row.name in text for row in papers.select(table))
    assert "e+" not in text  # 600 hours


def test_list_run_and_show_from_nothing_to_all(tiny, in_folder, vaepriors, capsys):
    def output(*arguments):
        assert vaepriors("reproduce", *arguments) == 0
        return " ".join(capsys.readouterr().out.split())

    assert "tiny Digits Somebody 2020, Table 7 4 0" in output("list")
    assert "standard digits -20.00 3 to do" in output("list", "tiny")
    assert "standard log p(x), nats -20.00" in output("show", "tiny")
    assert "No row of it has been run yet." in output("show", "tiny", "--measured", "--markdown")
    text = output("run", "tiny", "--accelerator", "cpu", "--budget", "0.001s")
    assert "out of time: run the same command to continue" in text
    text = output("run", "tiny", "--row", "standard", "--accelerator", "cpu", "--seeds", "2")
    assert "tiny/standard, seed 1: done, recorded in" in text
    assert sorted(path.name for path in (in_folder / "results" / "tiny").iterdir()) == [
        "standard-0-log_likelihood.npy",
        "standard-0.json",
        "standard-1-log_likelihood.npy",
        "standard-1.json",
    ]
    text = output("list", "tiny", "--seeds", "3")
    assert "standard digits -20.00 2 done, 1 to do" in text
    assert "again digits -20.10 2 done, 1 to do (as tiny/standard)" in text
    assert "other -18.00 cited: Others 2019" in text
    shown = output("show", "tiny", "--markdown")
    values = [
        -json.loads((in_folder / f"results/tiny/standard-{seed}.json").read_text())["found"]["nll"] for seed in (0, 1)
    ]
    mean, error = sum(values) / 2, abs(values[0] - values[1]) / 2
    assert f"| standard | log p(x), nats | -20.00 | {mean:.2f} ± {error:.2f} | {mean + 20:+.2f} | 2 | 3 |" in shown
    assert "| vamp | log p(x), nats | -19.50 | | | | | | |" in shown
    assert "again: the same | ELBO, nats | -20.10 | " in shown
    assert "other (Others 2019)" in shown
    text = output("run", "tiny", "--accelerator", "cpu")
    assert "tiny/standard, seed 0: already done, not run again" in text
    assert "tiny/vamp, seed 0: done, recorded in" in text
    assert "nothing was run" not in text
    assert "nothing was run" in output("run", "tiny", "--accelerator", "cpu")
    assert "Table 7 4 3 angle" in output("list")
    shown = output("show", "tiny", "--measured", "--markdown")
    assert "| vamp | " in shown
    assert "other" not in shown
    vamp = json.loads((in_folder / "results/tiny/vamp-0.json").read_text())["found"]
    assert f"| -19.50 | {-vamp['nll']:.2f} ± {vamp['nll_se']:.2f} |" in shown


def test_write_fills_the_marks_and_nothing_else(tiny, tmp_path, vaepriors, capsys):
    page = tmp_path / "page.md"
    angle = "b <!-- table angle measured: begin -->\n<!-- table angle: end -->\n"
    page.write_text(f"a\n<!-- table tiny: begin -->\nold\n<!-- table tiny: end -->\n{angle}")
    options = ["--results", tmp_path / "results", "--write", page]
    assert vaepriors("reproduce", "show", *options) == 0
    text = page.read_text()
    assert text.startswith(
        "a\n<!-- table tiny: begin -->\nDigits (Somebody 2020, a paper, Table 7).\n\n| row | metric |"
    )
    assert "old" not in text
    assert text.endswith(
        "<!-- table angle measured: begin -->\nNo row of it has been run yet.\n<!-- table angle: end -->\n"
    )
    assert show.fill(text, tmp_path / "results") == text
    page.write_text("<!-- table none: begin -->\n<!-- table none: end -->")
    assert vaepriors("reproduce", "show", *options) == 2
    assert "unknown table 'none': choose one of " in capsys.readouterr().err
    page.write_text("nothing")
    assert vaepriors("reproduce", "show", *options) == 2
    assert page.read_text() == "nothing"


def test_a_page_may_show_finished_rows_only(tiny, tmp_path):
    results = tmp_path / "results"
    mark = "<!-- table tiny finished: begin -->\n{}<!-- table tiny: end -->\n"
    assert show.fill(mark.format(""), results) == mark.format("No row of it has been finished yet.\n")
    assert run_job(job_of("tiny", "standard", tmp_path), CPU) == "done"
    assert run_job(job_of("tiny", "vamp", tmp_path), dataclasses.replace(CPU, epochs=1)) == "done"
    assert "| vamp |" in papers.markdown(tiny["tiny"], results, "measured")
    page = show.fill(mark.format("old\n"), results)
    assert "| row | metric | paper | ours | difference | seeds |\n" in page
    assert [line.split()[1] for line in page.splitlines() if line.startswith("| ")] == ["row", "standard", "again:"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run nowhere", "unknown table 'nowhere'"),
        ("run tiny --row vmap", "did you mean vamp"),
        ("run tiny --row other", "numbers of others"),
        ("run tiny --budget 8x", "budget is '8x': give a time such as 90s, 8m or 1h30m"),
        ("run tiny --seeds 0", "seeds is 0: at least 1"),
        ("run tiny --epochs 0", "epochs is 0: at least 1"),
        ("run tiny --gpus 0.5", "gpus belongs to the engine ray, not to local"),
        ("run tiny --engine ray --cpus 0", "cpus is 0: a positive number"),
        ("run tiny --engine ray --address auto --workers 2", "leave one of them out"),
        ("list --row vamp", "there is no table: name one of "),
        ("list tiny --seeds 0", "seeds is 0: at least 1"),
        ("show nowhere", "unknown table 'nowhere'"),
        ("show tiny --write nowhere.md", "leave out the table"),
        ("show --write nowhere.md", "nowhere.md does not exist"),
    ],
)
def test_a_mistake_is_one_sentence(tiny, arguments, message, vaepriors, in_folder, capsys):
    assert vaepriors("reproduce", *arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(in_folder.iterdir()) == []


def test_a_damaged_result_is_named(tiny, tmp_path, vaepriors, capsys):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "vamp-0.json").write_text("{")
    assert vaepriors("reproduce", "show", "tiny", "--results", tmp_path) == 2
    assert "vamp-0.json is not readable as JSON" in capsys.readouterr().err


def test_budgets_are_times():
    assert [seconds_of(text) for text in ("90s", "8m", "1h30m", "0.5h", "1h1m1.5s")] == [90, 480, 5400, 1800, 3661.5]
    for wrong in ("", "8", "m", "0s", "-3m", "1m1h"):
        with pytest.raises(ValueError, match="give a time"):
            seconds_of(wrong)


# What is recorded


RECORDED = sorted(path for path in (ROOT / "results").glob("*/*.json") if path.parent.name != "benchmarks")


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recorded_result_is_of_its_row_and_says_how_it_came_about(path):
    result = json.loads(path.read_text())
    (row,) = [row for row in OWN if (row.table, row.name) == (result["table"], result["row"])]
    assert path == ROOT / "results" / row.table / f"{row.name}-{result['seed']}.json"
    known = {field.name for field in dataclasses.fields(Experiment)}
    ran = Experiment.read(result["experiment"])
    for field in known - MAY_CHANGE - {"seed"}:
        assert getattr(ran, field) == getattr(row.experiment, field), field
    assert ran.seed == result["seed"]
    assert result["epochs"] > 0
    assert result["hours"] > 0
    assert all(session["commit"] and session["hardware"] and session["versions"] for session in result["sessions"])
    assert isinstance(result["found"][papers.METRICS[row.metric].key], float)
    if row.draws:
        assert result["found"]["nll_se"] > 0
        assert result["found"]["samples"] == row.draws
    sizes = data.CATALOGUE[row.experiment.data].form.sizes
    trained = result["ended"] == "stopped early" or result["epochs"] == row.experiment.epochs
    assert result["complete"] == (trained and result["found"]["n"] == sizes[2])


def test_every_file_of_results_belongs_to_a_result_or_a_benchmark():
    results = {path.with_suffix("") for path in RECORDED}
    files = {path for path in (ROOT / "results").rglob("*") if path.is_file()} - set(RECORDED)
    beside = r"-([a-z]+\.png|log_likelihood(-test(-\d+)?(-refined|-last))?\.npy)$"
    others = {path for path in files if path.with_name(re.sub(beside, "", path.name)) not in results}
    assert {path.parent for path in others} == {ROOT / "results" / "benchmarks"}
