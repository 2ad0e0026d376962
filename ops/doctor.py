"""`python -m ops.doctor`: reports what was found for the compiled ops (TensorFlow, CUDA, driver, GPUs, compilers, cache), what will be
used, and what to do about what is missing. `--build` compiles the library now."""

from __future__ import annotations

import argparse
import os
import platform
import sys

import tensorflow.compat.v1 as tf

from dnnlib import UserError, gpus, run_main, tflib, toolchain
from dnnlib.toolchain import BuildError
from ops import builder, implementation

WIDTH = 22  # of the column of names


def main(argv):
    """Print the findings; exit code 0 if `--ops auto` will use what the hardware allows."""
    parser = argparse.ArgumentParser(prog="python -m ops.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", action="store_true", help="compile the library now, with GPU kernels if TensorFlow sees a GPU")
    options = parser.parse_args(argv)
    on_gpu = tensorflow_sees_gpu()
    for name, value in findings(on_gpu):
        print(f"{name + ':':<{WIDTH}} {value}")
    try:
        what, obstacle = builder.plan(on_gpu), None
    except BuildError as error:
        what, obstacle = None, f"compiled ops cannot be built: {error}"
    advice = [line for line in (unseen_gpu(on_gpu), obstacle or left_out(what), unwritable_cache(what)) if line]
    for line in advice:
        print(f"problem: {line}")
    print(f"--ops {'cuda' if options.build else 'auto'} uses: {built() if options.build else chosen(what, on_gpu)}")
    return 1 if advice else 0


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
    for name in ("GANFORMER_CACHE", "GANFORMER_CUDA_ARCH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "CXX"):
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
        return f"does not start (error {library.cuInit(0)}); try nvidia-smi"
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


def unseen_gpu(on_gpu):
    """The problem of a GPU that TensorFlow does not use, or None."""
    if on_gpu or not gpus.visible_gpus():
        return None
    return ("there is a GPU, but TensorFlow does not see it: install a TensorFlow with CUDA (pip install tensorflow[and-cuda], or "
            "tensorflow-gpu 1.15) whose CUDA release the driver supports")


def left_out(what):
    """The problem of GPUs that the library of a Plan has no code for, or None."""
    return what.nvcc and toolchain.unsupported(what.nvcc, toolchain.wanted_capabilities())


def unwritable_cache(what):
    """The problem of a library that cannot be stored, or None."""
    if what is None or os.path.exists(what.path) or writable(os.path.dirname(what.path)):
        return None
    return f"cannot write the cache {os.path.dirname(what.path)} (set GANFORMER_CACHE to choose another)"


def built():
    """Build and load the library. Returns the sentence about it."""
    try:
        return implementation.activate("cuda")
    except BuildError as error:
        raise UserError(str(error)) from None


def chosen(what, on_gpu):
    """The sentence about what a run will use here, with the library of a Plan or None."""
    if on_gpu and what and not os.path.exists(what.path) and writable(os.path.dirname(what.path)):
        return "the compiled ops, to be built at the first start (--build builds them now)"
    if what and os.path.exists(what.path):
        return f"compiled ops: {what.path}" if on_gpu else implementation.activate("auto")
    return "the reference implementation" + ("" if on_gpu else " (on the CPU compiled ops are used once --build has made them)")


if __name__ == "__main__":
    sys.exit(run_main(main))
