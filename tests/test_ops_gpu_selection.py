"""What counts as a usable GPU: a toolkit that the driver supports, and a library whose kernels compute correctly there. With stand-ins for
the driver, the compilers and the library."""

import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import ops
from dnnlib import UserError, gpus, tflib
from dnnlib.toolchain import BuildError
from ops import builder, compiled, doctor, implementation
from tests import test_ops_builder
from tests.test_ops_builder import ANY_VERSION, WRITES_OUTPUT, install, install_cuda, nvcc_script

pytestmark = pytest.mark.skipif(not shutil.which("sh"), reason="needs a POSIX shell")
machine = test_ops_builder.machine  # fixture


class Driver:
    """Stand-in for the driver's library, with T4s.

    Args:
        version: 12040 for a driver that supports CUDA 12.4.
        error: what cuInit returns.
        count: number of GPUs.
    """

    def __init__(self, version, error=0, count=1):
        self._version = version
        self._error = error
        self._count = count

    def cuInit(self, flags):
        return self._error

    def cuDriverGetVersion(self, version):
        version._obj.value = self._version
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = self._count
        return 0

    def cuDeviceGet(self, device, index):
        return 0

    def cuDeviceGetName(self, name, size, device):
        name.value = b"T4"
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {gpus.CAPABILITY_MAJOR: 7, gpus.CAPABILITY_MINOR: 5}[attribute]
        return 0


@pytest.fixture
def set_driver(machine, monkeypatch):
    """Function (version): gives the machine g++ and a T4 that TensorFlow uses, with a driver of that version."""
    install(machine, "g++", ANY_VERSION + WRITES_OUTPUT)

    def give(version):
        monkeypatch.setattr(gpus, "driver", lambda: Driver(version))
        monkeypatch.setattr(tflib, "devices", lambda: ["/gpu:0"])

    return give


@pytest.fixture
def gpu_host(monkeypatch):
    """A host with a GPU that TensorFlow uses."""
    monkeypatch.setattr(gpus, "driver", lambda: Driver(12040))
    monkeypatch.setattr(tflib, "devices", lambda: ["/gpu:0"])


def test_the_empty_machine_has_no_gpu_where_its_host_has_one(gpu_host, machine):
    install(machine, "g++", ANY_VERSION + WRITES_OUTPUT)
    assert doctor.main([]) == 0 and gpus.visible_gpus() == []


@pytest.mark.parametrize("driver, release, words", [
    (None, None, "none (no libcuda.so.1)"), (Driver(12040, error=803), None, "does not start (error 803); try nvidia-smi"),
    (Driver(12040, error=100), None, "sees no GPU"), (Driver(12040), (12, 4), "supports CUDA 12.4"),
])  # fmt: skip
def test_what_the_driver_supports(monkeypatch, driver, release, words):
    monkeypatch.setattr(gpus, "driver", lambda: driver)
    assert gpus.driver_release() == release and doctor.driver_version() == words


@pytest.mark.parametrize("version, release, runs", [
    (12040, "12.4", True), (12040, "12.9", True), (12040, "11.8", True), (12090, "13.0", False), (13000, "10.0", True),
    (11000, "11.8", True), (10020, "11.0", False), (10010, "10.1", True), (10010, "10.2", False),
])  # fmt: skip
def test_toolkits_that_a_driver_supports(machine, set_driver, version, release, runs):
    path = install_cuda(machine, ".", release)
    set_driver(version)
    if runs:
        assert builder.plan(on_gpu=True).nvcc.path == path
    else:
        with pytest.raises(BuildError, match="the driver supports CUDA"):
            builder.plan(on_gpu=True)


def test_the_first_toolkit_that_the_driver_supports_is_taken(machine, set_driver, monkeypatch):
    releases = {"home": "13.1", ".": "13.0", "cuda-9.2": "9.2", "cuda-11.8": "11.8", "cuda-12.4": "12.4"}
    paths = {folder: install_cuda(machine, folder, release) for folder, release in releases.items()}
    monkeypatch.setenv("CUDA_HOME", str(machine / "home"))
    monkeypatch.setenv("GANFORMER_CUDA_ARCH", "7.5")
    for driver in (None, Driver(12000, count=0)):  # no GPU: the build is for another machine
        monkeypatch.setattr(gpus, "driver", lambda driver=driver: driver)
        assert builder.plan(on_gpu=True).nvcc.path == paths["home"]
    for version, folder in ((12000, "cuda-12.4"), (11040, "cuda-11.8"), (13000, "home")):
        set_driver(version)
        assert builder.plan(on_gpu=True).nvcc.path == paths[folder]
    monkeypatch.delenv("CUDA_HOME")
    assert builder.plan(on_gpu=True).nvcc.path == paths["."]


def install_for(machine, folder, release, *capabilities):
    """A toolkit for some compute capabilities. Returns the path of its nvcc."""
    install_cuda(machine, folder, release)
    listed = "".join(f"compute_{capability}\\n" for capability in capabilities)
    return install(machine / folder, "nvcc", nvcc_script(release, listed, machine / folder / "include"))


def test_a_toolkit_for_the_gpu_is_taken(machine, set_driver, monkeypatch, capsys):
    """It is preferred to toolkits that have dropped the GPU and to those that do not run."""
    install_cuda(machine, ".", "13.0")
    install(machine, "nvcc", "exit 1\n")
    newest, older = install_for(machine, "cuda", "13.0", 75, 90), install_for(machine, "cuda-12.4", "12.4", 50, 90)
    set_driver(13000)
    for wanted, path, codes in (("6.0", older, 1), ("7.5", newest, 1), ("3.5,6.0,9.0", older, 2)):
        monkeypatch.setenv("GANFORMER_CUDA_ARCH", wanted)
        what = builder.plan(on_gpu=True)
        assert what.nvcc.path == path and len([code for code in what.codes if ",code=sm_" in code]) == codes
    assert doctor.main([]) == 1
    text = capsys.readouterr().out
    assert "problem: CUDA 12.4 does not support compute capability 3.5 (supported: 5.0 and newer); install an older CUDA\n" in text
    assert "--ops auto uses: the compiled ops, to be built at the first start" in text


def test_a_driver_too_old_for_every_toolkit(machine, set_driver, capsys):
    install_cuda(machine, ".", "13.0")
    install_cuda(machine, "cuda-13.1", "13.1")
    install_cuda(machine, "cuda-13.2", "13.2")
    install(machine / "cuda-13.2", "nvcc", "exit 1\n")
    set_driver(12040)
    line = (f"the driver supports CUDA 12.4, too old for what was found: CUDA 13.0 ({machine}/bin/nvcc), "
            f"CUDA 13.1 ({machine}/cuda-13.1/bin/nvcc); install a newer driver, or the toolkit of CUDA 12.4 (select it with CUDA_HOME)")
    assert doctor.main([]) == 1
    assert f"\nproblem: {line}\n" in capsys.readouterr().out
    assert "reference" in ops.set_implementation("auto")
    assert capsys.readouterr().err == f"warning: compiled ops are not available, using the slower reference: {line}\n"
    with pytest.raises(UserError) as raised:
        ops.set_implementation("cuda")
    assert str(raised.value) == f"--ops cuda: {line}"


class Library:
    """Stand-in for the compiled library, built from the reference twins.

    Args:
        spoil: dict "bias_act" or "upfirdn2d" -> function applied to its result.
    """

    def __init__(self, **spoil):
        self._spoil = spoil
        self.inputs = []

    def ganformer_bias_act(self, x, scale, residual, noise, bias, ref, act, order, alpha, gain, clamp, channels_last):
        self.inputs.append(x)
        y = ops.fused_bias_act(x, bias, compiled.ACTIVATIONS[act], gain, clamp, alpha=alpha, impl="ref")
        return self._spoil.get("bias_act", tf.identity)(y)

    def ganformer_upfirdn2d(self, x, fy, fx, up, down, pad, flip, channels_last):
        self.inputs.append(x)
        f = np.outer(tf.get_static_value(fy), tf.get_static_value(fx))
        y = ops.upfirdn_2d(x, f, up[0], down[0], (pad[:2], pad[2:]), impl="ref")
        return self._spoil.get("upfirdn2d", tf.identity)(y)


def test_the_check_leaves_the_graph_alone_and_takes_little_memory(graph, monkeypatch):
    configs, session_class, standin = [], tf.Session, Library()
    monkeypatch.setattr(tf, "Session", lambda config: configs.append(config) or session_class(config=config))
    implementation.check(standin, "/cpu:0")
    assert tf.get_default_graph() is graph.graph and graph.graph.get_operations() == []
    assert [config.gpu_options.allow_growth for config in configs] == [True]
    assert [x.op.type for x in standin.inputs] == 2 * ["Placeholder"]  # ops on constants would be folded on the CPU


@pytest.mark.parametrize("op, spoil", [
    ("bias_act", lambda y: y + 0.01), ("bias_act", lambda y: y * np.nan), ("upfirdn2d", lambda y: y * 1.01),
    ("upfirdn2d", lambda y: tf.reverse(y, [2])),
])  # fmt: skip
def test_wrong_numbers_fail_the_check(op, spoil):
    with pytest.raises(BuildError, match=f"^compiled ops: {op} gives wrong numbers on /cpu:0 \\(log: LOG\\)$"):
        implementation.check(Library(**{op: spoil}), "/cpu:0", "LOG")


def test_a_missing_kernel_fails_the_check_in_one_line():
    """No machine has that GPU; with soft placement, another device would compute."""
    with pytest.raises(BuildError, match="compiled ops fail on /gpu:99: Cannot assign a device for operation .*log: LOG") as raised:
        implementation.check(Library(), "/gpu:99", "LOG")
    assert "\n" not in str(raised.value)


def test_errors_of_a_kernel_fail_the_check_in_one_line():
    spoil = {"bias_act": lambda y: tf.check_numerics(y * np.inf, "launch failed with error 35")}
    with pytest.raises(BuildError, match=r"^compiled ops fail on /cpu:0: launch failed with error 35 .*\(log: LOG\)$") as raised:
        implementation.check(Library(**spoil), "/cpu:0", "LOG")
    assert "\n" not in str(raised.value)


@pytest.fixture
def load(machine, set_driver, monkeypatch):
    """Function (library, device): what is built for the GPU loads as `library` and is checked on `device`. Returns the list of checks."""
    install_cuda(machine, ".", "12.4", WRITES_OUTPUT)
    check = implementation.check

    def give(library, device="/cpu:0"):
        checks = []
        set_driver(12040)
        monkeypatch.setattr(tf, "load_op_library", lambda path: library)
        monkeypatch.setattr(implementation, "check", lambda *args: checks.append(args) or check(library, device, args[2]))
        return checks

    return give


def test_a_library_is_checked_once_and_on_the_gpu_only(load, monkeypatch):
    good = Library()
    checks = load(good)
    for choice in ("cuda", "auto"):
        assert ops.set_implementation(choice).endswith(".so")
    assert [(loaded, device) for loaded, device, _ in checks] == [(good, "/gpu:0")]
    checks = load(good)
    monkeypatch.setattr(tflib, "devices", lambda: ["/cpu:0"])
    monkeypatch.setattr(implementation, "_state", implementation._State())
    assert ops.set_implementation("cuda").endswith(".so") and checks == []


def test_every_gpu_is_checked(load, monkeypatch):
    """They may be of different types."""
    checks = load(Library())
    monkeypatch.setattr(tflib, "devices", lambda: ["/gpu:0", "/gpu:1"])
    ops.set_implementation("cuda")
    assert [device for _, device, _ in checks] == ["/gpu:0", "/gpu:1"]


def test_a_library_that_fails_its_check_is_not_used(load, capsys):
    load(Library(upfirdn2d=lambda y: -y))
    assert "reference" in ops.set_implementation("auto") and implementation.library(None) is None
    warning = capsys.readouterr().err.splitlines()[-1]
    complaint = "compiled ops: upfirdn2d gives wrong numbers on /cpu:0 (log: "
    assert warning.startswith("warning: ") and complaint in warning and warning.endswith(".log)")
    with pytest.raises(UserError) as raised:
        ops.set_implementation("cuda")
    assert str(raised.value).startswith(f"--ops cuda: {complaint}") and "\n" not in str(raised.value)
    for flags in ([], ["--build"]):
        assert doctor.main(flags) == 1
        text = capsys.readouterr().out
        assert text.count(f"\nproblem: {complaint}") == 1 and text.endswith("\n--ops auto uses: the reference implementation\n")


def test_the_doctor_loads_a_library_that_is_there(load, capsys):
    load(Library())
    assert doctor.main([]) == 0 and "uses: the compiled ops, to be built at the first start" in capsys.readouterr().out
    assert doctor.main(["--build"]) == 0
    built = capsys.readouterr().out
    assert "\n--ops auto uses: compiled ops: " in built and doctor.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == built.splitlines()[-1]
