"""Builds the compiled ops (ops/cuda) on this machine and keeps the libraries: one for every combination of sources, compilers,
flags, TensorFlow and compute capabilities. Interrupted or failed builds leave only their log."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from dnnlib import cache
from ops import toolchain
from ops.toolchain import BuildError

SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cuda")
KERNELS = ("bias_act.cu", "upfirdn2d.cu")
REGISTRATION = "tensorflow_ops.cc"
HOST_FLAGS = ("-O3", "-march=native", "-U__AVX512FP16__",  # which the Eigen of TensorFlow 2 cannot be compiled with
              "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-DNDEBUG", "-Wno-deprecated-declarations")
NVCC_FLAGS = ("-O3", "-std=c++14", "-Xcompiler", "-fPIC")
LOCK_TIMEOUT = 900.0  # seconds to wait for another process that builds the same library
BUILD_TIMEOUT = 1800.0  # seconds for one build


class Plan(NamedTuple):
    """One library: what it is compiled from and with, and where it lies."""

    path: str                      # of the library in the cache
    host: toolchain.HostCompiler
    nvcc: toolchain.Nvcc | None    # None: CPU kernels only
    codes: list[str]               # nvcc's -gencode flags
    tensorflow: toolchain.TensorFlowFlags

    @property
    def log(self):
        """Path of the compilers' output."""
        return os.path.splitext(self.path)[0] + ".log"


def cache_folder():
    """Folder of the compiled libraries."""
    return cache.cache_folder("ops")


def plan(cuda):
    """Find the compilers and name the library.

    Args:
        cuda: with GPU kernels, for `toolchain.wanted_capabilities()`.

    Raises:
        BuildError: a compiler is missing or unfit.
    """
    if not sys.platform.startswith("linux"):
        raise BuildError(f"compiled ops are built on Linux only, this is {sys.platform}")
    host, nvcc, codes = toolchain.find_host_compiler(), None, []
    if cuda:
        nvcc = toolchain.find_nvcc()
        wanted = toolchain.wanted_capabilities()
        if not wanted:
            raise BuildError("no GPU to build for (set GANFORMER_CUDA_ARCH to build without one)")
        codes = toolchain.code_flags(nvcc, wanted)
    tensorflow = toolchain.tensorflow_flags()
    key = hashlib.sha256()
    for part in (_sources(), host, nvcc, codes, tensorflow, HOST_FLAGS, NVCC_FLAGS, _processor()):
        key.update(repr(part).encode())
    kind = "cuda" if cuda else "cpu"
    return Plan(os.path.join(cache_folder(), f"{kind}_{key.hexdigest()[:20]}.so"), host, nvcc, codes, tensorflow)


def _sources():
    """(name, hash) of every file that is compiled."""
    found = []
    for name in sorted(os.listdir(SOURCES)):
        if name.endswith((".cu", ".cuh", ".h", ".cc")):
            with open(os.path.join(SOURCES, name), "rb") as file:
                found.append((name, hashlib.sha256(file.read()).hexdigest()))
    return found


def _processor():
    """What -march=native depends on: a cache shared by unlike machines must not serve one the other's instructions."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return sorted({line for line in file if line.startswith(("flags", "Features"))})
    except OSError:
        return []


def build(what):
    """The library of a Plan, compiled if it is not in the cache. Processes that ask at once build once.

    Returns:
        Its path.

    Raises:
        BuildError: compilation failed, the cache cannot be written, or another process holds the lock for too long.
    """
    if os.path.exists(what.path):
        return what.path
    try:
        os.makedirs(os.path.dirname(what.path), exist_ok=True)
        with _lock(what.path + ".lock"):
            if not os.path.exists(what.path):
                _build_locked(what)
    except OSError as error:
        raise BuildError(f"cannot write the cache {os.path.dirname(what.path)}: {error.strerror or error} "
                         "(GANFORMER_CACHE chooses another)") from None
    return what.path


def _build_locked(what):
    """Compile in a folder of its own beside the library, then rename; the folder goes away whatever happens."""
    folder = tempfile.mkdtemp(prefix="building_", dir=os.path.dirname(what.path))
    try:
        with open(what.log, "w", encoding="utf-8") as log:
            _run_together(_compile_commands(what, folder), log)
            _run_together([_link_command(what, folder)], log)
        os.replace(os.path.join(folder, "library.so"), what.path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _objects(what, folder):
    return {name: os.path.join(folder, name + ".o") for name in (KERNELS if what.nvcc else ()) + (REGISTRATION,)}


def _compile_commands(what, folder):
    commands = []
    for name, target in _objects(what, folder).items():
        source = os.path.join(SOURCES, name)
        if name == REGISTRATION:
            cuda = ["-DGANFORMER_CUDA", "-isystem", what.nvcc.include] if what.nvcc else []
            commands.append([what.host.path, *HOST_FLAGS, *what.tensorflow.compile, *cuda, "-c", source, "-o", target])
        else:
            commands.append([what.nvcc.path, *NVCC_FLAGS, "-ccbin", what.host.path, *what.codes, "-c", source, "-o", target])
    return commands


def _link_command(what, folder):
    target = os.path.join(folder, "library.so")
    objects = list(_objects(what, folder).values())
    if what.nvcc is None:
        return [what.host.path, "-shared", *objects, *what.tensorflow.link, "-o", target]
    link = [part for flag in what.tensorflow.link for part in ("-Xlinker", flag)]
    return [what.nvcc.path, "-shared", "-cudart", "static", "-ccbin", what.host.path, *objects, *link, "-o", target]


def _run_together(commands, log):
    """Run commands at the same time, their output into the log; on any failure or interruption stop them all.

    Raises:
        BuildError: one failed or took too long.
    """
    deadline = time.monotonic() + BUILD_TIMEOUT
    running = []
    try:
        for command in commands:
            log.write("$ " + " ".join(command) + "\n")
            log.flush()
            running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                            start_new_session=True))
        for command, process in zip(commands, running):
            if process.wait(timeout=max(deadline - time.monotonic(), 0.1)) != 0:
                raise BuildError(f"{os.path.basename(command[0])} failed with code {process.returncode}", log.name)
    except subprocess.TimeoutExpired:
        raise BuildError(f"the compilers took more than {BUILD_TIMEOUT:.0f} s", log.name) from None
    finally:
        for process in running:
            _stop(process)


def _stop(process):
    """End a compiler and its children, which share its process group."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def _lock(path):
    """Hold the lock file `path`. The system releases it with its owner's death, so that it cannot go stale.

    Raises:
        BuildError: another process kept it longer than LOCK_TIMEOUT.
    """
    import fcntl  # not on Windows, where the rest of this module can be imported

    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - held while the block runs
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path) and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.seek(0)
                owner = file.read().strip() or "another process"
                raise BuildError(f"{path} is held by {owner} for more than {LOCK_TIMEOUT:.0f} s") from None
            time.sleep(0.2)
        except BaseException:
            file.close()
            raise
        file.close()  # held by another, or removed by its last owner
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        file.flush()
        yield
    finally:
        with contextlib.suppress(OSError):
            os.remove(path)
        file.close()
