"""What this machine can compile with, and for: host compiler, nvcc, CUDA folders, compute capabilities."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from typing import NamedTuple

from dnnlib import gpus

# Compute capabilities of nvcc releases that are too old to list them: first release -> capabilities, valid up to the next entry.
OLD_NVCC = {
    (10, 0): [30, 32, 35, 37, 50, 52, 53, 60, 61, 62, 70, 72, 75],
    (11, 0): [35, 37, 50, 52, 53, 60, 61, 62, 70, 72, 75, 80],
    (11, 1): [35, 37, 50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86],
}
NVCC_FLAGS = ("-O3", "-std=c++14", "-Xcompiler", "-fPIC")  # for kernels in a shared library; CUDA 10 knows no later standard
CUDA_FOLDER = "/usr/local/cuda"  # default place of NVIDIA's installers; for several releases: CUDA_FOLDER-x.y
QUERY_TIMEOUT = 60  # seconds a compiler may take to print its version


class BuildError(Exception):
    """The library cannot be built or loaded. `log` is the path of the compilers' output, or None."""

    def __init__(self, message, log=None):
        super().__init__(message + (f" (log: {log})" if log else ""))
        self.log = log


class HostCompiler(NamedTuple):
    """A C++ compiler."""

    path: str
    version: str


class Nvcc(NamedTuple):
    """A CUDA compiler."""

    path: str
    version: str               # as "release 12.4, V12.4.131"
    release: tuple[int, int]
    capabilities: list[int]    # supported ones, ascending: 75 for 7.5
    include: str               # folder of cuda_runtime.h
    command: list[str]         # path, and the host compiler to use if its own choice will not do


def query(command):
    """Output of a short command (stdout and stderr joined).

    Raises:
        BuildError: it is missing, fails, hangs or prints nothing.
    """
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace", timeout=QUERY_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        said = done.stdout.strip().splitlines() or [f"exit code {done.returncode}"]
        raise BuildError(f"{' '.join(command)} failed: {said[0][:300]}")
    if not done.stdout.strip():
        raise BuildError(f"{' '.join(command)}: no output")
    return done.stdout


def find_host_compiler():
    """The C++ compiler: the environment variable CXX, else g++.

    Raises:
        BuildError: there is none, or it does not run.
    """
    name = os.environ.get("CXX") or "g++"
    path = shutil.which(name)
    if path is None:
        raise BuildError(f"no C++ compiler: {name} not found (install g++, or set CXX to the name or path of a compiler, without options)")
    path = os.path.abspath(path)  # it is run in another folder
    return HostCompiler(path, query([path, "--version"]).strip().splitlines()[0])


def find_nvcc(host, wanted):
    """The CUDA compiler: the first of CUDA_HOME, CUDA_PATH, PATH, /usr/local/cuda and /usr/local/cuda-x.y that works, that the driver
    supports, and that supports the oldest GPU; if there is none, the one that supports the oldest GPUs.

    Without a visible GPU the library is meant for another machine, whose driver may be any.

    Args:
        host: HostCompiler for nvcc to work with if CXX names it, or if there is neither NVCC_CCBIN nor gcc, which nvcc uses by itself.
        wanted: compute capabilities, ascending.

    Raises:
        BuildError: there is none, none works, or the driver is too old for every one.
    """
    paths = _nvcc_paths()
    if not paths:
        raise BuildError(f"no nvcc: not in CUDA_HOME, PATH or {CUDA_FOLDER} (install the CUDA toolkit)")
    driver = gpus.driver_release() if gpus.visible_gpus() else None
    usable, too_new, broken = [], {}, []
    for path in paths:
        try:
            nvcc = _describe_nvcc(path, host)
        except BuildError as error:
            broken.append(error)
            continue
        if driver is not None and oldest_driver(nvcc.release) > driver:
            too_new.setdefault("{}.{}".format(*nvcc.release), path)
        elif not wanted or nvcc.capabilities[0] <= wanted[0]:
            return nvcc
        else:
            usable.append(nvcc)
    if usable:
        return min(usable, key=lambda nvcc: nvcc.capabilities[0])
    raise _driver_error(driver, too_new) if too_new else broken[0]


def _driver_error(driver, too_new):
    found = ", ".join(f"CUDA {release} ({path})" for release, path in too_new.items())
    supported = "CUDA {}.{}".format(*driver)
    return BuildError(f"the driver supports {supported}, too old for what was found: {found}; install a newer driver, or the toolkit of "
                      f"{supported} (select it with CUDA_HOME)")


def _nvcc_paths():
    """Paths of every nvcc, in the order of preference."""
    named = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    newest_first = sorted(glob.glob(CUDA_FOLDER + "-*"), key=lambda path: [int(part) for part in re.findall(r"\d+", path)], reverse=True)
    candidates = [os.path.join(home, "bin", "nvcc") for home in named] + [shutil.which("nvcc") or ""]
    candidates += [os.path.join(home, "bin", "nvcc") for home in (CUDA_FOLDER, *newest_first)]
    return [os.path.abspath(path) for path in candidates if os.access(path, os.X_OK)]


def _describe_nvcc(path, host):
    """The Nvcc at a path. Raises BuildError if it does not work."""
    version, release = _nvcc_release(path)
    # Installations choose a host compiler that nvcc supports (a folder that it searches before PATH); -ccbin would override it. NVCC_CCBIN
    # is passed on, because up to CUDA 12.4 nvcc itself does not read it.
    named = host.path if os.environ.get("CXX") else os.environ.get("NVCC_CCBIN")
    compiler = named or (None if shutil.which("gcc") else host.path)
    command = [path, "-ccbin", compiler] if compiler else [path]
    return Nvcc(path, version, release, _nvcc_capabilities(path, release), _cuda_include(command), command)


def _nvcc_release(path):
    """(version, release) of an nvcc."""
    text = query([path, "--version"])
    match = re.search(r"release (\d+)\.(\d+).*", text)
    if match is None:
        raise BuildError(f"{path} --version does not name a release: {text.strip()[-200:]}")
    return match.group(), (int(match.group(1)), int(match.group(2)))


def oldest_driver(release):
    """The oldest driver, given by the CUDA release that it supports, for the runtime library of a toolkit: from CUDA 11 on, any of the
    same major release ("minor version compatibility", NVIDIA's CUDA Compatibility guide)."""
    return release if release < (11, 0) else (release[0], 0)


def _nvcc_capabilities(path, release):
    try:
        listed = re.findall(r"compute_(\d+)\b", query([path, "--list-gpu-arch"]))
    except BuildError:
        listed = []
    if listed:
        return sorted(int(number) for number in set(listed))
    known = [capabilities for first, capabilities in sorted(OLD_NVCC.items()) if first <= release]
    if not known:
        raise BuildError(f"{path}: CUDA {release[0]}.{release[1]} is older than 10.0")
    return known[-1]


def _cuda_include(command):
    """The folder that nvcc itself searches; the toolkit may be elsewhere than nvcc (wrappers, distributions)."""
    path = command[0]
    said = query([*command, "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull])
    folders = re.findall(r"-I([^\"\s]+)", said)
    folders.append(os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(path))), "include"))
    for folder in folders:
        if os.path.isfile(os.path.join(folder, "cuda_runtime.h")):
            return os.path.normpath(folder)
    raise BuildError(f"{path}: no cuda_runtime.h in {', '.join(folders)} (the CUDA toolkit is incomplete)")


def wanted_capabilities():
    """Compute capabilities to build for, ascending: GANFORMER_CUDA_ARCH ("7.5,9.0"), else those of the visible GPUs.

    Raises:
        BuildError: the variable is invalid.
    """
    text = os.environ.get("GANFORMER_CUDA_ARCH", "").strip()
    if not text:
        return sorted({gpu.capability for gpu in gpus.visible_gpus()})
    parts = re.split(r"[,;\s]+", text)
    if not all(re.fullmatch(r"\d+\.\d", part) for part in parts):
        raise BuildError(f"GANFORMER_CUDA_ARCH={text}: accepted are compute capabilities such as 7.5,9.0")
    return sorted({int(part.replace(".", "")) for part in parts})


def unsupported(nvcc, wanted):
    """The sentence about wanted capabilities that this nvcc does not support, or None."""
    old = [str(capability / 10) for capability in wanted if capability < nvcc.capabilities[0]]
    if not old:
        return None
    return (f"CUDA {nvcc.release[0]}.{nvcc.release[1]} does not support compute capability {', '.join(old)} "
            f"(supported: {nvcc.capabilities[0] / 10} and newer); install an older CUDA")


def code_flags(nvcc, wanted):
    """nvcc's -gencode flags for the wanted capabilities: machine code for each, PTX of the highest for future GPUs.

    A GPU of a generation that this nvcc does not know gets PTX, which its driver compiles; one between two known capabilities gets code of
    its own generation; one that is too old (`unsupported`) gets nothing.

    Raises:
        BuildError: every GPU is older than what this nvcc supports.
    """
    codes, compiled_by_driver = set(), set()
    for capability in wanted:
        older = [known for known in nvcc.capabilities if known <= capability]
        codes.update(older[-1:])
        if older and older[-1] // 10 < capability // 10:
            compiled_by_driver.add(older[-1])
    if not codes:
        raise BuildError(unsupported(nvcc, wanted))
    flags = [f"-gencode=arch=compute_{code},code=sm_{code}" for code in sorted(codes)]
    return flags + [f"-gencode=arch=compute_{code},code=compute_{code}" for code in sorted(compiled_by_driver | {max(codes)})]
