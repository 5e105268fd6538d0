"""Where the files of the data sets are, and whether they are what their authors published.

A file is looked for in the folder that the environment variable VAEPRIORS_DATA names, then in the user's cache
(`pooch.os_cache("vaepriors")`), and is otherwise downloaded into that cache. The digest of its *uncompressed* content
is always compared with the known one, so a file may be stored as `NAME` or `NAME.gz`, compressed by any program. A
download gets its final name only after that comparison. A file that fails it is reported, never deleted.
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
        path: Its path in the data folder.
        digest: `md5:...` or `sha256:...` of the uncompressed content; None where upstream publishes none.
        urls: Addresses, tried in turn. Without any, the user has to put the file there.
        text: Whether the digest is that of lines that end in a line feed alone, as copies of a text differ in their
            line ends.

    Raises:
        ValueError: If an http address has no digest: nobody would notice that the download was changed on its way.
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
                "https address"
            )


def cache() -> Path:
    """The folder of downloads."""
    import pooch

    return Path(pooch.os_cache("vaepriors"))


def find(source: Source) -> Path | None:
    """Find the file in $VAEPRIORS_DATA or in the cache, compressed or not, without verifying it; None if missing."""
    folders = [cache()]
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_dir():
            raise ValueError(f"{VARIABLE} is {named!r}, which is not a folder: correct it or unset it")
        folders.insert(0, Path(named))
    plain = source.path.removesuffix(".gz")
    paths = (folder / name for folder in folders for name in (source.path, plain, f"{plain}.gz"))
    return next((path for path in paths if path.is_file()), None)


def fetch(source: Source) -> Path:
    """Find and verify the file; download it if it is missing.

    Raises:
        ValueError: If the file is damaged or has another digest.
        FileNotFoundError: If the file is missing and cannot be downloaded.
    """
    path = find(source)
    if path is None:
        return _download(source)
    _verified(path, source)
    return path


def read(source: Source) -> bytes:
    """Read the uncompressed content of the file that `fetch` gives, with the same errors."""
    return _verified(find(source) or _download(source), source)


def read_mat(source: Source, keys: Sequence[str]) -> list[np.ndarray]:
    """Read the arrays `keys` of a MATLAB file, with the errors of `fetch`."""
    import scipy.io

    arrays = scipy.io.loadmat(io.BytesIO(read(source)), variable_names=keys)  # type: ignore[arg-type]  # stubs want a path
    return [arrays[key] for key in keys]


def _verified(path: Path, source: Source) -> bytes:
    try:
        return _content(path.read_bytes(), source)
    except ValueError as error:
        raise ValueError(f"{path} {error}: delete it, and it will be fetched again") from error


def _content(raw: bytes, source: Source) -> bytes:
    if raw.startswith(b"\x1f\x8b"):  # by content, not by name: some servers decompress what they send
        try:
            raw = gzip.decompress(raw)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"is cut short or damaged ({error})") from error
    check_digest(raw, source)
    return raw


def check_digest(content: bytes, source: Source) -> None:
    """Compare uncompressed content with the digest of the source, if it has one. The sentence starts with its verb."""
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
        f"the environment variable {VARIABLE} names"
    )
