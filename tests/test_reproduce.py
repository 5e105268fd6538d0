"""The papers' tables: every row builds and takes a step, work stops and goes on, nothing is done twice or lost."""

import dataclasses
import json
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vaepriors import data, papers
from vaepriors.app.experiment import Experiment
from vaepriors.app.run import MAY_CHANGE, Run
from vaepriors.app.train import fit, make_fabric, prepare
from vaepriors.data import stand_in
from vaepriors.data.pendulum import render
from vaepriors.papers import Limits, Row, Work, cluster, commands, rows, show, work
from vaepriors.papers.commands import seconds_of
from vaepriors.training import Training

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
        "vhp-2": 20, "iwae-1": 8, "settings": 13, "vhp-figure-3": 1, "caltech-authors": 16,
    }  # fmt: skip


@pytest.mark.parametrize("row", OWN, ids=lambda row: f"{row.table}/{row.name}")
def test_every_row_takes_a_step(row, tmp_path, monkeypatch):
    """On a batch of two stand-ins of its set's form, with few components: the step of its own training, all finite."""
    small = {"batch_size": 2, "accelerator": "cpu", "devices": 1}
    small |= {"components": 3} if row.experiment.components else {}
    small |= {"samples": min(row.experiment.samples, 3)}
    experiment = dataclasses.replace(row.experiment, **small)
    parts = prepare(experiment, stand_in(experiment.data, 3), Run(tmp_path), make_fabric(experiment), [])
    losses = parts.step(torch.tensor([0, 1]))
    assert losses.shape == (3,)
    assert losses.isfinite().all()


def test_no_two_rows_are_the_same_run():
    seen = {}
    for row in OWN:
        key = (row.experiment, row.which, row.draws)
        assert key not in seen, f"{row.table}/{row.name} is {seen[key]}"
        seen[key] = f"{row.table}/{row.name}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{ dat = "digits" }', r"row t/a has the unknown keys \['dat'\]"),
        ('{ same = "t/b" }', "row t/a is the same as t/b, which is no row with a run of its own"),
        ('{ same = "t/c", latent = 2 }', r"the same as t/c and has the options \['latent'\]: choose one"),
        ('{ metric = "fid" }', "the metric fid: choose one of log_likelihood"),
        ('{ prior = "vampire" }', "unknown prior 'vampire'"),
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


def test_a_number_of_others_may_stand_beside_a_run_of_ours(tmp_path):
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
        "found": {"n": 250, "nll": 1.75, "nll_se": 0.25},
    }  # fmt: skip
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a-0.json").write_text(json.dumps(result))
    page = papers.markdown(rows.read([text])["u"], tmp_path)
    assert "| row | theirs | ours |" in page
    assert "| b (Others) | -2.00 | -1.75 ± 0.25 | +0.25 | 1 | 3 | 0.50 | a machine |" in page


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
    with pytest.raises(ValueError, match=r"kth-1 has no row 'vamp-11' \(did you mean vamp-1"):
        papers.select("kth-1", ["vamp-11"])
    with pytest.raises(ValueError, match=r"unknown table 'kth1'.*did you mean kth-"):
        papers.select("kth1")


# Work


@pytest.fixture
def tiny(monkeypatch):
    """A table of three rows on stand-in digits, and of one on the pendulum, in place of all."""
    text = """
        paper = "Somebody 2020, a paper"
        [[tables]]
        name = "tiny"
        title = "Digits"
        source = "Table 7"
        metric = "log_likelihood"
        [tables.common]
        data = "digits"
        hidden = [8]
        latent = 2
        epochs = 3
        warmup = 0
        batch_size = 10
        draws = 200
        [tables.rows]
        "standard" = { paper = -20.0 }
        "vamp" = { paper = -19.5, prior = "vamp", components = 4 }
        "again" = { paper = -20.1, same = "tiny/standard", metric = "elbo", note = "the same" }
        "other" = { paper = -18.0, cited = "Others 2019" }
        [[tables]]
        name = "angle"
        title = "Angle"
        source = "Table 1"
        metric = "angle_error"
        [tables.rows.elbo]
        paper = 0.5
        data = "pendulum"
        model = "mlp"
        hidden = [8]
        latent = 2
        epochs = 3
        sigma = 0.1
        snapshots = [2]
        which = "last"
        draws = 0
        """
    found = rows.read([text])
    for place in (rows, show, commands):
        monkeypatch.setattr(place, "tables", lambda: found)
    stand_ins(monkeypatch.setattr)
    return found


def stand_ins(setattr):
    """Small data in place of the sets, where they are loaded and where their size is known."""
    digits = stand_in("digits", 24)
    angles = 2 * torch.pi * torch.rand(40, generator=torch.Generator().manual_seed(0))
    x = render(angles)
    swing = data.Dataset("pendulum", x, x, x, "gaussian", labels={"train": angles, "valid": angles, "test": angles})
    loaded = {"digits": digits, "pendulum": swing}
    for place in ("vaepriors.papers.work.load", "vaepriors.app.run.load"):
        setattr(place, lambda name, seed=0, likelihood="auto": loaded[name])
    for name, found in loaded.items():
        entry = data.CATALOGUE[name]
        form = entry.form._replace(sizes=(len(found.train), len(found.valid), len(found.test)))
        data.CATALOGUE[name] = dataclasses.replace(entry, form=form)


@pytest.fixture(autouse=True)
def catalogue(monkeypatch):
    monkeypatch.setattr(data, "CATALOGUE", dict(data.CATALOGUE))
    for place in (work, show):
        monkeypatch.setattr(place, "CATALOGUE", data.CATALOGUE)
    monkeypatch.setattr("vaepriors.app.cost.data.CATALOGUE", data.CATALOGUE)


CPU = Limits(accelerator="cpu")


def work_of(tiny, name, folder, seed=0, table="tiny"):
    (row,) = [row for row in tiny[table].rows if row.name == name]
    return Work(row, seed, folder / "runs", folder / "results")


def content(result):
    """What a result says but for when and how fast."""
    found = {key: value for key, value in result["found"].items() if key != "seconds"}
    return {**result, "found": found, "hours": 0, "gib": 0, "sessions": [], "measured": {}}


def test_a_run_of_short_stays_ends_with_the_identical_number(tiny, tmp_path):
    straight, short = work_of(tiny, "vamp", tmp_path / "a"), work_of(tiny, "vamp", tmp_path / "b")
    assert straight.do(CPU) == "done"
    outcomes = [short.do(CPU, until=0.0)]
    states = [short.state()]
    while outcomes[-1] == "paused":
        outcomes.append(short.do(CPU, until=0.0))
        states.append(short.state())
    assert outcomes == ["paused"] * 4 + ["done"]  # three epochs; 10, 20 and 24 examples
    assert states == ["epoch 1/3", "epoch 2/3", "evaluating", "evaluating", "done"]
    assert content(short.result()) == content(straight.result())
    assert short.result()["complete"]
    assert len(short.result()["sessions"]) == 3
    assert short.do(CPU) == "done before"
    assert not (short.run / "evaluation.partial").exists()


def kill_in(folder, what):
    """Do the work in a process that kills itself after two epochs, or after some examples."""
    torch.set_num_threads(1)
    stand_ins_here()
    if what == "training":
        add_metrics = Run.add_metrics

        def die(run, line):
            add_metrics(run, line)
            if line["epoch"] == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        Run.add_metrics = die
    else:
        evaluate = work.evaluate_run

        def die_of_examples(run, *arguments, **options):
            def progress(done, total):
                if done == 15:
                    os.kill(os.getpid(), signal.SIGKILL)

            return evaluate(run, *arguments, **{**options, "progress": progress})

        work.evaluate_run = die_of_examples
    digits_work(folder).do(dataclasses.replace(CPU, save_every=0))


def stand_ins_here():
    """As `stand_ins`, in a process of its own."""

    def put(place, value):
        module, name = place.rsplit(".", 1)
        setattr(sys.modules[module], name, value)

    stand_ins(put)


def digits_work(folder, seed=0):
    options = {"hidden": (8,), "latent": 2, "epochs": 3, "warmup": 0, "batch_size": 10}
    row = Row("tiny", "a", "log_likelihood", None, "", Experiment(data="digits", **options), ("tiny", "a"), draws=200)
    return Work(row, seed, folder / "runs", folder / "results")


@pytest.mark.parametrize("what", ["training", "evaluation"])
def test_killed_work_goes_on_to_the_identical_number(tmp_path, processes, what, monkeypatch):
    stand_ins(monkeypatch.setattr)
    assert digits_work(tmp_path / "a").do(CPU) == "done"
    assert processes((kill_in, tmp_path / "b", what)) == [-signal.SIGKILL]
    left = digits_work(tmp_path / "b")
    assert left.result() is None
    assert left.state() == ("epoch 2/3" if what == "training" else "evaluating")
    assert left.do(CPU) == "done"
    assert content(left.result()) == content(digits_work(tmp_path / "a").result())


def do_all(folder, number, outcomes):
    torch.set_num_threads(1)
    stand_ins_here()
    works = [digits_work(folder, seed) for seed in range(3)]
    outcomes.put([work.do(CPU) for work in works])


def test_two_processes_do_no_run_twice(tmp_path, processes):
    context = multiprocessing.get_context("forkserver")
    with context.Manager() as manager:
        outcomes = manager.Queue()
        assert processes(*[(do_all, tmp_path, number, outcomes) for number in range(2)]) == [0, 0]
        both = [outcomes.get(), outcomes.get()]
    for seed in range(3):
        done = sorted(one[seed] for one in both)
        assert done[0] == "done"
        assert done[1] in ("done before", "taken")
        assert len(digits_work(tmp_path, seed).result()["sessions"]) == 1


def test_a_run_that_another_process_holds_is_left_alone(tiny, tmp_path):
    held = work_of(tiny, "standard", tmp_path)
    held.run.folder.mkdir(parents=True)
    script = f"""
import sys, time
from filelock import FileLock
with FileLock({str(held.run.lock_path)!r}):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert held.state() == "running"
        assert held.do(CPU) == "taken"
        process.stdin.close()
    assert held.state() == "to do"
    assert held.do(CPU) == "done"


def test_less_than_the_paper_says_so_and_goes_on(tiny, tmp_path):
    some = work_of(tiny, "standard", tmp_path)
    assert some.do(dataclasses.replace(CPU, epochs=2, number=5)) == "done"
    result = some.result()
    assert (result["complete"], result["ended"], result["epochs"], result["epochs_planned"]) == (False, "short", 2, 3)
    assert result["found"]["n"] == 5
    assert some.state() == "short, 2/3 epochs"
    assert some.do(dataclasses.replace(CPU, epochs=1)) == "done"  # no fewer epochs, but all examples
    assert (some.result()["epochs"], some.result()["found"]["n"]) == (2, 24)
    found = show.shown(some.row, tmp_path / "results")
    assert found.short == "2 of 3 epochs"
    assert some.do(CPU) == "done"
    assert some.result()["complete"]
    whole = work_of(tiny, "standard", tmp_path / "whole")
    whole.do(CPU)
    whole.path.unlink()
    assert whole.do(dataclasses.replace(CPU, epochs=1)) == "done"  # all epochs are there already
    assert whole.result()["complete"]
    assert whole.result()["found"]["nll"] == some.result()["found"]["nll"]


def test_an_early_stop_is_a_whole_run(tiny, tmp_path, monkeypatch):
    losses = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(Training, "_validate", lambda self: next(losses))
    stopped = work_of(tiny, "standard", tmp_path)
    stopped.planned = dataclasses.replace(stopped.planned, patience=0, epochs=50)
    assert stopped.do(CPU) == "done"
    assert stopped.result()["ended"] == "stopped early"
    assert stopped.result()["complete"]
    assert stopped.result()["epochs"] == 2


def test_the_angle_is_measured_of_the_last_epoch_and_of_snapshots(tiny, tmp_path):
    """A snapshot is what a run of as many epochs gives."""
    angle = work_of(tiny, "elbo", tmp_path / "a", table="angle")
    assert angle.do(CPU) == "done"
    found = angle.result()["found"]
    assert (found["epoch"], found["checkpoint"], found["n"]) == (3, "last", 40)
    assert 0 < found["angle_error"] <= torch.pi
    short = work_of(tiny, "elbo", tmp_path / "b", table="angle")
    assert short.do(dataclasses.replace(CPU, epochs=2)) == "done"
    snapshot = papers.measure_angle(angle.run, angle.run.dataset(), "epoch-2")
    assert snapshot["angle_error"] == short.result()["found"]["angle_error"]
    assert snapshot["valid_loss"] == short.result()["found"]["valid_loss"]


def test_an_error_of_the_angle_is_shown_with_its_winding_number(tiny, tmp_path):
    angle = work_of(tiny, "elbo", tmp_path, table="angle")
    assert angle.do(CPU) == "done"
    result = angle.result()
    for seed, winding in enumerate((1, -1, 0)):
        result |= {"seed": seed, "found": result["found"] | {"winding": winding}}
        angle.path.with_stem(f"elbo-{seed}").write_text(json.dumps(result))
        ours = show.cells(angle.row, show.shown(angle.row, tmp_path / "results"))[3]
        assert ours.endswith("(winding number 1)" if seed == 0 else f"(winding number ±1 in 2 of {seed + 1} seeds)")


def test_data_that_are_not_there_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEPRIORS_DATA", str(tmp_path))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache")
    monkeypatch.setattr("requests.Session.request", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    (row,) = papers.select("vampprior-1", ["omniglot-vae-standard"])
    assert row.missing() == ("omniglot/chardata.mat",)
    outcome = Work(row, 0, tmp_path / "runs", tmp_path / "results").try_to_do(CPU)
    assert outcome == "needs omniglot/chardata.mat"
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_another_run_is_refused_and_untouched(tiny, tmp_path):
    mine = work_of(tiny, "standard", tmp_path)
    other = dataclasses.replace(mine.planned, latent=3)
    fit(dataclasses.replace(other, accelerator="cpu", epochs=1), stand_in("digits", 24), mine.run)
    before = {path: path.read_bytes() for path in mine.run.folder.iterdir()}
    assert re.match(r"failed: .*was trained with latent 3, not 2", mine.try_to_do(CPU))
    assert {path: path.read_bytes() for path in mine.run.folder.iterdir()} == before


# Many machines


def work_of_minutes(folder, seed):
    """Some seconds of training on the real digits: time to kill it."""
    options = {"hidden": (32,), "latent": 4, "epochs": 30, "warmup": 0, "accelerator": "cpu"}
    row = Row("t", "a", "log_likelihood", None, "", Experiment(data="digits", **options), ("t", "a"), draws=20)
    return Work(row, seed, folder / "runs", folder / "results")


def test_ray_does_all_rows_once_though_a_worker_is_killed(tmp_path):
    """Three runs on two workers. The one that trains seed 0 dies; its run goes on from its last checkpoint."""
    pytest.importorskip("ray", reason="needs ray")
    script = f"""
import dataclasses, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_reproduce import CPU, work_of_minutes
from vaepriors.papers import run_on_ray
works = [work_of_minutes(Path({str(tmp_path)!r}), seed) for seed in range(3)]
limits = dataclasses.replace(CPU, save_every=0)
print(run_on_ray(works, limits, None, lambda work, outcome: print(work, outcome, flush=True), workers=2))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    driver = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    first = work_of_minutes(tmp_path, 0)
    while driver.poll() is None and not (first.run / "last.ckpt").is_file():
        time.sleep(0.01)
    assert driver.poll() is None, driver.communicate()[0]
    holder = first.run.lock_path.with_suffix(".holder")
    killed = json.loads(holder.read_text())["pid"]
    os.kill(killed, signal.SIGKILL)
    output, _ = driver.communicate(timeout=300)
    assert output.splitlines()[-1] == "['done', 'done', 'done']", output
    for seed in range(3):
        result = work_of_minutes(tmp_path, seed).result()
        starts = [session["after_epoch"] for session in result["sessions"]]
        assert result["epochs"] == 30
        assert len(starts) == (2 if seed == 0 else 1)
        assert starts[0] == 0
        assert all(start > 0 for start in starts[1:])
    alone = work_of_minutes(tmp_path / "alone", 0)
    assert alone.do(CPU) == "done"
    assert alone.result()["found"]["nll"] == pytest.approx(first.result()["found"]["nll"], rel=1e-5)


def test_without_ray_its_engine_says_what_to_install(tiny, tmp_path, monkeypatch, vaepriors, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert vaepriors("reproduce", "run", "tiny", "--engine", "ray", "--runs", tmp_path, "--results", tmp_path) == 2
    assert "pip install 'vaepriors[ray]'" in capsys.readouterr().err


def test_ray_refuses_what_its_machines_do_not_have():
    """Instead of waiting for it."""
    pytest.importorskip("ray", reason="needs ray")
    script = """
from vaepriors.papers import Limits, run_on_ray
run_on_ray([], Limits(), None, print, workers=1, gpus=4096)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "ValueError: a run asks for 4096 GPU, but the Ray cluster has " in ended.stderr


def test_an_attempt_after_the_deadline_is_none(tiny, tmp_path):
    late = work_of(tiny, "standard", tmp_path)
    assert cluster.attempt(late, CPU, deadline=time.time() - 1) == "paused"
    assert not (tmp_path / "runs").exists()
    assert cluster.attempt(late, CPU, deadline=time.time() + 1000) == "done"


# The commands


def test_list_run_and_show_from_nothing_to_all(tiny, tmp_path, vaepriors, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def output(*arguments):
        assert vaepriors("reproduce", *arguments) == 0
        return " ".join(capsys.readouterr().out.split())

    assert "tiny Digits Somebody 2020, Table 7 4 0" in output("list")
    assert "standard digits -20.00 3 to do" in output("list", "tiny")
    assert "standard log p(x), nats -20.00" in output("show", "tiny")
    assert "No row of it has been run yet." in output("show", "tiny", "--measured", "--markdown")
    told = output("run", "tiny", "--accelerator", "cpu", "--budget", "0.001s")
    assert "the time is over: the same command goes on" in told
    told = output("run", "tiny", "--row", "standard", "--accelerator", "cpu", "--seeds", "2")
    assert "tiny/standard, seed 1: done, recorded in" in told
    assert sorted(path.name for path in (tmp_path / "results" / "tiny").iterdir()) == [
        "standard-0.json",
        "standard-1.json",
    ]
    told = output("list", "tiny", "--seeds", "3")
    assert "standard digits -20.00 2 done, 1 to do" in told
    assert "again digits -20.10 2 done, 1 to do (as tiny/standard)" in told
    assert "other -18.00 cited: Others 2019" in told
    shown = output("show", "tiny", "--markdown")
    values = [
        -json.loads((tmp_path / f"results/tiny/standard-{seed}.json").read_text())["found"]["nll"] for seed in (0, 1)
    ]
    mean, error = sum(values) / 2, abs(values[0] - values[1]) / 2
    assert f"| standard | log p(x), nats | -20.00 | {mean:.2f} ± {error:.2f} | {mean + 20:+.2f} | 2 | 3 |" in shown
    assert "| vamp | log p(x), nats | -19.50 | | | | | | |" in shown
    assert "again: the same | ELBO, nats | -20.10 | " in shown
    assert "other (Others 2019)" in shown
    output("run", "tiny", "--accelerator", "cpu")
    assert "Table 7 4 3 angle" in output("list")
    shown = output("show", "tiny", "--measured", "--markdown")
    assert "| vamp | " in shown
    assert "other" not in shown
    vamp = json.loads((tmp_path / "results/tiny/vamp-0.json").read_text())["found"]
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
    assert "there is no table none: choose one of tiny, angle" in capsys.readouterr().err
    page.write_text("nothing")
    assert vaepriors("reproduce", "show", *options) == 2
    assert page.read_text() == "nothing"


def test_a_page_may_show_finished_rows_only(tiny, tmp_path):
    results = tmp_path / "results"
    mark = "<!-- table tiny finished: begin -->\n{}<!-- table tiny: end -->\n"
    assert show.fill(mark.format(""), results) == mark.format("No row of it has been finished yet.\n")
    assert work_of(tiny, "standard", tmp_path).do(CPU) == "done"
    assert work_of(tiny, "vamp", tmp_path).do(dataclasses.replace(CPU, epochs=1)) == "done"
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
        ("list --row vamp", "there is no table: name one of tiny, angle"),
        ("list tiny --seeds 0", "seeds is 0: at least 1"),
        ("show nowhere", "unknown table 'nowhere'"),
        ("show tiny --write nowhere.md", "leave out the table"),
        ("show --write nowhere.md", "nowhere.md is not there"),
    ],
)
def test_a_mistake_is_one_sentence(tiny, arguments, message, vaepriors, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert vaepriors("reproduce", *arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


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


RESULTS = sorted((ROOT / "results").glob("*/*-[0-9].json"))
RECORDED = [path for path in RESULTS if path.parent.name in papers.tables()]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recorded_result_is_of_its_row_and_says_how_it_came_about(path):
    result = json.loads(path.read_text())
    (row,) = [row for row in OWN if (row.table, row.name) == (result["table"], result["row"])]
    assert path == ROOT / "results" / row.table / f"{row.name}-{result['seed']}.json"
    known = {field.name for field in dataclasses.fields(Experiment)}
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in result["experiment"].items() if key in known}
    ran = Experiment(**options)
    for field in known - MAY_CHANGE - {"seed", "hidden"}:
        assert getattr(ran, field) == getattr(row.experiment, field), field
    assert ran.sizes == row.experiment.sizes
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
