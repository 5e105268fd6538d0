"""CMU motion: frames of five human motions, 50 numbers each (Klushyn et al. 2019, section 4.2).

The paper does not say which motions, and prepares them "as in Chen et al. 2015", with 50 dimensions. Our choice:

* walking (takes 35_01 and 07_05), running (09_06), balancing on one leg (49_18 to 49_20), dancing (131_04), and martial
  arts (135_06), every fourth of the 120 frames a second;
* of the 62 channels all but the 12 of hands, fingers, thumbs and toes;
* in place of the root's position and heading their changes from frame to frame, seen from the heading (Taylor, Hinton
  & Roweis 2007), since position and heading say where people are and not what they do. What remains of the root's
  rotation is how far the body leans forwards and sideways. The files' own angles of the root jump when a body turns;
* angles in radians; along a take they do not jump from one half turn to the other;
* from each channel its least value over the training frames is subtracted, and all are divided by the largest range of
  a channel. With this one scale, training met the paper's bound kappa = 0.02; with a scale for each channel it did not
  (`benchmarks/motion.py`);
* pieces of ten frames go to train, valid or test at random, 8 : 1 : 1, the same for every seed.

Upstream serves the files over http and publishes no checksums. Ours are of copies; those of 35.asf and 35_01.amc agree
with what others recorded of the official files. Copies differ in their line ends, which the checksums leave out.

Data from mocap.cs.cmu.edu, created with funding from NSF EIA-0196217: free for research, not to be resold.
"""

import re
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.dataset import Dataset
from vaepriors.data.files import Source, check_digest, find, read
from vaepriors.data.skeleton import Bone, channels_of, parse_amc, parse_asf, segments

MOTIONS = {
    "walk": ("35_01", "07_05"),
    "run": ("09_06",),
    "balance": ("49_18", "49_19", "49_20"),
    "dance": ("131_04",),
    "martial arts": ("135_06",),
}
TAKES = tuple(take for takes in MOTIONS.values() for take in takes)
EVERY, PIECE = 4, 10
DROPPED = re.compile("[lr](hand|fingers|thumb|toes)[.]")
ARCHIVE = Source("cmu_mocap/cmu_asf_amc.tar.gz", None)  # the same files in one, under longer names; each is verified
DIGESTS = {  # sha256 of the texts, lines ended by a line feed
    "07.asf": "f1fbd8abcd9073d24189d5f33b7220974b0ac4b5223fabbb0cc07799ec7a93b3",
    "09.asf": "cc3aab1866fe8149dda70fbbee7cfe2d45506ea38bef31122ac97f94505a33ce",
    "35.asf": "9b4888836cbd13cdab14a86c53a6b7765ccae48ddc7075d8c5e03ac34bc08364",
    "49.asf": "2ec64642c51f344a5ef7cce72e81b60f0371ffd6d017ad2c2670848144a66ea6",
    "131.asf": "0dee16ca41ae3d9363a53b05096e96ae00132ab9a9b7aaa002f986318a4e4dfd",
    "135.asf": "1c3c89c365afaaa55c04e623d592f6780d6f3fe5fba6c8cfaadcb2f1c5b03d94",
    "07_05.amc": "79bbf979ab1723381a18a9db6332f4e16833030088eac80ad95bd569f0f11271",
    "09_06.amc": "00e5ba506ae51456f75a46037a05e8a1ed60b07d0ae9539f43f2e543044121a3",
    "35_01.amc": "efe882ca211915da0c70d7a1ac565660c75e373171f64e199ede283b921850d3",
    "49_18.amc": "4ca7fcb615932fa574727c831729796d297db7955a24994cbd7a2b8c5e24be3e",
    "49_19.amc": "c330dcad64e40dd8202e9b2617d936ba5b4109a45e0a4f0cae7ad6c0d67b9c34",
    "49_20.amc": "32a9c2f55023c5a12969ad10cf0c834eedaeea5a476ac9e020d58162196a3a65",
    "131_04.amc": "0b827dc6ea6bc436726195612e25a3cff1f4889a752bcbf218addc203478c617",
    "135_06.amc": "9e5005a7e91a0e8bfb6a0b52f620c60735bb2de8b13193f6aadc2e563766e003",
}


def _source(name: str) -> Source:
    subject = name.split("_")[0].removesuffix(".asf")
    url = f"http://mocap.cs.cmu.edu/subjects/{subject}/{name}"
    return Source(f"cmu_mocap/{name}", f"sha256:{DIGESTS[name]}", (url,), text=True)


SUBJECTS = tuple(dict.fromkeys(take.split("_")[0] for take in TAKES))
NAMES = (*(f"{subject}.asf" for subject in SUBJECTS), *(f"{take}.amc" for take in TAKES))
SOURCES = tuple(map(_source, NAMES))


def load(seed: int = 0, sources: Sequence[Source] = SOURCES) -> Dataset:
    """CMU motion: about 2,080 frames of 50 real numbers, labelled with the motion's number; `seed` has no effect.

    `segments` of the set draws frames as stick figures, with the root at rest and facing the same way.
    """
    files = read_texts(sources)
    x, which, parts, channels = read_frames(files)
    low, width = x[parts["train"]].min(0), np.ptp(x[parts["train"]], 0).max()
    scaled = torch.from_numpy((x - low) / width).float()
    bones = _read(f"{TAKES[0].split('_')[0]}.asf", files, parse_asf)
    train, valid, test = (scaled[torch.from_numpy(parts[name])] for name in ("train", "valid", "test"))
    return Dataset(
        "cmu_motion",
        train,
        valid,
        test,
        likelihood="gaussian",
        labels={name: torch.from_numpy(which[index]) for name, index in parts.items()},
        segments=_figure(bones, channels, low, width),
    )


def read_frames(files: dict[str, str]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], list[str]]:
    """All frames, not scaled; their motions; the numbers of the frames of each part; and the names of the channels."""
    kept, labels = [], []
    channels: list[str] = []
    for number, takes in enumerate(MOTIONS.values()):
        for take in takes:
            frames, channels = _prepared(take, files)
            kept.append(frames)
            labels.append(np.full(len(frames), number))
    return np.concatenate(kept), np.concatenate(labels), _split([len(frames) for frames in kept]), channels


def read_texts(sources: Sequence[Source]) -> dict[str, str]:
    """The verified text of every file by its upstream name, from the archive if there is one."""
    archive = _archive()
    return {
        (name := Path(source.path).name): (
            _verified(archive[name], source) if name in archive else read(source)
        ).decode("latin1")
        for source in sources
    }


def _verified(content: bytes, source: Source) -> bytes:
    try:
        check_digest(content, source)
    except ValueError as error:
        name = Path(source.path).name
        raise ValueError(f"{name} in {find(ARCHIVE)} {error}: delete the archive, and it will be fetched") from error
    return content


def _archive() -> dict[str, bytes]:
    """The content of every file of the archive by its upstream name; empty without an archive."""
    path = find(ARCHIVE)
    if path is None:
        return {}
    contents = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = re.fullmatch(r"(\d+(?:_\d+)?)(?:-\w+)?([.]a[sm][fc])", Path(member.name).name)
                file = archive.extractfile(member)
                if name and file is not None:
                    contents["".join(name.groups())] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it, and the single files will be fetched") from error
    return contents


def _read(name: str, files: dict[str, str], parse: Callable[[str], Any]) -> Any:
    try:
        return parse(files[name])
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"cmu_mocap/{name}: {error}; delete the file, and it will be fetched again") from error


def _prepared(take: str, files: dict[str, str]) -> tuple[np.ndarray, list[str]]:
    """Unscaled frames of a take, and the names of their channels."""
    bones = _read(f"{take.split('_')[0]}.asf", files, parse_asf)
    channels, frames = _read(f"{take}.amc", files, lambda text: _motion(text, bones))
    kept = [number for number, name in enumerate(channels) if not DROPPED.match(name)]
    frames, channels = frames[:, kept], [channels[number] for number in kept]
    return np.concatenate([_root(frames[::EVERY, :6]), _unwrapped(frames[:, 6:])[EVERY::EVERY]], 1), channels


def _root(frames: np.ndarray) -> np.ndarray:
    """The root's movement since the frame before, seen from its heading; and its lean, change of heading, and tilt.

    The rotation is a heading about the vertical axis y, after a lean about x, after a tilt about z.
    """
    from scipy.spatial.transform import Rotation

    heading, lean, tilt = Rotation.from_euler("xyz", frames[:, 3:], degrees=True).as_euler("YXZ").T
    moved = Rotation.from_euler("Y", -heading[1:, None]).apply(np.diff(frames[:, :3], axis=0))
    return np.column_stack([moved, lean[1:], np.diff(np.unwrap(heading)), tilt[1:]])


def _unwrapped(degrees: np.ndarray) -> np.ndarray:
    """Radians without jumps of a turn along a take, whose mean is within half a turn."""
    angles = np.unwrap(np.radians(degrees), axis=0)
    return angles - 2 * np.pi * np.round(angles.mean(0) / (2 * np.pi))


def _motion(text: str, bones: list[Bone]) -> tuple[list[str], np.ndarray]:
    names, frames = parse_amc(text)
    return channels_of(names, bones), frames


def _split(lengths: list[int]) -> dict[str, np.ndarray]:
    """Numbers of the frames of each part; no piece spans two takes."""
    pieces: list[np.ndarray] = []
    first = 0
    for length in lengths:
        pieces += np.split(np.arange(first, first + length), range(PIECE, length, PIECE))
        first += length
    order = np.random.default_rng(2019).permutation(len(pieces))
    tenth = len(pieces) // 10
    parts = {"test": order[:tenth], "valid": order[tenth : 2 * tenth], "train": order[2 * tenth :]}
    return {name: np.sort(np.concatenate([pieces[i] for i in chosen])) for name, chosen in parts.items()}


def _figure(bones: list[Bone], channels: list[str], low: np.ndarray, width: float) -> Callable[[Tensor], Tensor]:
    from scipy.spatial.transform import Rotation

    def figure(x: Tensor) -> Tensor:
        frames = x.double().cpu().numpy() * width + low
        lean, _, tilt = frames[:, 3:6].T
        root = Rotation.from_euler("XZ", np.column_stack([lean, tilt])).as_euler("xyz")
        frames = np.concatenate([np.zeros((len(frames), 3)), np.degrees(root), np.degrees(frames[:, 6:])], 1)
        return torch.from_numpy(segments(bones, channels, frames))

    return figure
