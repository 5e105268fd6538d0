"""What decides the last bits is set for the time of a call, whatever the process had set before."""

import ctypes
import platform
import resource
import sys
from types import SimpleNamespace

import pytest
import torch

from vaepriors import networks, numerics
from vaepriors.app.experiment import Experiment
from vaepriors.app.run import Run
from vaepriors.app.train import fit
from vaepriors.data import load
from vaepriors.likelihood import estimate
from vaepriors.numerics import fixed_numerics, keep_generators
from vaepriors.priors import StandardNormal
from vaepriors.vae import VAE

ONEDNN = getattr(torch.backends.mkldnn, "matmul", SimpleNamespace(fp32_precision="none"))


def flushes():
    return bool(torch.tensor([1e-39]) * 1 == 0)


def state():
    products = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, ONEDNN.fp32_precision
    return products, flushes()


def change_settings(products, flushed):
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, ONEDNN.fp32_precision = products
    torch.set_flush_denormal(flushed)


@pytest.fixture
def other_settings():
    """A process in which someone allowed coarse products and flushed denormals: on AMD and Intel other bits follow."""
    before = state()
    change_settings((True, True, "bf16"), flushed=True)
    yield
    change_settings(*before)


def small_vae():
    torch.manual_seed(0)
    encoder, decoder = networks.Encoder((1, 8, 8), [300], 8), networks.Decoder((1, 8, 8), [300], 8)
    return VAE(encoder, decoder, StandardNormal(8))


def train_and_estimate(folder):
    digits = load("digits")
    fit(Experiment(epochs=1, hidden=(300,), prior="vamp", components=30, accelerator="cpu"), digits, Run(folder))
    (line,) = Run(folder).metrics()
    torch.manual_seed(0)
    return line["loss"], line["valid_loss"], estimate(small_vae(), digits.test[:20], samples=50).log_likelihood


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return train_and_estimate(tmp_path_factory.mktemp("plain"))


def test_a_process_with_other_settings_computes_the_same_bits(tmp_path, plain, other_settings):
    before = state()
    loss, valid_loss, log_likelihood = train_and_estimate(tmp_path)
    assert (loss, valid_loss) == plain[:2]
    assert torch.equal(log_likelihood, plain[2])
    assert state() == before


def test_settings_are_put_back_also_after_an_error_and_by_the_outer_block_only():
    before, seen = state(), []

    def nested():
        with fixed_numerics():
            with fixed_numerics():
                seen.append(state())
            seen.append(state())
            raise KeyError

    with pytest.raises(KeyError):
        nested()
    assert seen[0] == seen[1]
    assert seen[0][1]  # denormals are flushed
    assert state() == before


def flush_on_old_threads():
    torch.set_num_threads(2)
    x = torch.full((2_000_000,), 1e-39)
    kept = lambda: int((x * 1 != 0).sum())  # noqa: E731
    before = kept()  # starts the threads
    with fixed_numerics():
        within = kept()
    assert before == kept() == 2_000_000
    assert within == 0 or not sys.platform.startswith("linux")


def test_denormals_are_flushed_on_the_threads_that_exist_already(processes):
    assert processes([flush_on_old_threads]) == [0]


def test_products_go_to_onednn_on_amd_if_they_stay_exact():
    assert numerics.error_of_products() < 1e-6
    assert not numerics.prefers_onednn("GenuineIntel", lambda: 1e-7)
    assert not numerics.prefers_onednn("AuthenticAMD", lambda: 1e-3)  # a processor that rounds to bfloat16
    there = hasattr(torch.backends.mkldnn, "matmul") and torch.backends.mkldnn.is_available()
    assert numerics.prefers_onednn("AuthenticAMD", lambda: 1e-7) == there
    with fixed_numerics():
        assert numerics.error_of_products() < 1e-5


def test_a_run_records_its_numerics(tmp_path):
    fit(Experiment(epochs=1, hidden=(8,), accelerator="cpu"), load("digits"), Run(tmp_path))
    (session,) = Run(tmp_path).description()["sessions"]
    assert session["numerics"] == numerics.describe()
    assert session["numerics"]["threads"] == torch.get_num_threads()


def count_faults():
    """New pages for ten times 24 MiB, freed and asked for again."""
    faults = []
    for _ in range(20):
        torch.ones(6 * 2**20)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    return faults[-1] - faults[9]


def free_and_ask():
    ctypes.CDLL("libc.so.6").mallopt(
        -3, 2**17
    )  # the threshold as a process begins with it, and now without its growing
    assert count_faults() >= 10 * 6000  # 6,144 pages each time
    with fixed_numerics():
        assert count_faults() < 6000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept by glibc only")
def test_memory_is_kept_within_the_block(processes):
    """Memory that is freed and asked for again costs new pages only outside of the block."""
    assert processes([free_and_ask]) == [0]


def test_the_generators_of_the_devices_in_use_are_kept(monkeypatch):
    """And no others: to look at each would open all devices of the machine."""
    kept, fork = [], torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: kept.append(devices) or fork([]))
    with keep_generators(torch.device("cuda", 1), torch.zeros(2), torch.nn.Linear(2, 2)):
        pass
    with keep_generators(torch.nn.Linear(2, 2)):
        pass
    assert kept == [[torch.device("cuda", 1)], []]
