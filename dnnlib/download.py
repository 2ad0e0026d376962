"""Downloads that resume, are verified and report what went wrong; and the cache of downloaded files."""

from __future__ import annotations

import hashlib
import html.parser
import os
import time
import urllib.parse

from dnnlib import locks
from dnnlib.cache import cache_folder
from dnnlib.errors import UserError
from dnnlib.files import atomic_output

DRIVE_URL = "https://drive.usercontent.google.com/download"
DRIVE_PAGE = "https://drive.google.com/file/d/{}/view"
TIMEOUT = (20, 60)          # seconds to connect, seconds without receiving a byte
ATTEMPTS = 5                # consecutive ones that receive nothing
FIRST_WAIT = 0.2            # seconds, doubled after each of them
PART = ".part"              # suffix of an incomplete file
_BLOCK = 1 << 20
_NETWORK_BLOCK = 1 << 14     # at most this much is lost when a connection breaks

# Published snapshots: name -> Google Drive id.
PUBLISHED = {
    "clevr-snapshot.pkl": "1sYtuNEi0HGBH1F8GW2JlF4mCRGGrtZa9",
    "cityscapes-snapshot.pkl": "1iL8S26IYCNAQmUS-6GYCVheKFtCE4ktQ",
    "ffhq-snapshot.pkl": "1-b0vwevUQs6LI_EybdO8XJ5uYSx63vEa",
    "bedrooms-snapshot.pkl": "1lrB4t3hOOpn8YiwHEduIZYzndHrsKX8z",
    "ffhq-snapshot-1024.pkl": "1OcsibUthk2y8y0slf2lQnrYBAtmdJYCQ",
    "cityscapes-snapshot-2048.pkl": "1lJlbIuxF89-owG7vQSBYXc8y2RqqP_bP",
}


class _Broken(Exception):
    """The connection was lost; trying again may help."""


def is_remote(source):
    """Whether a string is a source for `fetch`, a URL or gdrive:NAME, and not a path."""
    return source.startswith(("http://", "https://", "gdrive:"))


def fetch(source):
    """The local file of a URL or a published snapshot, downloaded into the cache if it is not there.

    Args:
        source: http(s) URL, or gdrive:NAME with a NAME of PUBLISHED or a Google Drive id.

    Returns:
        Its path.

    Raises:
        UserError: an unknown name, or see `download`.
    """
    url, path = _place(source)
    if not os.path.isfile(path):
        download(url, path)
        with atomic_output(f"{path}.sha256", "w") as file:
            file.write(f"{file_digest(path, 'sha256')}  {os.path.basename(path)}\n")
    return path


def check_remote(source):
    """Raise UserError if a source for `fetch` is a gdrive:NAME that is not published; nothing is downloaded."""
    _place(source)


def cached(source):
    """The local file if `fetch` has downloaded it before, else None; nothing is downloaded."""
    path = _place(source)[1]
    return path if os.path.isfile(path) else None


def _place(source):
    """(URL, path in the cache) of a source as in `fetch`."""
    name, url = os.path.basename(urllib.parse.urlsplit(source).path) or "file", source
    if source.startswith("gdrive:"):
        name = source[len("gdrive:"):]
        drive_id = PUBLISHED.get(name) or PUBLISHED.get(f"{name}.pkl", name)
        if drive_id not in PUBLISHED.values() and len(drive_id) < 25:
            raise UserError(f"{source}: not a published snapshot; accepted: gdrive: and {', '.join(PUBLISHED)}, or a Google Drive id")
        url = f"gdrive:{drive_id}"
    folder = os.path.join(cache_folder("downloads"), hashlib.sha256(url.encode()).hexdigest()[:16])
    return url, os.path.join(folder, name)


def file_digest(path, algorithm="md5"):
    """Hexadecimal digest of a file."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def download(url, path, size=None, md5=None):
    """Download a file to `path`, continuing what an earlier attempt left in `path` + PART.

    While another process downloads it, wait; a file that is there by then is used.

    Args:
        url: http(s) URL, or gdrive:ID.
        path: where the file goes.
        size: its size in bytes, if known.
        md5: its hexadecimal MD5 digest, if known.

    Raises:
        UserError: the message has the URL, the reason, and the path where the file may be placed by hand.
    """
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        part = f"{path}{PART}"
        with locks.held(f"{part}.lock"):
            if not os.path.isfile(path):
                _Transfer(url, part, os.path.basename(path), size).run()
                check_file(part, size, md5)
                os.replace(part, path)
    except UserError as error:
        where = DRIVE_PAGE.format(url[len("gdrive:"):]) if url.startswith("gdrive:") else url
        raise UserError(f"download of {where}: {error}; you may place the file by hand at {os.path.abspath(path)}") from error
    except OSError as error:
        advice = " (set GANFORMER_CACHE to choose another cache)" if path.startswith(cache_folder("")) else ""
        raise UserError(f"download to {path}: {error.strerror or error}{advice}") from error


def size_so_far(path):
    """Size of a file in bytes, 0 if it does not exist."""
    return os.path.getsize(path) if os.path.exists(path) else 0


def check_file(path, size=None, md5=None):
    """Raise UserError and remove the file if its size or digest differs from the expected one."""
    found = os.path.getsize(path)
    reason = None
    if size is not None and found != size:
        reason = f"{found} bytes arrived, expected {size}"
    elif md5 is not None and file_digest(path) != md5:
        reason = f"md5 {file_digest(path)}, expected {md5}"
    if reason:
        os.remove(path)
        raise UserError(reason)


class _Transfer:
    """A file being downloaded into `part`, over as many connections as needed."""

    def __init__(self, url, part, name, size):
        import requests  # only here: not needed if everything is in place

        self.requests = requests
        self.session = requests.Session()
        self.drive = url.startswith("gdrive:")
        self.url, self.parameters = url, {}
        if self.drive:
            self.url, self.parameters = DRIVE_URL, {"id": url[len("gdrive:"):], "export": "download", "confirm": "t"}
        self.part, self.name, self.size = part, name, size
        self.pages = 0

    def run(self):
        """Download until the file is complete. Raises UserError."""
        from tqdm import tqdm

        failures = 0
        with tqdm(total=self.size, unit="B", unit_scale=True, desc=self.name, disable=None) as progress:
            while True:
                before = self._arrived()
                try:
                    if self._continue(progress):
                        return
                except (_Broken, self.requests.RequestException) as error:
                    failures = 0 if self._arrived() > before else failures + 1
                    if failures >= ATTEMPTS:
                        given = f"{self._arrived()} bytes ({_reason(error)})"
                        raise UserError(f"{ATTEMPTS} attempts received no more than {given}") from error
                    time.sleep(min(FIRST_WAIT * 2 ** failures, 10))

    def _arrived(self):
        return size_so_far(self.part)

    def _continue(self, progress):
        """Send one request, starting where the file ends. Returns whether the file is complete."""
        start = self._arrived()
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with self.session.get(self.url, params=self.parameters, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:
                return self._complete_or_restart(answer, start)
            if answer.status_code >= 500 or answer.status_code in (408, 429):
                raise _Broken(f"status {answer.status_code}")
            if answer.status_code not in (200, 206):
                raise UserError(f"the server answered {answer.status_code} {answer.reason}")
            blocks = answer.iter_content(_NETWORK_BLOCK)
            first = next(blocks, b"")
            if _is_page(answer, first, self.name):
                return self._read_page(first + b"".join(blocks))
            if answer.status_code == 200:
                start = 0        # the server does not support ranges
            elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise UserError(f"the server sent the range {answer.headers.get('Content-Range')}, requested {headers['Range']}")
            return self._receive(answer, first, blocks, start, progress)

    def _receive(self, answer, first, blocks, start, progress):
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        if self.size is not None and total is not None and total != self.size:
            raise UserError(f"the server has a file of {total} bytes, expected {self.size}")
        progress.total, progress.n = total or self.size, start
        with open(self.part, "r+b" if start else "wb") as file:
            file.seek(start)
            arrived = start
            while first:
                file.write(first)
                arrived += len(first)
                progress.update(len(first))
                first = next(blocks, b"")
        if total is not None and arrived < total:
            raise _Broken(f"{arrived} of {total} bytes")
        return True

    def _complete_or_restart(self, answer, start):
        """The server has nothing beyond what has arrived: the file is complete, or it was another file."""
        if answer.headers.get("Content-Range", "") == f"bytes */{start}":
            return True
        os.remove(self.part)
        return False

    def _read_page(self, page):
        """A web page instead of the file: on Google Drive the warning about large files, whose form leads to the file; else an error."""
        text = page.decode(errors="replace")
        form = _Form()
        form.feed(text)
        self.pages += 1
        if not self.drive:
            raise UserError("a web page arrived instead of the file")
        if "quota" in text.lower() or "too many users" in text.lower():
            raise UserError("Google Drive refuses: the file's download quota is exceeded; try again in a day")
        if not form.fields.get("id") or self.pages > 2:
            raise UserError("Google Drive sent a page instead of the file (no longer shared, or a login is required)")
        self.url = urllib.parse.urljoin(self.url, form.action or self.url)
        self.parameters = form.fields
        return False


def _reason(error):
    """What broke a connection, in a few words: the innermost cause, without the exceptions that wrap it."""
    cause = getattr(next(iter(error.args), None), "reason", error)
    return " ".join(str(cause).split()).rpartition(": ")[2][:200]


def _is_page(answer, first, name):
    if name.lower().endswith((".html", ".htm")):
        return False
    start = first[:256].lstrip().lower()
    return answer.headers.get("Content-Type", "").startswith("text/html") or start.startswith((b"<!doctype html", b"<html"))


class _Form(html.parser.HTMLParser):
    """The action and the hidden fields of the form in a page."""

    def __init__(self):
        super().__init__()
        self.action, self.fields = None, {}

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "form":
            self.action = attributes.get("action")
        elif tag == "input" and attributes.get("name"):
            self.fields[attributes["name"]] = attributes.get("value") or ""
