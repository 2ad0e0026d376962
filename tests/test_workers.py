"""Training in several processes with TF_CONFIG: real processes on the loopback interface."""

import glob
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

import run_network
from benchmarks.workers import free_ports, worker_environment
from dnnlib import run_main
from tests.cli_helpers import ROOT, SMALL, command, finish, wait_for, write_raw_dataset
from tests.conftest import on_one_stack, on_the_other_stack
from tests.metrics_standins import write_features_dir

pytestmark = pytest.mark.slow
FLAGS = [*SMALL, "--train", "--tick-kimg", "0.16", "--total-kimg", "0.96"]


SLOW_DISK = """
import sys, time
import run_network
from dnnlib import run_main
from training import training_state

def save_slowly(*arguments):
    time.sleep(8)
    save(*arguments)

sys.modules["dnnlib.tflib.workers"].LOOK_SECONDS = 0.2
save, training_state.save = training_state.save, save_slowly
sys.exit(run_main(run_network.main))
"""
IMPATIENT = """
import sys
import run_network
from dnnlib import run_main
from training import training_state

sys.modules["dnnlib.tflib.workers"].LOOK_SECONDS = 0.2
sys.modules["dnnlib.tflib.workers"].ANSWER_SECONDS = 4
sys.exit(run_main(run_network.main))
"""
STRANGER = """
import json, os, sys
import run_network
from dnnlib import run_main
from training import training_state

def capture_another(*arguments):
    state = capture(*arguments)
    if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1:
        name = sorted(name for name in state.arrays if name.startswith("D/"))[0]
        state.arrays[name] = state.arrays[name] + 1e-6
    return state

capture, training_state.capture = training_state.capture, capture_another
sys.exit(run_main(run_network.main))
"""


def start_worker(rank, ports, flags):
    environment = worker_environment(rank, ports)
    return subprocess.Popen(command(*flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def start_both(flags):
    ports = free_ports(2)
    return [start_worker(rank, ports, flags) for rank in range(2)]


def start_scripts(script, flags):
    """Two workers that run a Python script instead of run_network.py."""
    words, ports = [sys.executable, "-c", script, *map(str, flags)], free_ports(2)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [subprocess.Popen(words, cwd=ROOT, env=worker_environment(rank, ports), **pipes) for rank in range(2)]


def end(processes, timeout=300):
    """Wait for all; returns [(exit code, output)]."""
    outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs)]


def final_arrays(folder):
    with np.load(sorted(glob.glob(os.path.join(str(folder), "training-state-*.npz")))[-1]) as file:
        return {name: file[name] for name in file.files if name not in ("sha256", "record")}


def lines_of(folder, name):
    """What a run has written to a JSON lines file."""
    with open(os.path.join(str(folder), name), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    write_raw_dataset(data)
    return [*FLAGS, "--data-dir", data, "--dataset", "blobs", "--result-dir", tmp_path_factory.mktemp("results")]


@pytest.fixture(scope="module")
def both(flags, tmp_path_factory):
    """A run of two undisturbed workers with metrics: (its flags without its name, the options of its metrics)."""
    shared = ["--metrics", "swd,ppl", "--features-dir", write_features_dir(tmp_path_factory.mktemp("features")), "--eval-images-num", "45"]
    flags = [*flags, "--pathreg", "--mirror-augment", "--tick-kimg", "0.032", "--total-kimg", "0.32"]
    ended = end(start_both([*flags, *shared, "--expname", "both"]))
    assert [code for code, _ in ended] == [0, 0], ended
    return flags, shared


def test_two_workers_do_what_one_process_does(flags, both):
    """Except for rounding, in the training and in the metrics."""
    results, (flags, shared) = flags[-1], both
    code, _, err = finish(*flags, "--expname", "alone")
    assert code == 0, err
    alone, together = final_arrays(results / "alone-000"), final_arrays(results / "both-000")
    assert alone.keys() == together.keys()
    for name, array in alone.items():  # rounding errors grow from step to step
        np.testing.assert_allclose(together[name], array, rtol=2e-3, atol=1e-5, err_msg=name)

    code, _, err = finish(*(word for word in flags if word != "--train"), "--eval", *shared, "--expname", "both")
    assert code == 0, err
    found = lines_of(results / "both-000", "metrics.jsonl")
    while_training, afterwards = found[-4:-2], found[-2:]
    for one, other in zip(while_training, afterwards):  # the former images come from all workers, the latter from one process
        assert one["error"] is None and one["settings"] == other["settings"]
        # PPL divides differences of images by 1e-8: summing in another order moves it by a few thousandths.
        assert one["values"] == pytest.approx(other["values"], rel=1e-2 if "ppl" in one["values"] else 2e-3)


@on_one_stack
def test_two_workers_and_their_deaths(flags, both):
    """If one dies, the other ends; stopped and started again, they arrive at the same bits. A stopped run ends well even if writing its
    last files takes longer than the wait for a worker that is gone."""
    results, disturbed = flags[-1], [*both[0], "--expname", "disturbed"]
    first, second = start_both(disturbed)
    wait_for(first, "saved")
    second.send_signal(signal.SIGKILL)
    killed = time.time()
    (code, output), _ = end([first, second])
    assert code == 1 and time.time() - killed < 60
    assert "error: worker 1 (127.0.0.1:" in output and "is gone" in output

    first, second = start_scripts(SLOW_DISK, disturbed)
    assert "continuing" in "".join(wait_for(first, "tick"))
    second.send_signal(signal.SIGTERM)
    stopped = end([first, second])
    assert [code for code, _ in stopped] == [0, 0], stopped
    assert "saved" in stopped[0][1] and "stopped at kimg" in stopped[0][1]

    finished = end(start_both(disturbed))
    assert [code for code, _ in finished] == [0, 0], finished
    undisturbed, resumed = final_arrays(results / "both-000"), final_arrays(results / "disturbed-000")
    assert not [name for name in undisturbed if not np.array_equal(undisturbed[name], resumed[name])]
    assert not (results / "disturbed-001").exists()


@pytest.mark.usefixtures("graph")
def test_numbers_and_bytes_of_any_length_are_exchanged(monkeypatch):
    """As sums of a few numbers, here over two workers, of which the other one adds zeros."""
    exchange = importlib.import_module("dnnlib.tflib.exchange")
    monkeypatch.setattr(exchange, "CHUNK", 2)
    for rank in (0, 1):
        workers = SimpleNamespace(count=2, rank=rank, leads=rank == 0, sum=lambda tensor, device: tensor)
        monkeypatch.setattr(exchange.setup, "workers", lambda workers=workers: workers)
        expected = np.zeros([2, 3])
        expected[rank] = [5, -7, 2**40]
        np.testing.assert_array_equal(exchange.gather([5, -7, 2**40]), expected)
        for size in (0, 1, 8, 9, 40):
            payload = bytes(range(1, size + 1))
            assert exchange.broadcast(payload) == (payload if rank == 0 else b"")


@pytest.fixture
def killed():
    """List of processes that are killed at the end, even if they are frozen."""
    processes = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


@on_the_other_stack
def test_a_pause_is_waited_for_and_a_frozen_worker_named(flags, killed):
    first, second = start_scripts(IMPATIENT, [*flags, "--total-kimg", "100", "--expname", "frozen"])
    killed += [first, second]
    wait_for(first, "tick")
    second.send_signal(signal.SIGSTOP)
    time.sleep(6)  # longer than one check, shorter than the three
    second.send_signal(signal.SIGCONT)
    for _ in range(3):  # two of these lines may be older
        wait_for(first, "tick")
    second.send_signal(signal.SIGSTOP)
    ((code, output),) = end([first], timeout=60)
    assert code == 1 and re.search(r"error: worker 1 \(127.0.0.1:\d+\) is gone \(its process is frozen\)", output), output
    second.send_signal(signal.SIGCONT)
    ((code, output),) = end([second], timeout=60)
    assert code == 1 and "error: worker 0 (127.0.0.1:" in output, output


@on_the_other_stack
def test_two_signals_end_a_worker_that_waits_for_a_frozen_one(flags, killed):
    first, second = start_both([*flags, "--total-kimg", "100", "--expname", "waiting"])
    killed += [first, second]
    wait_for(first, "tick")
    second.send_signal(signal.SIGSTOP)
    for _ in range(2):
        time.sleep(3)
        first.send_signal(signal.SIGTERM)
    ((code, output),) = end([first], timeout=20)
    assert code == 128 + signal.SIGTERM and output.count("SIGTERM: finishing this step") == 1, output


@on_one_stack
def test_a_signal_to_any_worker_ends_an_evaluation(flags, tmp_path, killed):
    """Neither metrics that need images nor later ones start over."""
    flags = [*flags, "--features-dir", write_features_dir(tmp_path), "--expname", "scored", "--eval-images-num", "1000000"]
    flags[flags.index("none")] = "fid,kid"
    killed += start_both([*flags, "--total-kimg", "100", "--tick-kimg", "0.016"])
    wait_for(killed[0], "saved")
    time.sleep(2)
    killed[1].send_signal(signal.SIGTERM)
    (code, output), (other_code, _) = end(killed, timeout=60)
    assert (code, other_code) == (0, 0), output
    assert re.search(r"warning: evaluation stopped by a signal to worker 1 \(127.0.0.1:\d+\): fid, kid not computed", output), output
    assert "stopped at kimg 0.048" in output


def test_only_what_answers_is_there(monkeypatch):
    """A connection proves nothing: the system accepts it even for a frozen process."""
    module = importlib.import_module("dnnlib.tflib.workers")
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % listening.getsockname()[1]
        assert module._absence(address) == "Connection refused"
        listening.listen(1)
        assert module._absence(address) == "its process is frozen"


@on_one_stack
def test_workers_that_hold_different_weights_are_stopped(flags):
    ended = end(start_scripts(STRANGER, [*flags, "--total-kimg", "0.032", "--expname", "strange"]))
    assert [code for code, _ in ended] == [1, 1], ended
    for _, output in ended:
        assert re.search(r"error: worker 1 \(127.0.0.1:\d+\) and worker 0 \(127.0.0.1:\d+\) hold different weights", output)


def test_silent_workers_are_looked_at_at_the_same_time(monkeypatch):
    """Checking a host that is off takes ten seconds; one after the other, several would take more than the minute."""
    module = importlib.import_module("dnnlib.tflib.workers")
    at_once, gone = threading.Barrier(2), []

    def time_out(address):
        at_once.wait(timeout=30)
        return "timed out"

    workers = module.Workers(("a:1", "b:1", "c:1"), rank=0)
    monkeypatch.setattr(module, "_absence", time_out)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0)
    monkeypatch.setattr(module, "LEAVING_SECONDS", 0)
    monkeypatch.setattr(workers, "_end", lambda *arguments: gone.append(arguments))
    with workers.watched():
        for thread in threading.enumerate():
            if thread.name.startswith("watch over"):
                thread.join(timeout=60)
    assert sorted(gone) == [(1, "timed out"), (2, "timed out")]


def test_workers_of_other_options_are_refused(flags):
    ports = free_ports(2)
    processes = [start_worker(rank, ports, [*flags, "--expname", "unlike", "--gamma", gamma]) for rank, gamma in enumerate(("10", "3"))]
    (code, output), (other_code, other_output) = end(processes)
    assert other_code == 2
    assert "worker 1 was started with other options or data than worker 0" in other_output
    assert "training.loss.gamma 3.0, worker 0 has 10.0" in other_output
    assert code == 2 and "error: worker 1 was started with other options or data than worker 0: its own message names them" in output
    assert not os.path.exists(os.path.join(flags[flags.index("--result-dir") + 1], "unlike-000"))


@pytest.mark.parametrize("value", [
    "not json",
    '{"cluster": {"worker": ["a:1"]}}',
    '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
    '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
])  # fmt: skip
def test_bad_tf_config(flags, monkeypatch, capsys, value):
    monkeypatch.setenv("TF_CONFIG", value)
    assert run_main(run_network.main, [str(word) for word in flags]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"error: TF_CONFIG: got {value!r}")


def test_port_in_use(flags):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        process = start_worker(0, [port, free_ports(1)[0]], flags)
        [(code, output)] = end([process])
    assert code == 1
    assert f"error: TF_CONFIG: worker 0 (127.0.0.1:{port}) cannot listen on port {port}" in output
