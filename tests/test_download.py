"""Downloads from a server of this process: whole, resumed, cut, wrong, missing, unreachable."""

from __future__ import annotations

import fcntl
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from dsr.data import cifar
from dsr.files.download import download
from dsr.files.errors import DataError

CONTENT = np.random.default_rng(5).bytes(2_500_000)
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; the path says how. Notes what was asked for."""

    requests: list[tuple[str, str | None]]

    def do_GET(self):
        wanted = self.headers.get("Range")
        type(self).requests.append((self.path, wanted))
        if self.path == "/missing":
            self.send_error(404)
            return
        start = 0
        if wanted is not None and self.path != "/no-ranges":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(CONTENT):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        else:
            self.send_response(200)
        if self.path != "/no-length":
            self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = len(CONTENT) if self.path != "/cut" or wanted else 1_200_000
        self.wfile.write(CONTENT[start:end])

    def log_message(self, format, *arguments):
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    Handler.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/whole", "/no-length", "/no-ranges"])
@pytest.mark.parametrize("checksum", [SHA256, MD5])
def test_whole_files(server, tmp_path, path, checksum):
    target, lines = tmp_path / "new" / "file.bin", []
    assert download(server + path, target, checksum, say=lines.append) == target
    assert target.read_bytes() == CONTENT
    assert [file.name for file in target.parent.iterdir()] == ["file.bin"]
    assert server + path in lines[0] and str(target) in lines[0]
    assert ("2 MB" in lines[0]) == (path != "/no-length")
    download(server + path, target, checksum)
    assert Handler.requests == [(path, None)]


def test_a_cut_transfer_is_resumed(server, tmp_path):
    target, part = tmp_path / "file.bin", tmp_path / "file.bin.part"
    with pytest.raises(OSError, match=r"ended after 1,200,000 of 2,500,000 bytes; call again.*save it as .*file\.bin"):
        download(server + "/cut", target, SHA256, say=str)
    assert not target.exists() and part.read_bytes() == CONTENT[:1_200_000]
    lines = []
    download(server + "/cut", target, SHA256, size=len(CONTENT), say=lines.append)
    assert target.read_bytes() == CONTENT and not part.exists()
    assert Handler.requests == [("/cut", None), ("/cut", "bytes=1200000-")]
    assert "from 1 MB on" in lines[0]


@pytest.mark.parametrize(("path", "left"), [("/no-ranges", 1000), ("/whole", len(CONTENT))])
def test_parts_and_servers_that_cannot_go_on(server, tmp_path, path, left):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:left])
    download(server + path, tmp_path / "file.bin", SHA256, say=str)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert len(Handler.requests) == 1


@pytest.mark.parametrize("part", [b"", b"something else", bytes(len(CONTENT) + 5)])
def test_what_has_a_wrong_checksum_is_removed(server, tmp_path, part):
    (tmp_path / "file.bin.part").write_bytes(part)
    wrong = "sha256:" + "0" * 64 if not part else SHA256
    with pytest.raises(DataError, match=f"expected sha256 {wrong.removeprefix('sha256:')}, got [0-9a-f]{{64}}"):
        download(server + "/whole", tmp_path / "file.bin", wrong, say=str)
    assert list(tmp_path.iterdir()) == []
    download(server + "/whole", tmp_path / "file.bin", SHA256, say=str)


def test_a_wrong_size_is_an_error(server, tmp_path):
    with pytest.raises(DataError, match="expected 3 bytes, got 2,500,000"):
        download(server + "/whole", tmp_path / "file.bin", SHA256, size=3, say=str)


def test_another_file_in_place_is_kept(server, tmp_path):
    target = tmp_path / "file.bin"
    target.write_text("mine")
    with pytest.raises(DataError, match=r"file\.bin exists, but its md5 is not"):
        download(server + "/whole", target, MD5)
    assert target.read_text() == "mine" and Handler.requests == []


def test_missing_files_and_unreachable_servers(server, tmp_path):
    target = tmp_path / "file.bin"
    with pytest.raises(OSError, match=r"/missing: the server answers 404 Not Found: try .* save it as .*file\.bin"):
        download(server + "/missing", target, SHA256)
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:9/x cannot be reached \(.*refused.*save it as .*file\.bin"):
        download("http://127.0.0.1:9/x", target, SHA256)
    with pytest.raises(OSError, match=r"nowhere\.invalid/x cannot be reached"):
        download("http://nowhere.invalid/x", target, SHA256)
    assert list(tmp_path.iterdir()) == []


def test_two_at_a_time(server, tmp_path):
    with open(tmp_path / "file.bin.part", "wb") as part:
        part.write(b"x")
        part.flush()
        fcntl.flock(part, fcntl.LOCK_EX)
        with pytest.raises(OSError, match=r"file\.bin\.part is being written by another process"):
            download(server + "/whole", tmp_path / "file.bin", SHA256)
    assert Handler.requests == []


@pytest.mark.parametrize(
    ("url", "checksum", "words"),
    [("file:///etc/passwd", SHA256, "'url'"), ("http://a/b", "md5:12", "'checksum'"), ("http://a/b", "1" * 64, "'ch")],
)
def test_arguments(tmp_path, url, checksum, words):
    with pytest.raises(ValueError, match=f"download: argument {words}"):
        download(url, tmp_path / "x", checksum)


def test_cifar(server, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "URL", server + "/")
    with pytest.raises(DataError, match=r"cifar-100-binary\.tar\.gz: expected md5 03b5dce01913d631647c71ecec9e9cb8"):
        cifar.download_cifar("cifar100", tmp_path / "data", say=str)
    assert Handler.requests == [("/cifar-100-binary.tar.gz", None)]
    with pytest.raises(ValueError, match="download_cifar: argument 'name': expected one of cifar10, cifar100"):
        cifar.download_cifar("mnist", tmp_path)
