"""Downloads from a local server that breaks off, lies, redirects, is slow, sends web pages; the cache; Google Drive's protocol."""

import hashlib
import http.server
import os
import threading
import time
import urllib.parse
from types import SimpleNamespace

import numpy as np
import pytest
import urllib3

from dnnlib import UserError, download, locks

CONTENT = np.random.RandomState(0).bytes(300000)
MD5 = hashlib.md5(CONTENT).hexdigest()
QUOTA = b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title>try again later</html>"
CROWD = b"<!DOCTYPE html><html>Too many users have viewed or downloaded this file recently</html>"
WARNING = (b'<!DOCTYPE html><html><form id="download-form" action="/confirmed" method="get"><input type="hidden" name="id" value="%s">'
           b'<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="42"></form></html>')


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers according to the path; every request is recorded in the server's `seen`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path)
        self.server.seen.append((self.path, self.headers.get("Range")))
        assert self.headers.get("Accept-Encoding") == "identity"     # the length of compressed data would not be the file's
        getattr(self, "_" + path.path.strip("/").split("/")[0].split(".")[0])(dict(urllib.parse.parse_qsl(path.query)))

    def _send(self, data, status=200, length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True

    def _start(self):
        wanted = self.headers.get("Range")
        return int(wanted[len("bytes="):-1]) if wanted else 0

    def _ranged(self, data, length=None):
        start = self._start()
        if start >= len(CONTENT):
            return self._send(b"", 416, Content_Range=f"bytes */{len(CONTENT)}")
        return self._send(data, 206 if start else 200, length, Content_Range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")

    def _good(self, query):
        self._ranged(CONTENT[self._start():])

    def _breaks(self, query):
        """At most 100,000 bytes per connection."""
        start = self._start()
        self._ranged(CONTENT[start:start + 100000], len(CONTENT) - start)

    def _whole(self, query):
        """Does not support ranges, and breaks off the first time."""
        self._send(CONTENT if len(self.server.seen) > 1 else CONTENT[:70000], length=len(CONTENT))

    def _dead(self, query):
        self._send(b"", length=len(CONTENT))

    def _busy(self, query):
        if len(self.server.seen) < 3:
            return self._send(b"busy", 503)
        return self._good(query)

    def _limited(self, query):
        """Answers depending on how many requests came before: too many requests, timeout, then properly."""
        if len(self.server.seen) < 3:
            return self._send(b"", (429, 408)[len(self.server.seen) - 1])
        return self._good(query)

    def _missing(self, query):
        self._send(b"no", 404)

    def _page(self, query):
        self._send(b"<html>log in</html>", Content_Type="application/octet-stream")

    def _redirect(self, query):
        self._send(b"", 302, Location="/good")

    def _slow(self, query):
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000])
        self.wfile.flush()
        time.sleep(1.5)
        self.close_connection = True

    def _wrong(self, query):
        self._send(CONTENT[self._start():], 206, Content_Range=f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}")

    def _drive(self, query):
        pages = {"quota" * 6: QUOTA, "crowd" * 6: CROWD, "private" * 4: b"<html>Sign in</html>", "warning" * 4: WARNING % (b"warning" * 4),
                 "endless" * 4: WARNING % (b"endless" * 4)}
        if query["id"] in pages:
            return self._send(pages[query["id"]], Content_Type="text/html; charset=utf-8")
        return self._good(query)

    def _confirmed(self, query):
        if query["id"] == "endless" * 4:
            return self._drive(query)
        assert query == {"id": "warning" * 4, "confirm": "t", "uuid": "42"}
        return self._good(query)


@pytest.fixture
def server():
    """A server on this machine, with its `url` and the requests `seen`."""
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    httpd.daemon_threads, httpd.seen, httpd.url = True, [], f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(download, "FIRST_WAIT", 0.001)


def _read(path):
    with open(str(path), "rb") as file:
        return file.read()


BROKEN = 4 if urllib3.__version__ >= "2" else 3  # requests for a file whose transfer breaks: urllib3 1 loses nothing to it


@pytest.mark.parametrize("way, requests", [("good", 1), ("breaks", BROKEN), ("whole", 2), ("busy", 3), ("limited", 3), ("redirect", 2)])
def test_files_arrive_whole(server, tmp_path, way, requests):
    download.download(f"{server.url}/{way}", str(tmp_path / "file"), len(CONTENT), MD5)
    assert _read(tmp_path / "file") == CONTENT
    assert os.listdir(str(tmp_path)) == ["file"] and len(server.seen) == requests


def test_attempts_that_bring_something_do_not_count(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    download.download(f"{server.url}/breaks", str(tmp_path / "file"), len(CONTENT), MD5)
    assert len(server.seen) == BROKEN


def test_attempts_that_bring_nothing_come_later_and_later(server, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(download, "FIRST_WAIT", 2)
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(UserError, match="5 attempts"):
        download.download(f"{server.url}/dead", str(tmp_path / "file"))
    assert waited == [4, 8, 10, 10]


def test_an_interrupted_download_goes_on_where_it_ended(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:123456])
    download.download(f"{server.url}/good", str(tmp_path / "file"), md5=MD5)
    assert _read(tmp_path / "file") == CONTENT and server.seen == [("/good", "bytes=123456-")]
    (tmp_path / "file").rename(tmp_path / "earlier")
    (tmp_path / "file.part").write_bytes(CONTENT)
    download.download(f"{server.url}/good", str(tmp_path / "file"), md5=MD5)
    assert len(server.seen) == 2
    (tmp_path / "file").rename(tmp_path / "earlier")
    (tmp_path / "file.part").write_bytes(CONTENT + b"of another file")
    download.download(f"{server.url}/good", str(tmp_path / "file"), md5=MD5)
    assert _read(tmp_path / "file") == CONTENT


def test_two_downloads_of_one_file_do_not_mix(server, tmp_path, capsys):
    """The second one waits for the first, then uses what it has downloaded or continues where it ended."""
    path = tmp_path / "file"
    for first_succeeds in (True, False):
        other = locks.take(f"{path}.part.lock")
        waiting = threading.Thread(target=download.download, args=(f"{server.url}/good", str(path), len(CONTENT), MD5))
        waiting.start()
        (tmp_path / "file.part").write_bytes(CONTENT[:1000])
        while waiting.is_alive() and "held by process" not in capsys.readouterr().err:
            time.sleep(0.01)
        if first_succeeds:
            (tmp_path / "file.part").unlink()
            path.write_bytes(b"complete")
        other.close()
        waiting.join()
        if first_succeeds:
            assert _read(path) == b"complete" and server.seen == []
            path.unlink()
    assert _read(path) == CONTENT and server.seen == [("/good", "bytes=1000-")] and os.listdir(str(tmp_path)) == ["file"]


@pytest.mark.parametrize(
    "way, expected, message",
    [
        ("missing", {}, "the server answered 404"),
        ("dead", {}, "5 attempts received no more than 0 bytes"),
        ("page", {}, "a web page arrived instead of the file"),
        ("good", {"size": 7}, "the server has a file of 300000 bytes, expected 7"),
        ("good", {"md5": "0" * 32}, f"md5 {MD5}, expected 0000"),
    ],
)
def test_what_goes_wrong_is_said_with_the_place_for_the_file(server, tmp_path, way, expected, message):
    path = tmp_path / "file"
    with pytest.raises(UserError) as caught:
        download.download(f"{server.url}/{way}", str(path), **expected)
    text = str(caught.value)
    assert message in text and f"{server.url}/{way}" in text and f"by hand at {path}" in text and "\n" not in text
    assert not path.exists() and not ("md5" in expected and os.listdir(str(tmp_path)))     # otherwise it would be found wrong for ever


def test_a_page_is_known_by_how_it_begins():
    answer = SimpleNamespace(headers={"Content-Type": "application/octet-stream"})
    assert download._is_page(answer, b"\n<!DOCTYPE html><html>", "a.pkl") and not download._is_page(answer, CONTENT, "a.pkl")


def test_a_wrong_range_is_refused(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    with pytest.raises(UserError, match="sent the range bytes 7-299999/300000, requested bytes=1000-"):
        download.download(f"{server.url}/wrong", str(tmp_path / "file"))


def test_a_server_that_stops_sending_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", (1, 0.1))
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    with pytest.raises(UserError, match="2 attempts received no more than"):
        download.download(f"{server.url}/slow", str(tmp_path / "file"))


def test_no_server_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    with pytest.raises(UserError, match=r"1 attempts received no more than 0 bytes \(\[Errno \d+\] Connection refused\); you may place"):
        download.download("http://127.0.0.1:9/file", str(tmp_path / "file"))


def test_google_drive(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "DRIVE_URL", f"{server.url}/drive")
    download.download("gdrive:" + "plain" * 6, str(tmp_path / "plain"), md5=MD5)
    assert "confirm=t" in server.seen[0][0]
    (tmp_path / "warned.part").write_bytes(CONTENT[:5000])
    download.download("gdrive:" + "warning" * 4, str(tmp_path / "warned"), md5=MD5)
    assert _read(tmp_path / "plain") == _read(tmp_path / "warned") == CONTENT
    exceeded, page = "quota is exceeded", "a page instead of the file"
    for name, message in {"quota" * 6: exceeded, "crowd" * 6: exceeded, "private" * 4: page, "endless" * 4: page}.items():
        with pytest.raises(UserError) as caught:
            download.download(f"gdrive:{name}", str(tmp_path / "not"))
        assert message in str(caught.value) and f"https://drive.google.com/file/d/{name}/view" in str(caught.value)


def test_the_cache(server, tmp_path, monkeypatch):
    monkeypatch.setenv("GANFORMER_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "DRIVE_URL", f"{server.url}/drive")
    assert download.cached(f"{server.url}/good/model.pkl") is None
    path = download.fetch(f"{server.url}/good/model.pkl")
    assert download.cached(f"{server.url}/good/model.pkl") == path
    assert path == download.fetch(f"{server.url}/good/model.pkl") and len(server.seen) == 1
    assert _read(path) == CONTENT and path.startswith(str(tmp_path)) and os.path.basename(path) == "model.pkl"
    assert _read(path + ".sha256").decode().split()[0] == hashlib.sha256(CONTENT).hexdigest()
    assert _read(download.fetch("gdrive:clevr-snapshot.pkl")) == CONTENT
    assert "id=" + download.PUBLISHED["clevr-snapshot.pkl"] in server.seen[1][0]
    with pytest.raises(UserError, match="gdrive:nothing: not a published snapshot; accepted: .*clevr-snapshot.pkl"):
        download.fetch("gdrive:nothing")


@pytest.mark.parametrize("source, remote", [("http://a/b", True), ("https://a/b", True), ("gdrive:a", True), ("a/http://b", False)])
def test_what_is_remote(source, remote):
    assert download.is_remote(source) == remote


def test_a_folder_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("a file, no folder")
    with pytest.raises(UserError, match=f"^download to {tmp_path}/file/below: (File exists|Not a directory)$"):
        download.download(f"{server.url}/good", str(tmp_path / "file" / "below"))
    monkeypatch.setenv("GANFORMER_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r": Not a directory \(set GANFORMER_CACHE to choose another cache\)$"):
        download.fetch("gdrive:clevr-snapshot.pkl")
