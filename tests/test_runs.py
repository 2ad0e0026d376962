"""Run folders, logs and stop signals."""

import concurrent.futures
import copy
import errno
import fcntl
import functools
import io
import itertools
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from dnnlib import UsageError, UserError, locks, log, runs, signals
from training import command_line, run_choice, run_record
from training.config import TrainingConfig
from training.networks import DiscriminatorConfig, GeneratorConfig


def test_runs_are_matched_by_exact_name(tmp_path):
    for name in ("clevr-000", "clevr-002", "clevr-scratch-007", "clevr-10", "xclevr-011", "clevr-0a1", "clevr"):
        (tmp_path / name).mkdir()
    (tmp_path / "clevr-099").write_text("a file, not a run")
    assert [number for number, _ in runs.find_runs(str(tmp_path), "clevr")] == [0, 2, 10]
    assert runs.latest_run(str(tmp_path), "clevr") == str(tmp_path / "clevr-10")
    assert runs.latest_run(str(tmp_path), "clevr-scratch") == str(tmp_path / "clevr-scratch-007")
    assert runs.latest_run(str(tmp_path), "clev") is None
    assert runs.latest_run(str(tmp_path / "absent"), "clevr") is None


def test_run_numbers_go_up(tmp_path):
    made = [os.path.basename(runs.create_run(str(tmp_path / "results"), "exp")) for _ in range(3)]
    assert made == ["exp-000", "exp-001", "exp-002"]
    (tmp_path / "results" / "exp-005").mkdir()
    (tmp_path / "results" / "exp-007").write_text("not a run, or one that another process has made just now")
    made = [os.path.basename(runs.create_run(str(tmp_path / "results"), "exp")) for _ in range(2)]
    assert made == ["exp-006", "exp-008"]


def test_results_do_not_mix_with_those_for_other_weights(tmp_path):
    options = command_line.Options(result_dir=str(tmp_path / "results"), expname="exp")

    def results_run(*path, named=True):
        return os.path.relpath(run_choice.results_run(str(tmp_path.joinpath(*path)), options, named), options.result_dir)

    for _ in range(2):  # the second evaluation adds to the first one's folder, and no training goes there
        assert results_run("clevr.pkl") == "exp-000"
        assert run_choice.find_run(options) == run_choice.FoundRun()
    assert run_record.latest_run(options.result_dir, "exp") == str(tmp_path / "results" / "exp-000")
    (tmp_path / "results" / "exp-000" / run_record.FILE_NAME).write_text("{}")
    for path in (["clevr.pkl"], ["old", "exp-000", "1.pkl"], ["results", "other-003", "1.pkl"], ["results", "1.pkl"]):
        (tmp_path.joinpath(*path[:-1])).mkdir(parents=True, exist_ok=True)
        assert results_run(*path) == "exp-001"
    assert results_run("results", "exp-000", "1.pkl") == "exp-000"
    assert results_run("results", "other-003", "1.pkl", named=False) == "other-003"
    for found in (run_record.trained_run, run_record.latest_run):
        assert found(options.result_dir, "exp") == str(tmp_path / "results" / "exp-000")
        assert found(options.result_dir, "none") is None
    assert run_record.trained_run(options.result_dir, "other") is None
    (tmp_path / "results" / "exp-001" / "1.pkl").write_text("")
    assert run_record.trained_run(options.result_dir, "exp") == str(tmp_path / "results" / "exp-001")


@pytest.mark.parametrize("content", [None, "not JSON", "[]", '{"model_type": "gan"}', '{"options": {}, "training": {}}'])
def test_a_config_json_of_another_program_is_no_record_of_a_run(content, tmp_path):
    if content is not None:
        (tmp_path / run_record.FILE_NAME).write_text(content)
    assert run_record.find_record(str(tmp_path)) is None
    with pytest.raises(UserError, match="config.json: missing, damaged, or not the configuration of a run$"):
        run_record.read_record(str(tmp_path))


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for words, flag in (((), "--result-dir"), (("--out",), "--out")):
        with pytest.raises(UserError, match=f"^{flag} .*results: cannot write there"):
            runs.check_writable(str(tmp_path / "file" / "results"), *words)


def test_trying_a_folder_leaves_nothing(tmp_path):
    runs.check_writable(str(tmp_path / "new" / "results"))
    assert os.listdir(str(tmp_path / "new" / "results")) == []


def test_a_lock_has_one_owner_whose_name_is_in_it(tmp_path):
    path = tmp_path / "run.lock"
    path.write_text("process 123456789 on another machine that had it before\n")
    owner = f"process {os.getpid()} on {os.uname().nodename}"
    for _ in range(2):
        with locks.take(str(path)):
            with pytest.raises(BlockingIOError):
                locks.take(str(path))
            assert locks.owner(str(path)) == owner
    assert locks.owner(str(tmp_path / "none")) == "another process"
    with pytest.raises(OSError, match="No such file"):
        locks.take(str(tmp_path / "none" / "run.lock"))


def test_a_lock_on_a_full_disk_has_an_owner_without_a_name(tmp_path):
    """A file size limit of zero bytes stands in for the full disk."""
    path, limits = str(tmp_path / "run.lock"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with locks.take(path), pytest.raises(BlockingIOError):
            locks.take(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert locks.owner(path) == "another process"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, capsys, number):
    """Such as Lustre without -o flock, or some NFS."""
    path = str(tmp_path / "run.lock")

    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locks.held(path), locks.take(path):
        assert capsys.readouterr().err.splitlines()[0] == (
            f"warning: {path}: this file system has no locks ({os.strerror(number)}); do not start the same work twice")
    assert os.listdir(str(tmp_path)) == []
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        locks.take(path)


def test_a_lock_is_waited_for(tmp_path, monkeypatch, capsys):
    path, waits = str(tmp_path / "run.lock"), []
    monkeypatch.setattr(locks, "_INTERVAL", 0.01)
    other = locks.take(path)

    def busy(name, owner, waited):
        waits.append(waited)
        if waited > 0.03:
            raise UserError(f"{name} {owner}")

    with pytest.raises(UserError, match=f"^{path} process {os.getpid()} on "), locks.held(path, busy):
        pass
    assert waits[0] == 0 and waits == sorted(waits) and len(waits) > 2
    threading.Timer(0.1, other.close).start()
    with locks.held(path):
        assert os.path.exists(path)
    assert capsys.readouterr().err == f"{path}: held by process {os.getpid()} on {os.uname().nodename}, waiting for it to finish\n"
    assert not os.path.exists(path)


def test_numbered_files(tmp_path):
    others = ("network-snapshot-1.pkl.tmp", "network-snapshot-3_pkl", "other-3.pkl")
    for name in ("network-snapshot-000010.pkl", "network-snapshot-000002.pkl", *others):
        (tmp_path / name).write_text("")
    assert [number for number, _ in runs.numbered_files(str(tmp_path), "network-snapshot-", ".pkl")] == [2, 10]
    assert runs.numbered_files(str(tmp_path / "absent"), "a", "b") == []


def open_closed_pipe():
    """A text stream into a pipe whose reading end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    return open(writing, "w")


def open_full_file():
    """A text stream into a file on a full disk."""
    return open("/dev/full", "w")


def test_log_takes_what_is_printed(tmp_path, capsys):
    path = tmp_path / "log.txt"
    for word in ("one", "two"):
        with log.tee(str(path)):
            print(word)
            print("\r50%|", end="", file=sys.stderr)
    print("outside")
    assert path.read_text() == "one\ntwo\n"
    assert capsys.readouterr().out == "one\ntwo\noutside\n"


def test_what_stands_for_an_output_is_like_it(tmp_path, monkeypatch):
    path, output = tmp_path / "log.txt", io.TextIOWrapper(io.BytesIO(), "ascii", "backslashreplace")
    output.isatty, output.fileno = lambda: True, lambda: 7
    monkeypatch.setattr(sys, "stdout", output)
    with log.tee(str(path)):
        assert (sys.stdout.encoding, sys.stdout.isatty(), sys.stdout.fileno()) == ("ascii", True, 7)
        assert sys.stdout.write("\xfc\udcff\n") == 3  # a name whose bytes are not UTF-8
    assert path.read_bytes() == b"\xc3\xbc\\udcff\n" and output.buffer.getvalue() == b"\\xfc\\udcff\n"
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=len, flush=bool))  # as programs that keep a log of their own set it
    with log.tee(str(path)):
        assert not sys.stdout.isatty()


def test_a_full_disk_does_not_stop_what_is_printed(capsys):
    with log.tee("/dev/full"):
        print("one")
        print("two")
    out, err = capsys.readouterr()
    assert out == "one\ntwo\n" and err == "warning: /dev/full: No space left on device, some lines are missing there\n"


@pytest.mark.parametrize("broken, reason", [(open_closed_pipe, "Broken pipe"), (open_full_file, "No space left on device")])
def test_an_output_that_takes_no_more_does_not_stop_what_is_logged(tmp_path, monkeypatch, broken, reason):
    """As with `| head`, or with `| tee` after Ctrl-C."""
    path = tmp_path / "log.txt"
    with broken() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with log.tee(str(path)):
            for number in range(3):
                print(number)
            print("x" * 100000, flush=True)
        print("outside", flush=True)
    assert path.read_text().splitlines() == ["0", f"warning: output continues in this file only: {reason}", "1", "2", "x" * 100000]


def test_left_over_files_are_found_in_every_folder(tmp_path):
    (tmp_path / "visuals" / "a").mkdir(parents=True)
    for place in (".state.npz.partial", "visuals/a/.1.png.partial", "visuals/a/kept.png", ".other", "own.partial"):
        (tmp_path / place).write_text("")
    runs.clear_partials(str(tmp_path))
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".other", "own.partial", "visuals/a/kept.png"]


@pytest.mark.parametrize(
    "seconds, text", [(4.6, "5s"), (60, "1m 00s"), (65, "1m 05s"), (3600, "1h 00m"), (7500, "2h 05m"), (86399.4, "23h 59m"),
                      (86400, "1d 00h"), (100000, "1d 03h")]  # fmt: skip
)
def test_times(seconds, text):
    assert log.format_time(seconds) == text


RECORD = {
    "dataset": {"fingerprint": 1, "ratio": 1, "label_names": 1}, "discriminator": {"attention_dropout": 1},
    "generator": {"resolution": 1, "style_mixing": 1, "component_mixing": 1, "truncation_psi": 1},
    "training": {"precision": 1, "schedule": {"batch_size": 1, "total_kimg": 1}}, "versions": {"ops": 1, "tensorflow": 1},
}  # fmt: skip


@pytest.mark.parametrize("name, refused", [
    ("dataset.fingerprint", True), ("dataset.ratio", True), ("generator.resolution", True), ("discriminator.kmeans", True),
    ("training.schedule.batch_size", True), ("training.schedule.total_kimg", False), ("generator.style_mixing", False),
    ("generator.component_mixing", False), ("generator.truncation_psi", False), ("dataset.crop_ratio", True),
    ("discriminator.attention_dropout", False), ("dataset.label_names", False), ("training.precision", False), ("versions.ops", False),
    ("versions.tensorflow", False),
])  # fmt: skip
def test_what_a_run_may_continue_with(name, refused, capsys):
    new = copy.deepcopy(RECORD)
    *sections, field = name.split(".")
    functools.reduce(dict.__getitem__, sections, new)[field] = 2
    change = f"{name} changed from {None if field in ('kmeans', 'crop_ratio') else 1} to 2"
    if refused:
        with pytest.raises(UsageError, match=f"trained with a different {name}: give --reload"):
            run_record.check_continuation(RECORD, new, command_line.Options())
        assert capsys.readouterr().out == f"{change}\n"
        with pytest.raises(UsageError, match=f"different {name}: give --restart to start a new run, or --accept-changes"):
            run_record.check_continuation(RECORD, new, command_line.Options(reload=True))
    assert run_record.check_continuation(RECORD, new, command_line.Options(accept_changes=refused)) == [change]


def test_the_record_has_the_names_of_the_classes(tmp_path):
    facts = {"name": "own", "fingerprint": "1", "count": 4, "resolution": 8, "channels": 3, "ratio": 1.0, "label_names": ["cat", "dog"]}
    cases = [  # --labels False leaves a dataset's names, but no labels; the columns of other kinds are no classes
        (["cat", "dog"], "one-hot", np.eye(2)), ([], "one-hot", np.zeros([2, 0])), ([], "continuous", np.eye(2)),
    ]  # fmt: skip
    for names, kind, labels in cases:
        dataset = SimpleNamespace(labels=labels, label_kind=kind, **facts)
        record = run_record.make_record(command_line.Options(), TrainingConfig(), GeneratorConfig(), DiscriminatorConfig(), dataset)
        run_record.write_record(str(tmp_path), record)
        assert run_record.label_names(str(tmp_path)) == names


def test_what_records_of_earlier_versions_lack_is_no_change():
    old, new = copy.deepcopy(RECORD), copy.deepcopy(RECORD)
    del old["dataset"]["label_names"]
    new["generator"].update(square=True, crop_ratio=1.0)
    new["dataset"]["label_names"] = ["cat", "dog"]
    del old["versions"]["ops"]
    assert run_record.check_continuation(old, new, command_line.Options()) == []
    old["generator"]["square"] = False
    with pytest.raises(UsageError, match="different generator.square"):
        run_record.check_continuation(old, new, command_line.Options())


def test_the_revision_says_whether_files_were_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(run_record, "__file__", str(tmp_path / "training" / "run_record.py"))
    assert run_record.git_revision() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "code.py").write_text("")
    for words in (["init", "-q"], ["add", "code.py"], ["commit", "-q", "-m", "first"], ["tag", "-a", "v1", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    revision = run_record.git_revision()
    assert re.fullmatch("[0-9a-f]{7,}", revision)
    (tmp_path / "code.py").write_text("changed")
    assert run_record.git_revision() == f"{revision}+"
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert run_record.git_revision() is None


@pytest.mark.parametrize("count, listed", [(4, "a different dataset.0, dataset.1, dataset.2, dataset.3: give"),
                                           (6, "a different dataset.0, dataset.1, dataset.2, dataset.3 and 2 more: give")])  # fmt: skip
def test_many_changes_are_counted(count, listed, capsys):
    with pytest.raises(UsageError, match=listed):
        run_record.check_continuation({}, {"dataset": {str(number): 1 for number in range(count)}}, command_line.Options())
    assert len(capsys.readouterr().out.splitlines()) == count


SCRIPT = """
import ctypes, signal, sys, time
from dnnlib.signals import StopRequest
signal.signal(signal.SIGUSR1, lambda number, frame: None)
with StopRequest() as stop:
    print("ready", flush=True)
    if sys.argv[1] == "waits":
        mutex, lock = ctypes.create_string_buffer(256), ctypes.CDLL(None).pthread_mutex_lock
        lock(mutex), lock(mutex)
    for _ in range(600):
        time.sleep(0.05)
        if stop.asked and sys.argv[1] == "polite":
            break
assert signal.set_wakeup_fd(-1) == -1 and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
print("saved after", stop.asked, flush=True)
"""


def start_stoppable(mode):
    """A process in a StopRequest that ends when asked ("polite"), computes on ("busy"), or is outside Python as in TensorFlow ("waits")."""
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_asks(number):
    process = start_stoppable("polite")
    process.send_signal(signal.SIGUSR1)  # an irrelevant one
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, f"saved after {signal.Signals(number).name}\n".encode())


def test_the_first_reason_to_stop_counts_and_is_gone_afterwards():
    before = [signal.getsignal(number) for number in signals.STOPS]
    signals.ask_to_stop("nobody listens")
    with signals.StopRequest() as stop:
        assert signals.stop_asked() is None
        for reason in ("a signal to worker 1", "a signal to worker 2"):
            signals.ask_to_stop(reason)
        assert signals.stop_asked() == stop.asked == "a signal to worker 1"
    assert signals.stop_asked() is None and [signal.getsignal(number) for number in signals.STOPS] == before


def test_other_threads_leave_the_handlers_alone():
    """Python lets only the main thread set them."""

    def guarded():
        with signals.ended_by_exceptions(), signals.postponed():
            return signal.getsignal(signal.SIGTERM)

    def trained():
        with signals.StopRequest() as stop:
            signals.ask_to_stop("a signal to worker 1")
            return stop.asked

    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        assert threads.submit(guarded).result() == signal.getsignal(signal.SIGTERM)
        assert threads.submit(trained).result() == "a signal to worker 1"


@pytest.mark.parametrize("mode", ["busy", "waits"])
@pytest.mark.parametrize("first, second", list(itertools.product([signal.SIGTERM, signal.SIGINT], repeat=2)))
def test_two_signals_end(mode, first, second):
    process = start_stoppable(mode)
    watchdog = threading.Timer(20, process.kill)
    watchdog.start()
    process.send_signal(first)
    assert process.stderr.readline() == b"\n"
    assert process.stderr.readline().decode() == f"{first.name}: finishing this step, then saving (repeat the signal to stop immediately)\n"
    process.send_signal(second)
    out, _ = process.communicate()
    watchdog.cancel()
    assert (process.returncode, out) == (128 + second, b"")
