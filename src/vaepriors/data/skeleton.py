"""Files of the CMU Graphics Lab Motion Capture Database: skeletons (.asf) and motions (.amc), and where joints are.

A motion gives for each frame the angles of each bone's degrees of freedom, and position and rotation of the root. A
bone's frame is turned from its parent's by C M C^-1, with C of the skeleton's `axis` and M of the motion's angles, each
a rotation about x, then y, then z; from the parent's end the bone goes along its `direction` by its `length`.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["Bone", "channels_of", "parse_amc", "parse_asf", "segments"]


@dataclass(frozen=True)
class Bone:
    """A bone of a skeleton; the root has no length."""

    name: str
    parent: str | None
    offset: np.ndarray  # direction times length
    axis: np.ndarray  # degrees about x, y, z
    dof: tuple[str, ...]  # such as rx, rz


def parse_amc(text: str) -> tuple[list[str], np.ndarray]:
    """Read a motion.

    Args:
        text: Content of an .amc file, in degrees.

    Returns:
        The bones in their order, each followed by a colon and its number of values (`root:6`), and the values of all
        frames, of shape `(frames, channels)`.

    >>> parse_amc(":DEGREES\\n1\\nroot 1 2\\nhead 3\\n2\\nroot 4 5\\nhead 6\\n")[1].tolist()
    [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    head = [line.upper() for line in lines if line.startswith(":")]
    if ":RADIANS" in head:
        raise ValueError("the motion is in radians: one in degrees is expected")
    frames: list[list[float]] = []
    names: list[str] = []
    seen: list[str] = []
    for line in (line for line in lines if not line.startswith(":")):
        word, *values = line.split()
        if not values:  # the number of a frame
            if word != str(len(frames) + 1):
                raise ValueError(f"frame {len(frames) + 1} is expected, not {word!r}")
            names = _same(names, seen, len(frames))
            frames.append([])
            seen = []
        elif not frames:
            raise ValueError(f"{line!r} comes before the first frame")
        else:
            try:
                frames[-1].extend(map(float, values))
            except ValueError as error:
                raise ValueError(f"frame {len(frames)} has {line!r}, which holds no numbers") from error
            seen.append(f"{word}:{len(values)}")
    names = _same(names, seen, len(frames))
    if not names:
        raise ValueError("it has no frames")
    array = np.array(frames)
    if not np.isfinite(array).all():
        raise ValueError("some values are not finite")
    return names, array


def _same(names: list[str], seen: list[str], frame: int) -> list[str]:
    """The names of the bones, which are the same in all frames."""
    if names and seen != names:
        raise ValueError(f"frame {frame} has other bones than the first, or is cut short")
    return names or seen


def channels_of(names: list[str], bones: list[Bone]) -> list[str]:
    """Names of the channels, such as `lfoot.rx`, of a motion of this skeleton."""
    dof = {bone.name: bone.dof for bone in bones}
    for name in names:
        bone, count = name.split(":")
        if bone not in dof or len(dof[bone]) != int(count):
            raise ValueError(f"the motion has {count} values for {bone}, which the skeleton does not")
    return [f"{name.split(':')[0]}.{each}" for name in names for each in dof[name.split(":")[0]]]


def parse_asf(text: str) -> list[Bone]:
    """Read a skeleton: its bones, parents before their children, the root first."""
    parts: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith(":"):
            parts[words[0][1:]] = [words[1:]] if words[1:] else []
            current = parts[words[0][1:]]
        elif parts:
            current.append(words)
    for part in ("units", "root", "bonedata", "hierarchy"):
        if part not in parts:
            raise ValueError(f"the skeleton has no :{part}: is it a whole .asf file?")
    if ["angle", "deg"] not in parts["units"]:
        raise ValueError("the skeleton is not in degrees")
    parents = {child: parent for parent, *children in parts["hierarchy"] for child in children}
    root = {words[0]: words[1:] for words in parts["root"]}
    bones = {"root": Bone("root", None, np.zeros(3), _vector(root["orientation"]), tuple(root["order"]))}
    fields: dict[str, list[str]] = {}
    for word, *values in parts["bonedata"]:
        if word == "end":
            name = fields["name"][0]
            offset = _vector(fields["direction"]) * float(fields["length"][0])
            bones[name] = Bone(name, parents.get(name), offset, _vector(fields["axis"]), tuple(fields.get("dof", ())))
            fields = {}
        else:
            fields[word] = values
    ordered = [bones["root"]]
    for bone in ordered:  # it grows in this loop
        ordered.extend(child for child in bones.values() if child.parent == bone.name)
    if len(ordered) < len(bones):
        raise ValueError(f"{len(bones) - len(ordered)} bones of the skeleton are not connected to its root")
    return ordered


def _vector(words: list[str]) -> np.ndarray:
    return np.array([float(word) for word in words[:3]])


def _rotation(degrees: np.ndarray) -> np.ndarray:
    """Rotations about x, then y, then z, of shape `(..., 3, 3)`, from angles of shape `(..., 3)`."""
    x, y, z = np.moveaxis(np.radians(degrees), -1, 0)
    one, zero = np.ones_like(x), np.zeros_like(x)
    about = lambda *rows: np.stack([np.stack(row, -1) for row in rows], -2)  # noqa: E731
    rx = about((one, zero, zero), (zero, np.cos(x), -np.sin(x)), (zero, np.sin(x), np.cos(x)))
    ry = about((np.cos(y), zero, np.sin(y)), (zero, one, zero), (-np.sin(y), zero, np.cos(y)))
    rz = about((np.cos(z), -np.sin(z), zero), (np.sin(z), np.cos(z), zero), (zero, zero, one))
    return rz @ ry @ rx


def segments(bones: list[Bone], channels: list[str], frames: np.ndarray) -> np.ndarray:
    """Compute the positions of the bones.

    Args:
        bones: Of `parse_asf`.
        channels: Names of the columns; missing channels count as zero.
        frames: Degrees, and for the root's TX, TY, TZ the unit of the bones' lengths; of shape `(N, channels)`.

    Returns:
        Start and end of each bone but the root, of shape `(N, bones - 1, 2, 3)`.
    """
    column = {name: frames[:, number] for number, name in enumerate(channels)}
    zero = np.zeros(len(frames))
    value = lambda bone, dof: column.get(f"{bone.name}.{dof}", zero) if dof in bone.dof else zero  # noqa: E731
    turned: dict[str, np.ndarray] = {}
    ends: dict[str, np.ndarray] = {}
    lines = []
    for bone in bones:
        capital = bone.parent is None
        angles = np.stack([value(bone, f"R{a}" if capital else f"r{a.lower()}") for a in "XYZ"], -1)
        axis = _rotation(bone.axis)
        local = axis @ _rotation(angles) @ axis.T
        if bone.parent is None:
            turned[bone.name] = local
            ends[bone.name] = np.stack([value(bone, f"T{a}") for a in "XYZ"], -1)
        else:
            turned[bone.name] = turned[bone.parent] @ local
            ends[bone.name] = ends[bone.parent] + turned[bone.name] @ bone.offset
            lines.append(np.stack([ends[bone.parent], ends[bone.name]], 1))
    return np.stack(lines, 1)
