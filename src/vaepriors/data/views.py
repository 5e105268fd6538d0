"""Chairs and faces: 64 x 64 gray images of objects from many sides (Klushyn et al. 2019, section 4.4).

* `chairs`: 1,393 chairs in 62 views (Aubry et al. 2014), a tar of PNG files of 600 x 600. The middle 400 x 400 are
  averaged down, and ink is 1 on 0. The images are kept in the cache, as reading the tar takes minutes.
* `faces`: 2,000 faces in 37 views, rendered from a morphable model (Paysan et al. 2009) whose licence forbids sharing
  it. Render your own, and save `images`, unsigned bytes of shape (N, 64, 64), and `identity`, numbers of shape (N,), in
  `faces/faces.npz`.

The paper does not say how the images were made smaller or split; both are our choice. Gray levels are probabilities of
ink. The split is 8 : 1 : 1 by identity, the same for every seed: nobody is in two splits.
"""

import io
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch

from vaepriors.data.dataset import Dataset
from vaepriors.data.draws import binarize_once, shuffled_split
from vaepriors.data.files import Source, cache, fetch, find

CHAIRS = Source(
    "chairs/rendered_chairs.tar",
    None,
    ("https://www.di.ens.fr/willow/research/seeing3Dchairs/data/rendered_chairs.tar",),
)
FACES = Source("faces/faces.npz", None)
SIZE, MIDDLE = 64, 400
VIEW = re.compile(r".*/([^/]+)/renders/image_\d+_p\d+_t\d+_r\d+\.png")


def load_chairs(seed: int = 0) -> Dataset:
    """Chairs: 64 x 64, labelled with the number of the chair; `seed` has no effect."""
    kept = Source("chairs/chairs_64.npz", None)
    path = find(kept)
    if path is None:
        path = cache() / kept.path
        path.parent.mkdir(parents=True, exist_ok=True)
        images, identity = _views(fetch(CHAIRS))
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(partial, images=images, identity=identity)
        partial.replace(path)
    return _dataset("chairs", kept.path, path.read_bytes())


def load_faces(seed: int = 0) -> Dataset:
    """Faces: 64 x 64, labelled with the number of the face; `seed` has no effect."""
    return _dataset("faces", FACES.path, fetch(FACES).read_bytes())


def _views(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and numbers of the chairs in a tar like the published one."""
    from PIL import Image

    images, names = [], []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                match = VIEW.match("/" + member.name)
                file = archive.extractfile(member) if match else None
                if match and file is not None:
                    picture = Image.open(file).convert("L")
                    left, top = (picture.width - MIDDLE) // 2, (picture.height - MIDDLE) // 2
                    picture = picture.crop((left, top, left + MIDDLE, top + MIDDLE))
                    images.append(255 - np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BOX)))
                    names.append(match[1])
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{CHAIRS.path} cannot be read ({error}): delete it, and it will be fetched again") from error
    if not images:
        raise ValueError(f"{CHAIRS.path} holds no NAME/renders/image_*.png: delete it, and it will be fetched again")
    return np.stack(images), np.unique(names, return_inverse=True)[1]


def _dataset(name: str, path: str, content: bytes) -> Dataset:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            images, identity = arrays["images"], arrays["identity"]
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a .npz with images and identity ({error}): delete it and make it again"
        ) from error
    if images.dtype != np.uint8 or images.shape[1:] != (SIZE, SIZE) or identity.shape != images.shape[:1]:
        raise ValueError(
            f"{path} has images of {images.dtype} {images.shape} and identity of {identity.shape}: uint8 (N, {SIZE}, "
            f"{SIZE}) and (N,) are needed"
        )
    x, who = torch.from_numpy(images).float().unsqueeze(1) / 255, torch.from_numpy(identity)
    people = who.unique()
    tenth = len(people) // 10
    if tenth == 0:
        raise ValueError(f"{path} has {len(people)} identities: at least 10 are needed for three splits")
    parts = [torch.isin(who, people[chosen]) for chosen in shuffled_split(len(people), tenth, tenth, seed=0)]
    train, valid, test = (x[part] for part in parts)
    labels = {split: who[part] for split, part in zip(("train", "valid", "test"), parts, strict=True)}
    valid, test = binarize_once(valid), binarize_once(test, stream=1)
    return Dataset(name, train, valid, test, likelihood="bernoulli", dynamic=True, labels=labels)
