"""What a machine can hold, and what an experiment needs of it."""

import math
import os

import pytest
import torch

from vaepriors import data, limits
from vaepriors.app.cost import check_memory, least_memory
from vaepriors.app.experiment import MODELS, PRIORS, Experiment, build
from vaepriors.likelihood import estimate


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("model", MODELS)
def test_all_weights_are_counted(model, prior):
    dataset = data.stand_in("pendulum")
    mixture = {name: 3 for name in ("components", "exemplars") if name in PRIORS[prior].options}
    experiment = Experiment(model=model, prior=prior, latent=3, hidden=(5,), **mixture)
    built, _ = build(experiment, dataset)
    memory = least_memory(experiment, dataset)
    fixed = {"vamp-data": 4 * 3 * 16 * 16, "exemplar": -5 * 4}.get(prior, 0)  # the latter has one variance more
    assert memory.networks + memory.components - fixed == 5 * 4 * sum(weight.numel() for weight in built.parameters())
    assert memory.data == 4 * 2 * dataset.train.numel()
    check_memory(experiment, dataset)


def test_the_limit_can_be_set(environment):
    experiment, dataset = Experiment(), data.stand_in("static_mnist")
    size = least_memory(experiment, dataset).total
    environment(VAEPRIORS_MEMORY=size / 2**30)
    check_memory(experiment, dataset)
    environment(VAEPRIORS_MEMORY=size / 2**31)
    with pytest.raises(
        ValueError, match=r"networks \(latent 40, hidden \(300, 300\)\).* needs at least .* MiB .*VAEPRIORS_MEMORY"
    ):
        check_memory(experiment, dataset)


def test_processes_on_a_cpu_share_its_memory(environment):
    dataset = data.stand_in("static_mnist")
    size = least_memory(Experiment(), dataset).total
    environment(VAEPRIORS_MEMORY=1.5 * size / 2**30)
    check_memory(Experiment(), dataset)
    with pytest.raises(ValueError, match="memory"):
        check_memory(Experiment(devices=4), dataset)


def test_several_nodes_share_a_batch():
    dataset = data.stand_in("static_mnist")
    here, apart = (least_memory(Experiment(batch_size=2, **{name: 2}), dataset) for name in ("devices", "nodes"))
    assert here == apart


def test_nothing_is_drawn_or_allocated_to_count():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    experiment = Experiment(hidden=(10**9, 10**9), latent=10**9, prior="vhp", epochs=10**18, batch_size=10**18)
    assert least_memory(experiment, data.stand_in("pendulum")).total > 10**18
    assert torch.equal(torch.get_rng_state(), state)


def test_processes_are_limited_by_processors():
    processors = len(os.sched_getaffinity(0))
    limits.check_processes(8 * processors)
    with pytest.raises(ValueError, match=f"devices is {8 * processors + 1}"):
        limits.check_processes(8 * processors + 1)


@pytest.mark.parametrize(
    ("line", "folder", "name"),
    [
        ("0::/batch/job", "batch/job", "memory.max"),
        ("0::/batch/job", "batch", "memory.max"),
        ("0::/elsewhere", "", "memory.max"),
        ("4:memory:/batch/job", "memory/batch", "memory.limit_in_bytes"),
    ],
)
def test_the_limit_of_a_control_group_counts(tmp_path, line, folder, name):
    process = tmp_path / "cgroup"
    process.write_text(f"8:pids:/\n{line}\n")
    root = tmp_path / "fs"
    (root / folder).mkdir(parents=True)
    assert limits._group_limit(process, root) == math.inf
    (root / folder / name).write_text("max\n")
    assert limits._group_limit(process, root) == math.inf
    (root / folder / name).write_text("1048576\n")
    assert limits._group_limit(process, root) == 2**20
    assert 0 < limits.available_memory() < math.inf


def test_the_first_draws_of_very_many_need_no_list_of_all():
    model, _ = build(Experiment(latent=2, hidden=(4,)), data.load("digits"))
    chunks = []

    def stop(decoder, inputs):
        chunks.append(len(inputs[0]))
        if len(chunks) == 5:
            raise KeyboardInterrupt

    model.decoder.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        estimate(model, data.load("digits").test[:1], samples=2**63, chunk=10)
    assert chunks == [1, 10, 10, 10, 10]  # the first is to check x
