"""Files are either complete or absent; messages if they cannot be written; reading of damaged files."""

import codecs
import errno
import fcntl
import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from dnnlib import UsageError, UserError, atomic_output, locks, run_main
from dnnlib.files import check_space, read_lines, read_object
from tests.cli_helpers import ROOT


def failing(path, error):
    """An entry point that writes half a file, then fails."""

    def main(_):
        with atomic_output(path, "w") as file:
            file.write("half")
            raise error

    return main


@pytest.mark.parametrize("error, said", [
    (OSError(errno.ENOSPC, "No space left on device"), "error: {path}: No space left on device\n"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "other.txt"), "error: other.txt: No such file or directory\n"),
    (UserError("too few"), "error: too few\n"),
    (ModuleNotFoundError(name="lmdb"),
     f"error: {sys.executable} has no module lmdb; `pip install -r requirements.txt` installs what is needed\n"),
])  # fmt: skip
def test_what_goes_wrong_is_one_line_and_leaves_nothing(tmp_path, capsys, error, said):
    path = str(tmp_path / "new" / "file.txt")
    assert run_main(failing(path, error), []) == 1
    assert capsys.readouterr().err == said.format(path=path)
    assert os.listdir(str(tmp_path / "new")) == []


@pytest.mark.parametrize("ends, code, said", [
    (None, 0, ""), (3, 3, ""), (UsageError("too few"), 2, "error: too few\n"), (KeyboardInterrupt(), 130, "interrupted\n"),
])  # fmt: skip
def test_every_end_has_its_exit_code(monkeypatch, capsys, ends, code, said):
    monkeypatch.setattr(sys, "argv", ["program", "--flag"])

    def main(argv):
        assert argv == ["--flag"]
        if isinstance(ends, BaseException):
            raise ends
        return ends

    assert run_main(main) == code and capsys.readouterr().err == said


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Otherwise a machine crash could leave an empty file, and a file on another file system could not be renamed at all."""
    path, done, sync, replace = str(tmp_path / "file.txt"), [], os.fsync, os.replace

    def synced(handle):
        done.append(os.readlink(f"/proc/self/fd/{handle}"))
        assert os.path.getsize(done[-1]) == 5 and os.path.dirname(done[-1]) == str(tmp_path)
        sync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append((old, new)), replace(old, new)))
    with atomic_output(path, "w") as file:
        file.write("whole")
    assert done == [done[0], (done[0], path)]


def test_files_have_the_rights_that_the_user_gives_all_files(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "chmod", None)  # which a network drive, where all files belong to one user, refuses the others
    before = os.umask(0o027)
    try:
        with atomic_output(str(tmp_path / "file.txt"), "w"):
            pass
        assert os.stat(str(tmp_path / "file.txt")).st_mode & 0o777 == 0o640 and os.umask(before) == 0o027
    finally:
        os.umask(before)


def test_an_error_that_the_system_did_not_explain_keeps_its_words(tmp_path):
    """For example NumPy's for a full disk."""
    error = OSError("100000 requested and 12484 written")
    with pytest.raises(OSError, match="^100000 requested and 12484 written$"):
        run_main(failing(str(tmp_path / "a"), error), [])


@pytest.mark.parametrize("lines", [1, 1000, 100000])
def test_output_that_nobody_reads_ends_without_a_word(lines):
    """As with `| head`; a little output fails only when it is flushed, more when it is printed."""
    reading, writing = os.pipe()
    os.close(reading)
    program = f"import sys; from dnnlib import run_main; sys.exit(run_main(lambda _: print('line\\n' * {lines}), []))"
    done = subprocess.run([sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("lines", [1, 100000])
def test_output_on_a_full_disk_is_one_line(lines):
    program = f"import sys; from dnnlib import run_main; sys.exit(run_main(lambda _: print('line\\n' * {lines}), []))"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (1, "error: the output: No space left on device\n")


@pytest.mark.parametrize("encoding, printed", [("ascii", b"ph\\xfc \\u65e5\n"), ("latin-1", b"ph\xfc \\u65e5\n"),
                                               ("utf-8", "phü 日\n".encode())])  # fmt: skip
def test_names_are_printed_in_any_encoding(encoding, printed):
    program = "import sys; from dnnlib import run_main; sys.exit(run_main(lambda _: print('ph\\xfc \\u65e5'), []))"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    assert subprocess.check_output([sys.executable, "-c", program], env=environment, cwd=ROOT) == printed


def test_an_output_that_is_not_pythons_own_is_left_as_it_is(monkeypatch):
    """IDLE's, and those of the codecs module."""
    output = codecs.getwriter("utf-8")(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", output)
    assert run_main(lambda _: print("ph\xfc"), []) == 0 and output.getvalue() == b"ph\xc3\xbc\n"


def test_a_closed_output_is_nowhere(tmp_path):
    """As with `>&- 2>&-`, when Python has no sys.stdout and no sys.stderr."""
    program = """
import sys
from dnnlib import log, run_main

def main(_):
    with log.tee(sys.argv[1]):
        print("one")
        print("two", file=sys.stderr)

sys.exit(run_main(main))
"""
    path = tmp_path / "log.txt"
    words = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-c", program, str(path)]
    assert subprocess.run(words, cwd=ROOT).returncode == 0
    assert path.read_text() == "one\ntwo\n"


def test_a_broken_pipe_that_is_not_the_output_is_a_defect():
    def main(_):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        run_main(main, [])


@pytest.mark.parametrize("words, shown", [
    ("--debug", True), ("--debug=True", True), ("--debug yes", True), ("--deb --gpus cpu", True), ("--gpus cpu --de=1", True),
    ("--debug n", False),
    ("--debug False", False), ("--debug=0", False), ("--debug --deb no", False), ("--data-dir debug", False), ("--d", False), ("", False),
])  # fmt: skip
def test_debug_shows_the_traceback_in_any_spelling(words, shown, capsys):
    def main(_):
        raise UserError("too few")

    assert run_main(main, words.split()) == 1
    err = capsys.readouterr().err
    assert err.endswith("error: too few\n") and ("Traceback" in err) == shown


def test_a_folder_in_the_place_of_a_file(tmp_path, capsys):
    (tmp_path / "file.npy").mkdir()

    def main(_):
        with atomic_output(str(tmp_path / "file.npy")) as file:
            np.save(file, np.zeros(3))

    assert run_main(main, []) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'file.npy'}: Is a directory\n"
    assert os.listdir(str(tmp_path)) == ["file.npy"]


def test_too_little_space_is_said_of_the_folder_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 2.5e6}) if path == str(tmp_path) else None)
    check_space(str(tmp_path / "new" / "below"), 2.5e6, "the file")
    with pytest.raises(UserError) as caught:
        check_space(str(tmp_path / "new" / "below"), 3e9, "the file")
    assert str(caught.value) == f"{tmp_path}: the file needs about 3.0 GB, only 2.5 MB are free"


@pytest.mark.parametrize("content, found", [
    (b'{"a": {"b": 1}}', {"a": {"b": 1}}), (b'{"a": ', {}), (b"[1]", {}), (b'{"a": "\xff"}', {}), (b"", {}), (None, {}),
])  # fmt: skip
def test_an_object_is_read_from_a_file_that_may_be_damaged(tmp_path, content, found):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    assert read_object(str(tmp_path / "a.json")) == found


def test_lines_are_read_from_a_file_that_may_be_damaged(tmp_path):
    path = tmp_path / "a.jsonl"
    assert read_lines(str(path), ["a"]) == []
    path.write_bytes(b'{"a": 1}\n\n[2]\n{"b": 3}\n{"a": "\xff"}\n{"a": "\xc3\xa9", "b": 4}\n{"a": 5')
    assert read_lines(str(path), ["a"]) == [{"a": 1}, {"a": "\u00e9", "b": 4}]
    assert read_lines(str(path), ["a", "b"]) == [{"a": "\u00e9", "b": 4}]


def test_a_lock_file_that_its_owner_removes_while_it_is_taken_is_no_lock(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    flock = fcntl.flock

    def flock_of_a_removed_file(file, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        os.remove(path)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_of_a_removed_file)
    with locks.take(path), pytest.raises(BlockingIOError):
        locks.take(path)


def test_windows_is_refused_in_one_line():
    done = subprocess.run([sys.executable, "-c", "import os; os.name = 'nt'; import dnnlib"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "error: this program needs Linux; on Windows, run it under WSL\n")
