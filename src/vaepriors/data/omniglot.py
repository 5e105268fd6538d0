"""OMNIGLOT: 28 x 28 drawings of 1,623 characters from 50 alphabets (Lake, Salakhutdinov & Tenenbaum, Science 2015).

    omniglot           the papers' version, `chardata.mat` of Burda, Grosse & Salakhutdinov (Importance Weighted
                       Autoencoders, 2015): 24,345 images for training and 8,070 for testing, pixels in [0, 1]
    omniglot_derived   a stand-in: all original 105 x 105 drawings area-averaged to 28 x 28, of each character drawings
                       1-15 for training (24,345), 16-20 for testing (8,115)

They differ in the resizing and in the test images: do not compare a number on `omniglot_derived` with a paper's.
Pixels are probabilities of ink, binarised at each visit. 1,345 random training images are the validation split.
"""

import io

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.dataset import Dataset
from vaepriors.data.draws import binarize_once, shuffled_split
from vaepriors.data.files import Source, read, read_mat

CHARDATA = Source(
    "omniglot/chardata.mat",
    "md5:21ecaf34373511aa7691cf2e0802aa3d",
    ("https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat",),
)
DERIVED = Source(
    "omniglot/omniglot_28x28_derived.npz",
    "sha256:83dff63d1db155ea674658441a7e35a6d460580f43cdecdfeb2cefe072dd3b43",
)


def load(seed: int = 0, validation: int = 1_345, source: Source = CHARDATA) -> Dataset:
    """OMNIGLOT of the papers: 23,000 / 1,345 / 8,070; `seed` chooses the validation images."""
    columns = read_mat(source, ("data", "testdata"))  # (784, N); each column holds an image, itself by columns
    images, test = (_probabilities(x.T.reshape(-1, 28, 28).swapaxes(1, 2)) for x in columns)
    return _dynamic("omniglot", images, test, seed, validation)


def load_derived(seed: int = 0, validation: int = 1_345, source: Source = DERIVED) -> Dataset:
    """The stand-in for OMNIGLOT: 23,000 / 1,345 / 8,115; `seed` chooses the validation images."""
    with np.load(io.BytesIO(read(source))) as arrays:
        images, test = (_probabilities(arrays[key]) / 255 for key in ("train_images", "test_images"))
    return _dynamic("omniglot_derived", images, test, seed, validation)


def _dynamic(name: str, images: Tensor, test: Tensor, seed: int, validation: int) -> Dataset:
    train, valid, _ = shuffled_split(len(images), validation, 0, seed)
    return Dataset(
        name,
        train=images[train],
        valid=binarize_once(images, stream=0)[valid],  # drawn before the choice: an image's bits do not depend on seed
        test=binarize_once(test, stream=1),
        likelihood="bernoulli",
        dynamic=True,
        pseudo=(0.05, 0.01),
    )


def _probabilities(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).unsqueeze(1)
