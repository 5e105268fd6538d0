"""Training: killed and resumed bit for bit, stopped early, stopped by hand, and shared by two processes."""

import errno
import json
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal

from conftest import TINY, largest_file
from vaepriors import checkpoint, cli, training
from vaepriors.app.evaluation import evaluate_run
from vaepriors.app.experiment import Experiment, build
from vaepriors.app.run import Run
from vaepriors.app.train import fit, make_fabric, prepare
from vaepriors.data import Dataset, load
from vaepriors.distributions import DiagonalNormal
from vaepriors.objectives import ELBO
from vaepriors.optim import gated_adam, normalize_gradients, staged_rate
from vaepriors.priors import VampPrior
from vaepriors.store import Folder, Memory
from vaepriors.training import Callback, Diverged, Outcome, Settings, binarize
from vaepriors.training.share import Share
from vaepriors.vae import VAE

HVAE = ["--model", "hvae", "--prior", "vamp", "--components", "5", "--weighted", "--warmup", "3", "--epochs", "4"]


def numbers(folder):
    """The lines of metrics, without their times."""
    measured = {"seconds", "memory"}
    return [{name: value for name, value in line.items() if name not in measured} for line in Run(folder).metrics()]


def tensors(folder, which):
    return checkpoint.load(folder / f"{which}.ckpt")


def assert_same_run(one, other):
    assert numbers(one) == numbers(other)
    for which in ("last", "best"):
        (expected, values), (actual, actual_values) = tensors(one, which), tensors(other, which)
        assert actual_values == values
        assert actual.keys() == expected.keys()
        assert all(torch.equal(actual[name], expected[name]) for name in expected.keys() - {"metrics.lines"}), which


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, train):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert train(folder, *HVAE) == 0
    return folder


@pytest.fixture(scope="module")
def dataset(images):
    return load(str(images))


def tiny(**changes):
    return Experiment(**{"hidden": (8,), "latent": 2, "batch_size": 10, "accelerator": "cpu", "warmup": 0} | changes)


# Killed


class Dying:
    """A store whose process is killed at the `when`th call of a method."""

    def __init__(self, store, what, when):
        self.store, self.what, self.left = store, what, when

    def __getattr__(self, name):
        return getattr(self.store, name)

    def now(self):
        self.left -= 1
        return self.left == 0

    def add_metrics(self, line):
        self.store.add_metrics(line)
        if self.what.endswith("line") and self.now():
            if self.what == "half a line":
                path = self.store / "metrics.jsonl"
                os.truncate(path, path.stat().st_size - 30)
            die()

    def keep_previous(self):
        if self.what == "before previous.ckpt" and self.now():
            die()
        self.store.keep_previous()

    def save_checkpoint(self, which, tensors, values):
        if self.what.endswith("last.ckpt") and which == "last" and self.now():
            if self.what == "before last.ckpt":
                die()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the system kills the process in the middle of the file
        self.store.save_checkpoint(which, tensors, values)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def train_and_die(like, folder, what, when, save_every):
    """The training of another run in a new folder, in a process that is killed when something happens."""
    torch.set_num_threads(1)
    experiment, dataset = Run(like).experiment(), Run(like).dataset()
    prepare(experiment, dataset, Dying(Run(folder), what, when), make_fabric(experiment)).run(save_every)


@pytest.mark.parametrize(
    ("what", "when", "save_every", "lines"),
    [
        ("a line", 1, 0, 1),  # no checkpoint yet
        ("half a line", 3, 0, 2),
        ("a line", 3, 0, 3),  # two checkpoints
        ("a line", 3, 1000, 3),  # none
        ("half a last.ckpt", 1, 0, 1),
        ("half a last.ckpt", 3, 0, 3),
        ("before previous.ckpt", 2, 0, 2),  # best.ckpt of epoch 2 is written
        ("before last.ckpt", 2, 0, 2),  # and that of epoch 1 is kept as the previous one
    ],
)
def test_a_killed_run_is_resumed_bit_for_bit(tmp_path, uninterrupted, train, processes, what, when, save_every, lines):
    (status,) = processes((train_and_die, uninterrupted, tmp_path / "run", what, when, save_every))
    assert status == -(signal.SIGXFSZ if what == "half a last.ckpt" else signal.SIGKILL)
    assert len(numbers(tmp_path / "run")) == lines
    assert train(tmp_path / "run", *HVAE, "--save-every", save_every, "--resume") == 0
    assert_same_run(uninterrupted, tmp_path / "run")


class Planned(ELBO):
    """The ELBO with given validation losses, one for each epoch."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def forward(self, model, x):
        loss, terms = super().forward(model, x)
        epoch = int(self.step) // self.steps_per_epoch
        return loss if self.training else torch.tensor(float(self.losses[epoch - 1])), terms


def fit_planned(losses, dataset, store, **settings):
    """Train with these validation losses."""
    torch.manual_seed(0)
    model, _ = build(tiny(), dataset)
    options = {"epochs": len(losses), "batch_size": 10, "accelerator": "cpu"} | settings
    return training.fit(model, Planned(losses), dataset, store=store, **options)


EARLY = {"losses": [3.0, 2.0, 5.0, 5.0], "patience": 0, "save_every": 1000}


def stop_early_and_die(dataset, folder):
    torch.set_num_threads(1)
    fit_planned(dataset=dataset, store=Dying(Folder(folder), "before last.ckpt", 1), **EARLY)


def test_a_run_killed_between_the_checkpoints_of_its_early_stop_still_gets_its_best_model(tmp_path, dataset, processes):
    whole, killed = Folder(tmp_path / "whole"), Folder(tmp_path / "killed")
    assert fit_planned(dataset=dataset, store=whole, **EARLY) == Outcome(3, 2, 2.0, "stopped early")
    assert processes((stop_early_and_die, dataset, killed.folder)) == [-signal.SIGKILL]
    assert killed.has("best")
    assert not killed.has("last")
    fit_planned(dataset=dataset, store=killed, **EARLY)
    assert_same_run(whole.folder, killed.folder)


def test_half_written_files_of_a_killed_run_are_removed(tmp_path, uninterrupted, train):
    shutil.copytree(uninterrupted, tmp_path / "run")
    (tmp_path / "run" / ".last.ckpt.0123456789abcdef.partial").write_bytes(b"half")
    assert train(tmp_path / "run", *HVAE, "--resume") == 0
    assert not list((tmp_path / "run").glob(".*.partial"))


# Stopped by hand, or by a full disk


@pytest.fixture
def handled():
    """Python's own handlers of signals, also where the tests were started with some ignored, as by a background job."""
    own = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Signals(Callback):
    """Signals in epoch 2, `times` times."""

    def __init__(self, number, times=1):
        self.number, self.times = number, times

    def epoch(self, line):
        for _ in range(self.times if line["epoch"] == 2 else 0):
            signal.raise_signal(self.number)


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_epoch_and_it_is_resumed_bit_for_bit(
    tmp_path, uninterrupted, train, dataset, capsys, number
):
    run = Run(tmp_path / "run")
    assert fit(Run(uninterrupted).experiment(), dataset, run, callbacks=[Signals(number)]).reason == "interrupted"
    assert capsys.readouterr().err.strip() == "stopping after this epoch; press Ctrl-C again to stop at once"
    assert [line["epoch"] for line in numbers(run.folder)] == [1, 2]
    assert tensors(run, "last")[1]["epoch"] == 2
    assert train(run.folder, *HVAE, "--resume") == 0
    assert_same_run(uninterrupted, run.folder)


@pytest.mark.usefixtures("handled")
def test_ctrl_c_ends_the_command_with_the_one_that_resumes_it(tmp_path, train, capsys):
    folder, ended = tmp_path / "a [red] $run$", threading.Event()

    def interrupt():
        while not numbers(folder) and not ended.wait(0.01):
            pass
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        assert train(folder, "--epochs", "100000", "--patience", "100000") == 130
    finally:
        ended.set()
        thread.join()
    assert f"vaepriors train --out '{folder}' --resume" in capsys.readouterr().out  # for a shell
    assert tensors(folder, "last")[1]["epoch"] == len(numbers(folder))


def test_short_sessions_add_up_to_the_whole_run_bit_for_bit(tmp_path, dataset):
    """Without time for a second epoch, each call makes one."""
    straight, short = Run(tmp_path / "a"), Run(tmp_path / "b")
    fit(tiny(epochs=3), dataset, straight)
    reports = [fit(tiny(epochs=3), dataset, short, deadline=0.0) for _ in range(3)]
    assert [(report.epoch, report.reason) for report in reports] == [
        (1, "out of time"),
        (2, "out of time"),
        (3, "finished"),
    ]
    assert_same_run(straight.folder, short.folder)
    assert fit(tiny(epochs=2), dataset, Run(tmp_path / "c"), deadline=time.monotonic() + 1000).reason == "finished"


@pytest.mark.usefixtures("handled")
def test_a_second_ctrl_c_ends_the_run_at_once_and_it_is_resumed_bit_for_bit(tmp_path, uninterrupted, train, dataset):
    with pytest.raises(KeyboardInterrupt):
        fit(Run(uninterrupted).experiment(), dataset, Run(tmp_path), callbacks=[Signals(signal.SIGINT, times=2)])
    assert not Run(tmp_path).has("last")
    assert train(tmp_path, *HVAE, "--resume") == 0
    assert_same_run(uninterrupted, tmp_path)


@pytest.mark.usefixtures("handled")
def test_ctrl_c_in_the_last_epoch_is_a_finished_run(tmp_path, dataset):
    outcome = fit(tiny(epochs=2), dataset, Run(tmp_path), callbacks=[Signals(signal.SIGINT)])
    assert outcome.reason == "finished"


def test_a_write_that_fails_ends_the_run_and_the_checkpoint_before_is_kept(tmp_path, uninterrupted, train, capsys):
    """As on a full disk, but by a limit of the size of a file."""
    assert train(tmp_path / "run", *HVAE[:-1], "1") == 0
    with largest_file(4000):
        assert train(tmp_path / "run", *HVAE, "--save-every", "0", "--resume") == 1
    sentence = capsys.readouterr().err
    assert sentence.startswith("vaepriors: ")
    assert sentence.count("\n") == 1
    assert os.strerror(errno.EFBIG) in sentence
    assert [tensors(tmp_path / "run", which)[1]["epoch"] for which in ("last", "best")] == [1, 1]
    assert train(tmp_path / "run", *HVAE, "--resume") == 0
    assert_same_run(uninterrupted, tmp_path / "run")
    assert str(tmp_path / "run") in sentence, "the sentence does not say which disk is full"


# Stopped early


@pytest.mark.parametrize(
    ("settings", "losses", "report"),
    [
        # patience 2: the third epoch in a row without a better loss is the last
        ({"patience": 2}, [5, 4, 6, 6, 6, 6], (5, 2, "stopped early")),
        ({"patience": 2}, [5, 4, 6, 6, 3, 6, 6, 6], (8, 5, "stopped early")),
        ({"patience": 0}, [5, 5, 1], (2, 1, "stopped early")),  # an equal loss is not a better one
        ({"patience": 2}, [5, 4, 6, 6], (4, 2, "finished")),
        # the waiting starts with the last epoch of the warm-up
        ({"patience": 1, "warmup": 4}, [1, 9, 9, 9, 9, 9], (5, 1, "stopped early")),
        ({"patience": 1, "warmup": 4, "best_from": "warmup"}, [1, 2, 3, 9, 9, 9, 9], (6, 4, "stopped early")),
    ],
)
def test_early_stopping(tmp_path, dataset, settings, losses, report):
    run, short = Folder(tmp_path / "run"), Folder(tmp_path / "short")
    epoch, best_epoch, why = report
    assert fit_planned(losses, dataset, run, **settings) == Outcome(epoch, best_epoch, losses[best_epoch - 1], why)
    assert [line["valid_loss"] for line in run.metrics()] == losses[:epoch]

    fit_planned(losses[:best_epoch], dataset, short, **settings)  # ends with what must be the best
    expected, best = tensors(short, "last")[0], tensors(run, "best")
    assert best[1] == {"epoch": best_epoch, "loss": losses[best_epoch - 1]}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in best[0].items())


def test_the_waiting_continues_after_a_resume(tmp_path, dataset):
    losses, run = [5.0, 4.0, 6.0, 6.0, 6.0, 6.0], Folder(tmp_path)
    assert fit_planned(losses, dataset, run, epochs=4, patience=2).reason == "finished"
    for _ in range(2):
        assert fit_planned(losses, dataset, run, patience=2) == Outcome(5, 2, 4.0, "stopped early")
    assert len(run.metrics()) == 5


@pytest.mark.parametrize("save_every", [0, 1000])
@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_and_the_best_model_is_kept(tmp_path, dataset, loss, save_every):
    run = Folder(tmp_path)
    with pytest.raises(Diverged, match="loss of epoch 3 is not a number"):
        fit_planned([5.0, 4.0, loss], dataset, run, save_every=save_every)
    assert [line["epoch"] for line in run.metrics()] == [1, 2]
    best, values = tensors(run, "best")
    assert values == {"epoch": 2, "loss": 4.0}
    assert all(tensor.isfinite().all() for tensor in best.values())
    if save_every == 0:
        assert tensors(run, "last")[1]["epoch"] == 2


def test_a_first_loss_that_is_not_finite_mentions_no_checkpoints(tmp_path, train, capsys):
    """Steps of this size leave weights that overflow."""
    assert train(tmp_path / "run", "--lr", "1e38", "--lr-stages", "1") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vaepriors: the loss of epoch 1 is not a number")
    assert "kept" not in line
    assert not list((tmp_path / "run").glob("*.ckpt"))


# Numbers


def test_the_seed_decides_all_numbers(tmp_path, dataset):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        fit(tiny(epochs=2, seed=seed), dataset, Run(tmp_path / name))
        torch.rand(3)  # whatever else draws from the global generator
    assert_same_run(tmp_path / "one", tmp_path / "same")
    assert not {line["loss"] for line in numbers(tmp_path / "one")} & {
        line["loss"] for line in numbers(tmp_path / "other")
    }


def test_metrics_have_the_weight_of_the_warm_up_and_the_parts_of_the_loss(uninterrupted):
    lines = numbers(uninterrupted)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["beta"] for line in lines] == pytest.approx([1 / 3, 2 / 3, 1, 1], rel=1e-6)
    for line in lines:
        assert line["loss"] == pytest.approx(line["distortion"] + line["beta"] * line["rate"], rel=1e-5)
        assert 0 <= line["clamped_share"] <= 1


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-mixed", torch.float32)])
def test_other_precisions_train(tmp_path, dataset, precision, dtype):
    for name, settings in (("run", {"precision": precision}), ("single", {})):
        fit(tiny(epochs=1, prior="vamp", components=5, **settings), dataset, Run(tmp_path / name))
    (line,), (single,) = numbers(tmp_path / "run"), numbers(tmp_path / "single")
    assert line["loss"] != single["loss"]
    if precision == "bf16-mixed":
        assert line["loss"] == pytest.approx(single["loss"], rel=0.02)
    weights = [t for name, t in tensors(tmp_path / "run", "best")[0].items() if name.endswith("weight")]
    assert {tensor.dtype for tensor in weights} == {dtype}
    assert all(tensor.isfinite().all() for tensor in weights)
    assert Run(tmp_path / "run").model(dataset)[0].decoder(torch.zeros(1, 2, dtype=dtype)).mean.dtype == dtype


def test_double_precision_is_double_up_to_the_loss(tmp_path, dataset):
    experiment = tiny(precision="64-true", epochs=1)
    parts = prepare(experiment, dataset, Run(tmp_path), make_fabric(experiment), [])
    seen = []
    parts.objective.register_forward_hook(lambda objective, args, output: seen.extend(t.dtype for t in output[1][:3]))
    parts.run(save_every=1000)
    assert seen
    assert set(seen) == {torch.float64}


def batches(dataset, rank=0, world=1):
    fabric = SimpleNamespace(global_rank=rank, world_size=world, device=torch.device("cpu"))
    return torch.stack(list(Share(dataset, Settings(batch_size=10), fabric).batches(1)))


def test_every_example_is_visited_and_the_last_batch_filled_up(dataset):
    rows = batches(dataset)
    assert rows.shape == (3, 10)
    assert sorted(rows.flatten()[:23].tolist()) == list(range(23))
    assert torch.equal(rows.flatten()[23:], rows.flatten()[:7])
    halves = [batches(dataset, rank, 2) for rank in (0, 1)]
    assert torch.equal(torch.cat(halves, dim=1), rows)


def test_fewer_examples_than_a_batch_are_all_visited_by_two_devices(dataset):
    nine = Dataset("nine", dataset.train[:9], dataset.valid, dataset.test, "bernoulli", dynamic=True)
    halves = [batches(nine, rank, 2) for rank in (0, 1)]
    assert halves[0].shape == halves[1].shape == (1, 5)
    assert set(torch.cat(halves, dim=1).flatten().tolist()) == set(range(9))


def inputs(dataset, folder, devices=1):
    """What the model of this process sees in the training steps of two epochs, each of one batch."""
    seen = []
    experiment = tiny(epochs=2, batch_size=len(dataset.train), devices=devices)
    fabric = make_fabric(experiment)
    fabric.launch()
    parts = prepare(experiment, dataset, Run(folder), fabric, [])
    parts.model.register_forward_pre_hook(lambda model, args: seen.append(args[0].clone()) if model.training else None)
    parts.run(save_every=1000)
    return seen


def test_probabilities_are_binarised_at_each_visit_and_bits_are_kept(tmp_path):
    p = torch.tensor([0.0, 0.25, 0.9, 1.0])
    bits = binarize(p.expand(50, 4))
    dynamic = Dataset("dynamic", p.expand(20_000, 4), bits, bits, "bernoulli", dynamic=True)
    first, second = inputs(dynamic, tmp_path / "dynamic")
    error = (p * (1 - p) / 20_000).sqrt()
    for x in (first, second):
        assert ((x == 0) | (x == 1)).all()
        assert ((x.mean(0) - p).abs() <= 4 * error).all()
    # independent: both are 1 with probability p^2
    assert (((first * second).mean(0) - p**2).abs() <= 4 * (p**2 * (1 - p**2) / 20_000).sqrt()).all()

    static = Dataset("static", bits, bits, bits, "bernoulli")
    for x in inputs(static, tmp_path / "static"):
        assert torch.equal(x.sum(0), bits.sum(0))


@pytest.mark.parametrize("eps", [1e-8, 1e-4])
def test_adam_on_normalised_gradients_is_the_formula(eps):
    """Against NumPy, with gradients of very different size; eps is added to the norm (SPEC of Tomczak & Welling)."""
    generator = np.random.default_rng(0)
    start = {"a": generator.normal(size=(3, 2)), "b": generator.normal(size=4)}
    gradients = [{"a": 1e3 * generator.normal(size=(3, 2)), "b": 1e-6 * generator.normal(size=4)} for _ in range(3)]
    parameters = {name: nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    optimizer = gated_adam(parameters.values(), lr=0.01, eps=eps)
    for step in gradients:
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(step[name])
        optimizer.step()
    for name, x in start.items():
        m = v = np.zeros_like(x)
        for t, step in enumerate(gradients, 1):
            g = step[name] / (np.linalg.norm(step[name]) + 1e-7)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            x = x - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
        assert np.abs(parameters[name].detach().numpy() - x).max() < 1e-12


def test_the_learning_rate_has_stages_of_powers_of_three_epochs(tmp_path, dataset):
    """Burda et al.: 3^i epochs at 1e-3 * 10^(-i/7), i = 0 ... 7; and the optimiser takes it, a resumed one too."""
    by_hand = [1e-3 * 10 ** (-i / 7) for i in range(8) for _ in range(3**i)]
    assert len(by_hand) == 3280
    assert [staged_rate(1e-3, epoch, 8) for epoch in range(1, 3281)] == pytest.approx(by_hand, rel=1e-12)
    assert {staged_rate(1e-3, epoch, 1) for epoch in (1, 2, 5, 10_000)} == {1e-3}
    for epochs, rate in ((1, 0.01), (3, 0.01 * 10**-0.5), (6, 0.001)):
        experiment = tiny(lr=0.01, lr_stages=3, adam_eps=1e-4, epochs=epochs)
        run = Run(tmp_path / "run")
        parts = prepare(experiment, dataset, run, make_fabric(experiment), [])
        parts.run(save_every=1000)
        (group,) = parts.optimizer.param_groups
        assert (json.loads(parts.state.metrics[-1])["lr"], group["eps"]) == (pytest.approx(rate), 1e-4)
    assert [each["after_epoch"] for each in run.description()["sessions"]] == [0, 1, 3]


def test_gated_parameters_do_not_move_and_are_new_to_adam_when_the_gate_opens():
    gate = torch.zeros(())
    a, b, fresh = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
    gated = gated_adam([a, b], 0.1, normalize=False, gated=[b], gate=gate)
    reference = gated_adam([fresh], 0.1, normalize=False)
    for step in range(50):
        gate.fill_(float(step >= 40))
        for parameter in (a, b, fresh):
            parameter.grad = torch.tensor([1.0, -2.0, float(step % 3)])
        gated.step()
        if step < 40:
            assert torch.equal(b, torch.ones(3))
        else:
            reference.step()
            assert torch.equal(b, fresh)
    assert (a != 1).all()


def test_all_gradients_are_normalised_also_where_some_are_gated():
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    for parameter in parameters:
        parameter.grad = torch.tensor([3.0, 4.0])
    gated_adam(parameters, 0.1, gated=parameters[1:], gate=torch.ones(())).step()
    for parameter in parameters:
        torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]))


def test_rewo_trains_the_prior_only_after_its_initial_phase(tmp_path, dataset):
    """All of encoder and decoder moves from the start, nothing of a VHP's or a VampPrior's own; then everything."""
    for prior in ({"prior": "vhp", "prior_hidden": (5,)}, {"prior": "vamp", "components": 3}):
        for kappa, phase in ((1e-6, 0.0), (10.0, 1.0)):
            experiment = tiny(objective="rewo", kappa=kappa, epochs=1, **prior)
            run = Run(tmp_path / f"{prior['prior']}{kappa}")
            parts = prepare(experiment, dataset, run, make_fabric(experiment), [])
            own = {name for name, _ in parts.model.named_parameters() if name.startswith("prior.")}
            before = {name: p.detach().clone() for name, p in parts.model.named_parameters()}
            parts.run(save_every=1000)
            assert parts.objective.prior_gate().item() == phase
            for name, p in parts.model.named_parameters():
                assert torch.equal(before[name], p) == (name in own and phase == 0), name
            assert len(own) > 0


@pytest.mark.parametrize("prior", ["standard", "vamp-data"])
def test_rewo_trains_with_a_prior_without_parameters(tmp_path, dataset, prior):
    components = 5 if prior == "vamp-data" else None
    options = {"prior": prior, "components": components, "objective": "rewo", "kappa": 0.6, "epochs": 2}
    assert fit(tiny(**options), dataset, Run(tmp_path)).reason == "finished"
    assert all(math.isfinite(line["loss"]) for line in numbers(tmp_path))


def test_snapshots_are_the_models_of_their_epochs(tmp_path, train):
    assert train(tmp_path / "a", "--epochs", "3", "--snapshots", "2", "3") == 0
    assert train(tmp_path / "b", "--epochs", "2") == 0
    tensors = lambda path: checkpoint.load(path)[0]  # noqa: E731
    two, last = tensors(tmp_path / "a" / "epoch-2.ckpt"), tensors(tmp_path / "b" / "last.ckpt")
    assert all(torch.equal(tensor, last[name]) for name, tensor in two.items())
    assert checkpoint.load(tmp_path / "a" / "epoch-3.ckpt")[1]["epoch"] == 3
    assert not (tmp_path / "a" / "epoch-1.ckpt").exists()
    images = Run(tmp_path / "a").dataset()
    model, _ = Run(tmp_path / "a").model(images, "epoch-2")
    assert all(torch.equal(two[f"model.{name}"], p) for name, p in model.named_parameters())


def test_gradients_are_unchanged_without_normalisation_and_may_be_none():
    parameter, unused = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    gated_adam([parameter, unused], lr=0.01, normalize=False).step()
    assert parameter.grad.tolist() == [3.0, 4.0]
    normalize_gradients([parameter, unused])
    assert unused.grad is None
    assert parameter.grad.tolist() == pytest.approx([0.6, 0.8])


# Two processes


class GivenNoise(DiagonalNormal):
    """A normal distribution whose draws use noise that comes with x: the same on every device."""

    def __init__(self, loc, scale, noise):
        super().__init__(loc, scale)
        self.noise = noise

    def rsample_and_log_prob(self, sample_shape=()):
        z = (self.loc + self.scale * self.noise).expand(*sample_shape, *self.loc.shape)
        return z, self.log_prob(z)


class NoisyEncoder(nn.Module):
    """x = [values, noise] -> q(z|values)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x):
        loc, log_scale = self.layer(x[..., :3]).chunk(2, -1)
        return GivenNoise(loc, log_scale.tanh().exp(), x[..., 3:])


class ValuesDecoder(nn.Module):
    """z -> p(values|z), which leaves the noise in x alone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, z):
        values = Normal(self.layer(z), 1.0)
        return SimpleNamespace(
            log_prob=lambda x: values.log_prob(x[..., :3]).sum(-1),
            event_shape=torch.Size([5]),
            batch_shape=z.shape[:-1],
        )


def noisy():
    torch.manual_seed(0)
    encoder = NoisyEncoder()
    prior = VampPrior(encoder, torch.randn(4, 5), weighted=True, bounds=None)
    return VAE(encoder, ValuesDecoder(), prior).double(), ELBO(warmup=2)


def noisy_data():
    x = torch.randn(10, 5, generator=torch.Generator().manual_seed(1))
    return Dataset("noisy", x, x, x, "gaussian")


def of_two(rank, port, function, *arguments):
    """Call a function in a process that is one of two devices."""
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    function(*arguments)


def two(function, *arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [(of_two, rank, port, function, *arguments) for rank in (0, 1)]


def one_plain_step(folder):
    """An epoch of one batch, and of one step down the gradient with learning rate 1: Adam's, for so large an eps."""
    model, objective = noisy()
    options = {"epochs": 1, "batch_size": 10, "lr": 1e14, "adam_eps": 1e14, "normalize": False}
    devices = {"devices": 2, "accelerator": "cpu", "precision": "64-true"}
    training.fit(model, objective, noisy_data(), store=Folder(folder), **options, **devices)


def test_two_processes_take_the_gradient_of_the_whole_batch(tmp_path, processes):
    assert processes(*two(one_plain_step, tmp_path)) == [0, 0]
    model, objective = noisy()
    x = noisy_data().train.double()
    objective(model, x)[0].backward()
    after, _ = tensors(tmp_path, "last")
    for name, parameter in model.named_parameters():
        step = parameter.detach() - after[f"model.{name}"]
        assert parameter.grad.abs().max() > 1e-3
        assert (step - parameter.grad).abs().max() < 1e-12, name
    objective.eval()
    (line,) = numbers(tmp_path)
    checkpoint.load_module(model, {name.removeprefix("model."): t for name, t in after.items() if "model." in name})
    assert line["valid_loss"] == pytest.approx(objective(model, x)[0].item(), abs=1e-12)


class Second:
    """The devices of a process that is not the first one."""

    is_global_zero = False

    def __init__(self, fabric):
        self.fabric = fabric

    def __getattr__(self, name):
        return getattr(self.fabric, name)


def test_each_of_several_processes_resumes_from_its_own_memory():
    fabric, store = Second(make_fabric(Experiment(accelerator="cpu"))), Memory()
    outcomes, weights = [], []
    for epochs, where in ((2, store), (3, store), (3, Memory())):
        model, objective = noisy()
        settings = Settings(epochs=epochs, batch_size=4, precision="64-true")
        outcomes.append(training.Training(model, objective, noisy_data(), settings, fabric, where).run())
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert store.has("best")
    assert [line["epoch"] for line in store.metrics()] == [1, 2, 3]
    assert torch.equal(weights[1], weights[2])
    assert outcomes[1] == outcomes[2]


def evaluate_by_two(folder):
    evaluate_run(Run(folder), samples=20_000, accelerator="cpu", devices=2)


def test_two_processes_share_the_examples_of_an_evaluation_in_their_order(tmp_path, train, processes):
    """Five examples, so three and two; each estimate as one process finds it, up to its noise."""
    assert train(tmp_path / "run", "--epochs", "8") == 0
    alone = evaluate_run(Run(tmp_path / "run"), samples=20_000, accelerator="cpu")
    expected = np.load(tmp_path / "run" / "log_likelihood.npy")
    (tmp_path / "run" / "evaluation.json").unlink()
    assert processes(*two(evaluate_by_two, tmp_path / "run")) == [0, 0]
    estimates = np.load(tmp_path / "run" / "log_likelihood.npy")
    assert estimates.shape == expected.shape == (5,)
    assert np.abs(estimates - expected).max() < 0.25
    assert np.abs(estimates[[0, 3, 1, 4, 2]] - expected).max() > 0.25  # not end to end
    assert not np.array_equal(estimates, expected)
    shared = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert (shared["devices"], alone["devices"]) == (2, 1)
    assert shared["nll"] == pytest.approx(-estimates.mean(), abs=1e-12)
    for devices, message in ((0, "devices is 0"), (6, "only 5 examples")):
        with pytest.raises(ValueError, match=message):
            evaluate_run(Run(tmp_path / "run"), accelerator="cpu", devices=devices)


def toss_coins(folder):
    """Two epochs of ten images of 50 fair coins."""
    coins = torch.full((10, 50), 0.5)
    dataset = Dataset("coins", coins, coins.ceil(), coins.ceil(), "bernoulli", dynamic=True)
    np.save(folder / f"{os.environ['LOCAL_RANK']}.npy", torch.cat(inputs(dataset, folder / "run", devices=2)))


def test_two_processes_draw_different_noise(tmp_path, processes):
    assert processes(*two(toss_coins, tmp_path)) == [0, 0]
    x = np.concatenate([np.load(tmp_path / f"{rank}.npy") for rank in (0, 1)])
    assert x.shape == (20, 50)
    assert len({row.tobytes() for row in x}) == 20


def train_rewo(folder):
    """REWO whose bound is met in the middle of the run; what each device has after every step."""
    torch.manual_seed(0)
    x = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
    bound = {"objective": "rewo", "kappa": 1.0, "nu": 20.0, "prior": "vhp", "prior_hidden": (5,)}
    experiment = tiny(**bound, lr=0.003, epochs=30, devices=2)
    fabric = make_fabric(experiment)
    fabric.launch()
    parts = prepare(experiment, Dataset("x", x, x, x, "gaussian"), Run(folder / "run"), fabric, [])
    seen = []
    parts.optimizer.register_step_post_hook(
        lambda *_: seen.append(torch.cat([p.detach().flatten().clone() for p in parts.model.parameters()]
                                         + [t[None] for t in parts.objective.metrics().values()]
                                         + [parts.objective.prior_gate()[None].clone()]))
    )  # fmt: skip
    parts.run(save_every=1000)
    np.save(folder / f"{os.environ['LOCAL_RANK']}.npy", torch.stack(seen))


def test_two_processes_meet_the_bound_of_rewo_at_the_same_step(tmp_path, processes):
    """Each has other examples and another error: apart, one would train the prior a step before the other."""
    assert processes(*two(train_rewo, tmp_path)) == [0, 0]
    first, second = (np.load(tmp_path / f"{rank}.npy") for rank in (0, 1))
    assert set(first[:, -1]) == {0, 1}
    assert (first == second).all()


class Copies(Callback):
    """Copies the folder as it is in epoch 2, when the checkpoint of epoch 1 is written."""

    def __init__(self, folder, copy):
        self.folder, self.copy = folder, copy

    def epoch(self, line):
        if line["epoch"] == 2:
            shutil.copytree(self.folder, self.copy)


def train_and_copy(experiment, dataset, folder, copy):
    fabric = make_fabric(experiment)
    fabric.launch()
    callbacks = [Copies(folder, copy)] if fabric.is_global_zero else []
    fit(experiment, dataset, Run(folder), fabric, callbacks, save_every=0)


@pytest.mark.parametrize("prior", [{"prior": "vamp", "components": 5}, {"prior": "exemplar", "exemplars": 5}])
def test_a_run_of_two_processes_writes_once_and_is_resumed_bit_for_bit(tmp_path, images, dataset, processes, prior):
    experiment = tiny(data=str(images), devices=2, epochs=2, **prior)
    whole, copy = tmp_path / "whole", tmp_path / "copy"
    assert processes(*two(train_and_copy, experiment, dataset, whole, copy)) == [0, 0]
    assert [line["epoch"] for line in numbers(whole)] == [1, 2]
    assert tensors(copy, "last")[1]["epoch"] == 1
    assert processes(*two(cli.main, ["train", "--out", str(copy), "--resume"])) == [0, 0]
    assert_same_run(whole, copy)


def test_the_command_line_starts_its_second_process_itself(tmp_path, images):
    (tmp_path / "start.py").write_text("from vaepriors.cli import main\n\nmain()\n")
    command = [sys.executable, tmp_path / "start.py", "train", "--data", images, "--out", tmp_path / "run", *TINY]
    done = subprocess.run([*command, "--devices", "2", "--epochs", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(numbers(tmp_path / "run")) == 1
    assert done.stdout.count("finished after epoch 1") == 1


@pytest.mark.parametrize("valid", [1001, 1])
def test_two_processes_with_a_chunk_more_or_with_nothing_to_validate(tmp_path, processes, valid):
    """501 and 500 examples are two chunks and one; of one example the second process has none."""
    x = np.random.default_rng(0).normal(size=(1001, 2))
    np.savez(tmp_path / "mine.npz", test=x[:5], train=x[:10], valid=x[:valid])
    options = ["--data", str(tmp_path / "mine.npz"), "--out", str(tmp_path / "run"), "--devices", "2", "--epochs", "2"]
    assert processes(*two(cli.main, ["train", *TINY, *options])) == [0, 0]
