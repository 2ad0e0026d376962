"""Benchmarks that nobody runs every day still run: at their smallest, started as a user would; the GPU ones with stand-ins for the GPU."""

import ctypes
import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import cuda_kernels, data, ops, ops_cases, ops_gpu, step
from benchmarks import metrics as benchmarks_metrics
from dnnlib import UserError, gpus, run_main, toolchain
from tests import cuda_grid, cuda_harness
from tests.conftest import ROOT, on_one_stack

needs_gxx = pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
SHAPE = (2, 16, 8, 8)  # [N, C, H, W]
MOVED = {"bias_act": 2 * 2048 + 16, "layer_end": 2 * 2048 + 16 + 32 + 64, "residual_sum": 3 * 2048, "up": 5 * 2048, "down": 2048 + 512,
         "filter": 2048 + 2 * 16 * 7 * 7}  # elements of that shape


@on_one_stack
@pytest.mark.slow
def test_feature_passes_of_the_metrics():
    command = [sys.executable, "-m", "benchmarks.metrics", "--part", "features", "--images", "4"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    for title in ("a dataset", "a folder of PNG files"):
        assert re.search(rf"features of {title} .*: \d+\.\d+ images/s of \d+\.\d+ of the bare network", done.stdout), done.stdout


@pytest.mark.parametrize("main, flag", [(data.main, "--part"), (benchmarks_metrics.main, "--part"), (step.main, "--cases")])
def test_an_unknown_part_is_refused(main, flag, capsys):
    """Otherwise nothing would be measured, with exit code 0."""
    assert run_main(main, [flag, "scnes"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {flag}: got scnes, accepted: ")


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """A machine whose driver, GPU, nvcc and nvidia-smi are stand-ins and whose kernels run on the CPU."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver = cuda_harness.driver_stand_in()
    monkeypatch.setattr(gpus, "driver", lambda: ctypes.CDLL(driver))
    for folder in ("bin", "include"):
        (tmp_path / folder).mkdir()
    (tmp_path / "include" / "cuda_runtime.h").write_text("")
    for name, line in (("nvcc", "Cuda compilation tools, release 13.0, V13.0.1"), ("nvidia-smi", "580.159.04")):
        script = tmp_path / "bin" / name
        script.write_text(f"#!/bin/sh\necho '{line}'\n")
        script.chmod(0o755)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setenv("CUDA_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{tmp_path / 'bin'}")
    monkeypatch.setattr(cuda_kernels, "device_library", lambda capability: {90: cuda_harness.shim_library()}[capability])
    for name, value in (("ROUNDS", 1), ("LAUNCHES", 2), ("COPY_BYTES", 1 << 16)):
        monkeypatch.setattr(ops_gpu, name, value)


@needs_gxx
def test_ops_on_a_gpu(stand_ins, monkeypatch, tmp_path, capsys):
    cases = [(op, dtype, "NHWC", SHAPE) for op in ops_cases.OPS for dtype in ("float32", "float16")]
    monkeypatch.setattr(ops, "cases", lambda device, quick: {("gpu", True): cases}[device, quick])
    assert ops.main(["--device", "gpu", "--quick", "--output", str(tmp_path / "results.json")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "GPU 7; driver 580.159.04; nvcc release 13.0, V13.0.1"
    assert re.match(r"copy: \d+\.\d GB/s; arrays exceed 0 MB together", printed[1])
    assert printed[2] == f"python -m benchmarks.ops --device gpu --quick --output {tmp_path / 'results.json'}"
    assert printed[3].split() == ["op", "type", "layout", "N,", "C,", "H,", "W", "ms", "of", "copy", "copy", "times"]
    assert [line.split()[:2] for line in printed[4:]] == [[op, dtype] for op, dtype, _, _ in cases]
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["gpu"], results["rotated_bytes"]) == ("GPU 7", 4 * 40000)
    for row in results["cases"]:
        size = MOVED[row["op"]] * {"float32": 4, "float16": 2}[row["dtype"]]
        assert row["of_copy"] == pytest.approx(size / (row["ms"] / 1e3) / results["copy_bytes_per_second"])
        assert row["ms"] > 0 and row["copy_ms"] > 0


@pytest.mark.parametrize("hide, complaint", [
    ("gpu", "--device gpu: the driver shows no GPU (python -m ops.doctor says why)"),
    ("nvcc", "--device gpu: no nvcc: not in CUDA_HOME, PATH or /usr/local/cuda (install the CUDA toolkit)"),
    ("torch", "--torch: PyTorch is not installed"),
])
@needs_gxx
def test_what_a_machine_lacks_is_one_line(stand_ins, monkeypatch, capsys, hide, complaint):
    monkeypatch.setattr(ops_gpu.importlib.util, "find_spec", lambda name: None if hide == name else name)
    if hide == "gpu":
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    if hide == "nvcc":
        monkeypatch.setattr(toolchain, "_nvcc_paths", list)
    assert run_main(ops.main, ["--device", "gpu", "--torch"]) == UserError.exit_code
    assert capsys.readouterr() == ("", f"error: {complaint}\n")


def test_the_gpu_is_measured_without_tensorflow():
    code = "import sys; sys.modules['tensorflow'] = None; from benchmarks import ops; sys.exit(ops.run_main(ops.main, ['--device', 'gpu']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ, CUDA_VISIBLE_DEVICES=""), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert (done.returncode, done.stdout) == (1, "error: --device gpu: the driver shows no GPU (python -m ops.doctor says why)\n")


def test_torch_is_measured_on_the_gpu_only(capsys):
    assert run_main(ops.main, ["--torch"]) == 2
    assert capsys.readouterr().err == "error: --torch: needs --device gpu\n"


@needs_gxx
@pytest.mark.parametrize("case", [
    case for case in itertools.product(ops_cases.OPS, ("float32", "float16"), ("NHWC", "NCHW"), [SHAPE])
    if case[2] == "NHWC" or case[0] not in ops_cases.FUSIONS
])  # fmt: skip
def test_launches_compute_the_op_on_arrays_of_their_own(case):
    memory = cuda_harness.HostMemory()
    kernels = cuda_kernels.Kernels(cuda_harness.shim_library(), memory)
    rotated, size = 50000, ops_gpu.moved(case)
    assert size == MOVED[case[0]] * np.dtype(case[1]).itemsize
    with ops_gpu.on_device(case, rotated, kernels, memory) as structs:
        assert (len(structs) - 1) * size <= rotated < len(structs) * (size + 6 * ops_gpu.ALIGNMENT)
        assert all(min(np.diff([getattr(struct, name) for struct in structs])) >= size for name in ("x", "y"))
        for struct in structs[:1] + structs[-1:]:
            kernels.launch(struct)
            expected, got = expected_and_got(case, struct, memory)
            cuda_grid.assert_close(got, expected, 10 * np.ones_like(expected), case[1])


def expected_and_got(case, struct, memory):
    """NumPy's result for a struct's inputs, and the struct's output, [N, H, W, C] or [N, C, H, W]."""
    op, dtype, data_format, (n, c, h, w) = case
    last = data_format == "NHWC"

    def read(name, *shape):
        array = np.empty(shape, dtype)
        memory.download(array, getattr(struct, name))
        return array.astype(np.float64)

    x = read("x", n, h, w, c) if last else read("x", n, c, h, w)
    if op in ops_cases.RESAMPLING:
        options = ops_cases.RESAMPLING[op]
        factors = [(options.get(name, 1),) * 2 for name in ("up", "down")]
        expected = cuda_grid.upfirdn2d(x, np.outer(ops_cases.TAPS, ops_cases.TAPS) / 64, *factors, options["pad"] * 2, channels_last=last)
    elif op == "residual_sum":
        expected = (x + read("residual", n, h, w, c)) / np.sqrt(2)
    else:
        u = x + read("bias", *((c,) if last else (c, 1, 1)))
        if op == "layer_end":
            u = u + x * (read("scale", n, 1, 1, c) - 1) + read("noise", 1, h, w, 1)
        expected = np.sqrt(2) * cuda_grid.activation("lrelu", u, 0)
    return expected, read("y", *expected.shape)


class ScriptedDevice:
    """Records the driver calls of a stopwatch; its events are 30 ms apart. `behind`: number of tries in which the host is too slow."""

    def __init__(self, behind):
        self.behind, self.log = behind, []

    def allocate(self, size):
        return size

    def call(self, name, *arguments, accepted=(0,)):
        self.log.append(name)
        if name == "cuEventElapsedTime":
            arguments[0]._obj.value = 30.0
        if name == "cuEventQuery":
            self.behind -= 1
            return 0 if self.behind >= 0 else ops_gpu.NOT_READY
        return 0


@pytest.mark.parametrize("behind, copies", [(0, [8]), (1, [8, 32]), (9, [8, 32, 128])])
@pytest.mark.parametrize("sets", [3, 70])
def test_launches_are_timed_behind_copies(behind, copies, sets):
    device = ScriptedDevice(behind)
    stopwatch = ops_gpu.Stopwatch(device)
    launches = [lambda number=number: device.log.append(number) for number in range(sets)]
    launched = max(50, sets)
    assert stopwatch.seconds(launches) == pytest.approx(0.030 / launched)
    in_turn = [index % sets for index in range(launched)]
    expected = ["cuEventCreate"] * 2 + in_turn[:5]
    for count in copies:
        expected += ["cuMemcpyDtoDAsync_v2"] * count + ["cuEventRecord", *in_turn, "cuEventRecord", "cuEventQuery", "cuEventSynchronize"]
    assert device.log == expected + ["cuEventElapsedTime"]
