"""CMU motion: frames of five human motions, 50 numbers each (Klushyn et al. 2019, section 4.2).

The paper does not say which motions, and prepares them "as in Chen et al. 2015", with 50 dimensions. Our choice:

* walking (takes 35_01 and 07_05), running (09_06), balancing on one leg (49_18 to 49_20), dancing (131_04), and martial
  arts (135_06), every fourth of the 120 frames a second;
* of the 62 channels all but the 12 of hands, fingers, thumbs and toes;
* the root's velocity in place of its position; angles in radians, within half a turn;
* each channel scaled to [0, 1] over the training frames;
* pieces of ten frames go to train, valid or test at random, 8 : 1 : 1, the same for every seed.

Data from mocap.cs.cmu.edu, created with funding from NSF EIA-0196217: free for research, not to be resold.
"""

import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaepriors.data.dataset import Dataset
from vaepriors.data.files import Source, find, read
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
ARCHIVE = Source("cmu_mocap/cmu_asf_amc.tar.gz", None)  # the same files in one, under longer names


def _source(name: str) -> Source:
    subject = name.split("_")[0].removesuffix(".asf")
    return Source(f"cmu_mocap/{name}", None, (f"http://mocap.cs.cmu.edu/subjects/{subject}/{name}",))


SUBJECTS = tuple(dict.fromkeys(take.split("_")[0] for take in TAKES))
SOURCES = (*(_source(f"{subject}.asf") for subject in SUBJECTS), *(_source(f"{take}.amc") for take in TAKES))


def load(seed: int = 0) -> Dataset:
    """CMU motion: about 2,080 frames of 50 real numbers, labelled with the motion's number; `seed` has no effect.

    `segments` of the set draws frames as stick figures, the root at rest.
    """
    files = _files()
    kept, labels = [], []
    channels: list[str] = []
    for number, takes in enumerate(MOTIONS.values()):
        for take in takes:
            frames, channels = _prepared(take, files)
            kept.append(frames)
            labels.append(np.full(len(frames), number))
    x, which = np.concatenate(kept), np.concatenate(labels)
    parts = _split([len(frames) for frames in kept])
    low, high = x[parts["train"]].min(0), x[parts["train"]].max(0)
    width = np.where(high > low, high - low, 1.0)
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


def _files() -> dict[str, str]:
    """The text of every file by its upstream name, if the archive is there; else none."""
    path = find(ARCHIVE)
    if path is None:
        return {}
    found = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = re.fullmatch(r"(\d+(?:_\d+)?)(?:-\w+)?([.]a[sm][fc])", Path(member.name).name)
                file = archive.extractfile(member)
                if name and file is not None:
                    found["".join(name.groups())] = file.read().decode("latin1")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): delete it, and the single files will be fetched."
        ) from error
    return found


def _read(name: str, files: dict[str, str], parse: Callable[[str], Any]) -> Any:
    text = files[name] if name in files else read(_source(name)).decode("latin1")
    try:
        return parse(text)
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"cmu_mocap/{name}: {error}; delete the file, and it will be fetched anew.") from error


def _prepared(take: str, files: dict[str, str]) -> tuple[np.ndarray, list[str]]:
    """Frames of a take, unscaled, and the names of their channels."""
    bones = _read(f"{take.split('_')[0]}.asf", files, parse_asf)
    channels, frames = _read(f"{take}.amc", files, lambda text: _motion(text, bones))
    kept = [number for number, name in enumerate(channels) if not DROPPED.match(name)]
    frames, channels = frames[::EVERY, kept], [channels[number] for number in kept]
    moved = np.diff(frames[:, :3], axis=0)  # root.TX, TY, TZ, in a frame of 1/30 s
    angles = np.radians(np.mod(frames[1:, 3:] + 180, 360) - 180)
    return np.concatenate([moved, angles], 1), channels


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


def _figure(bones: list[Bone], channels: list[str], low: np.ndarray, width: np.ndarray) -> Callable[[Tensor], Tensor]:
    def figure(x: Tensor) -> Tensor:
        frames = x.double().cpu().numpy() * width + low
        frames = np.concatenate([np.zeros((len(frames), 3)), np.degrees(frames[:, 3:])], 1)
        return torch.from_numpy(segments(bones, channels, frames))

    return figure
