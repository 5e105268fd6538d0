"""MNIST, static and dynamic, and Fashion-MNIST: 28 x 28 gray images, 60,000 for training and 10,000 for testing.

    static_mnist    bits drawn once by Larochelle & Murray (The Neural Autoregressive Distribution Estimator, 2011)
    dynamic_mnist   probabilities = gray / 255, binarised at each visit (LeCun et al., 1998)
    fashion_mnist   the same, with pictures of clothes (Xiao, Rasul & Vollgraf, 2017)

The first 50,000 training images are for training, the last 10,000 for validation.
Images are stored in the IDX format: four big-endian 32-bit integers (magic number, N, H, W), then N H W bytes. Labels
have two integers (magic number, N), then N bytes. The static bits have no labels: they were published without any.
The static bits are text, a line of 784 digits an image.
"""

import io
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.dataset import Dataset
from vaepriors.data.draws import binarize_once
from vaepriors.data.files import Source, find, read

_MNIST_HOSTS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_FASHION_HOSTS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)
_STATIC_HOSTS = ("http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",)


def _sources(folder: str, hosts: tuple[str, ...], digests: dict[str, str]) -> tuple[Source, ...]:
    """The files of a set, with the SHA-256 of what is inside."""
    return tuple(
        Source(f"{folder}/{name}", f"sha256:{digest}", tuple(host + name for host in hosts))
        for name, digest in digests.items()
    )


MNIST = _sources("mnist", _MNIST_HOSTS, {
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
})  # fmt: skip
# Upstream publishes the md5 of the compressed files, 8d4fb7e6c68d591d4c3dfef9ec88bf0d and
# bef4ecab320f06d8554ea6380940ec79; these are the digests of what is inside.
FASHION = _sources("fashion-mnist", _FASHION_HOSTS, {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
})  # fmt: skip
MNIST_LABELS = _sources("mnist", _MNIST_HOSTS, {
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
})  # fmt: skip
FASHION_LABELS = _sources("fashion-mnist", _FASHION_HOSTS, {
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
})  # fmt: skip
STATIC = _sources("binarized_mnist", _STATIC_HOSTS, {
    "binarized_mnist_train.amat": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "binarized_mnist_valid.amat": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "binarized_mnist_test.amat": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
})  # fmt: skip
STATIC_PACKED = Source(
    "binarized_mnist/binarized_mnist_packed.npz",
    "sha256:e187967df94a18978bf49c4872f1e9a03d8ada0a855b4da2f8827ee3cb647837",
)
PSEUDO = (0.05, 0.01)


def load_static(seed: int = 0, sources: Sequence[Source] = STATIC, packed: Source = STATIC_PACKED) -> Dataset:
    """Static MNIST: 50,000 / 10,000 / 10,000 fixed binary images. The split is fixed, `seed` has no effect.

    If a text file is missing and `binarized_mnist_packed.npz` is there (arrays `train_bits`, `valid_bits` and
    `test_bits` of `numpy.packbits(axis=1)`), that is read instead.
    """
    if find(packed) is not None and any(find(source) is None for source in sources):
        with np.load(io.BytesIO(read(packed))) as arrays:
            rows = [np.unpackbits(arrays[f"{split}_bits"], axis=1) for split in ("train", "valid", "test")]
    else:
        # "0 1 0 ... 0\n": digits and separators alternate, so no parser is needed
        rows = [np.frombuffer(read(source), np.uint8)[::2] - ord("0") for source in sources]
    train, valid, test = (torch.from_numpy(bits).reshape(-1, 1, 28, 28).float() for bits in rows)
    return Dataset("static_mnist", train, valid, test, likelihood="bernoulli", pseudo=PSEUDO)


def load_dynamic(seed: int = 0, validation: int = 10_000, sources: Sequence[Source] = MNIST) -> Dataset:
    """Dynamic MNIST: 50,000 / 10,000 / 10,000. The split is fixed, `seed` has no effect."""
    return _gray("dynamic_mnist", sources, MNIST_LABELS, validation, PSEUDO)


def load_fashion(seed: int = 0, validation: int = 10_000, sources: Sequence[Source] = FASHION) -> Dataset:
    """Fashion-MNIST, dynamic: 50,000 / 10,000 / 10,000. The split is fixed, `seed` has no effect."""
    return _gray("fashion_mnist", sources, FASHION_LABELS, validation, None)


def _gray(
    name: str,
    sources: Sequence[Source],
    labels: Sequence[Source],
    validation: int,
    pseudo: tuple[float, float] | None,
) -> Dataset:
    images, test = (_read_idx(read(source)) for source in sources)
    return Dataset(
        name,
        train=images[:-validation],
        valid=binarize_once(images[-validation:], stream=0),
        test=binarize_once(test, stream=1),
        likelihood="bernoulli",
        dynamic=True,
        pseudo=pseudo,
        labels=_labels(labels, validation),
    )


def _labels(sources: Sequence[Source], validation: int) -> dict[str, Tensor]:
    """The labels by split; none if their files are not there, as only conditions and colours need them."""
    if any(find(source) is None for source in sources):
        return {}
    train, test = (torch.tensor(np.frombuffer(read(source), np.uint8, offset=8)).long() for source in sources)
    return {"train": train[:-validation], "valid": train[-validation:], "test": test}


def _read_idx(content: bytes) -> Tensor:
    _, number, height, width = np.frombuffer(content, ">i4", count=4)
    levels = np.frombuffer(content, np.uint8, offset=16).reshape(number, 1, height, width)
    return torch.tensor(levels).float() / 255
