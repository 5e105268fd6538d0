"""A folder of image files as data."""

import io
import os
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from vaepriors import data
from vaepriors.app.experiment import Experiment
from vaepriors.data.images import read_images

GENERATOR = np.random.default_rng(0)
GRAY = GENERATOR.integers(0, 256, (30, 5, 6), dtype=np.uint8)
COLOUR = GENERATOR.integers(0, 256, (30, 5, 6, 3), dtype=np.uint8)


@pytest.fixture
def write(tmp_path):
    """Write pixels, or an image of Pillow, into a folder as a file, and return the folder."""

    def write(**files):
        for name, content in files.items():
            save(tmp_path / "photos" / name, content)
        return tmp_path / "photos"

    return write


def save(path, content, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        image = Image.fromarray(content) if isinstance(content, np.ndarray) else content
        image.save(path, **options)


def many(pixels, folder="", suffix=".png"):
    """Files of pixels by path, which sort in their order."""
    return {f"{folder}{row:03}{suffix}": each for row, each in enumerate(pixels)}


def levels(points):
    """The levels of points of the likelihood logistic256."""
    return (points[:] * 256).floor().byte().numpy()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".TIF", ".tiff"])
@pytest.mark.parametrize(("pixels", "stored"), [(GRAY, GRAY[:, None]), (COLOUR, COLOUR.transpose(0, 3, 1, 2))])
def test_a_folder_is_the_array_of_its_pixels_in_the_order_of_names(write, tmp_path, pixels, stored, suffix):
    loaded = data.load(str(write(**many(pixels, suffix=suffix))), seed=3)
    np.save(tmp_path / "same.npy", stored)
    array = data.load(str(tmp_path / "same.npy"), seed=3)
    for split in ("train", "valid", "test"):
        assert np.array_equal(levels(getattr(loaded, split)), levels(getattr(array, split)))
    assert loaded.digest() == array.digest()
    assert loaded.train.stored.dtype == torch.uint8
    assert re.fullmatch("photos: 30 images . x 5 x 6, uint8 -> logistic256, split 24/3/3", loaded.summary())
    assert not loaded.doubts


def test_folders_are_splits_and_classes_with_names(write):
    files = many(GRAY[:2], "train/dog/") | many(GRAY[2:6], "train/cat/") | many(GRAY[6:9], "test/dog/")
    folder = write(**files, **many(GRAY[9:12], "valid/cat/"), **{"train/dog/.hidden.png": b"", ".cache/a.png": b""})
    loaded = data.load(str(folder), condition="labels")
    assert np.array_equal(levels(loaded.train)[:, 0], np.concatenate([GRAY[2:6], GRAY[:2]]))
    assert np.array_equal(levels(loaded.test)[:, 0], GRAY[6:9])
    assert loaded.labels["train"].tolist() == [0, 0, 0, 0, 1, 1]
    assert loaded.labels["test"].tolist() == [1, 1, 1]
    assert (loaded.classes, loaded.label_names) == (("cat", "dog"), ("cat", "dog"))
    assert data.condition_of(loaded, ("dog",)).tolist() == [0, 1]
    np.savez(folder.with_suffix(".npz"), **read_images(folder).arrays)
    plain = data.load(str(folder.with_suffix(".npz")))
    assert plain.digest() == data.load(str(folder)).digest()
    assert plain.labels["train"].tolist() == loaded.labels["train"].tolist()


@pytest.mark.parametrize("seed", range(6, 10))  # which draw it for valid or test
def test_the_only_image_of_a_class_is_in_train_of_a_split_by_seed(write, seed):
    folder = write(**{f"common/{n}.png": image for n, image in enumerate(GRAY)}, **{"rare/a.png": GRAY[0]})
    loaded = data.load(str(folder), seed=seed, condition="labels")
    assert loaded.classes == ("common", "rare")
    assert loaded.conditions["train"][:, 1].sum() == 1


def test_classes_are_split_by_seed_with_their_images(write):
    folder = write(**many(np.zeros((20, 2, 2), np.uint8), "b/"), **many(np.full((20, 2, 2), 200, np.uint8), "a/"))
    loaded = data.load(str(folder), seed=1, condition="labels")
    for split, number in (("train", 32), ("valid", 4), ("test", 4)):
        x, y = levels(getattr(loaded, split)), loaded.conditions[split]
        assert np.array_equal(x[:, 0, 0, 0] == 200, y[:, 0] == 1)
        assert len(x) == len(y) == number


def test_another_likelihood_and_binary_images(write):
    folder = write(**many(255 * (GRAY % 2)))
    assert any("binary" in doubt for doubt in data.load(str(folder)).doubts)
    loaded = data.load(str(folder), likelihood="bernoulli")
    assert not loaded.dynamic
    assert set(loaded.train[:].unique().tolist()) == {0, 1}


def read(folder, **options):
    """The pixels of a folder, with its doubts."""
    images = read_images(folder, **options)
    return images.arrays["train"], " ".join(images.doubts)


def test_gray_images_beside_colour_have_three_equal_channels(write):
    pixels, doubts = read(write(**{"a.png": GRAY[0], "b.png": COLOUR[0]}))
    assert np.array_equal(pixels, [[GRAY[0]] * 3, COLOUR[0].transpose(2, 0, 1)])
    assert not doubts
    pixels, doubts = read(write(**{"b.png": np.stack([GRAY[1]] * 3, -1)}))
    assert np.array_equal(pixels, [[GRAY[0]] * 3, [GRAY[1]] * 3])
    assert "gray but stored with colours" in doubts


def test_transparent_pixels_are_put_on_white_with_a_doubt(write):
    alpha = np.full((5, 6, 1), 255, np.uint8)
    opaque = write(**{"a.png": np.concatenate([COLOUR[0], alpha], -1)})
    assert np.array_equal(read(opaque)[0][0], COLOUR[0].transpose(2, 0, 1))
    assert not read(opaque)[1]
    alpha[0, 0], alpha[1, 1] = 0, 51  # a fifth
    (pixels,), doubts = read(write(**{"a.png": np.concatenate([COLOUR[0], alpha], -1)}))
    assert "transparent pixels are put on white (1 in all" in doubts
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert np.abs(pixels[:, 1, 1] - (0.2 * COLOUR[0, 1, 1] + 0.8 * 255)).max() <= 1
    assert np.array_equal(pixels[:, 2:], COLOUR[0].transpose(2, 0, 1)[:, 2:])


def test_gray_with_alpha_stays_gray_and_a_transparent_level_counts(write):
    gray = Image.merge("LA", [Image.fromarray(GRAY[0]), Image.new("L", (6, 5), 255)])
    folder = write(**{"a.png": gray})
    save(folder / "b.png", GRAY[1], transparency=int(GRAY[1, 2, 3]))
    pixels, doubts = read(folder)
    assert np.array_equal(pixels, [[GRAY[0]], [np.where(GRAY[1] == GRAY[1, 2, 3], 255, GRAY[1])]])
    assert re.search(r"1 in all, first .*b\.png", doubts)


def test_a_palette_and_bits_are_read_exactly(write):
    image = Image.fromarray(COLOUR[0]).quantize(4)
    bits = Image.fromarray(GRAY[0] > 99)
    assert (image.mode, bits.mode) == ("P", "1")
    pixels, _ = read(write(**{"a.png": image, "b.png": bits}))
    assert np.array_equal(pixels[0], np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    assert np.array_equal(pixels[1], [255 * (GRAY[0] > 99)] * 3)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_the_orientation_of_exif_is_applied(tmp_path, suffix, orientation):
    exif, (height, width) = Image.Exif(), (5, 6) if orientation == 3 else (6, 5)
    exif[0x0112] = orientation
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100}}.get(suffix, {})
    save(tmp_path / "photos" / f"a{suffix}", COLOUR[0], exif=exif, **options)
    save(tmp_path / "photos" / "b.png", COLOUR[1].reshape(height, width, 3))
    pixels, _ = read(tmp_path / "photos")
    stored = np.asarray(Image.open(tmp_path / "photos" / "a.jpg")) if suffix == ".jpg" else COLOUR[0]
    turned = np.rot90(stored, 2 if orientation == 3 else -1)
    assert np.array_equal(pixels[0], turned.transpose(2, 0, 1))


def test_images_are_scaled_and_cropped_around_their_middle(write):
    wide, large = np.repeat(np.repeat(GRAY[0], 4, 0), 5, 1), GENERATOR.integers(0, 256, (10, 8, 3), dtype=np.uint8)
    folder = write(**{"a.png": wide, "b.jpg": large, "c.png": GRAY[1][:4, :4]})
    pixels, doubts = read(folder, image_size=4)
    scaled = Image.fromarray(wide).resize((6, 4), Image.Resampling.BICUBIC)
    assert np.array_equal(pixels[0], [np.asarray(scaled)[:, 1:5]] * 3)
    assert np.array_equal(pixels[2], [GRAY[1][:4, :4]] * 3)  # that has the size is unchanged
    assert pixels.shape == (3, 3, 4, 4)
    assert not doubts
    assert "images are enlarged to 5 pixels (1 in all" in read(folder, image_size=5)[1]


def png_of_16_bits():
    """Colours of 16 bits, which Pillow reads as 8."""
    header = struct.pack(">IIBBBBB", 6, 5, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(5 * bytes(37))), (b"IEND", b"")]
    parts = [struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(**options):
    """The bytes of a large image."""
    file = io.BytesIO()
    Image.fromarray(GENERATOR.integers(0, 256, (50, 60), dtype=np.uint8)).save(file, **options)
    return file.getvalue()


FRAMES = {"save_all": True, "append_images": [Image.new("L", (6, 5))]}
ONE = {"a.png": GRAY[0]}
WRONG = {
    "sizes": ({**ONE, "b.png": GRAY[0].T}, r"b\.png has 5 x 6 .*a\.png has 6 x 5.*--image-size 64"),
    "cut png": ({"b.png": encoded(format="PNG")[:-900]}, r"b\.png cannot be read"),
    "cut jpeg": ({"b.jpg": encoded(format="JPEG")[:-900]}, r"b\.jpg cannot be read .*truncated"),
    "empty": ({**ONE, "b.png": b""}, r"b\.png cannot be read .*identify.*PNG"),
    "text": ({**ONE, "b.png": b"%!PS-Adobe-3.0 EPSF-3.0\n"}, r"b\.png cannot be read .*identify.*PNG"),
    "16 bits": ({**ONE, "b.png": GRAY[0].astype(np.uint16)}, r"b\.png has 16-bit levels.*8-bit"),
    "16 bits in colour": ({**ONE, "b.png": png_of_16_bits()}, r"b\.png has 16-bit levels.*8-bit"),
    "cmyk": ({**ONE, "b.jpg": Image.new("CMYK", (6, 5))}, r"b\.jpg has .*CMYK"),
    "frames": ({**ONE, "b.tif": encoded(format="TIFF", **FRAMES)}, r"b\.tif has 2 frames"),
    "npy": ({**ONE, "x.npy": GRAY}, r"x\.npy.*elsewhere"),
    "npy deeper": ({"train/cat/a.png": GRAY[0], "train/x.npy": GRAY}, r"train/x\.npy.*elsewhere"),
    "images and classes": ({**ONE, "cat/a.png": GRAY[0]}, "holds a.png and the folder cat"),
    "nested": ({"cat/old/a.png": GRAY[0], "cat/b.png": GRAY[0]}, "cat/old is a folder"),
    "empty class": ({"cat/a.png": GRAY[0], "dog/x.txt": b""}, "dog is the folder of a class without images"),
    "empty split": ({"train/a.png": GRAY[0], "test/x.txt": b""}, "test holds no image"),
    "other split": ({"train/a.png": GRAY[0], "val/a.png": GRAY[0]}, "holds train, val: .*train, valid and test"),
    "capital splits": ({"Train/a.png": GRAY[0], "Test/a.png": GRAY[0]}, "holds Test, Train: .*train, valid and test"),
    "missing split": ({"train/a.png": GRAY[0], "valid/a.png": GRAY[0]}, "train, valid: give train, valid and test"),
    "new class": ({"train/cat/a.png": GRAY[0], "test/cow/a.png": GRAY[0]}, "test has the class cow"),
    "no classes in test": ({"train/cat/a.png": GRAY[0], "test/a.png": GRAY[0]}, "classes in train, but not in test"),
    "no classes in train": ({"train/a.png": GRAY[0], "test/cat/a.png": GRAY[0]}, "classes in test, but not in train"),
}


@pytest.mark.parametrize(("files", "words"), WRONG.values(), ids=WRONG)
def test_a_folder_that_is_refused(write, files, words):
    with pytest.raises(ValueError, match=words) as error:
        data.load(str(write(**files)))
    assert "\n" not in str(error.value)


def test_a_damaged_header_a_bomb_and_files_that_are_none(write, tmp_path):
    folder = write(**ONE)
    huge = bytearray(encoded(format="BMP"))
    huge[18:26] = struct.pack("<ii", 20_000, 5_000)
    save(folder / "b.bmp", bytes(huge))
    with pytest.raises(ValueError, match=r"b\.bmp cannot be read.*exceeds limit"):
        data.load(str(folder))
    (folder / "b.bmp").unlink()
    os.mkfifo(folder / "c.png")
    with pytest.raises(ValueError, match=r"c\.png is not a regular file"):
        data.load(str(folder))
    (folder / "c.png").unlink()
    (folder / "c.png").symlink_to("nowhere.png")
    with pytest.raises(ValueError, match=r"c\.png does not exist"):
        data.load(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="without images"):
        data.load(str(tmp_path / "empty"))


def test_a_file_without_permission(write, locked):
    folder = write(**{f"{number}.png": GRAY[0] for number in range(10)})
    data.load(str(folder))  # imports what reads it
    with pytest.raises(ValueError, match=r"0\.png cannot be opened \(Permission"):
        data.load(str(locked(folder)))


def test_other_files_are_a_doubt(write):
    loaded = data.load(str(write(**many(GRAY), **{"Thumbs.db": b"", "b.heic": b""})))
    assert re.search(r"not read \(2 in all, first .*Thumbs\.db", loaded.doubts[0])


def test_what_does_not_fit_the_memory_is_refused_by_the_headers(write, environment):
    cut = encoded(format="PNG")[:-900]  # would be refused when it is decoded
    folder = write(**{"a.png": cut, "b.png": cut})
    environment(VAEPRIORS_MEMORY=f"{29_999 / 2**30}")
    with pytest.raises(ValueError, match=r"uint8 \(2, 1, 50, 60\), which take 29\.3 KiB.*VAEPRIORS_MEMORY"):
        data.load(str(folder))
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):  # smaller ones fit
        data.load(str(folder), image_size=20)


def test_options_that_do_not_belong_to_the_data(write, images):
    folder = str(write(**many(GRAY)))
    for options, words in [
        ({"stream": "yes"}, "save .npy files"),
        ({"columns": "0=real"}, "not a table"),
        ({"likelihood": "mixed"}, "not a table"),
        ({"image_size": 0}, "image_size is 0"),
        ({"condition": "labels"}, "no labels"),
    ]:
        with pytest.raises(ValueError, match=words):
            data.load(folder, **options)
    for other in ("digits", str(images)):
        with pytest.raises(ValueError, match="image_size is 64"):
            data.load(other, image_size=64)
    with pytest.raises(ValueError, match="image_size is 0"):
        Experiment(image_size=0)


def test_progress_counts_the_bytes_of_large_files(write):
    folder, reported = write(**many(GRAY)), []
    os.truncate(folder / "000.png", 2**24)
    os.truncate(folder / "001.png", 2**24)
    with data.reading_progress(lambda *counts: reported.append(counts)):
        data.load(str(folder))
    assert reported[0] == (16, 32)
    assert reported[-1] == (32, 32)


def test_a_run_from_the_command_line(vaepriors, tmp_path, write, capsys):
    folder, run = write(**many(GRAY[:15], "a/"), **many(COLOUR[15:], "b/")), tmp_path / "run"
    options = ["--hidden", 4, "--latent", 2, "--batch-size", 8, "--accelerator", "cpu", "--condition", "labels"]
    train = ["train", "--data", folder, "--image-size", 4, "--out", run, *options]
    assert vaepriors(*train, "--epochs", 1) == 0
    assert "30 images 3 x 4 x 4" in capsys.readouterr().out
    assert vaepriors("evaluate", run, "--samples", 2, "--accelerator", "cpu") == 0
    assert vaepriors("sample", run, "--condition", "b") == 0
    assert vaepriors(*train, "--epochs", 2, "--resume") == 0
    assert vaepriors(*train[:3], "--image-size", 5, *train[5:], "--resume") != 0
    assert "image_size" in capsys.readouterr().err
    folder.rename(tmp_path / "elsewhere")
    assert vaepriors("sample", run) == 2
    assert f"{folder} does not exist" in capsys.readouterr().err
