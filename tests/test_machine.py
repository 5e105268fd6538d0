"""Fast paths: each gives the numbers of the plain one, and is skipped where it is unavailable."""

import copy
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vaepriors import compilation, devices
from vaepriors.app.experiment import Experiment
from vaepriors.app.run import Run
from vaepriors.app.train import fit, make_fabric, prepare
from vaepriors.compilation import Graphed
from vaepriors.data import load
from vaepriors.training.loop import uses_graph


class Recording:
    """CUDA's stream and graph, played by a CPU: what is recorded is not run, and a replay runs it in place."""

    def __init__(self):
        self.events = []

    def aside(self, function):
        self.events.append("aside")
        return function()

    def record(self, function):
        self.events.append("recorded")
        result = torch.full((3,), torch.nan, dtype=torch.float64)

        def replay():
            self.events.append("replay")
            result.copy_(function())

        return replay, result


@pytest.mark.parametrize(
    "options",
    [
        {"prior": "vamp", "components": 3, "warmup": 3},
        {"prior": "vhp", "objective": "rewo", "kappa": 0.6, "lr_stages": 2},
        {"objective": "iwae", "samples": 3, "estimator": "dreg"},
    ],
)
def test_a_graph_of_the_step_trains_as_the_step_does(tmp_path, images, options):
    """Three steps as they are, one recording, and a replay for every other: bit for bit, over epochs of three steps."""
    common = {"hidden": (8,), "latent": 2, "batch_size": 10, "accelerator": "cpu", "epochs": 4, "precision": "64-true"}
    experiment = Experiment(data=str(images), **common, **options)
    runs = Run(tmp_path / "plain"), Run(tmp_path / "graph")
    recording, models = Recording(), []
    for run in runs:
        parts = prepare(experiment, load(str(images)), run, make_fabric(experiment), [])
        if run is runs[1]:
            parts.step = Graphed(parts._step, recording.aside, recording.record)
        parts.run(save_every=1000)
        models.append(parts.model)
    assert recording.events == ["aside"] * 3 + ["recorded"] + ["replay"] * 9
    plain, graph = ([{**line, "seconds": 0, "memory": 0} for line in run.metrics()] for run in runs)
    assert plain == graph
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("data", ["digits", "images"])
@pytest.mark.parametrize("objective", ["elbo", "rewo"])
def test_a_cuda_graph_gives_the_numbers_of_the_plain_step(tmp_path, images, data, objective):
    lines = []
    for graph in (False, True):
        options = {"objective": objective, "kappa": 0.4 if objective == "rewo" else None, "prior": "vamp"}
        experiment = Experiment(
            data=str(images) if data == "images" else data,
            **options, components=20, hidden=(32,), latent=4, batch_size=10, epochs=3, warmup=2, graph=graph,
            accelerator="cuda",
        )  # fmt: skip
        run = Run(tmp_path / str(graph))
        fit(experiment, load(experiment.data), run)
        lines.append([(line["loss"], line["valid_loss"]) for line in run.metrics()])
    assert torch.tensor(lines[0]).allclose(torch.tensor(lines[1]), rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:TensorFloat32")
def test_a_cuda_module_compiled_for_less_overhead_gives_the_numbers_of_the_plain_one():
    """Over more steps than it takes to record its graphs."""
    plain = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)).cuda()
    fast = compilation.compiled(copy.deepcopy(plain), "reduce-overhead")
    for _ in range(5):
        x = torch.randn(10, 8, device="cuda")
        numbers = []
        for module in (plain, fast):
            module.zero_grad()
            loss = module(x).square().mean()
            loss.backward()
            numbers.append([loss.item(), *(p.grad.sum().item() for p in module.parameters())])
        assert numbers[1] == pytest.approx(numbers[0], rel=1e-4, abs=1e-6)


def test_a_graph_is_skipped_on_a_cpu_and_refused_on_several_devices(tmp_path, train, capsys):
    assert train(tmp_path / "a", "--epochs", "1", "--graph") == 0
    assert "there is no CUDA device for --graph: continuing without it" in capsys.readouterr().err
    assert train(tmp_path / "b", "--epochs", "1") == 0
    a, b = (Run(tmp_path / name).metrics()[0]["valid_loss"] for name in "ab")
    assert a == b
    fabric = SimpleNamespace(device=torch.device("cuda"), world_size=2)
    with pytest.raises(ValueError, match="graph is for one device, not for 2"):
        uses_graph(Experiment(graph=True), fabric)


def test_a_module_is_compiled_in_the_mode_that_is_asked_for():
    modes = []
    compiler = lambda function, mode="default": modes.append(mode) or function  # noqa: E731
    module = nn.Linear(2, 2)
    assert compilation.compiled(module, "reduce-overhead", compiler) is module
    assert modes[-1] == "reduce-overhead"
    compilation.compiled(module, compile=compiler)
    assert modes[-1] == "default"


def test_without_a_compiler_the_module_stays_as_it_is(capsys):
    def refuse(function):
        raise RuntimeError("no compiler")

    module = nn.Linear(2, 2)
    assert compilation.compiled(module, compile=refuse) is module
    assert capsys.readouterr().err == "torch.compile does not work here (RuntimeError): continuing without it\n"


def hold_more():
    before = devices.peak_memory(torch.device("cpu"))
    held = torch.ones(2**27 + int(before * 2**28))  # more than was ever held, and half a GiB
    grown = devices.peak_memory(torch.device("cpu")) - before
    raise SystemExit(0 if held.numel() * 4 / 2**30 + 0.1 > grown > 0.4 else f"{before} GiB and {grown}")


def test_peak_memory_is_in_gib_and_grows_with_what_is_held(processes):
    """In a process of its own, which has held little."""
    assert processes([hold_more]) == [0]


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Guards may run slower")  # of torch's own code
def test_a_compiled_step_gives_the_numbers_of_the_plain_one(tmp_path, images, capsys):
    """Over epochs of three steps, up to rounding in another order."""
    lines = []
    for compile_ in (False, True):
        experiment = Experiment(
            data=str(images), prior="vamp", components=3, hidden=(8,), latent=2, batch_size=10, epochs=2,
            accelerator="cpu", compile=compile_,
        )  # fmt: skip
        run = Run(tmp_path / str(compile_))
        with torch._inductor.config.patch(fallback_random=True):  # else it has noise of its own
            fit(experiment, load(experiment.data), run)
        lines.append([(line["loss"], line["rate"]) for line in run.metrics()])
    assert "continuing without" not in capsys.readouterr().err
    torch.testing.assert_close(torch.tensor(lines[0]), torch.tensor(lines[1]), rtol=1e-4, atol=1e-4)
