"""Builds the compiled ops (ops/cuda) on this machine and caches the libraries: one for each combination of sources, compilers, flags,
TensorFlow and compute capabilities. Interrupted or failed builds leave only their log."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from dnnlib import cache, locks, toolchain
from dnnlib.signals import ended_by_exceptions, postponed
from dnnlib.toolchain import BuildError

SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cuda")
KERNELS = ("bias_act.cu", "upfirdn2d.cu")
REGISTRATION = "tensorflow_ops.cc"
HOST_FLAGS = ("-O3", "-march=native", "-DEIGEN_DONT_VECTORIZE",  # Eigen's code for AVX-512 does not compile everywhere, and is not used
              "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-DNDEBUG", "-Wno-deprecated-declarations")
COMPILER_VARIABLES = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS", "CPATH", "CPLUS_INCLUDE_PATH")  # they add flags too
PROCESSORS = "/proc/cpuinfo"
BUILDING = ".building_"  # in the names of the folders of unfinished builds
LOCK_TIMEOUT = 900.0  # seconds to wait for another process that is building the same library
BUILD_TIMEOUT = 1800.0  # seconds for one build


class TensorFlowFlags(NamedTuple):
    """How the installed TensorFlow wants its ops compiled."""

    version: str
    compile: list[str]
    link: list[str]


class Plan(NamedTuple):
    """One library: what it is compiled from and with, and where it is stored."""

    path: str                      # of the library in the cache
    host: toolchain.HostCompiler
    nvcc: toolchain.Nvcc | None    # None: CPU kernels only
    codes: list[str]               # nvcc's -gencode flags
    tensorflow: TensorFlowFlags

    @property
    def log(self):
        """Path of the compilers' output."""
        return os.path.splitext(self.path)[0] + ".log"


def cache_folder():
    """Folder of the compiled libraries."""
    return cache.cache_folder("ops")


def plan(on_gpu):
    """Find the compilers and name the library.

    Args:
        on_gpu: whether TensorFlow uses a GPU. If so, or if GANFORMER_CUDA_ARCH asks for them, the library has GPU kernels for
            `toolchain.wanted_capabilities()`.

    Raises:
        BuildError: a compiler is missing or unsuitable.
    """
    if not sys.platform.startswith("linux"):
        raise BuildError(f"compiled ops are built on Linux only, this is {sys.platform}")
    host, nvcc, codes = toolchain.find_host_compiler(), None, []
    if on_gpu or os.environ.get("GANFORMER_CUDA_ARCH"):
        wanted = toolchain.wanted_capabilities()
        if not wanted:
            raise BuildError("no GPU to build for (set GANFORMER_CUDA_ARCH to build without one)")
        nvcc = toolchain.find_nvcc(host, wanted)
        codes = toolchain.code_flags(nvcc, wanted)
    what = Plan("", host, nvcc, codes, tensorflow_flags())
    key = hashlib.sha256()
    variables = [os.environ.get(name) for name in COMPILER_VARIABLES]
    for part in (_sources(), what, _compile_commands(what, ""), _link_command(what, ""), variables, _processor()):
        key.update(repr(part).encode())
    kind = "cuda" if nvcc else "cpu"
    return what._replace(path=os.path.join(cache_folder(), f"{kind}_{key.hexdigest()[:20]}.so"))


def tensorflow_flags():
    """Include folder, ABI, C++ standard and libraries. TensorFlow 1.x names no standard: its headers need C++14, its symbols exclude 17."""
    first = int(tf.version.VERSION.split(".")[0])
    flags = [flag.replace("-I", "-isystem", 1) if flag.startswith("-I") else flag for flag in tf.sysconfig.get_compile_flags()]
    if not any("-std=" in flag for flag in flags):
        flags.append("-std=c++14")
    status = "::tensorflow::Status::OK()" if first < 2 else _status_of_2(tf.version.VERSION)
    return TensorFlowFlags(tf.version.VERSION, flags + [f"-DGANFORMER_OK_STATUS={status}"], list(tf.sysconfig.get_link_flags()))


def _status_of_2(version):
    """Status::OK() was replaced by OkStatus() in TensorFlow 2.9; absl's exists from 2.13 on."""
    minor = int(version.split(".")[1])
    return "::tensorflow::Status::OK()" if minor < 9 else "::tensorflow::OkStatus()" if minor < 13 else "::absl::OkStatus()"


def _sources():
    """(name, hash) of every file that is compiled."""
    found = []
    for name in sorted(os.listdir(SOURCES)):
        if name.endswith((".cu", ".cuh", ".h", ".cc")):
            with open(os.path.join(SOURCES, name), "rb") as file:
                found.append((name, hashlib.sha256(file.read()).hexdigest()))
    return found


def _processor():
    """What -march=native depends on: a cache shared by different machines must not give one the instructions of the other. On ARM the
    compiler takes what the core (CPU implementer, variant, part) is known to have, even if the system does not list it in Features."""
    try:
        with open(PROCESSORS, encoding="utf-8") as file:
            return sorted({line for line in file if line.startswith(("flags", "Features", "CPU "))})
    except OSError:
        return []


def build(what):
    """The library of a Plan, compiled if it is not in the cache. Concurrent processes build it only once.

    Returns:
        Its path.

    Raises:
        BuildError: compilation failed, the cache cannot be written, or another process holds the lock for too long.
    """
    if os.path.exists(what.path):
        return what.path
    try:
        os.makedirs(os.path.dirname(what.path), exist_ok=True)
        with ended_by_exceptions(), locks.held(what.path + ".lock", _wait):
            if not os.path.exists(what.path):
                _build_locked(what)
    except OSError as error:
        raise BuildError(f"cannot write the cache {os.path.dirname(what.path)}: {error.strerror or error} "
                         "(set GANFORMER_CACHE to choose another)") from None
    return what.path


def _build_locked(what):
    """Compile in a temporary folder beside the library, then rename; the folder is always removed, after a SIGKILL by a later build."""
    _remove_leftovers(os.path.dirname(what.path))
    folder = tempfile.mkdtemp(prefix=os.path.basename(what.path) + BUILDING, dir=os.path.dirname(what.path))
    try:
        with open(what.log, "w", encoding="utf-8") as log:
            _run_together(_compile_commands(what, folder), folder, log)
            _run_together([_link_command(what, folder)], folder, log)
        os.replace(os.path.join(folder, "library.so"), what.path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(cache):
    """Remove the folders of killed builds. Running ones have changed theirs within BUILD_TIMEOUT; no lock tells where there are none."""
    for folder in glob.glob(os.path.join(glob.escape(cache), "*" + BUILDING + "*")):
        with contextlib.suppress(FileNotFoundError):  # another process removes it too
            if time.time() - os.path.getmtime(folder) > BUILD_TIMEOUT:
                shutil.rmtree(folder, ignore_errors=True)


def _objects(what, folder):
    return {name: os.path.join(folder, name + ".o") for name in (KERNELS if what.nvcc else ()) + (REGISTRATION,)}


def _compile_commands(what, folder):
    """Commands that make the object files in a folder, to be run in SOURCES."""
    commands = []
    for name, target in _objects(what, folder).items():
        if name == REGISTRATION:
            # Not -isystem: of /usr/include, where Debian has the toolkit's headers, it breaks the C++ library's #include_next.
            cuda = ["-DGANFORMER_CUDA", "-idirafter", what.nvcc.include] if what.nvcc else []
            commands.append([what.host.path, *HOST_FLAGS, *what.tensorflow.compile, *cuda, "-c", name, "-o", target])
        else:
            commands.append([*what.nvcc.command, *toolchain.NVCC_FLAGS, *what.codes, "-c", name, "-o", target])
    return commands


def _link_command(what, folder):
    target = os.path.join(folder, "library.so")
    objects = list(_objects(what, folder).values())
    if what.nvcc is None:
        return [what.host.path, "-shared", *objects, *what.tensorflow.link, "-o", target]
    return [*what.nvcc.command, "-shared", "-cudart", "static", *objects, *what.tensorflow.link, "-o", target]


def _run_together(commands, folder, log):
    """Run commands in parallel, with their output in the log and their temporary files in a folder; on any failure or interruption stop
    all of them.

    Raises:
        BuildError: one of them did not start, failed or took too long.
    """
    deadline = time.monotonic() + BUILD_TIMEOUT
    running = []
    try:
        for command in commands:
            log.write("$ " + " ".join(command) + "\n")
            log.flush()
            with postponed():  # every compiler that is started will also be stopped
                running.append(_start(command, folder, log))
        for command, process in zip(commands, running):
            if process.wait(timeout=max(deadline - time.monotonic(), 0.1)) != 0:
                name = os.path.basename(command[0])
                raise BuildError(f"{name} failed with code {process.returncode}{_first_error(log.name)}", log.name)
    except subprocess.TimeoutExpired:
        raise BuildError(f"the compilers took more than {BUILD_TIMEOUT:.0f} s", log.name) from None
    finally:
        for process in running:
            _stop(process)


def _first_error(path):
    """": " and the first line of a log that speaks of an error, or nothing."""
    with open(path, encoding="utf-8", errors="replace") as log:
        line = next((line for line in log if re.search(r"\b(error|fatal)\b", line, re.IGNORECASE) and not line.startswith("$ ")), None)
    return f": {textwrap.shorten(line, 200, placeholder=' ...')}" if line else ""


def _start(command, folder, log):
    try:
        return subprocess.Popen(command, cwd=SOURCES, env=dict(os.environ, TMPDIR=folder), stdin=subprocess.DEVNULL, stdout=log,
                                stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
    except OSError as error:
        raise BuildError(f"{command[0]} does not start: {error.strerror}", log.name) from None


def _stop(process):
    """End a compiler and its children, which share its process group."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(path, owner, waited):
    if waited > LOCK_TIMEOUT:
        raise BuildError(f"{path} is held by {owner} for more than {LOCK_TIMEOUT:.0f} s")
