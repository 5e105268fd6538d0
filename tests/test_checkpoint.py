"""Files that are whole or not there, and what comes back out of them."""

import errno
import os
import resource

import pytest
import torch

from vaepriors import checkpoint, networks
from vaepriors.optim import gated_adam
from vaepriors.priors import StandardNormal, VampPrior
from vaepriors.vae import VAE


def vamp(seed, hidden=8):
    torch.manual_seed(seed)
    encoder, decoder = networks.Encoder((1, 2, 2), [hidden], 2), networks.Decoder((1, 2, 2), [hidden], 2)
    return VAE(encoder, decoder, VampPrior(encoder, torch.rand(3, 1, 2, 2), weighted=True))


def test_round_trip_keeps_values_types_and_shared_tensors(tmp_path):
    one, other = vamp(0).double(), vamp(1).double()
    tensors = checkpoint.module_tensors(one)
    assert len(tensors) == len(list(one.parameters()))  # the shared encoder once
    values = {"epoch": 3, "loss": 0.1, "best": None}
    checkpoint.save(tmp_path / "a.ckpt", tensors | {"step": torch.tensor(7)}, values)
    loaded, loaded_values = checkpoint.load(tmp_path / "a.ckpt")
    assert loaded_values == values
    step = loaded.pop("step")
    assert (step.item(), step.dtype, step.shape) == (7, torch.int64, ())
    checkpoint.load_module(other, loaded)
    assert other.prior.encoder is other.encoder
    for name, tensor in one.state_dict().items():
        assert tensor.dtype == torch.float64
        assert torch.equal(other.state_dict()[name], tensor), name


def test_a_tensor_and_a_view_of_it_are_saved(tmp_path):
    table = torch.arange(6.0).view(2, 3)
    tensors = {"table": table, "row": table[0], "column": table[:, 1]}
    checkpoint.save(tmp_path / "a.ckpt", tensors, {})
    loaded, _ = checkpoint.load(tmp_path / "a.ckpt")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("damage", ["empty", "cut in the header", "cut in the tensors", "random bytes", "no values"])
def test_a_damaged_file_is_one_sentence(tmp_path, damage):
    path = tmp_path / "a.ckpt"
    checkpoint.save(path, checkpoint.module_tensors(vamp(0)), {})
    whole = path.read_bytes()
    content = {
        "empty": b"",
        "cut in the header": whole[:100],
        "cut in the tensors": whole[:-1],
        "random bytes": bytes(range(256)) * 4,
        "no values": checkpoint.save_tensors({"a": torch.zeros(1)}),
    }
    path.write_bytes(content[damage])
    with pytest.raises(ValueError, match=r"a\.ckpt is damaged") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path):
    path = tmp_path / "a.ckpt"
    checkpoint.save(path, {"a": torch.arange(4.0), "b": torch.ones(2)}, {"epoch": 3}, of="an experiment")
    assert checkpoint.owner(path) == "an experiment"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(checkpoint.Damaged, match=r"a\.ckpt is damaged"):
            checkpoint.load(path)


def test_the_same_content_is_the_same_file(tmp_path):
    for name in ("a", "b"):
        checkpoint.save(tmp_path / name, checkpoint.module_tensors(vamp(0)), {"epoch": 3}, of="c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_checkpoint_of_another_model_is_refused_and_changes_nothing():
    model = vamp(0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"of another model: \d+ tensors differ, the first being \S+ \(here") as caught:
        checkpoint.load_module(model, checkpoint.module_tensors(vamp(0, hidden=9)))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    plain = VAE(model.encoder, model.decoder, StandardNormal(2))
    with pytest.raises(ValueError, match=r"here None, there \(3, 1, 2, 2\)"):
        checkpoint.load_module(plain, checkpoint.module_tensors(model) | {"a": torch.zeros(3, 1, 2, 2)})


def write_beyond_the_limit(path):
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        checkpoint.write_atomically(path, bytes(20_000))
    except OSError as error:
        os._exit(100 + error.errno)


def test_a_write_that_the_system_refuses_halfway_leaves_the_old_file_alone(tmp_path, processes):
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"old")
    assert processes((write_beyond_the_limit, path)) == [100 + errno.EFBIG]
    assert os.listdir(tmp_path) == ["a.ckpt"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_optimiser_resumes_bit_for_bit(tmp_path, dtype):
    def steps(model, optimizer, first, last):
        for step in range(first, last):
            torch.manual_seed(step)
            optimizer.zero_grad()
            model(torch.rand(5, 1, 2, 2, dtype=dtype)).log_weight.mean().neg().backward()
            optimizer.step()

    one = vamp(0).to(dtype)
    first = gated_adam(one.parameters(), 1e-2)
    steps(one, first, 0, 3)
    parts = {"model": checkpoint.module_tensors(one), "optimizer": checkpoint.optimizer_tensors(first)}
    for part, tensors in parts.items():
        checkpoint.save(tmp_path / part, tensors, {})
    steps(one, first, 3, 6)

    other = vamp(1).to(dtype)
    second = gated_adam(other.parameters(), 1e-2)
    checkpoint.load_module(other, checkpoint.load(tmp_path / "model")[0])
    checkpoint.load_optimizer(second, checkpoint.load(tmp_path / "optimizer")[0])
    steps(other, second, 3, 6)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_digest_is_of_names_types_shapes_and_values():
    one = {"a": torch.tensor([1.0, -0.0]), "b": torch.tensor(True), "c": torch.zeros(0, 3)}
    known = checkpoint.digest(one)
    assert known == checkpoint.digest(dict(reversed(one.items())))
    assert known == checkpoint.digest(one | {"a": torch.tensor([[1.0, 5.0], [-0.0, 5.0]])[:, 0]})  # not contiguous
    others = [
        {"a": torch.tensor([1.0, 0.0])},
        {"a": torch.tensor([[1.0, -0.0]])},
        {"a": torch.tensor([1.0, -0.0]).view(torch.int32)},
        {"d": torch.zeros(0, 3)},
        {"c": torch.zeros(3, 0)},
    ]
    assert len({known, *(checkpoint.digest(one | other) for other in others)}) == 6
