"""Frey Faces: 1,965 frames, 28 x 20, of a film of one person's face (Roweis, Saul & Hinton, 2002).

Gray levels 0..255 become the middles of 256 bins, x = (level + 0.5) / 256.
They are photographs of a real person without stated terms: do not redistribute them.
"""

import torch

from vaepriors.data.dataset import Dataset
from vaepriors.data.draws import shuffled_split
from vaepriors.data.files import Source, read_mat

FRAMES = Source(
    "frey_faces/frey_rawface.mat",
    "sha256:265a83a23adb081755cd3de375509828e690324d1d60f076b8ecebc840d59c64",
    ("https://cs.nyu.edu/~roweis/data/frey_rawface.mat",),
)


def load(seed: int = 0, held_out: int = 200, source: Source = FRAMES) -> Dataset:
    """Frey Faces: 1,565 / 200 / 200 frames of 256 gray levels, split at random by `seed`."""
    (levels,) = read_mat(source, ["ff"])  # (560, N)
    x = (torch.tensor(levels.T).reshape(-1, 1, 28, 20).float() + 0.5) / 256
    train, valid, test = shuffled_split(len(x), held_out, held_out, seed)
    return Dataset("frey_faces", x[train], x[valid], x[test], likelihood="logistic256", pseudo=(0.5, 0.02))
