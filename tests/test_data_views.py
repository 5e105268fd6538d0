"""Chairs and faces, on small files of the upstream layout."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from vaepriors.data import load


@pytest.fixture
def folder(data_folder):
    for name in ("chairs", "faces"):
        (data_folder / name).mkdir()
    return data_folder


def tar(path, chairs=20, extra=()):
    """White pictures of 600 x 600 with a black square in the middle, larger from chair to chair; two views each."""
    with tarfile.open(path, "w") as archive:
        for chair in range(chairs):
            picture = np.full((600, 600, 3), 255, np.uint8)
            half = 25 * (1 + chair % 8)
            picture[300 - half : 300 + half, 300 - half : 300 + half] = 0
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "PNG")
            for view in range(2):
                name = f"rendered_chairs/chair{chair:02}/renders/image_{view:03}_p020_t011_r096.png"
                member = tarfile.TarInfo(name)
                member.size = len(file.getvalue())
                archive.addfile(member, io.BytesIO(file.getvalue()))
        archive.addfile(tarfile.TarInfo("rendered_chairs/all_chair_names.mat"))


def test_chairs_are_cropped_averaged_and_inverted(folder):
    tar(folder / "chairs" / "rendered_chairs.tar")
    data = load("chairs")
    assert [len(x) for x in (data.train, data.valid, data.test)] == [32, 4, 4]
    assert data.event_shape == (1, 64, 64)
    for x, chair in zip(data.train, data.labels["train"], strict=True):
        side = 50 * (1 + chair.item() % 8)  # of 400 pixels
        assert x.mean().item() == pytest.approx((side / 400) ** 2, abs=0.01)
        assert x[0, 32, 32] == 1
    assert ((data.test == 0) | (data.test == 1)).all()
    assert data.dynamic


def test_no_chair_is_in_two_splits_and_the_tar_is_read_once(folder):
    tar(folder / "chairs" / "rendered_chairs.tar")
    data = load("chairs")
    (folder / "chairs" / "rendered_chairs.tar").unlink()
    again = load("chairs", seed=1)
    assert torch.equal(again.train, data.train)
    seen = [set(data.labels[split].tolist()) for split in ("train", "valid", "test")]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 20


def save_faces(folder, **changes):
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64), dtype=np.uint8)
    np.savez(folder / "faces" / "faces.npz", **({"images": images, "identity": np.arange(40) // 2} | changes))


def test_faces_are_what_the_user_rendered(folder):
    save_faces(folder)
    data = load("faces")
    assert len(data.train) == 32
    assert data.train.max() == 1
    assert data.labels["test"].unique().numel() == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((40, 32, 32), np.uint8)}, r"uint8 \(40, 32, 32\)"),
        ({"images": np.zeros((40, 64, 64))}, "float64"),
        ({"identity": np.zeros(40)}, "1 identities: at least 10"),
        ({"identity": np.zeros(3)}, r"identity of \(3,\)"),
    ],
)
def test_other_faces_are_refused(folder, changes, message):
    save_faces(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load("faces")


def test_damaged_files_are_named_with_the_remedy(folder):
    (folder / "chairs" / "rendered_chairs.tar").write_bytes(b"no tar")
    with pytest.raises(ValueError, match=r"rendered_chairs\.tar cannot be read .* delete it"):
        load("chairs")
    tar(folder / "chairs" / "rendered_chairs.tar", chairs=0)
    with pytest.raises(ValueError, match="holds no NAME/renders"):
        load("chairs")
    (folder / "faces" / "faces.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"faces\.npz is not a \.npz"):
        load("faces")


def test_missing_faces_say_what_to_put_where(folder):
    with pytest.raises(FileNotFoundError, match=r"faces/faces\.npz has no public address: get it by other means"):
        load("faces")
