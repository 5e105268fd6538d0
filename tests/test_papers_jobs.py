"""Jobs of the papers' tables: stopped, killed and resumed, no job is done twice or lost, here and on Ray."""

import dataclasses
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_tables import CPU, content, job_of, job_of_digits, tiny_entries
from vaepriors import checkpoint, data, papers
from vaepriors.app.evaluation import digest_of, evaluate_run
from vaepriors.app.train import fit
from vaepriors.data import stand_in
from vaepriors.papers import Job, pendulum, run_job
from vaepriors.papers.cluster import run_task
from vaepriors.papers.show import cells
from vaepriors.training import Callback

SOURCE = Path(papers.__file__).parents[2]


def test_a_job_in_short_sessions_ends_with_the_identical_number(tiny, tmp_path):
    straight, short = job_of("tiny", "vamp", tmp_path / "a"), job_of("tiny", "vamp", tmp_path / "b")
    assert run_job(straight, CPU) == "done"
    outcomes = [run_job(short, CPU, until=0.0)]
    states = [short.state()]
    while outcomes[-1] == "paused":
        outcomes.append(run_job(short, CPU, until=0.0))
        states.append(short.state())
    assert outcomes == ["paused"] * 4 + ["done"]  # three epochs; 10, 20 and 24 examples
    assert states == ["epoch 1/3", "epoch 2/3", "evaluating", "evaluating", "done"]
    assert content(short.result()) == content(straight.result())
    assert short.result()["complete"]
    assert len(short.result()["sessions"]) == 3
    examples = np.load(short.path.with_name("vamp-0-log_likelihood.npy"))
    assert -examples.mean() == pytest.approx(short.result()["found"]["nll"])
    assert run_job(short, CPU) == "already done"
    assert not (short.run / "evaluation.partial").exists()


class DieAfterTwoEpochs(Callback):
    def epoch(self, line):
        if line["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def die_after_examples(done, total):
    if done == 15:
        os.kill(os.getpid(), signal.SIGKILL)


def kill_in(folder, what):
    """Do the work of a job in a process that is killed after two epochs, or after some examples."""
    torch.set_num_threads(1)
    data.CATALOGUE.update(tiny_entries())
    job = job_of("tiny", "standard", folder)
    callbacks = [DieAfterTwoEpochs()] if what == "training" else []
    fit(job.experiment(CPU), data.load("digits"), job.run, callbacks=callbacks, save_every=0)
    options = {"which": job.row.which, "accelerator": "cpu", "progress": die_after_examples, "save_every": 0}
    evaluate_run(job.run, job.row.draws, **options)


@pytest.mark.parametrize("what", ["training", "evaluation"])
def test_a_killed_job_is_resumed_to_the_identical_number(tiny, tmp_path, processes, what):
    assert run_job(job_of("tiny", "standard", tmp_path / "a"), CPU) == "done"
    assert processes((kill_in, tmp_path / "b", what)) == [-signal.SIGKILL]
    left = job_of("tiny", "standard", tmp_path / "b")
    assert left.result() is None
    assert left.state() == ("epoch 2/3" if what == "training" else "evaluating")
    assert run_job(left, CPU) == "done"
    assert content(left.result()) == content(job_of("tiny", "standard", tmp_path / "a").result())


def test_a_result_gets_the_refined_evaluation_that_it_lacks(tiny, tmp_path):
    """From the model of its run; what was evaluated before is not evaluated again."""
    job = job_of("refined", "vae", tmp_path)
    assert run_job(job, CPU) == "done"
    result = job.result()
    refined = result["found"]["refined"]
    assert (refined["n"], refined["method"], result["found"]["n"]) == (3, "refined", 24)
    examples = np.load(job.path.with_name("vae-0-log_likelihood.npy"))
    assert refined["nll_by_is"] == pytest.approx(-examples[:3].mean())
    assert refined["examples_digest"] == digest_of(tiny_entries()["digits"].load(0).test[:3], None)
    assert job.path.with_name("vae-0-log_likelihood-test-3-refined.npy").is_file()
    assert run_job(job, CPU) == "already done"
    without = {**result, "found": {key: value for key, value in result["found"].items() if key != "refined"}}
    checkpoint.write_json(job.path, without)
    written = (job.run / "evaluation.json").stat().st_mtime_ns
    assert run_job(job, CPU) == "done"
    assert content(job.result()) == content(result)
    assert (job.run / "evaluation.json").stat().st_mtime_ns == written
    checkpoint.write_json(job.path, without)
    (job.run / "best.ckpt").unlink()
    assert run_job(job, CPU) == "already done"


def run_all(folder, outcomes):
    torch.set_num_threads(1)
    data.CATALOGUE.update(tiny_entries())
    outcomes.put([run_job(job_of("tiny", "standard", folder, seed), CPU) for seed in range(3)])


def test_two_processes_do_no_job_twice(tiny, tmp_path, processes):
    context = multiprocessing.get_context("forkserver")
    with context.Manager() as manager:
        outcomes = manager.Queue()
        assert processes((run_all, tmp_path, outcomes), (run_all, tmp_path, outcomes)) == [0, 0]
        both = [outcomes.get(), outcomes.get()]
    for seed in range(3):
        assert sorted(one[seed] for one in both) in (["already done", "done"], ["done", "in use"])
        assert len(job_of("tiny", "standard", tmp_path, seed).result()["sessions"]) == 1


def test_a_job_that_another_process_runs_is_left_alone(tiny, tmp_path):
    held = job_of("tiny", "standard", tmp_path)
    held.run.folder.mkdir(parents=True)
    script = f"""
import sys, time
from filelock import FileLock
with FileLock({str(held.run / "run.lock")!r}):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert held.state() == "running"
        assert run_job(held, CPU) == "in use"
        process.stdin.close()
    assert held.state() == "to do"
    assert run_job(held, CPU) == "done"


def test_a_job_shorter_than_the_paper_says_so_and_can_be_completed(tiny, tmp_path):
    some = job_of("tiny", "standard", tmp_path)
    assert run_job(some, dataclasses.replace(CPU, epochs=2, number=5)) == "done"
    result = some.result()
    assert (result["complete"], result["ended"], result["epochs"], result["epochs_planned"]) == (False, "short", 2, 3)
    assert result["found"]["n"] == 5
    assert some.state() == "short, 2/3 epochs, 5/24 test examples"
    assert run_job(some, dataclasses.replace(CPU, epochs=1)) == "done"  # no fewer epochs, but all examples
    assert (some.result()["epochs"], some.result()["found"]["n"]) == (2, 24)
    assert papers.summarize(some.row, tmp_path / "results").short == "2 of 3 epochs"
    assert run_job(some, CPU) == "done"
    assert some.result()["complete"]
    whole = job_of("tiny", "standard", tmp_path / "whole")
    run_job(whole, CPU)
    whole.path.unlink()
    assert run_job(whole, dataclasses.replace(CPU, epochs=1)) == "done"  # all epochs are there already
    assert whole.result()["complete"]
    assert whole.result()["found"]["nll"] == some.result()["found"]["nll"]


def test_a_row_that_refits_another_trains_that_first(tiny, tmp_path):
    job = job_of("refits", "mog", tmp_path)
    outcomes = [run_job(job, CPU, until=0.0)]
    while outcomes[-1] == "paused":
        outcomes.append(run_job(job, CPU, until=0.0))
    assert outcomes == ["paused"] * 5 + ["done"]  # two of the three epochs of the other, one of the two, two sittings
    source = job_of("tiny", "standard", tmp_path)
    assert (job.source, source.result()) == (source, None)
    assert len(source.run.metrics()) == 3
    encoders = [
        {name: t for name, t in each.run.load_checkpoint("best")[0].items() if name.startswith("model.encoder.")}
        for each in (source, job)
    ]
    assert all(encoders[1][name].equal(tensor) for name, tensor in encoders[0].items())
    assert (job.result()["complete"], job.result()["epochs"]) == (True, 2)
    assert job.result()["experiment"]["hidden"] == [8]


def test_a_refit_of_a_short_run_is_not_complete(tiny, tmp_path):
    job = job_of("refits", "mog", tmp_path)
    some = dataclasses.replace(CPU, epochs=2)
    assert run_job(job, some) == "done"
    assert (job.result()["complete"], job.result()["ended"]) == (False, "short")
    assert run_job(job, some) == "already done"
    assert "another model" in run_job(job, CPU)  # the whole run has another best model


def test_an_early_stop_completes_a_job(tiny, tmp_path):
    row = tiny["tiny"].rows[0]
    experiment = dataclasses.replace(row.experiment, patience=0, epochs=50, lr=0.1)
    stopped = Job(dataclasses.replace(row, experiment=experiment), 0, tmp_path / "runs", tmp_path / "results")
    assert run_job(stopped, CPU) == "done"
    assert stopped.result()["ended"] == "stopped early"
    assert stopped.result()["complete"]
    assert stopped.result()["epochs"] < 50


def test_the_angle_is_measured_at_the_last_epoch_and_at_snapshots(tiny, tmp_path):
    """A snapshot is what a run of as many epochs gives."""
    angle = job_of("angle", "elbo", tmp_path / "a")
    assert run_job(angle, CPU) == "done"
    numbers = angle.result()["found"]
    assert (numbers["epoch"], numbers["checkpoint"], numbers["n"]) == (3, "last", 40)
    assert 0 < numbers["angle_error"] <= torch.pi
    short = job_of("angle", "elbo", tmp_path / "b")
    assert run_job(short, dataclasses.replace(CPU, epochs=2)) == "done"
    snapshot = papers.measure_angle(angle.run, angle.run.dataset(), "epoch-2").numbers
    assert snapshot["angle_error"] == short.result()["found"]["angle_error"]
    assert snapshot["valid_loss"] == short.result()["found"]["valid_loss"]


def test_an_error_of_the_angle_is_shown_with_its_winding_number(tiny, tmp_path):
    angle = job_of("angle", "elbo", tmp_path)
    result = {
        "complete": True, "ended": "finished", "epochs": 3, "epochs_planned": 3, "hours": 0.5,
        "experiment": {"data": "pendulum"}, "sessions": [{"hardware": "a machine"}],
    }  # fmt: skip
    angle.path.parent.mkdir(parents=True)
    for seed, winding in enumerate((1, -1, 0)):
        result |= {"seed": seed, "found": {"n": 40, "angle_error": 0.5, "winding": winding}}
        angle.path.with_stem(f"elbo-{seed}").write_text(json.dumps(result))
        ours = cells(angle.row, papers.summarize(angle.row, tmp_path / "results"))[3]
        assert ours.endswith("(winding number 1)" if seed == 0 else f"(winding number ±1 in 2 of {seed + 1} seeds)")


@pytest.mark.parametrize(
    ("name", "curves"), [("elbo", {"beta"}), ("rewo", {"beta", "error and bound"}), ("iwae", set())]
)
def test_a_result_of_the_pendulum_has_its_pictures(tiny, tmp_path, name, curves):
    angle = job_of("angle", name, tmp_path)
    assert run_job(angle, CPU) == "done"
    names = {path.name for path in angle.path.parent.iterdir()}
    assert names - {f"{name}-0-path.png"} == {f"{name}-0.json", f"{name}-0-latent.png"}
    assert (f"{name}-0-path.png" in names) == (angle.run / "path.png").is_file()  # not every graph has a path
    run, dataset = angle.run, angle.run.dataset()
    titles = [axis.get_title() for axis in pendulum.draw_latent_plane(run, dataset, "last").axes]
    assert [title for title in titles if "epoch" in title] == ["epoch 1", "epoch 2", "epoch 3"]
    assert {title for title in titles if title and "epoch" not in title} == curves
    assert len(titles) == 2 * (4 if curves else 3)
    before = pendulum.draw_latent_plane(run, dataset, "epoch-2")
    assert [axis.get_title() for axis in before.axes if "epoch" in axis.get_title()] == ["epoch 1", "epoch 2"]


def test_half_a_turn_of_the_pendulum_is_twenty_images(tiny, tmp_path):
    angle = job_of("angle", "elbo", tmp_path)
    experiment = dataclasses.replace(
        angle.planned, prior="standard", prior_samples=None, prior_hidden=None, epochs=1, accelerator="cpu"
    )
    fit(experiment, data.load("pendulum"), angle.run)
    sheet = pendulum.draw_half_turn(angle.run.model(data.load("pendulum"), "last")[0], data.load("pendulum"))
    assert sheet.shape == (18, 20 * 17 + 1, 3)


def test_smoothness_is_recorded_with_its_interpolations_and_pictures(tiny, tmp_path):
    smooth = job_of("smooth", "elbo", tmp_path)
    assert run_job(smooth, CPU) == "done"
    numbers = smooth.result()["found"]
    assert numbers["smoothness"] == numbers["interpolation"]["smoothness"]["graph"]["mean"] > 0
    assert numbers["smoothness_se"] == pytest.approx(numbers["interpolation"]["smoothness"]["graph"]["sd"] / 10**0.5)
    names = {path.name for path in smooth.path.parent.iterdir()}
    assert names == {"elbo-0.json", "elbo-0-graph.png", "elbo-0-interpolation.png"}
    ours = cells(smooth.row, papers.summarize(smooth.row, tmp_path / "results"))[3]
    assert ours.startswith(f"{numbers['smoothness']:.4f} ± {numbers['smoothness_se']:.4f}")
    assert "no path for 0 of 10 pairs" in ours


def test_missing_data_are_named(tmp_path, data_folder):
    (row,) = papers.select("vampprior-1", ["omniglot-vae-standard"])
    assert row.missing() == ("omniglot/chardata.mat",)
    outcome = run_job(Job(row, 0, tmp_path / "runs", tmp_path / "results"), CPU)
    assert outcome.startswith("needs omniglot/chardata.mat: vaepriors data fetch omniglot ")
    assert not (tmp_path / "runs").exists()


def test_a_command_whose_data_are_missing_fails(tmp_path, data_folder, vaepriors, capsys):
    row = ["run", "vampprior-1", "--row", "omniglot-vae-standard"]
    assert vaepriors("reproduce", *row, "--runs", tmp_path / "runs", "--results", tmp_path / "results") == 1
    assert "seed 0: needs omniglot/chardata.mat" in capsys.readouterr().out


def test_a_folder_of_another_run_is_refused_and_untouched(tiny, tmp_path):
    mine = job_of("tiny", "standard", tmp_path)
    other = dataclasses.replace(mine.planned, latent=3)
    fit(dataclasses.replace(other, accelerator="cpu", epochs=1), stand_in("digits", 24), mine.run)
    before = {path: path.read_bytes() for path in mine.run.folder.iterdir()}
    assert re.match(r"failed: .*was trained with latent 3, not 2", run_job(mine, CPU))
    assert {path: path.read_bytes() for path in mine.run.folder.iterdir()} == before


# Ray


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory):
    """The folder, and what one process prints that asks Ray for too much and then runs three jobs on two workers."""
    pytest.importorskip("ray", reason="needs ray")
    folder = tmp_path_factory.mktemp("ray")
    script = f"""
import dataclasses
from pathlib import Path
from tiny_tables import CPU, JobThatDies, job_of_digits
from vaepriors.papers import Job, run_on_ray
jobs = [job_of_digits(Path({str(folder)!r}), seed, JobThatDies if seed == 0 else Job) for seed in range(3)]
options = dataclasses.replace(CPU, save_every=0)
try:
    run_on_ray([], options, None, print, workers=1, gpus=4096)
except ValueError as error:
    print("ValueError:", error)
print(run_on_ray(jobs, options, None, lambda job, outcome: print(job, outcome, flush=True), workers=2))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(SOURCE)])}
    ended = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        timeout=300,
    )  # fmt: skip
    return folder, ended.stdout


def test_ray_does_every_job_once_though_a_worker_dies(on_ray):
    """The worker that trains seed 0 is killed after an epoch; its run is resumed from that checkpoint."""
    folder, output = on_ray
    assert output.splitlines()[-1] == "['done', 'done', 'done']", output
    for seed in range(3):
        result = job_of_digits(folder, seed).result()
        assert [session["after_epoch"] for session in result["sessions"]] == ([0, 1] if seed == 0 else [0])
        assert result["epochs"] == 3
    alone = job_of_digits(folder / "alone", 0)
    assert run_job(alone, CPU) == "done"
    assert alone.result()["found"]["nll"] == pytest.approx(job_of_digits(folder, 0).result()["found"]["nll"], rel=1e-5)


def test_ray_refuses_what_its_machines_do_not_have(on_ray):
    """Instead of waiting for it."""
    assert "ValueError: a run asks for 4096 GPU, but the Ray cluster has " in on_ray[1]


def test_without_ray_its_engine_says_what_to_install(tiny, tmp_path, without, vaepriors, capsys):
    without("ray")
    assert vaepriors("reproduce", "run", "tiny", "--engine", "ray", "--runs", tmp_path, "--results", tmp_path) == 2
    assert "pip install 'vaepriors[ray]'" in capsys.readouterr().err


def test_a_task_after_the_deadline_does_not_start(tiny, tmp_path):
    late = job_of("tiny", "standard", tmp_path)
    assert run_task(late, CPU, deadline=time.time() - 1) == "paused"
    assert not (tmp_path / "runs").exists()
    assert run_task(late, CPU, deadline=time.time() + 1000) == "done"
