"""The run's log: everything printed goes to the terminal and to log.txt."""

import contextlib
import sys

from dnnlib.errors import silence


class _LogFile:
    """A text file that is appended to without buffering. What a full disk refuses is lost, with one warning: a log must not end a training.

    Args:
        file: binary file without a buffer.
        warn: stream for the warning.
    """

    def __init__(self, file, warn):
        self._file, self._warn, self._warned = file, warn, False

    def write(self, text):
        try:
            self._file.write(text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            if not self._warned:
                self._warn.write(f"warning: {self._file.name}: {error.strerror}, some lines are missing there\n")
            self._warned = True


class _Tee:
    """A text stream that writes to a terminal stream and to the log file.

    A stream that can no longer be written (a closed pipe, a full disk) is abandoned, with one warning in the log file.
    """

    def __init__(self, stream, file):
        self._stream = stream
        self._file = file

    def write(self, text):
        try:
            self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        if "\r" not in text:  # progress bars are for the terminal only
            self._file.write(text)
            if "\n" in text:
                self.flush()
        return len(text)

    def flush(self):
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error):
        silence(self._stream)
        self._file.write(f"warning: output continues in this file only: {error.strerror}\n")

    def isatty(self):
        return hasattr(self._stream, "isatty") and self._stream.isatty()  # a stand-in of the caller's may have no more than `write`

    def fileno(self):
        return self._stream.fileno()

    @property
    def encoding(self):
        return self._stream.encoding


@contextlib.contextmanager
def tee(path):
    """Append what the block prints (stdout and stderr) to the file `path` as well."""
    stdout, stderr = sys.stdout, sys.stderr
    with open(path, "ab", buffering=0) as file:
        log = _LogFile(file, warn=stderr)
        sys.stdout, sys.stderr = _Tee(stdout, log), _Tee(stderr, log)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = stdout, stderr


def format_time(seconds):
    """Seconds in human-readable form: 45s, 3m 05s, 2h 07m, 1d 03h."""
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m {seconds % 60:02d}s"
    if seconds < 86400:
        return f"{seconds // 3600}h {seconds // 60 % 60:02d}m"
    return f"{seconds // 86400}d {seconds // 3600 % 24:02d}h"
