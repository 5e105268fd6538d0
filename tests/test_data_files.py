"""Finding, downloading and verifying files, without any network but this machine's own."""

import gzip
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vaepriors import data
from vaepriors.data import files

CONTENT = b"0 1 1 0\n" * 1000
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def server():
    """Answers each path with the (status, promised length, body) that the test put in `pages`; yields (url, pages)."""
    pages = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, length, body = pages.get(self.path, (404, 0, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", pages
        httpd.shutdown()
        thread.join()


def everything_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_variable_goes_before_the_cache_and_the_cache_before_the_network(cache, data_folder):
    source = files.Source("set/bits.amat", DIGEST)
    assert files.find(source) is None
    cached = write(cache / "set/bits.amat", CONTENT)
    assert files.fetch(source) == cached
    own = write(data_folder / "set/bits.amat.gz", gzip.compress(CONTENT))
    assert files.fetch(source) == own
    assert files.read(source) == CONTENT


def test_a_variable_that_names_no_folder_is_not_ignored(cache, environment):
    environment(VAEPRIORS_DATA="/no/such/folder")
    with pytest.raises(ValueError, match="VAEPRIORS_DATA is '/no/such/folder', which is not a folder"):
        files.find(files.Source("set/bits.amat", DIGEST))


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_wrong_checksum_names_both_digests_and_the_remedy_and_deletes_nothing(data_folder, algorithm):
    expected, actual = (hashlib.new(algorithm, text).hexdigest() for text in (CONTENT, CONTENT[:-8]))
    path = write(data_folder / "set/bits.amat", CONTENT[:-8])
    with pytest.raises(
        ValueError, match=f"bits.amat is another file or cut short .*{actual}, not {expected}.*delete it"
    ):
        files.read(files.Source("set/bits.amat", f"{algorithm}:{expected}"))
    assert path.read_bytes() == CONTENT[:-8]


@pytest.mark.parametrize("digest", [DIGEST, None])
@pytest.mark.parametrize("damage", [lambda gz: gz[:30], lambda gz: gz[:12] + b"\xff" * 20 + gz[32:], lambda gz: gz[:5]])
def test_a_damaged_gzip_is_a_clear_error(data_folder, digest, damage):
    write(data_folder / "set/bits.gz", damage(gzip.compress(CONTENT)))
    with pytest.raises(ValueError, match=r"bits.gz is cut short or damaged \(.*\): delete it"):
        files.fetch(files.Source("set/bits.gz", digest))


def test_a_download_is_verified_and_kept(cache, server):
    url, pages = server
    compressed = gzip.compress(CONTENT)
    pages["/bits.gz"] = 200, len(compressed), compressed
    source = files.Source("set/bits.gz", DIGEST, (f"{url}/absent.gz", f"{url}/bits.gz"))  # the second address serves
    assert files.fetch(source) == cache / "set/bits.gz"
    pages.clear()
    assert files.read(source) == CONTENT
    assert everything_in(cache) == ["set/bits.gz"]


@pytest.mark.parametrize(
    ("status", "length", "body", "reason"),
    [
        (403, 0, b"", "403 Client Error"),
        (200, len(CONTENT), CONTENT[:100], ""),
        (200, 100, CONTENT[:100], "is another file or cut short"),
        (200, 30, gzip.compress(CONTENT)[:30], "is cut short or damaged"),
    ],
)
def test_a_refused_or_half_download_leaves_no_file_and_says_what_to_put_where(
    cache, server, status, length, body, reason
):
    url, pages = server
    pages["/bits.gz"] = status, length, body
    source = files.Source("set/bits.gz", DIGEST, (f"{url}/bits.gz",))
    message = (
        f"set/bits.gz cannot be downloaded .{url}/bits.gz: .*{reason}.*save it as {cache}/set/bits.gz, .*VAEPRIORS"
    )
    with pytest.raises(FileNotFoundError, match=message):
        files.read(source)
    assert everything_in(cache) == []


def test_without_a_network(cache):
    refused = "http://127.0.0.1:9/bits.gz"
    message = rf"^set/bits.gz cannot be downloaded \({refused}: ConnectionError\): get it .*VAEPRIORS_DATA names$"
    with pytest.raises(FileNotFoundError, match=message):
        files.fetch(files.Source("set/bits.gz", DIGEST, (refused,)))


def test_a_file_without_an_address(cache):
    with pytest.raises(FileNotFoundError, match="has no public address: get it by other means and save it as"):
        files.fetch(data.CATALOGUE["omniglot_derived"].sources[0])


FORM = data.Form((1, 1, 1), (2,), "bernoulli")


def test_fetch_returns_the_paths_of_a_set(data_folder, entries):
    source = files.Source("set/bits.gz", DIGEST)
    entries(data.CATALOGUE, {"bits": data.Entry(lambda seed: None, "bits", FORM, (source,))})
    path = write(data_folder / "set/bits.gz", gzip.compress(CONTENT))
    assert data.fetch("bits") == [path]


def test_every_source_has_a_digest_where_one_is_published():
    unverified = {s.path.split("/")[0] for entry in data.CATALOGUE.values() for s in entry.sources if s.digest is None}
    assert unverified == {"histopathology", "chairs", "faces"}


def test_an_http_address_needs_a_digest():
    with pytest.raises(ValueError, match=r"set/bits\.gz has no digest.*http://host/bits\.gz.*https"):
        files.Source("set/bits.gz", None, ("https://host/bits.gz", "http://host/bits.gz"))
