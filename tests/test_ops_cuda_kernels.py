"""The kernels themselves: the .cu files on the CPU through the host shim and on a GPU, and the CPU kernels; also with address sanitizer.

This needs no TensorFlow: on a machine with a GPU, nvcc, NumPy and SciPy, run `pytest -m gpu tests/test_ops_cuda_kernels.py`, or, without
pytest's reports, `python -m tests.test_ops_cuda_kernels gpu 600` (random cases), `... gpu listed` (chosen ones) and `... gpu large`
(tensors of over 2^31 elements).
"""

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import cuda_kernels
from dnnlib.gpus import visible_gpus
from dnnlib.toolchain import BuildError
from tests import conftest, cuda_grid, cuda_harness

CASES = range(150)
LARGE = (33, 1024, 1024, 64)  # [N, H, W, C]; sample 32 begins at element 2^31
LARGE_OPS = {
    "bias_act": {},
    "up": {"up": (2, 2), "pad": (2, 1, 2, 1)},
    "down": {"down": (2, 2), "pad": (1, 1, 1, 1)},
    "filter": {"pad": (2, 1, 2, 1)},
}
EDGE = 16  # pixels of a sample's last rows and columns that are compared
SKIPPED = 77  # exit code of a child that cannot do here what it was asked to do
needs_gxx = pytest.mark.skipif(not shutil.which("g++"), reason="no g++")


def run_grid(kernels, cases):
    for seed in cases:
        for check in (cuda_grid.check_bias_act, cuda_grid.check_upfirdn2d):
            try:
                check(kernels, seed)
            except (AssertionError, RuntimeError) as error:
                raise AssertionError(f"{check.__name__} case {seed}: {error}") from error


@needs_gxx
@pytest.mark.slow
@conftest.on_one_stack
@pytest.mark.parametrize("build", [cuda_harness.shim_library, cuda_harness.cpu_library])
def test_kernels_on_host_agree_with_numpy(build):
    run_grid(cuda_kernels.Kernels(build(), cuda_harness.HostMemory()), CASES)


def run_listed(kernels):
    for case in itertools.product(cuda_grid.PLANES, cuda_kernels.TYPES, cuda_grid.PLANES_OPTIONS):
        cuda_grid.check_planes(kernels, *case)
    for channels_last in (True, False):
        cuda_grid.check_bias_act_long_rows(kernels, 1100, channels_last)
    for case in itertools.product(cuda_kernels.TYPES, (True, False), range(3)):
        cuda_grid.check_bias_act_in_place(kernels, *case)
    for options in cuda_grid.MANY_CHANNELS_OPTIONS:
        for dtype in cuda_kernels.TYPES:
            cuda_grid.check_many_channels(kernels, (1, 9, 8, 16), 4, dtype, options)
        cuda_grid.check_many_channels(kernels, (1, 5, 40, 1024), 4, "float32", options)  # rows in several tiles on the CPU


@needs_gxx
@pytest.mark.slow
@conftest.on_one_stack
@pytest.mark.parametrize("build", [cuda_harness.shim_library, cuda_harness.cpu_library])
def test_kernels_on_host_with_planes_long_rows_and_over_their_input(build):
    if cuda_harness.sanitizer_runtime("asan"):
        pytest.skip("test_kernels_on_host_stay_inside_their_arrays compares the same values")
    run_listed(cuda_kernels.Kernels(build(), cuda_harness.HostMemory()))


@needs_gxx
def test_factors_whose_product_wraps():
    """up and down of 65536 must not be taken for a 4-tap case of factor 1."""
    x, taps = np.array([[[[1.0]]]]), np.arange(1.0, 5.0)
    options = {"up": (65536, 65536), "down": (65536, 65536), "pad": (3, 3, 3, 3)}
    got = cuda_harness.shim_kernels().upfirdn2d(x, taps, taps, **options)
    np.testing.assert_array_equal(got, cuda_harness.shim_kernels().upfirdn2d(x, np.outer(taps, taps), **options))


@needs_gxx
@pytest.mark.slow
@conftest.on_one_stack
@pytest.mark.parametrize("build", [cuda_harness.shim_library, cuda_harness.cpu_library])
def test_kernels_on_host_stay_inside_their_arrays(build):
    runtime = cuda_harness.sanitizer_runtime("asan")
    if runtime is None:
        pytest.skip("g++ has no address sanitizer here")
    library = build(sanitize=True)
    environment = dict(os.environ, LD_PRELOAD=runtime, ASAN_OPTIONS="detect_leaks=0:detect_stack_use_after_return=0")
    for case, complaint in (("25", ""), ("listed", ""), ("overrun", "heap-buffer-overflow")):
        done = subprocess.run([sys.executable, "-m", "tests.test_ops_cuda_kernels", "host", case, library], env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert (done.returncode == 0) == (complaint == ""), done.stdout[-3000:]
        assert complaint in done.stdout


class LargeTensors:
    """float16 inputs and results that exist only in device memory: x repeats a block, in which NumPy looks up the few values it needs.

    The block's length is prime, so that an index that is off by a power of two hits a different value.
    """

    def __init__(self, kernels, memory, shape):
        random = np.random.RandomState(0)
        self.kernels, self.memory, self.shape = kernels, memory, shape
        self.block = random.randn(1000003).astype(np.float16)
        self.bias = random.randn(shape[3]).astype(np.float16)
        self.taps = random.randn(4).astype(np.float32)

    def check(self, name, channels_last):
        """Run an op whose larger tensor has the given shape; compare the last pixels of the first, the middle and the last sample."""
        n, h, w, c = self.shape
        shape = (n, h // 2, w // 2, c) if name == "up" else self.shape
        x, y, bias, taps = blocks = [self.memory.allocate(size) for size in (2 * count(shape), 2 * count(self.shape), 2 * c, 16)]
        try:
            cuda_kernels.fill(self.memory, x, 2 * count(shape), self.block)
            cuda_kernels.fill(self.memory, y, 2 * count(self.shape), np.full(1, np.nan, np.float16))
            self.memory.upload(bias, self.bias)
            self.memory.upload(taps, self.taps)
            if name == "bias_act":
                args = cuda_kernels.bias_act_args(n, h * w, c, "lrelu", 0, channels_last, "float16")
                args.bias, out_shape = bias, shape
            else:
                args = cuda_kernels.upfirdn2d_args(shape, (4, 4), channels_last=channels_last, dtype="float16", **LARGE_OPS[name])
                args.fy, args.fx, out_shape = taps, taps, (n, args.out_h, args.out_w, c)
            args.x, args.y = x, y
            self.kernels.launch(args)
            for sample in (0, n // 2, n - 1):
                inputs = self.block[edge(shape, sample, EDGE, channels_last) % len(self.block)]
                self._compare(name, inputs.astype(np.float64), lambda size, at=sample: y + 2 * edge(out_shape, at, size, channels_last))
        finally:
            for block in blocks:
                self.memory.free(block)

    def _compare(self, name, x, pointers):
        """x [1, EDGE, EDGE, C]; pointers: function (pixels along an edge) -> addresses of the results."""
        if name == "bias_act":
            expected = cuda_grid.activation("lrelu", x + self.bias, 0)
            magnitude = np.abs(expected)
        else:
            f = np.outer(self.taps, self.taps).astype(np.float64)
            options = {"up": (1, 1), "down": (1, 1), **LARGE_OPS[name]}
            expected, magnitude = cuda_grid.upfirdn2d(x, f, **options), cuda_grid.upfirdn2d(np.abs(x), np.abs(f), **options)
        size = expected.shape[1] // 4  # at the other end of the cut-out part, the neighbours differ
        at = pointers(size)
        got = np.empty(at.size, np.float16)
        for place, pointer in enumerate(at.flat):
            self.memory.download(got[place:place + 1], int(pointer))
        got = got.reshape(at.shape).astype(np.float64)
        cuda_grid.assert_close(got, expected[:, -size:, -size:], magnitude[:, -size:, -size:], "float16")


def count(shape):
    """Number of elements of a shape, which may be over 2^31."""
    return int(np.prod(shape, dtype=np.int64))


def edge(shape, sample, size, channels_last):
    """Where the last size x size pixels of a sample are: element numbers, int64 [1, size, size, C]."""
    _, height, width, channels = shape
    h, w, c = np.ix_(np.arange(height - size, height), np.arange(width - size, width), np.arange(channels))
    inside = (h * width + w) * channels + c if channels_last else (c * height + h) * width + w
    return (sample * height * width * channels + inside)[None]


@pytest.fixture(scope="module")
def on_gpu(gpu):
    """Function that runs `main("gpu", case)` in a child; `under`: the words of a program to run it with."""
    try:
        library = cuda_kernels.device_library(gpu)
    except BuildError as error:
        pytest.skip(str(error))

    def run(case, under=()):
        done = subprocess.run([*under, sys.executable, "-m", "tests.test_ops_cuda_kernels", "gpu", case, library], cwd=conftest.ROOT,
                              env=conftest.STARTED_WITH, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode == SKIPPED:
            pytest.skip(done.stdout.strip())
        assert done.returncode == 0, done.stdout[-3000:]

    return run


@pytest.mark.gpu
def test_kernels_on_gpu_agree_with_numpy(on_gpu):
    on_gpu("600")
    on_gpu("listed")


@pytest.mark.gpu
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_kernels_on_gpu_are_clean_for_compute_sanitizer(on_gpu, gpu, tool):
    folders = [os.path.dirname(cuda_kernels.find_nvcc(gpu).path), os.environ["PATH"]]
    sanitizer = shutil.which("compute-sanitizer", path=os.pathsep.join(folders))
    if sanitizer is None:
        pytest.skip("no compute-sanitizer")
    for case in ("60", "listed"):
        on_gpu(case, under=[sanitizer, "--tool", tool, "--error-exitcode", "9"])


@pytest.mark.gpu
def test_kernels_on_gpu_take_tensors_of_over_2_31_elements(on_gpu):
    on_gpu("large")


@pytest.fixture
def stand_in(monkeypatch):
    """Environment of children whose driver is a stand-in, in a process that hides the GPU as tflib.init_tf("cpu") does."""
    environment = {**conftest.STARTED_WITH, "LD_LIBRARY_PATH": os.path.dirname(cuda_harness.driver_stand_in())}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    monkeypatch.setattr(conftest, "STARTED_WITH", environment)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return environment


@needs_gxx
def test_the_gpu_is_the_one_that_the_process_started_with(stand_in):
    assert conftest.first_gpu() == 90
    stand_in["CUDA_VISIBLE_DEVICES"] = ""
    assert conftest.first_gpu() is None


@needs_gxx
@conftest.on_one_stack
@pytest.mark.parametrize("case, code, output", [("6", 0, ""), ("large", SKIPPED, "needs 8.9 GB of free GPU memory, there are 5.4\n")])
def test_the_child_that_runs_kernels_on_a_gpu(stand_in, case, code, output):
    command = [sys.executable, "-m", "tests.test_ops_cuda_kernels", "gpu", case, cuda_harness.shim_library()]
    done = subprocess.run(command, cwd=conftest.ROOT, env=stand_in, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert (done.returncode, done.stdout) == (code, output)


@needs_gxx
@pytest.mark.parametrize("module, blocked", [("test_ops_cuda_kernels", "tensorflow"), ("test_ops_cuda_tensorflow", "nothing")])
def test_collection_leaves_the_gpu_alone(stand_in, tmp_path, module, blocked):
    """Also, collecting the kernels' tests needs no TensorFlow."""
    if blocked != "tensorflow" and importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs TensorFlow")
    (tmp_path / f"{blocked}.py").write_text("raise ImportError('not here')")
    stand_in.update(PYTHONPATH=str(tmp_path), CUDA_LOG=str(tmp_path / "log"))
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", f"tests/{module}.py"]
    done = subprocess.run(command, cwd=conftest.ROOT, env=stand_in, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0 and f"{module}.py::test_" in done.stdout, done.stdout
    assert not (tmp_path / "log").exists()


@needs_gxx
@pytest.mark.slow
def test_the_comparison_of_large_tensors(monkeypatch):
    """It works on small tensors, through the host shim, and fails for results that were not computed."""
    memory = cuda_harness.HostMemory()
    kernels = cuda_kernels.Kernels(cuda_harness.shim_library(), memory)
    tensors = LargeTensors(kernels, memory, (2, 32, 64, 8))
    for name in LARGE_OPS:
        for channels_last in (True, False):
            tensors.check(name, channels_last)
    monkeypatch.setattr(kernels, "launch", lambda args: None)
    with pytest.raises(AssertionError, match="exceeds the tolerance"):
        tensors.check("filter", True)


@needs_gxx
def test_launchers_refuse_what_they_cannot_do():
    kernels = cuda_harness.shim_kernels()
    with pytest.raises(RuntimeError):
        kernels.upfirdn2d(np.zeros((1, 40, 40, 1)), np.ones(33), np.ones(33))
    with pytest.raises(RuntimeError):
        kernels.upfirdn2d(np.zeros((1, 4, 4, 1)), np.ones(4), np.ones(4), up=((1 << 20) + 1, 1))
    with pytest.raises(RuntimeError):
        kernels.bias_act(np.zeros((1, 2, 3)), "tanh", order=9)


@needs_gxx
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_rounding_case_of_the_half_types(dtype):
    bits = np.arange(0, 1 << 16, dtype=np.uint16)
    exact = cuda_kernels.decode(bits if dtype == "bfloat16" else bits.view(np.float16), dtype)
    finite = exact[np.isfinite(exact)][None, None, :]
    kernels = cuda_harness.shim_kernels()
    np.testing.assert_array_equal(kernels.bias_act(finite, dtype=dtype), finite)
    with np.errstate(over="ignore"):
        third = cuda_grid.stored((finite.astype(np.float32) * np.float32(1 / 3)).astype(np.float64), dtype)
    np.testing.assert_array_equal(kernels.bias_act(finite, dtype=dtype, gain=1 / 3), third)


@needs_gxx
@pytest.mark.parametrize("build", [cuda_harness.shim_library, cuda_harness.cpu_library])
@pytest.mark.parametrize("act, ref", [("lrelu", 1.0), ("tanh", 3.0), ("relu", 0.0)])
def test_infinite_gradients_stay_behind_the_clamp(build, act, ref):
    """ref: the output of lrelu and relu, the input of tanh; the clamp makes the derivative there 0 (relu: it is 0 by itself)."""
    kernels = cuda_kernels.Kernels(build(), cuda_harness.HostMemory())
    dy = np.array([[[-np.inf, 2.0, np.inf, np.nan]]])
    got = kernels.bias_act(dy, act, order=1, clamp=0.5, ref=np.full(dy.shape, ref))
    np.testing.assert_array_equal(got, np.zeros(dy.shape))


@needs_gxx
def test_tails_infinities_and_nan():
    kernels = cuda_harness.shim_kernels()
    x = np.array([[[-np.inf, -80.0, 0.0, 80.0, np.inf, np.nan]]])
    np.testing.assert_array_equal(kernels.bias_act(x, "relu"), [[[0, 0, 0, 80, np.inf, np.nan]]])
    np.testing.assert_array_equal(kernels.bias_act(x, "lrelu", clamp=9.0), [[[-9, -9, 0, 9, 9, np.nan]]])
    slope = kernels.bias_act(np.ones((1, 1, 1)), "sigmoid", order=1, ref=np.full((1, 1, 1), 30.0))
    np.testing.assert_allclose(slope, np.exp(-30.0), rtol=1e-5)


def main(where, case, library=None):
    """Run `case` (a number of random cases, "listed", "large" or "overrun") with the kernels in a library, on "gpu" or "host".

    Args:
        library: its path; on a GPU, None compiles one now.

    Returns:
        Exit code.
    """
    if where == "gpu" and not visible_gpus():
        print("no CUDA device")
        return 1
    memory = cuda_kernels.DeviceMemory() if where == "gpu" else cuda_harness.HostMemory()
    kernels = cuda_kernels.Kernels(library or cuda_kernels.device_library(visible_gpus()[0].capability), memory)
    if case == "overrun":
        kernels.bias_act(np.zeros((1, 5, 3)), bias=np.zeros(2))  # x has three channels
    elif case == "large":
        return run_large(kernels, memory)
    elif case == "listed":
        run_listed(kernels)
    else:
        run_grid(kernels, range(int(case)))
    return 0


def run_large(kernels, memory):
    """Every op at LARGE in both layouts, if two such tensors fit; returns the exit code."""
    needed, free = 2 * 2 * count(LARGE) + (64 << 20), memory.available()
    if free < needed:
        print(f"needs {needed / 1e9:.1f} GB of free GPU memory, there are {free / 1e9:.1f}")
        return SKIPPED
    tensors = LargeTensors(kernels, memory, LARGE)
    for name in LARGE_OPS:
        for channels_last in (True, False):
            tensors.check(name, channels_last)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
