"""Every set of the catalogue: on small files of the upstream format, and on the real ones where they are present."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from vaepriors import data
from vaepriors.data import caltech, draws, frey, histopathology, mnist, omniglot

REAL = os.environ.get("VAEPRIORS_DATA")


@pytest.fixture
def put(data_folder):
    """Write content as the file of a source; return the source with the digest of this content."""

    def put(source, content, as_path=None):
        plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        path = data_folder / (as_path or source.path)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return replace(source, digest=f"sha256:{hashlib.sha256(plain).hexdigest()}")

    return put


def levels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def idx(images):
    return struct.pack(">4i", 2051, *images.shape) + images.tobytes()


def mat(**arrays):
    file = io.BytesIO()
    scipy.io.savemat(file, arrays)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def rows(x):
    return {tuple(row) for row in x.flatten(1).tolist()}


def test_digits_are_embedded_and_split_alike_for_every_seed(data_folder):
    one, two = data.load("digits", seed=1), data.load("digits", seed=2)
    assert (len(one.train), len(one.valid), len(one.test)) == (1297, 250, 250)
    assert one.event_shape == (1, 8, 8)
    assert (one.likelihood, one.dynamic, one.pseudo) == ("bernoulli", True, None)
    assert torch.equal((one.train * 16).round() / 16, one.train)
    assert one.train.max() == 1
    for split in ("train", "valid", "test"):
        assert torch.equal(getattr(one, split), getattr(two, split))
        assert torch.equal(one.labels[split], two.labels[split])
    # the mean image of a class is nearer to its own images than that of all others is, for most
    means = torch.stack([one.train[one.labels["train"] == digit].mean(0) for digit in range(10)])
    nearest = torch.cdist(one.test.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == one.labels["test"]).float().mean() > 0.7
    assert data.fetch("digits") == []


def test_few_test_points_are_of_all_classes_and_always_the_same():
    labels = torch.arange(1000) // 250  # in the order of the classes, as a folder for each class is read
    x = torch.arange(1000.0)[:, None]
    own = {"train": labels, "test": labels}
    ordered = data.Dataset("ordered", x, x, x, "gaussian", labels=own)
    few = ordered.few_test(40)
    assert torch.equal(few.labels, few.x[:, 0].long() // 250)
    assert torch.bincount(few.labels).min() >= 3
    assert len(few.x.unique()) == 40
    assert torch.equal(ordered.few_test(10).x, few.x[:10])
    assert torch.equal(ordered.few_test().x.sort(0).values, x)
    assert (few.condition, few.groups) == (None, None)
    y = {split: torch.nn.functional.one_hot(labels).float() for split in ("train", "valid", "test")}
    given = replace(ordered, conditions=y, classes=(0, 1, 2, 3)).few_test(40)
    assert torch.equal(given.condition.argmax(-1), few.labels)
    assert torch.equal(given.groups, few.labels)


def test_binarize_once_is_fixed_exact_at_the_ends_and_unbiased():
    p = torch.tensor([0.0, 1.0, 0.25]).expand(20_000, 3)
    x = draws.binarize_once(p)
    assert torch.equal(x, draws.binarize_once(p))
    assert x.dtype == torch.float32
    assert x[:, 0].sum() == 0
    assert x[:, 1].sum() == 20_000
    assert abs(x[:, 2].mean().item() - 0.25) < 4 * (0.25 * 0.75 / 20_000) ** 0.5
    assert not torch.equal(x, draws.binarize_once(p, stream=1))


def test_binarize_once_never_changes():
    first = [1, 1, 1, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0]
    assert draws.binarize_once(torch.full((16,), 0.5)).tolist() == first


def test_shuffled_split_is_a_partition_that_follows_the_seed():
    parts = draws.shuffled_split(100, 10, 20, seed=3)
    assert [len(part) for part in parts] == [70, 10, 20]
    assert sorted(torch.cat(parts).tolist()) == list(range(100))
    again, other = draws.shuffled_split(100, 10, 20, seed=3), draws.shuffled_split(100, 10, 20, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))
    assert not torch.equal(parts[0], other[0])


@pytest.mark.parametrize(
    ("load", "published", "pseudo"),
    [(mnist.load_dynamic, mnist.MNIST, (0.05, 0.01)), (mnist.load_fashion, mnist.FASHION, None)],
)
def test_gray_mnist(put, load, published, pseudo):
    train, test = levels(8, 28, 28), levels(3, 28, 28)[::-1]
    sources = [put(source, gzip.compress(idx(x))) for source, x in zip(published, (train, test), strict=True)]
    one = load(validation=2, sources=sources)
    assert one.train.shape == (6, 1, 28, 28)
    assert one.dynamic
    assert one.likelihood == "bernoulli"
    assert one.pseudo == pseudo
    assert torch.equal(one.train[:, 0], torch.tensor(train[:6]).float() / 255)
    assert len(one.valid) == 2
    assert len(one.test) == 3
    assert rows(one.valid).isdisjoint(rows(one.test))
    assert (one.valid[:, 0][torch.tensor(train[6:]) == 255] == 1).all()
    assert (one.test[:, 0][torch.tensor(test.copy()) == 0] == 0).all()
    two = load(seed=5, validation=2, sources=sources)
    assert torch.equal(one.valid, two.valid)
    assert torch.equal(one.test, two.test)


@pytest.mark.parametrize("as_path", [None, "mnist/{}-images-idx3-ubyte"])
def test_mnist_is_recognised_by_its_content_however_compressed(put, as_path):
    sources = []
    for source, (part, number) in zip(mnist.MNIST, [("train", 4), ("t10k", 2)], strict=True):
        content = idx(levels(number, 28, 28))
        path = as_path and as_path.format(part)
        sources.append(put(source, content if path else gzip.compress(content, 1), path))
    assert len(mnist.load_dynamic(validation=1, sources=sources).train) == 3


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_static_mnist_text(put, suffix):
    bits = levels(9, 784) & 1
    sources = []
    for source, part in zip(mnist.STATIC, np.split(bits, [4, 7]), strict=True):
        text = "".join(" ".join(map(str, row)) + "\n" for row in part).encode()
        sources.append(put(source, gzip.compress(text) if suffix else text, source.path + suffix))
    static = mnist.load_static(sources=sources)
    assert (static.likelihood, static.dynamic, static.pseudo) == ("bernoulli", False, (0.05, 0.01))
    joined = torch.cat([static.train, static.valid, static.test])
    assert torch.equal(joined, torch.tensor(bits).float().reshape(9, 1, 28, 28))
    assert [len(static.train), len(static.valid), len(static.test)] == [4, 3, 2]


def test_static_mnist_packed(put):
    bits = levels(6, 784) & 1
    parts = zip(("train", "valid", "test"), np.split(bits, 3), strict=True)
    arrays = {f"{split}_bits": np.packbits(part, axis=1) for split, part in parts}
    static = mnist.load_static(packed=put(mnist.STATIC_PACKED, npz(**arrays)))
    joined = torch.cat([static.train, static.valid, static.test])
    assert torch.equal(joined.reshape(6, 784), torch.tensor(bits).float())


def test_chardata_is_stored_by_columns_and_seed_chooses_the_validation_images(put):
    images = levels(40, 28, 28) / 255
    images[:, 0, 1] = np.arange(40) / 64  # row 0, column 1 identifies the image
    by_columns = images.transpose(0, 2, 1).reshape(40, 784).T
    source = put(omniglot.CHARDATA, mat(data=by_columns[:, :30], testdata=by_columns[:, 30:]))
    one, again, two = (omniglot.load(seed, validation=10, source=source) for seed in (1, 1, 2))
    assert one.train.shape == (20, 1, 28, 28)
    assert len(one.valid) == 10
    assert len(one.test) == 10
    assert one.dynamic
    assert one.likelihood == "bernoulli"
    assert one.pseudo == (0.05, 0.01)
    origin = (one.train[:, 0, 0, 1] * 64).round().long()
    assert torch.equal(one.train[:, 0], torch.tensor(images).float()[origin])
    assert torch.equal(one.train, again.train)
    assert rows(one.train) != rows(two.train)
    assert torch.equal(one.test, two.test)
    # whichever images are chosen, an image has the same bits
    bits = draws.binarize_once(torch.tensor(images[:30]).float().unsqueeze(1))
    assert rows(one.valid) <= rows(bits)
    assert rows(two.valid) <= rows(bits)
    chosen = sorted(set(range(30)) - set(origin.tolist()))
    assert rows(one.valid) == rows(bits[chosen])


def test_omniglot_derived_is_named_as_a_stand_in(put):
    images = levels(12, 28, 28)
    content = npz(train_images=images[:9], test_images=images[9:], train_char=np.arange(9))
    stand_in = omniglot.load_derived(validation=3, source=put(omniglot.DERIVED, content))
    assert stand_in.name == "omniglot_derived"
    assert rows(stand_in.train) <= rows(torch.tensor(images).float() / 255)
    assert [len(stand_in.train), len(stand_in.valid), len(stand_in.test)] == [6, 3, 3]
    assert "NOT the papers'" in data.CATALOGUE["omniglot_derived"].about


def test_caltech_turns_the_object_to_one_and_columns_to_rows(put):
    stored = np.ones((6, 784), dtype=np.uint8)
    stored[:, 28 * 3 + 5] = 0  # stored by columns: column 3, row 5
    arrays = dict(zip(caltech.KEYS, np.split(stored, [3, 5]), strict=True))
    content = mat(**arrays, classnames=np.array(["a"], dtype=object))
    silhouettes = caltech.load(source=put(caltech.SILHOUETTES, content))
    assert [len(silhouettes.train), len(silhouettes.valid), len(silhouettes.test)] == [3, 2, 1]
    assert (silhouettes.train.sum((1, 2, 3)) == 1).all()
    assert (silhouettes.train[:, 0, 5, 3] == 1).all()
    assert (silhouettes.likelihood, silhouettes.dynamic, silhouettes.pseudo) == ("bernoulli", False, (0.5, 0.02))


def test_frey_faces_are_bin_middles_split_by_seed(put):
    frames = levels(560, 20)
    source = put(frey.FRAMES, mat(ff=frames))
    one, same, other = (frey.load(seed, held_out=4, source=source) for seed in (0, 0, 1))
    assert one.train.shape == (12, 1, 28, 20)
    assert len(one.valid) == len(one.test) == 4
    assert (one.likelihood, one.dynamic, one.pseudo) == ("logistic256", False, (0.5, 0.02))
    joined = torch.cat([one.train, one.valid, one.test])
    assert rows(joined) == rows((torch.tensor(frames.T.copy()).float() + 0.5) / 256)
    assert len(rows(joined)) == 20
    assert torch.equal(one.train, same.train)
    assert torch.equal(one.test, same.test)
    assert rows(one.test) != rows(other.test)


def tar_of(pickled, name="histopathology.pkl"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo(f"some/{name}")
        member.size = len(pickled)
        archive.addfile(member, io.BytesIO(pickled))
    return file.getvalue()


def put_patches(folder, content):
    path = folder / histopathology.PATCHES.path
    path.parent.mkdir()
    path.write_bytes(content)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("top", [1, 255])
def test_histopathology_is_clipped_to_the_middles_of_the_outer_bins(data_folder, protocol, top):
    gray = levels(6, 28, 28)
    gray[0, 0, :2] = 0, 255
    stored = gray if top == 255 else gray / 255
    patches = {"training": list(stored[:3]), "validation": stored[3:5], "test": stored[5:].reshape(1, 784)}
    put_patches(data_folder, tar_of(pickle.dumps(patches, protocol)))
    loaded = data.load("histopathology")
    assert [len(loaded.train), len(loaded.valid), len(loaded.test)] == [3, 2, 1]
    assert (loaded.likelihood, loaded.dynamic, loaded.pseudo) == ("logistic256", False, (0.4, 0.05))
    assert loaded.train[0, 0, 0, :2].tolist() == [1 / 512, 1 - 1 / 512]
    joined = torch.cat([loaded.train, loaded.valid, loaded.test])[:, 0]
    assert torch.equal((joined * 256).floor(), torch.tensor(gray).float())  # no level changes its bin


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def test_a_malicious_pickle_does_not_run(in_folder, data_folder):
    put_patches(data_folder, tar_of(pickle.dumps({"training": Evil()})))
    with pytest.raises(ValueError, match=r"\w+\.system is refused, it may run code"):
        data.load("histopathology")
    assert not Path("evil").exists()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (tar_of(pickle.dumps({"training": np.zeros((2, 28, 28))})), "'validation'"),
        (tar_of(pickle.dumps(dict.fromkeys(histopathology.KEYS, np.zeros((2, 27))))), "cannot reshape"),
        (tar_of(pickle.dumps([1, 2])), "TypeError"),
        (tar_of(b"\x80\x04"), "EOFError"),
        (tar_of(b"", name="readme.txt"), "ValueError"),
        (gzip.compress(b"<html>not found</html>" * 99), "ReadError"),
        (b"<html>not found</html>" * 99, "ReadError"),
    ],
)
def test_a_wrong_histopathology_file_is_one_clear_error(data_folder, content, fault):
    put_patches(data_folder, content)
    with pytest.raises(ValueError, match=rf"histopathology\.pkl\.tar\.gz is not a tar of .*{fault}.*delete it"):
        data.load("histopathology")


def test_histopathology_outside_the_gray_levels_is_not_clipped_silently(data_folder):
    patches = dict.fromkeys(histopathology.KEYS, np.full((2, 28, 28), 4096.0))
    put_patches(data_folder, tar_of(pickle.dumps(patches)))
    with pytest.raises(ValueError, match=r"values from 4096 to 4096: gray levels lie in"):
        data.load("histopathology")


def test_names_and_entries():
    assert list(data.CATALOGUE) == [
        "digits", "static_mnist", "dynamic_mnist", "fashion_mnist", "omniglot", "omniglot_derived", "caltech101",
        "frey_faces", "pendulum", "cmu_motion", "chairs", "faces", "histopathology",
    ]  # fmt: skip
    assert all(entry.about for entry in data.CATALOGUE.values())
    for name in ("digits", "pendulum"):  # which name how many they are
        assert data.CATALOGUE[name].about.startswith(f"{sum(data.CATALOGUE[name].form.sizes):,} ")


@pytest.mark.parametrize("name", data.CATALOGUE)
def test_a_stand_in_has_the_form_of_its_set(name):
    form, fake = data.CATALOGUE[name].form, data.stand_in(name, 3)
    assert (fake.name, fake.event_shape, fake.likelihood, fake.dynamic) == (name, *form[1:])
    assert sizes(fake) == (3, 3, 3)
    assert torch.equal(fake.train, data.stand_in(name, 3).train)


@pytest.mark.parametrize("name", data.CATALOGUE)
def test_the_form_is_that_of_the_real_set(real, name):
    loaded = real(name)
    assert (sizes(loaded), loaded.event_shape, loaded.likelihood, loaded.dynamic) == data.CATALOGUE[name].form


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dynamc_mnist", "unknown data set 'dynamc_mnist': did you mean 'dynamic_mnist'.*frey_faces"),
        ("zzz", "unknown data set 'zzz': Known are digits"),
        ("runs/mine.txt", "'runs/mine.txt' looks like a path but does not exist"),
        (__file__, "looks like a path but is of another kind: custom data are a file .npy, .npz"),
        ("mine.npz", "mine.npz does not exist"),
    ],
)
def test_an_unknown_name(name, message):
    with pytest.raises(ValueError, match=message):
        data.load(name)


def test_missing_lists_the_absent_files_unless_one_replaces_them(data_folder):
    assert data.missing("static_mnist") == tuple(source.path for source in mnist.STATIC)
    (data_folder / mnist.STATIC[0].path).parent.mkdir()
    (data_folder / mnist.STATIC[0].path).touch()
    assert data.missing("static_mnist") == tuple(source.path for source in mnist.STATIC[1:])
    (data_folder / mnist.STATIC_PACKED.path).touch()
    assert data.missing("static_mnist") == ()


def test_fetch_knows_only_the_catalogue():
    with pytest.raises(ValueError, match="did you mean 'frey_faces'"):
        data.fetch("frey_face")


def good(**changes):
    x = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    return data.Dataset(**({"name": "mine", "train": x, "valid": x, "test": x, "likelihood": "bernoulli"} | changes))


def test_a_custom_dataset():
    assert good().event_shape == (2,)
    assert repr(good()) == "Dataset(name='mine', likelihood='bernoulli', dynamic=False, pseudo=None)"
    assert good(train=torch.tensor([[0.3, 0.7]]), dynamic=True).dynamic
    assert good(**dict.fromkeys(("train", "valid", "test"), torch.tensor([[-7.5]])), likelihood="gaussian")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": torch.tensor([[0.0, float("nan")], [1.0, 1.0]])}, r"mine: train holds NaN .* in 1 of 2 points, .*0"),
        ({"test": torch.tensor([[0.0, 1.0], [1.0, float("-inf")]])}, r"mine: test .*infinity in 1 of 2 points, .*1"),
        ({"valid": torch.zeros(0, 2)}, r"mine: valid is empty, shape \(0, 2\)"),
        ({"train": [[0.0, 1.0]]}, "train is a list.*float32 tensor"),
        ({"valid": None}, "valid is a NoneType.*float32 tensor"),
        ({"train": torch.zeros(3, 2, requires_grad=True)}, r"train requires a gradient.*detach\(\)"),
        ({"labels": {"training": torch.zeros(3)}}, "labels are of 'training'.*train, valid, test"),
        ({"train": torch.zeros(3)}, r"train has shape \(3,\): vectors are \(N, D\)"),
        ({"train": torch.zeros(3, 8, 8)}, r"train has shape \(3, 8, 8\).*images \(N, C, H, W\)"),
        ({"valid": torch.zeros(3, 4)}, r"valid has event shape \(4,\), train has \(2,\)"),
        ({"train": torch.zeros(3, 2, dtype=torch.uint8)}, r"train is torch.uint8, not torch.float32.*\.float\(\)"),
        ({"train": torch.tensor([[0.0, 0.3]])}, r"train holds the value 0.3 .*must lie in \{0, 1\}: binarise"),
        ({"valid": torch.tensor([[0.0, 0.3]]), "dynamic": True}, r"valid holds the value 0.3 .*binarize_once"),
        ({"train": torch.tensor([[0.0, 255.0]]), "dynamic": True}, r"value 255 \(smallest 0, largest 255\).*\[0, 1\]"),
        ({"likelihood": "logistic256"}, r"train holds the value 1 .*\(level \+ 0.5\) / 256"),
        ({"likelihood": "weibull"}, "likelihood 'weibull' is not one of bernoulli, logistic256, gaussian"),
        ({"likelihood": "gaussian", "dynamic": True}, "dynamic=True .* gaussian likelihood"),
        ({"pseudo": (0.5, -1.0)}, r"standard deviation\), the latter >= 0, not \(0.5, -1.0\)"),
    ],
)
def test_bad_data(changes, message):
    with pytest.raises(ValueError, match=message):
        good(**changes)


def test_arrays_are_no_name_of_a_data_set():
    with pytest.raises(ValueError, match=r"name is a Tensor.*Dataset"):
        data.load(torch.zeros(3, 2))


@pytest.fixture
def real():
    def real(name, seed=0):
        if REAL is None:
            pytest.skip("VAEPRIORS_DATA is not set")
        if missing := data.missing(name):
            pytest.skip(f"{missing[0]} is not present")
        return data.load(name, seed)

    return real


def sizes(loaded):
    return len(loaded.train), len(loaded.valid), len(loaded.test)


def means(loaded):
    return [round(getattr(loaded, split).mean(dtype=torch.float64).item(), 5) for split in ("train", "valid", "test")]


def test_real_static_mnist(real):
    loaded = real("static_mnist")
    assert sizes(loaded) == (50_000, 10_000, 10_000)
    assert means(loaded) == [0.13056, 0.13113, 0.13251]


def test_real_packed_static_mnist_is_the_text(real):
    loaded = real("static_mnist")
    if data.files.find(mnist.STATIC_PACKED) is None:
        pytest.skip(f"{mnist.STATIC_PACKED.path} is not present")
    packed = mnist.load_static(sources=[data.Source("absent", None)])
    assert torch.equal(packed.train, loaded.train)
    assert torch.equal(packed.valid, loaded.valid)
    assert torch.equal(packed.test, loaded.test)


def test_real_dynamic_mnist(real):
    loaded = real("dynamic_mnist")
    assert sizes(loaded) == (50_000, 10_000, 10_000)
    train = mnist._read_idx(data.files.read(mnist.MNIST[0]))
    assert abs(train.mean(dtype=torch.float64).item() - 33.3184 / 255) < 1e-6
    assert torch.equal(loaded.train, train[:50_000])
    gray = train[50_000:]
    error = (loaded.valid.mean(dtype=torch.float64) - gray.mean(dtype=torch.float64)).item()
    assert abs(error) < 4 * ((gray * (1 - gray)).sum(dtype=torch.float64).item() ** 0.5) / gray.numel()


def test_real_fashion_mnist(real):
    loaded = real("fashion_mnist")
    assert sizes(loaded) == (50_000, 10_000, 10_000)


def test_real_omniglot_stand_in(real):
    loaded = real("omniglot_derived", seed=1)
    assert sizes(loaded) == (23_000, 1_345, 8_115)


def test_real_omniglot(real):
    assert sizes(real("omniglot")) == (23_000, 1_345, 8_070)


def test_real_histopathology(real):
    assert sizes(real("histopathology")) == (6_800, 2_000, 2_000)


def test_real_caltech(real):
    loaded = real("caltech101")
    assert sizes(loaded) == (4_100, 2_264, 2_307)
    border = loaded.train[:, 0, 0].mean()  # the object is in the middle and is 1
    assert border < 0.2 < 0.6 < loaded.train[:, 0, 10:18, 10:18].mean()


def test_real_frey_faces(real):
    zero, one = real("frey_faces", 0), real("frey_faces", 1)
    assert sizes(zero) == (1_565, 200, 200)
    assert rows(zero.test) != rows(one.test)
    joined = torch.cat([zero.train, zero.valid, zero.test]) * 256 - 0.5
    assert torch.equal(joined, joined.round())
    assert joined.min() >= 0
    assert joined.max() <= 255
