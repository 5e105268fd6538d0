"""The pixels of image files, which Pillow reads, as bytes (N, C, H, W).

Headers come first: they say size and colour of each image before any is decoded. Files whose levels would change are
refused: 16 bits, of which Pillow would drop 8, several frames, and colours that need a profile, such as CMYK.
"""

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vaepriors.data.arrays import check_file, refusing_damage
from vaepriors.data.survey import report_progress

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # a file is read as one of these, whatever its name is
REMEDY = f"restore it, save it again as an image of the format {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, or remove it"
GRAY, COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA")  # modes of Pillow
DEEP = re.compile(r";16[BLN]")  # 16 bits in a raw mode of Pillow, where the mode has 8
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # the tag of EXIF, and its values that exchange width and height
THREADS, BATCH = 8, 1000  # images that are decoded at a time, and that are waited for
LARGE = 2**24  # bytes of files: reading fewer shows no progress


class Form(NamedTuple):
    """What the header of an image says, and the bytes of its file."""

    width: int
    height: int
    gray: bool
    size: int


def read_header(path: Path) -> Form:
    """Size and colour of an image, as it is shown; other pixels than 8-bit gray or RGB are refused."""
    from PIL import Image

    check_file(path)
    with refusing_damage(path, REMEDY), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=FORMATS) as image:
            mode, (width, height) = image.mode, _shown_size(image)
            deep = any(DEEP.search(str(tile[3])) for tile in image.tile)
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a photograph and its previews
        size = os.stat(path).st_size
    if deep or mode not in GRAY + COLOUR:
        what = "16-bit levels" if deep or mode.startswith("I;16") else f"pixels of Pillow's mode {mode}"
        raise ValueError(
            f"{path} has {what}: convert it to 8-bit gray or RGB, or save all images as a .npy, with another likelihood"
        )
    if frames > 1:
        raise ValueError(f"{path} has {frames} frames: save each of them as an image, or remove it")
    return Form(width, height, mode in GRAY, size)


def _shown_size(image: "Image.Image") -> tuple[int, int]:
    """Width and height of an image that is not decoded, after the turn that its EXIF says."""
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return image.size  # Pillow has turned a TIFF already, and would decode a PNG to look for more
    width, height = image.size
    return (height, width) if image.getexif().get(ORIENTATION) in TURNED else (width, height)


def common_size(forms: Mapping[Path, Form]) -> tuple[int, int]:
    """Height and width of all images, which may not differ."""
    first, one = next(iter(forms.items()))
    for path, form in forms.items():
        if (form.width, form.height) != (one.width, one.height):
            raise ValueError(
                f"{path} has {form.width} x {form.height} pixels, but {first} has {one.width} x {one.height}: save "
                "all with one size, or train with an --image-size, such as --image-size 64, to which all are scaled"
            )
    return one.height, one.width


def read_levels(
    forms: Mapping[Path, Form], event: tuple[int, int, int], image_size: int | None
) -> tuple[np.ndarray, list[str]]:
    """The levels of all images, of shape `(N, *event)` with event C, H and W, and doubts.

    They are scaled to `image_size`, which is H and W, unless they have it.
    """
    files, levels = list(forms), np.empty((len(forms), *event), np.uint8)
    done, total = 0, sum(form.size for form in forms.values())
    clear, coloured = [], event[0] == 1
    for row, (pixels, transparent) in enumerate(_decode(files, event[0], image_size)):
        if pixels.shape != event:  # the file has changed, or is turned by what follows its pixels
            raise ValueError(f"{files[row]} has another size than its header says: save it again")
        levels[row] = pixels
        clear += [files[row]] * transparent
        coloured = coloured or bool((pixels != pixels[:1]).any())
        done += forms[files[row]].size
        if total > LARGE:
            report_progress(done, total)
    small = [path for path, form in forms.items() if image_size and min(form.width, form.height) < image_size]
    doubts = [
        *doubt_about("transparent pixels are put on white", clear, "fill them first if another colour is meant"),
        *doubt_about(
            f"images are enlarged to {image_size} pixels",
            small,
            "use larger ones, or train with a smaller --image-size",
        ),
    ]
    if not coloured:
        doubts.append("all images are gray but stored with colours: save them as gray images to have one channel")
    return levels, doubts


def _decode(files: Sequence[Path], channels: int, image_size: int | None) -> Iterator[tuple[np.ndarray, bool]]:
    """The pixels of each image, (C, H, W), and whether some are transparent; by several threads."""
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(files), BATCH):
            yield from pool.map(lambda path: _pixels(path, channels, image_size), files[start : start + BATCH])


def _pixels(path: Path, channels: int, image_size: int | None) -> tuple[np.ndarray, bool]:
    from PIL import Image, ImageOps

    with refusing_damage(path, REMEDY), Image.open(path, formats=FORMATS) as opened:
        ImageOps.exif_transpose(opened, in_place=True)
        image, transparent = _opaque(opened)
        if image_size is not None:
            image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)
        pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(image.height, image.width, channels).transpose(2, 0, 1), transparent


def _opaque(image: "Image.Image") -> tuple["Image.Image", bool]:
    """An image as gray or RGB, on white, and whether it is transparent anywhere."""
    from PIL import Image

    mode = "L" if image.mode in GRAY else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode), False
    image = image.convert("RGBA")
    transparent = image.getchannel("A").getextrema() != (255, 255)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert(mode), transparent


def doubt_about(what: str, files: Sequence[Path], remedy: str) -> list[str]:
    """A list of one doubt about some files; empty if there are none."""
    return [f"{what} ({len(files)} in all, first {files[0]}): {remedy}"] if files else []
