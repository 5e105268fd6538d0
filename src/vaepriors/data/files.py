"""Where the files of the data sets are, and whether they are what their authors published.

A file is looked for under its path in the folder that the environment variable VAEPRIORS_DATA names, then in the user's
cache (`pooch.os_cache("vaepriors")`), and else downloaded into that cache. Wherever it comes from, the digest of its
*uncompressed* content is compared with the known one, so a file may lie there as `NAME` or `NAME.gz`, packed by any
program. A download gets its final name only after that comparison; a file that fails it is reported, never deleted.
"""

import gzip
import hashlib
import importlib.util
import io
import os
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VARIABLE = "VAEPRIORS_DATA"


@dataclass(frozen=True)
class Source:
    """One upstream file.

    Args:
        path: its path in the data folder.
        digest: ``md5:...`` or ``sha256:...`` of the uncompressed content; None where upstream publishes none.
        urls: addresses, tried in turn; none: the file can only be put there by hand.
        text: the digest is of lines that end in a line feed alone: copies of a text differ in their line ends.

    Raises:
        ValueError: an http address without a digest: nobody could see that such a download was changed on its way.
    """

    path: str
    digest: str | None
    urls: tuple[str, ...] = ()
    text: bool = False

    def __post_init__(self) -> None:
        plain = [url for url in self.urls if not url.startswith("https:")]
        if self.digest is None and plain:
            raise ValueError(
                f"{self.path} has no digest, so a download from {plain[0]} cannot be verified: give its digest, or an "
                "https address."
            )


def cache() -> Path:
    """The folder that downloads are kept in."""
    import pooch

    return Path(pooch.os_cache("vaepriors"))


def find(source: Source) -> Path | None:
    """The file in $VAEPRIORS_DATA or in the cache, compressed or not, unverified; None if it is in neither."""
    folders = [cache()]
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_dir():
            raise ValueError(f"{VARIABLE} is {named!r}, which is not a folder: correct it or unset it.")
        folders.insert(0, Path(named))
    plain = source.path.removesuffix(".gz")
    paths = (folder / name for folder in folders for name in (source.path, plain, f"{plain}.gz"))
    return next((path for path in paths if path.is_file()), None)


def fetch(source: Source) -> Path:
    """The verified file, downloaded if need be.

    Raises:
        ValueError: the file found is damaged or has another digest.
        FileNotFoundError: the file is not there and cannot be downloaded.
    """
    path = find(source)
    if path is None:
        return _download(source)
    _verified(path, source)
    return path


def read(source: Source) -> bytes:
    """The verified, uncompressed content of a file, downloaded if need be. Raises as `fetch`."""
    return _verified(find(source) or _download(source), source)


def read_mat(source: Source, keys: Sequence[str]) -> list[np.ndarray]:
    """The arrays `keys` of a MATLAB file. Raises as `fetch`."""
    import scipy.io

    arrays = scipy.io.loadmat(io.BytesIO(read(source)), variable_names=keys)  # type: ignore[arg-type]  # stubs want a path
    return [arrays[key] for key in keys]


def _verified(path: Path, source: Source) -> bytes:
    try:
        return _content(path.read_bytes(), source)
    except ValueError as error:
        raise ValueError(f"{path} {error}: delete it, and it will be fetched anew.") from error


def _content(raw: bytes, source: Source) -> bytes:
    if raw.startswith(b"\x1f\x8b"):  # by content, not by name: some servers decompress what they send
        try:
            raw = gzip.decompress(raw)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"is cut short or damaged ({error})") from error
    check_digest(raw, source)
    return raw


def check_digest(content: bytes, source: Source) -> None:
    """Compare uncompressed content with what its authors published, where that is known.

    Raises:
        ValueError: the digests differ; the sentence starts with its verb.
    """
    if source.digest is None:
        return
    algorithm, expected = source.digest.split(":")
    compared = content.replace(b"\r\n", b"\n") if source.text else content
    actual = hashlib.new(algorithm, compared, usedforsecurity=False).hexdigest()
    if actual != expected:
        raise ValueError(f"is another file or cut short (its content has {algorithm} {actual}, not {expected})")


def _download(source: Source) -> Path:
    import pooch
    import requests

    target = cache() / source.path
    bar = importlib.util.find_spec("tqdm") is not None  # pooch draws its progress bar with it
    downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16)
    failures = []
    for url in source.urls:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # one file system: the renaming is atomic
                part = Path(folder) / target.name
                downloader(url, str(part), None)
                _content(part.read_bytes(), source)
                return part.replace(target)
        except requests.ConnectionError as error:  # its text is a page long
            failures.append(f"{url}: {type(error).__name__}")
        except (OSError, ValueError) as error:  # the next address may be sound
            failures.append(f"{url}: {error}")
    reason = f"cannot be downloaded ({'; '.join(failures)})" if failures else "has no public address"
    raise FileNotFoundError(
        f"{source.path} {reason}: get it by other means and save it as {target}, or as {source.path} in a folder that "
        f"the environment variable {VARIABLE} names."
    )
