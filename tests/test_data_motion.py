"""Skeletons and motions of the CMU database: small files of their formats, and the real ones where they are."""

import dataclasses
import hashlib
import math
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from vaepriors.data import load, motion
from vaepriors.data.skeleton import channels_of, parse_amc, parse_asf, segments

ASF = """# a leg of two bones
:version 1.10
:units
  mass 1.0
  angle deg
:documentation
   nothing
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
  begin
     id 1
     name thigh
     direction 0 -1 0
     length 2.0
     axis 0 0 0 XYZ
    dof rx rz
  end
  begin
     id 2
     name shin
     direction 0 -1 0
     length 1.0
     axis 0 90 0 XYZ
    dof rx
  end
:hierarchy
  begin
    root thigh
    thigh shin
  end
"""
AMC = """#!OML:ASF leg
:FULLY-SPECIFIED
:DEGREES
1
root 0 0 0 0 0 0
thigh 0 0
shin 0
2
root 1 2 3 0 90 0
thigh 90 0
shin 0
3
root 0 0 0 0 0 0
thigh 0 90
shin 90
"""


def leg():
    bones = parse_asf(ASF)
    names, frames = parse_amc(AMC)
    return bones, channels_of(names, bones), frames


def test_bones_are_where_their_angles_say():
    bones, channels, frames = leg()
    assert channels == [
        *(f"root.{each}" for each in ["TX", "TY", "TZ", "RX", "RY", "RZ"]),
        "thigh.rx",
        "thigh.rz",
        "shin.rx",
    ]
    lines = segments(bones, channels, frames)
    assert lines.shape == (3, 2, 2, 3)
    np.testing.assert_allclose(lines[0], [[[0, 0, 0], [0, -2, 0]], [[0, -2, 0], [0, -3, 0]]], atol=1e-12)
    # about x, "down" swings to -z; the root's turn about y takes that to -x
    np.testing.assert_allclose(lines[1], [[[1, 2, 3], [-1, 2, 3]], [[-1, 2, 3], [-2, 2, 3]]], atol=1e-12)
    # about z, "down" swings to +x; the shin's own axis x is the body's -z, about which it swings on by a right angle
    np.testing.assert_allclose(lines[2][0], [[0, 0, 0], [2, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(np.abs(lines[2][1] - lines[2][1][0]), [[0, 0, 0], [0, 1, 0]], atol=1e-12)


def test_lengths_of_bones_never_change():
    bones, channels, _ = leg()
    frames = np.random.default_rng(0).uniform(-180, 180, (50, len(channels)))
    lines = segments(bones, channels, frames)
    np.testing.assert_allclose(np.linalg.norm(lines[:, :, 1] - lines[:, :, 0], axis=-1), [[2.0, 1.0]] * 50)
    np.testing.assert_allclose(lines[:, 1, 0], lines[:, 0, 1])


def test_channels_that_are_left_out_count_as_zero():
    bones, channels, frames = leg()
    np.testing.assert_allclose(
        segments(bones, channels[:-1], frames[:, :-1]), segments(bones, channels, frames * [*[1] * 8, 0])
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no frames"),
        (AMC.replace(":DEGREES", ":RADIANS"), "radians"),
        (AMC.replace("\n2\n", "\n4\n"), "frame 2 is expected, not '4'"),
        (AMC.replace("thigh 90 0\n", ""), "frame 2 has other bones"),
        (AMC[: AMC.rindex("shin")], "frame 3 has other bones than the first, or is cut short"),
        (AMC.replace("thigh 90 0", "thigh 90 zero"), "frame 2 has 'thigh 90 zero', which holds no numbers"),
        (AMC.replace("thigh 90 0", "thigh 90 nan"), "not finite"),
        ("root 1 2\n", "before the first frame"),
    ],
)
def test_a_damaged_motion_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_amc(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ASF.replace(":hierarchy", ":tree"), "no :hierarchy"),
        (ASF.replace("angle deg", "angle rad"), "not in degrees"),
        (ASF.replace("    thigh shin\n", ""), "1 bones of the skeleton are not connected"),
    ],
)
def test_a_damaged_skeleton_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_asf(text)


def test_a_motion_of_another_skeleton_is_refused():
    with pytest.raises(ValueError, match="2 values for shin"):
        channels_of(["root:6", "thigh:2", "shin:2"], parse_asf(ASF))


def walking(frames):
    """A motion of the leg, with a hand that is to be dropped, which turns past half a turn."""
    lines = [":DEGREES"]
    for number in range(frames):
        lines += [str(number + 1), f"root {number} 0 0 0 {3 * number} 0", f"thigh {number % 40} 1", f"lhand {number}"]
    return "\n".join(lines)


HAND = ASF.replace("name shin", "name lhand").replace("thigh shin", "thigh lhand")


UNVERIFIED = [dataclasses.replace(source, digest=None, urls=()) for source in motion.SOURCES]


@pytest.fixture
def upstream(data_folder):
    """Small files under their upstream names."""
    folder = data_folder / "cmu_mocap"
    folder.mkdir()
    for subject in motion.SUBJECTS:
        (folder / f"{subject}.asf").write_text(HAND)
    for take in motion.TAKES:
        (folder / f"{take}.amc").write_text(walking(400))
    return folder


def test_single_files_as_upstream_has_them(upstream):
    data = motion.load(sources=UNVERIFIED)
    n = len(motion.TAKES) * 99  # every fourth frame, and one less for the velocity
    assert len(data.train) + len(data.valid) + len(data.test) == n
    assert data.event_shape == (8,)  # without the hand
    assert data.train.min() == 0
    assert data.train.max() == 1
    assert (data.train[:, 1] == 0).all()  # it does not rise or fall: a channel without width
    frames, _, parts, _ = motion.read_frames(motion.read_texts(UNVERIFIED))
    train = frames[parts["train"]]
    steps = torch.from_numpy(np.diff(train, axis=0) / np.ptp(train, 0).max()).float()
    torch.testing.assert_close(data.train[:].diff(dim=0), steps, rtol=0, atol=1e-6)  # one scale for all channels
    assert data.labels["train"].unique().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(motion.load(1, UNVERIFIED).train, data.train)
    drawn = data.segments(data.test[:3])
    assert drawn.shape == (3, 2, 2, 3)
    assert drawn[:, 0, 0].abs().max() == 0


def test_position_and_heading_of_the_root_do_not_matter(upstream):
    frames, channels = motion._prepared("35_01", motion.read_texts(UNVERIFIED))
    assert channels[:6] == [f"root.{each}" for each in ["TX", "TY", "TZ", "RX", "RY", "RZ"]]
    # it moves along x by 4 and turns about y by 12 degrees, from frame to frame: seen from its heading, it moves round
    heading = np.radians(12 * np.arange(1, 100))
    zero = np.zeros_like(heading)
    expected = [4 * np.cos(heading), zero, 4 * np.sin(heading), zero, zero + np.radians(12), zero]
    np.testing.assert_allclose(frames[:, :6], np.stack(expected, 1), atol=1e-9)


def test_a_figure_leans_as_the_files_say_whatever_its_heading():
    bones, channels, _ = leg()
    rng = np.random.default_rng(0)
    lean, tilt, heading = rng.uniform(-80, 80, (3, 20))
    angles = np.stack([heading, lean, tilt], 1)
    turned = Rotation.from_euler("YXZ", angles, degrees=True).as_euler("xyz", degrees=True)
    files = np.concatenate([rng.uniform(-9, 9, (20, 3)), turned, rng.uniform(-180, 180, (20, 3))], 1)
    prepared = np.concatenate([motion._root(files[:, :6]), np.radians(files[1:, 6:])], 1)
    np.testing.assert_allclose(prepared[:, [3, 5]], np.radians(angles[1:, 1:]))
    x = torch.from_numpy((prepared - prepared.min(0)) / 2)
    drawn = motion._figure(bones, channels, prepared.min(0), 2.0)(x).numpy()
    expected = segments(bones, channels, files[1:])  # at its place and heading
    back = Rotation.from_euler("Y", -heading[1:, None], degrees=True).as_matrix()
    expected = np.einsum("nij,nabj->nabi", back, expected - expected[:, :1, :1])
    np.testing.assert_allclose(drawn, expected, atol=1e-9)


def test_angles_do_not_jump_by_a_turn_and_pieces_stay_within_a_take():
    angles = np.linspace(100, 800, 50)  # through almost two turns
    unwrapped = motion._unwrapped(np.stack([angles, np.mod(angles + 180, 360) - 180], 1))
    np.testing.assert_allclose(np.diff(unwrapped, axis=0), np.radians(700 / 49))
    assert np.abs(unwrapped.mean(0)).max() <= math.pi
    parts = motion._split([250, 133])
    assert sorted(np.concatenate(list(parts.values()))) == list(range(383))


def test_a_damaged_file_is_named_with_its_remedy(upstream):
    (upstream / "09_06.amc").write_text("1\nroot 0")
    with pytest.raises(ValueError, match=r"cmu_mocap/09_06\.amc: .*root.*delete the file"):
        motion.load(sources=UNVERIFIED)


def with_digest_of(text):
    digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    return [dataclasses.replace(source, digest=digest) for source in motion.SOURCES if source.path.endswith("09.asf")]


def test_every_text_is_verified_whatever_its_line_ends(upstream):
    (upstream / "09.asf").write_bytes(HAND.replace("\n", "\r\n").encode())
    assert motion.read_texts(with_digest_of(HAND))["09.asf"].splitlines() == HAND.splitlines()
    with pytest.raises(ValueError, match=r"09\.asf is another file .* delete it"):
        motion.read_texts(with_digest_of(ASF))


def test_a_text_of_the_archive_is_verified(upstream):
    with tarfile.open(upstream / "cmu_asf_amc.tar.gz", "w:gz") as archive:
        archive.add(upstream / "09.asf", "cmu_asf_amc/09-run.asf")
    assert motion.read_texts(with_digest_of(HAND)) == {"09.asf": HAND}
    with pytest.raises(ValueError, match=r"09\.asf in .*cmu_asf_amc\.tar\.gz is another file"):
        motion.read_texts(with_digest_of(ASF))


REAL = Path(os.environ.get("VAEPRIORS_DATA", "nowhere")) / motion.ARCHIVE.path


@pytest.mark.skipif(not REAL.is_file(), reason="needs VAEPRIORS_DATA with cmu_mocap")
def test_the_real_motions():
    data = load("cmu_motion")
    assert data.event_shape == (50,)
    assert [len(x) for x in (data.train, data.valid, data.test)] == [1669, 203, 205]
    drawn = data.segments(data.train[data.labels["train"] == 0])
    tops = data.segments(data.train[:])[..., 1].amax((1, 2))
    assert tops.min() > 7  # everybody stands: the head is above the hips
    height = (drawn[..., 1].amax((1, 2)) - drawn[..., 1].amin((1, 2))).mean()
    assert 25 < height < 32  # of somebody who walks, in units of 5.6 cm
