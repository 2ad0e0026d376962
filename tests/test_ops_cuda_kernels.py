"""The kernels themselves: the .cu files on the CPU through the host shim and on a GPU, the CPU kernels; with the address sanitizer too."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests import cuda_grid, cuda_harness

CASES = range(150)
needs_gxx = pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
needs_gpu = pytest.mark.skipif(not (shutil.which("nvcc") and shutil.which("nvidia-smi")), reason="needs a CUDA device and nvcc")


def run_grid(kernels, cases):
    for seed in cases:
        for check in (cuda_grid.check_bias_act, cuda_grid.check_upfirdn2d):
            try:
                check(kernels, seed)
            except (AssertionError, RuntimeError) as error:
                raise AssertionError(f"{check.__name__} case {seed}: {error}") from error


@needs_gxx
@pytest.mark.slow
@pytest.mark.parametrize("build", [cuda_harness.shim_library, cuda_harness.cpu_library])
def test_kernels_on_host_agree_with_numpy(build):
    run_grid(cuda_harness.Kernels(build(), cuda_harness.HostMemory()), CASES)


@needs_gxx
@pytest.mark.slow
@pytest.mark.parametrize("build", [cuda_harness.shim_library, cuda_harness.cpu_library])
def test_kernels_on_host_stay_inside_their_arrays(build):
    runtime = cuda_harness.sanitizer_runtime()
    if runtime is None:
        pytest.skip("g++ has no address sanitizer here")
    library = build(sanitize=True)
    environment = dict(os.environ, LD_PRELOAD=runtime, ASAN_OPTIONS="detect_leaks=0:detect_stack_use_after_return=0")
    for case, complaint in (("40", ""), ("overrun", "heap-buffer-overflow")):
        done = subprocess.run([sys.executable, "-m", "tests.test_ops_cuda_kernels", library, case], env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert (done.returncode == 0) == (complaint == ""), done.stdout[-3000:]
        assert complaint in done.stdout


@pytest.mark.gpu
@needs_gpu
def test_kernels_on_gpu_agree_with_numpy():
    run_grid(cuda_harness.device_kernels(), range(600))


@pytest.mark.gpu
@needs_gpu
def test_kernels_on_gpu_are_clean_for_compute_sanitizer():
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("no compute-sanitizer in PATH")
    for tool in ("memcheck", "racecheck"):
        done = subprocess.run([sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-m", "tests.test_ops_cuda_kernels",
                               "gpu", "60"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout[-3000:]


@needs_gxx
def test_launchers_refuse_what_they_cannot_do():
    kernels = cuda_harness.shim_kernels()
    with pytest.raises(RuntimeError):
        kernels.upfirdn2d(np.zeros((1, 40, 40, 1)), np.ones(33), np.ones(33))
    with pytest.raises(RuntimeError):
        kernels.bias_act(np.zeros((1, 2, 3)), "tanh", order=9)


@needs_gxx
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_rounding_case_of_the_half_types(dtype):
    bits = np.arange(0, 1 << 16, dtype=np.uint16)
    exact = cuda_harness.decode(bits if dtype == "bfloat16" else bits.view(np.float16), dtype)
    finite = exact[np.isfinite(exact)][None, None, :]
    kernels = cuda_harness.shim_kernels()
    np.testing.assert_array_equal(kernels.bias_act(finite, dtype=dtype), finite)
    with np.errstate(over="ignore"):
        third = cuda_grid.stored((finite.astype(np.float32) * np.float32(1 / 3)).astype(np.float64), dtype)
    np.testing.assert_array_equal(kernels.bias_act(finite, dtype=dtype, gain=1 / 3), third)


@needs_gxx
def test_tails_infinities_and_nan():
    kernels = cuda_harness.shim_kernels()
    x = np.array([[[-np.inf, -80.0, 0.0, 80.0, np.inf, np.nan]]])
    np.testing.assert_array_equal(kernels.bias_act(x, "relu"), [[[0, 0, 0, 80, np.inf, np.nan]]])
    np.testing.assert_array_equal(kernels.bias_act(x, "lrelu", clamp=9.0), [[[-9, -9, 0, 9, 9, np.nan]]])
    slope = kernels.bias_act(np.ones((1, 1, 1)), "sigmoid", order=1, ref=np.full((1, 1, 1), 30.0))
    np.testing.assert_allclose(slope, np.exp(-30.0), rtol=1e-5)


if __name__ == "__main__":
    on_gpu = sys.argv[1] == "gpu"
    watched = cuda_harness.device_kernels() if on_gpu else cuda_harness.Kernels(sys.argv[1], cuda_harness.HostMemory())
    if sys.argv[2] == "overrun":
        watched.bias_act(np.zeros((1, 5, 3)), bias=np.zeros(2))  # x has three channels
    else:
        run_grid(watched, range(int(sys.argv[2])))
        for dtype in cuda_harness.TYPES:
            for options in cuda_grid.MANY_CHANNELS_OPTIONS:
                cuda_grid.check_many_channels(watched, (1, 9, 8, 16), 4, dtype, options)
