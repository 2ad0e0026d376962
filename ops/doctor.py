"""`python -m ops.doctor`: reports what was found for the compiled ops (TensorFlow, CUDA, driver, GPUs, compilers, cache), what will be
used, and what to do about what is missing. `--build` compiles the library now."""

from __future__ import annotations

import argparse
import os
import platform
import sys

import tensorflow.compat.v1 as tf

from dnnlib import gpus, run_main, tflib, toolchain
from dnnlib.toolchain import BuildError
from ops import builder, implementation

WIDTH = 22  # of the column of names
NO_DEVICE = 100  # CUresult


def main(argv):
    """Print the findings; exit code 0 if `--ops auto` will use what the hardware allows."""
    parser = argparse.ArgumentParser(prog="python -m ops.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", action="store_true", help="compile the library now, with GPU kernels if TensorFlow sees a GPU")
    options = parser.parse_args(argv)
    on_gpu = tensorflow_sees_gpu()
    for name, value in findings(on_gpu):
        print(f"{name + ':':<{WIDTH}} {value}")
    found, used = verdict(on_gpu, options.build)
    problems = [line for line in found if line]
    for line in problems:
        print(f"problem: {line}")
    print(f"--ops auto uses: {used}")
    return 1 if problems else 0


def tensorflow_sees_gpu():
    """Whether TensorFlow's session has a GPU, among those that CUDA_VISIBLE_DEVICES allows."""
    return tflib.devices()[0].startswith("/gpu")


def findings(on_gpu):
    """List of (name, text) of everything found, including what is missing."""
    visible = gpus.visible_gpus()
    found = [
        ("Python", platform.python_version()),
        ("TensorFlow", f"{tf.version.VERSION}, {'built' if tf.test.is_built_with_cuda() else 'not built'} for CUDA{_built_for()}"),
        ("TensorFlow's devices", "GPU" if on_gpu else "CPU only"),
        ("driver", driver_version()),
        ("GPUs", ", ".join(f"{gpu.name} (compute capability {gpu.capability / 10})" for gpu in visible) or "none"),
        ("C++ compiler", attempt(lambda: "{0.path}: {0.version}".format(toolchain.find_host_compiler()))),
        ("nvcc", attempt(lambda: nvcc_state(toolchain.find_nvcc(toolchain.find_host_compiler(), toolchain.wanted_capabilities())))),
        ("cache", cache_state()),
    ]
    for name in ("GANFORMER_CACHE", "GANFORMER_CUDA_ARCH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "CUDA_PATH", "CXX", "NVCC_CCBIN"):
        if name in os.environ:
            found.append((name, os.environ[name]))
    return found


def _built_for():
    """The CUDA release that TensorFlow was built with, if it tells (2.x)."""
    if not hasattr(tf.sysconfig, "get_build_info"):
        return ""
    release = tf.sysconfig.get_build_info().get("cuda_version")
    return f" {release}" if release else ""


def attempt(look):
    """What `look` returns, or the reason why it failed."""
    try:
        return look()
    except BuildError as error:
        return f"- ({error})"


def nvcc_state(nvcc):
    """Path, release and supported compute capabilities."""
    codes = ", ".join(str(capability / 10) for capability in nvcc.capabilities)
    return f"{nvcc.path}: CUDA {nvcc.release[0]}.{nvcc.release[1]}, supports {codes}"


def driver_version():
    """The newest CUDA release that the NVIDIA driver supports, or why there is none."""
    library, release = gpus.driver(), gpus.driver_release()
    if library is None:
        return "none (no libcuda.so.1)"
    if release is None:
        code = library.cuInit(0)
        return "sees no GPU" if code == NO_DEVICE else f"does not start (error {code}); try nvidia-smi"
    return "supports CUDA {}.{}".format(*release)


def cache_state():
    """The cache folder, whether it is writable, and how many libraries it holds."""
    folder = builder.cache_folder()
    libraries = [name for name in os.listdir(folder) if name.endswith(".so")] if os.path.isdir(folder) else []
    return f"{folder} ({'writable' if writable(folder) else 'not writable'}, {len(libraries)} libraries)"


def writable(folder):
    """Whether files can be created in a folder, which need not exist yet."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def verdict(on_gpu, build):
    """(list of problems and Nones, what a run will use here), in words; the library is built first if asked."""
    problems = [unseen_gpu(on_gpu)]
    try:
        what = builder.plan(on_gpu)
        problems.append(left_out(what))
        return problems, chosen(what, on_gpu, build)
    except BuildError as error:
        return [*problems, str(error)], "the reference implementation"


def unseen_gpu(on_gpu):
    """The problem of a GPU that TensorFlow does not use, or None."""
    if on_gpu or not gpus.visible_gpus():
        return None
    return ("there is a GPU, but TensorFlow does not see it: install a TensorFlow with CUDA (pip install tensorflow[and-cuda], or "
            "tensorflow-gpu 1.15; PyPI has none for ARM: docs/cuda.md) whose CUDA release the driver supports")


def left_out(what):
    """The problem of GPUs that the library of a Plan has no code for, or None."""
    return what.nvcc and toolchain.unsupported(what.nvcc, toolchain.wanted_capabilities())


def chosen(what, on_gpu, build):
    """What a run will use here, in words. The library of a Plan is built if asked, and loaded and checked if it is there.

    Raises:
        BuildError: it cannot be built or used.
    """
    if build or os.path.exists(what.path):
        return implementation.activate("cuda")
    if not writable(os.path.dirname(what.path)):
        raise BuildError(f"cannot write the cache {os.path.dirname(what.path)} (set GANFORMER_CACHE to choose another)")
    if on_gpu:
        return "the compiled ops, to be built at the first start (--build builds them now)"
    return "the reference implementation (on the CPU compiled ops are used once --build has made them)"


if __name__ == "__main__":
    sys.exit(run_main(main))
