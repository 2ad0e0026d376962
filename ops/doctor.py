"""`python -m ops.doctor`: what was found for the compiled ops (TensorFlow, CUDA, driver, GPUs, compilers, cache), what will be used, and
what to do about what is missing. `--build` compiles the library now."""

from __future__ import annotations

import argparse
import os
import platform
import sys

import tensorflow.compat.v1 as tf

import ops
from dnnlib import UserError, gpus, run_main, tflib
from ops import builder, implementation, toolchain
from ops.toolchain import BuildError

WIDTH = 22  # columns of the names


def main(argv):
    """Print the findings; exit code 0 if `--ops auto` will use what the hardware allows."""
    parser = argparse.ArgumentParser(prog="python -m ops.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", action="store_true", help="compile the library now, with GPU kernels where TensorFlow sees a GPU")
    options = parser.parse_args(argv)
    on_gpu = tensorflow_sees_gpu()
    for name, value in findings(on_gpu):
        print(f"{name + ':':<{WIDTH}} {value}")
    advice = problems(on_gpu)
    for line in advice:
        print(f"problem: {line}")
    choice = "cuda" if options.build else "auto"
    print(f"--ops {choice} uses: {chosen(choice, on_gpu)}")
    return 1 if advice else 0


def tensorflow_sees_gpu():
    """Whether TensorFlow's session has a GPU, of those CUDA_VISIBLE_DEVICES allows."""
    return tflib.devices()[0].startswith("/gpu")


def findings(on_gpu):
    """(name, text) of everything found, missing things included."""
    visible = gpus.visible_gpus()
    found = [
        ("Python", platform.python_version()),
        ("TensorFlow", f"{tf.version.VERSION}, {'made' if tf.test.is_built_with_cuda() else 'not made'} for CUDA{_built_for()}"),
        ("TensorFlow's devices", "GPU" if on_gpu else "CPU only"),
        ("driver", driver_version()),
        ("GPUs", ", ".join(f"{gpu.name} (compute capability {gpu.capability / 10})" for gpu in visible) or "none"),
        ("C++ compiler", attempt(lambda: "{0.path}: {0.version}".format(toolchain.find_host_compiler()))),
        ("nvcc", attempt(lambda: "{0.path}: CUDA {0.release[0]}.{0.release[1]}".format(toolchain.find_nvcc()))),
        ("nvcc makes code for", attempt(lambda: ", ".join(str(number / 10) for number in toolchain.find_nvcc().capabilities))),
        ("cache", cache_state()),
    ]
    for name in ("GANFORMER_CACHE", "GANFORMER_CUDA_ARCH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "CXX"):
        if name in os.environ:
            found.append((name, os.environ[name]))
    return found


def _built_for():
    """The CUDA release TensorFlow was made with, where it says so (2.x)."""
    if not hasattr(tf.sysconfig, "get_build_info"):
        return ""
    release = tf.sysconfig.get_build_info().get("cuda_version")
    return f" {release}" if release else ""


def attempt(look):
    """What `look` returns, or why it could not."""
    try:
        return look()
    except BuildError as error:
        return f"- ({error})"


def driver_version():
    """The newest CUDA release that the NVIDIA driver supports, or why there is none."""
    library, release = gpus.driver(), gpus.driver_release()
    if library is None:
        return "none (no libcuda.so.1)"
    if release is None:
        return f"does not start (error {library.cuInit(0)}); try nvidia-smi"
    return "supports CUDA {}.{}".format(*release)


def cache_state():
    """The cache's folder, whether it can be written, and how many libraries it holds."""
    folder = builder.cache_folder()
    libraries = [name for name in os.listdir(folder) if name.endswith(".so")] if os.path.isdir(folder) else []
    existing = folder
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    return f"{folder} ({'writable' if os.access(existing, os.W_OK) else 'not writable'}, {len(libraries)} libraries)"


def problems(on_gpu):
    """What keeps the GPU or the compiled ops from being used, each with what to do: list of lines."""
    lines = []
    if gpus.visible_gpus() and not on_gpu:
        lines.append("there is a GPU and TensorFlow does not see it: install a TensorFlow with CUDA (pip install tensorflow[and-cuda], or "
                     "tensorflow-gpu 1.15) whose CUDA release the driver supports")
    try:
        builder.plan(cuda=on_gpu)
    except BuildError as error:
        lines.append(f"compiled ops cannot be built: {error}")
    return lines


def chosen(choice, on_gpu):
    """The sentence about what a run with this choice will use here."""
    if choice == "auto" and on_gpu:
        try:
            what = builder.plan(cuda=True)
        except BuildError:
            return "the reference implementation"
        return what.path if os.path.exists(what.path) else "the compiled ops, to be built at the first start (--build builds them now)"
    try:
        description = ops.set_implementation(choice)
    except UserError as error:
        raise UserError(str(error).replace("--ops cuda: ", "")) from None
    if choice == "auto" and implementation.library(None) is None:
        return "the reference implementation (on the CPU compiled ops are used once --build has made them)"
    return description


if __name__ == "__main__":
    sys.exit(run_main(main))
